"""What all tests share: one thread a worker, the image sets, and doctest's namespace."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, settings

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

torch.set_num_threads(1)

# A killed mutant need not be shrunk to its smallest example, and is killed by the same one again.
settings.register_profile(
    "mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None
)


@pytest.fixture(scope="session")
def image_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of real image sets: $ORTHOCOND_DATA, or unpacked from shared/data."""
    if "ORTHOCOND_DATA" in os.environ:
        return Path(os.environ["ORTHOCOND_DATA"])
    if not (SHARED / "unpack").exists():
        pytest.skip("no real image sets: set ORTHOCOND_DATA to a folder that has them")
    folder = tmp_path_factory.getbasetemp().parent / "image-sets"
    if not folder.exists():
        part = folder.with_name(f"image-sets-{os.getpid()}")
        subprocess.run([SHARED / "unpack", part], check=True, stdout=subprocess.DEVNULL)
        with contextlib.suppress(OSError):  # another worker was first
            part.rename(folder)
    return folder


def _folder(image_sets: Path, name: str) -> Path:
    if not (image_sets / name).is_dir():
        pytest.skip(f"the image set {name} is missing from {image_sets}")
    return image_sets / name


@pytest.fixture
def cifar10_folder(image_sets: Path) -> Path:
    return _folder(image_sets, "cifar10-jpeg")


@pytest.fixture
def tiny_imagenet_folder(image_sets: Path) -> Path:
    return _folder(image_sets, "tiny-imagenet-100")
