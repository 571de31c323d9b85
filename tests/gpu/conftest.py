"""What needs a CUDA device; where there is none it is skipped with that as its reason.

``GPU_TESTS_ON=cpu`` runs on a CPU what can run there. It shows that the tests themselves are sound,
and nothing of CUDA.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def device() -> Iterator[torch.device]:
    """The device under test, with products in the precision of their dtype."""
    name = os.environ.get("GPU_TESTS_ON", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    tf32 = torch.backends.cudnn.allow_tf32  # convolutions of 10 bits, where nobody asks
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device(name)
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.fixture
def two_devices(device: torch.device) -> torch.device:
    """The same where two processes can have one each."""
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device here, and two processes need one each")
    return device


@pytest.fixture
def half_precision(device: torch.device) -> torch.device:
    """The same where float16 is there to train in."""
    if device.type == "cpu":
        pytest.skip("float16 needs a GPU")
    return device


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """The device, if it is a GPU: streams, graphs and synchronisation are its own."""
    if device.type == "cpu":
        pytest.skip("this needs a GPU")
    return device
