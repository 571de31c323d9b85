from __future__ import annotations

import errno
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from orthocond.artifacts.manifests import CorruptRun, Damage
from orthocond.errors import (
    OutOfMemory,
    UserError,
    images_taken,
    is_out_of_memory,
    memory_short,
    nearest,
    unknown,
)


class Added(nn.Module):
    """A network with an embedding of the position."""

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions


def raising(error: Exception) -> Callable[[], None]:
    def ask() -> None:
        raise error

    return ask


def test_the_nearest_name_is_offered_only_where_there_is_one() -> None:
    assert nearest("conv", ["conv1", "fc"]) == "; did you mean 'conv1'?"
    assert nearest("zzz", ["conv1", "fc"]) == ""


def test_an_unknown_name_names_what_is_allowed() -> None:
    error = unknown("rule", "x", ["paper", "newton"])
    assert isinstance(error, UserError)
    assert str(error) == "unknown rule 'x': allowed are paper, newton"


def test_an_error_is_pickled_with_all_its_attributes() -> None:
    error = CorruptRun("a", Damage("metrics.csv", "is missing"), "remove it")
    there = pickle.loads(pickle.dumps(error))
    assert isinstance(there, CorruptRun)
    assert (str(there), there.file) == (str(error), "metrics.csv")


# Out of memory

SAYINGS = [  # messages of out-of-memory errors on a CPU and on a GPU
    lambda: torch.empty(2**50),
    lambda: torch.empty(2**62, 2**62),
    lambda: torch.randn(10**20),
    lambda: np.empty(2**50),
    lambda: np.empty((2**62, 2**10)),
    lambda: np.empty((10**19, 3)),
    lambda: bytearray(2**60),
    raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has")),
    raising(RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")),
    raising(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")),
    raising(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(h)")),
    raising(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")),
    raising(RuntimeError("std::bad_alloc")),
    raising(OSError(errno.ENOMEM, "Cannot allocate memory")),
]


@pytest.mark.parametrize("ask", SAYINGS)
def test_out_of_memory_errors_are_recognised(ask: Callable[[], object]) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"^out of memory.*: lower --batch-size$") as error,
        memory_short("lower --batch-size"),
        images_taken((4, 3, 8, 8)),
    ):
        ask()
    assert error.value.exit_code == 1 and error.value.__cause__ is not None


def test_the_message_states_the_requested_memory() -> None:
    with (
        pytest.raises(OutOfMemory, match=r"\(4503599627370496 bytes asked for\)"),
        memory_short("-"),
    ):
        torch.empty(2**50)
    with pytest.raises(OutOfMemory, match=r"\(8.00 PiB asked for\)"), memory_short("-"):
        np.empty(2**50)


@pytest.mark.parametrize(
    "error",
    [
        UserError("the run is out of memory"),
        RuntimeError("shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        KeyError("memory"),
        KeyboardInterrupt(),
    ],
)
def test_any_other_error_passes_unchanged(error: BaseException) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as raised, memory_short("lower --batch-size"):
        raise error
    assert raised.value is error


# Images of a size that a network rejects


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (lambda: torchvision.models.VisionTransformer(224, 16, 1, 2, 8, 8), 32),
        (lambda: torchvision.models.get_model("alexnet"), 4),
        (lambda: torchvision.models.get_model("alexnet"), 16),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 1)), 5),
        (lambda: nn.Sequential(nn.ReflectionPad2d(4)), 3),
        (lambda: nn.PixelUnshuffle(2), 5),
        (lambda: Added(torch.zeros(1, 3, 4, 4)), 5),
    ],
)
def test_a_size_that_the_network_refuses_is_reported_with_its_flag(network, size: int) -> None:
    images = torch.zeros(2, 3, size, size)
    message = rf"images \(2, 3, {size}, {size}\): .*--size than {size}$"
    with pytest.raises(UserError, match=message), images_taken(images.shape):
        network().eval()(images)


@pytest.mark.parametrize(
    "network",
    [nn.Conv2d(1, 4, 3), nn.Embedding(4, 2), nn.GroupNorm(2, 4)],
    ids=lambda network: type(network).__name__,
)
def test_other_errors_of_a_network_do_not_blame_the_size(network: nn.Module) -> None:
    images = torch.zeros(2, 3, 32, 32)
    message = r"does not take images \(2, 3, 32, 32\): "
    with pytest.raises(UserError, match=message) as error, images_taken(images.shape):
        network(images)
    assert "--size" not in str(error.value)
