"""What training asks of an image set, wherever its images lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]  # images (b, 3, S, S), float32 and normalized; labels (b,), int64


class ImageData(Protocol):
    """Training and evaluation images of some classes.

    A batch is drawn for all processes at once, from the seed, the epoch and the step alone, and
    each takes its share: any number of processes and any point of resuming sees the same images.
    """

    @property
    def name(self) -> str:
        """Without a path."""

    @property
    def classes(self) -> Sequence[str]:
        """Names, in the order of the labels."""

    @property
    def size(self) -> int:
        """Of the square images, in pixels."""

    @property
    def fingerprint(self) -> str:
        """sha256 of the content."""

    @property
    def train_count(self) -> int:
        """Training images."""

    @property
    def eval_count(self) -> int:
        """Evaluation images."""

    def to(self, device: torch.device) -> ImageData:
        """The same, augmented on that device where the images are in memory."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Whole batches in the training images; the rest is left out."""

    def train_batches(
        self,
        epoch: int,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        first_step: int = 0,
    ) -> Iterator[Batch]:
        """One epoch of shuffled and augmented batches, this process's share of each."""

    def eval_batches(self, batch_size: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """All evaluation images in order."""

    def calibration_batches(
        self,
        seed: int,
        batch_size: int,
        count: int,
        rank: int = 0,
        world: int = 1,
        shared_stream: bool = False,
    ) -> Iterator[Batch]:
        """Some training images, augmented as in training.

        The layers behind the one that is recalibrated have statistics of augmented images, so
        unaugmented ones would reach them with features that they never saw.

        Args:
            shared_stream: draw the order from the stream of the first batch's crops, as runs of
                format 1 did for images in memory.
        """


def generator(*counters: int) -> torch.Generator:
    """A stream of random numbers, the same for the same counters.

    Tuples of equal length have independent streams. Trailing zeros do not count (numpy pads with
    them), so tuples of different lengths must differ in a counter that is not zero in either.

    Example:
        >>> [torch.rand(1, generator=generator(0, 1)).item() for _ in range(2)].count(0)
        0
    """
    state = np.random.SeedSequence(counters).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def share(index: Tensor, rank: int, world: int) -> Tensor:
    """One process's part of a batch: a contiguous block of its rows."""
    return index.tensor_split(world)[rank]
