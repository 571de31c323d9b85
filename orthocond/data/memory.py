"""Small image sets: kept as uint8 in memory or on the GPU, and augmented there in whole batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from orthocond.data.protocol import Batch, generator, share
from orthocond.host import double, wide_device

SHUFFLE, AUGMENT, CALIBRATE, ORDER = range(4)  # purposes of random streams, see ``generator``


@dataclass(frozen=True)
class ImageSet:
    """Images (n, 3, S, S), uint8, and labels (n,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> ImageSet:
        """Return the images and labels on a device."""
        return ImageSet(self.images.to(device), self.labels.to(device))


def augment(images: Tensor, offsets: Tensor, flips: Tensor, padding: int) -> Tensor:
    """Pad each image with black, crop it to its old size, and mirror some.

    Args:
        images: images (b, 3, S, S).
        offsets: top row and left column of each crop (b, 2), from 0 to 2 padding.
        flips: images to mirror (b,), bool.
        padding: number of pixels to add on each side.

    Returns:
        Images (b, 3, S, S).
    """
    b, c, s, _ = images.shape
    padded = pad(images, [padding] * 4)
    steps = torch.arange(s, device=images.device)
    rows = offsets[:, :1] + steps  # (b, S)
    columns = offsets[:, 1:] + torch.where(flips[:, None], steps.flip(0), steps)  # (b, S)
    image = torch.arange(b, device=images.device).view(b, 1, 1, 1)
    channel = torch.arange(c, device=images.device).view(1, c, 1, 1)
    return padded[image, channel, rows.view(b, 1, s, 1), columns.view(b, 1, 1, s)]


def fingerprint(classes: Sequence[str], *sets: ImageSet) -> str:
    """Return the SHA-256 of class names, labels and pixels; it does not depend on a path."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for images in sets:
        digest.update(json.dumps(list(images.images.shape)).encode())
        digest.update(images.labels.numpy().astype("<i8").tobytes())
        digest.update(images.images.numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class InMemoryData:
    """An ``ImageData`` whose images fit into memory."""

    name: str
    classes: Sequence[str]
    train: ImageSet
    evaluation: ImageSet
    fingerprint: str

    @classmethod
    def of(
        cls, name: str, classes: Sequence[str], train: ImageSet, evaluation: ImageSet
    ) -> InMemoryData:
        """Return the data of two sets, with their fingerprint."""
        return cls(name, classes, train, evaluation, fingerprint(classes, train, evaluation))

    def to(self, device: torch.device) -> InMemoryData:
        """Return the data on a device, where its batches are then augmented."""
        return replace(self, train=self.train.to(device), evaluation=self.evaluation.to(device))

    @property
    def size(self) -> int:
        """Side of the square images in pixels."""
        return self.train.images.shape[-1]

    @property
    def train_count(self) -> int:
        """Number of training images."""
        return len(self.train)

    @property
    def eval_count(self) -> int:
        """Number of evaluation images."""
        return len(self.evaluation)

    @cached_property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (1, 3, 1, 1) of the training pixels (0 to 255)."""
        where = wide_device(self.train.images.device)
        sums, squares = torch.zeros(2, 3, dtype=torch.float64, device=where)
        for chunk in self.train.images.split(1024):
            pixels = double(chunk)
            sums += pixels.sum((0, 2, 3))
            squares += pixels.square().sum((0, 2, 3))
        n = self.train.images.numel() / 3
        mean = sums / n
        std = (squares / n - mean.square()).clamp_min(1.0).sqrt()
        mean, std = (t.to(self.train.images.device, torch.float32) for t in (mean, std))
        return mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)

    def _normalized(self, images: Tensor) -> Tensor:
        mean, std = self.statistics
        return images.float().sub_(mean).div_(std)

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of whole batches in the training images."""
        return len(self.train) // batch_size

    def train_batches(
        self,
        epoch: int,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        first_step: int = 0,
    ) -> Iterator[Batch]:
        """Yield batches that are shuffled, randomly cropped (padding S/8) and mirrored."""
        order = torch.randperm(len(self.train), generator=generator(seed, SHUFFLE, epoch))
        for step in range(first_step, self.steps_per_epoch(batch_size)):
            index = order[step * batch_size : (step + 1) * batch_size]
            yield self._augmented(index, generator(seed, AUGMENT, epoch, step), rank, world)

    def eval_batches(
        self, batch_size: int, rank: int = 0, world: int = 1, training: bool = False
    ) -> Iterator[Batch]:
        """Yield all evaluation (or training) images in order, in batches."""
        chosen = self.train if training else self.evaluation
        for index in torch.arange(len(chosen)).split(batch_size):
            mine = share(index, rank, world).to(chosen.images.device)
            yield self._normalized(chosen.images[mine]), chosen.labels[mine]

    def calibration_batches(
        self,
        seed: int,
        batch_size: int,
        count: int,
        rank: int = 0,
        world: int = 1,
        shared_stream: bool = False,
    ) -> Iterator[Batch]:
        """Yield ``count`` batches in a separate random order, augmented as in training."""
        # Streams (seed, CALIBRATE) and (seed, CALIBRATE, 0) are equal; the second crops batch 0.
        random = generator(seed, CALIBRATE if shared_stream else ORDER)
        order = torch.randperm(len(self.train), generator=random)
        for step, index in enumerate(order[: count * batch_size].split(batch_size)):
            yield self._augmented(index, generator(seed, CALIBRATE, step), rank, world)

    def _augmented(self, index: Tensor, random: torch.Generator, rank: int, world: int) -> Batch:
        """Return this process's share of a batch of training images, cropped and mirrored."""
        padding, device = self.size // 8, self.train.images.device
        offsets = torch.randint(2 * padding + 1, (len(index), 2), generator=random)
        flips = torch.rand(len(index), generator=random) < 0.5
        mine = share(torch.arange(len(index)), rank, world)
        images = self.train.images[index[mine].to(device)]
        images = augment(images, offsets[mine].to(device), flips[mine].to(device), padding)
        return self._normalized(images), self.train.labels[index[mine].to(device)]
