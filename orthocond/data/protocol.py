"""``ImageData``: the protocol of an image set, in memory or in files, and shared helpers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]  # images (b, 3, S, S), float32 and normalized; labels (b,), int64


class ImageData(Protocol):
    """Training and evaluation images of some classes.

    A batch depends on the seed, the epoch and the step only. It is drawn for all processes at once,
    and each process takes its share. So training sees the same images with any number of processes,
    and after resuming at any step.
    """

    @property
    def name(self) -> str:
        """Name of the set, without a path."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels."""

    @property
    def size(self) -> int:
        """Side of the square images in pixels."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 that identifies the content."""

    @property
    def train_count(self) -> int:
        """Number of training images."""

    @property
    def eval_count(self) -> int:
        """Number of evaluation images."""

    def to(self, device: torch.device) -> ImageData:
        """Return the data, moved to a device if the images are in memory."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of whole batches in the training images; an epoch omits the rest."""

    def train_batches(
        self,
        epoch: int,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        first_step: int = 0,
    ) -> Iterator[Batch]:
        """Yield this process's share of each shuffled and augmented batch of an epoch.

        Args:
            epoch: number of the epoch, which determines the order.
            seed: seed of the run.
            batch_size: images per batch, over all processes.
            rank: number of this process.
            world: number of processes.
            first_step: step of the epoch to begin with.
        """

    def eval_batches(
        self, batch_size: int, rank: int = 0, world: int = 1, training: bool = False
    ) -> Iterator[Batch]:
        """Yield this process's share of each batch of the evaluation images, in order.

        Args:
            batch_size: images per batch, over all processes.
            rank: number of this process.
            world: number of processes.
            training: yield the training images instead, all of them and not augmented.
        """

    def calibration_batches(
        self,
        seed: int,
        batch_size: int,
        count: int,
        rank: int = 0,
        world: int = 1,
        shared_stream: bool = False,
    ) -> Iterator[Batch]:
        """Yield this process's share of ``count`` batches of training images, to recalibrate with.

        The images are augmented as in training. The layers after the recalibrated one have the
        statistics of augmented images, and images without augmentation would give them features
        that they never saw.

        Args:
            seed: seed of the run.
            batch_size: images per batch, over all processes.
            count: number of batches.
            rank: number of this process.
            world: number of processes.
            shared_stream: draw the order from the random stream that crops the first batch, as in
                runs of format 1 with images in memory.
        """


def generator(*counters: int) -> torch.Generator:
    """Return a generator of random numbers, which is determined by the counters.

    Different tuples of equal length give independent streams. Trailing zeros have no effect, since
    numpy pads with zeros: two tuples of different lengths give the same stream if they are equal
    after padding.

    Example:
        >>> [torch.rand(1, generator=generator(0, 1)).item() for _ in range(2)].count(0)
        0
    """
    state = np.random.SeedSequence(counters).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def share(index: Tensor, rank: int, world: int) -> Tensor:
    """Return the part of a batch for one process: a contiguous block of rows."""
    return index.tensor_split(world)[rank]
