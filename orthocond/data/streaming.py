"""Image sets that do not fit into memory: worker processes decode the images when needed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate
from torchvision.transforms.v2 import functional as F

from orthocond.data.folder import Sample, open_image
from orthocond.data.memory import AUGMENT, CALIBRATE, SHUFFLE
from orthocond.data.protocol import Batch, generator, share
from orthocond.errors import UserError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet's pixels, from torchvision
MARGIN = 256 / 224  # size of the scaled image over the size of the crop (appendix B.2)

View = tuple[int, int, int, bool]  # number of the sample, top and left of the crop, mirrored


class _Views(Dataset[tuple[Tensor, int]]):
    def __init__(self, samples: Sequence[Sample], views: Sequence[View], size: int) -> None:
        self.samples, self.views, self.size = samples, views, size

    def __len__(self) -> int:
        return len(self.views)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        index, top, left, mirrored = self.views[i]
        path, label = self.samples[index]
        full = round(self.size * MARGIN)
        image = F.pil_to_tensor(F.resize(open_image(path), [full, full]))
        image = F.crop(image, top, left, self.size, self.size)
        image = F.horizontal_flip(image) if mirrored else image
        return F.normalize(F.to_dtype(image, torch.float32, scale=True), MEAN, STD), label

    def collate(self, samples: list[tuple[Tensor, int]]) -> Batch:
        """Return samples as one batch, which may be empty: so processes take equally many steps."""
        if not samples:
            return torch.empty(0, 3, self.size, self.size), torch.empty(0, dtype=torch.int64)
        images, labels = default_collate(samples)
        return images, labels


class WorkerLost(UserError):
    """Error for a worker process that was killed, as for lack of (shared) memory (exit code 1)."""

    exit_code = 1


class StreamedData:
    """An ``ImageData`` that reads its images from files again in each epoch."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        train: Sequence[Sample],
        evaluation: Sequence[Sample],
        size: int,
    ) -> None:
        self.name, self.classes, self.size = name, classes, size
        self.train, self.evaluation = train, evaluation
        self.train_count, self.eval_count = len(train), len(evaluation)

    def to(self, device: torch.device) -> StreamedData:
        """Return the data itself; training moves each batch to the device."""
        return self

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of class names, labels, file names and file sizes.

        Hashing the content of all files would take hours.
        """
        digest = hashlib.sha256(json.dumps(list(self.classes)).encode())
        for path, label in (*self.train, *self.evaluation):
            line = f"{label}/{path.name}:{path.stat().st_size}\n"
            digest.update(line.encode(errors="surrogateescape"))  # a name need not be UTF-8
        return digest.hexdigest()

    def _load(
        self, samples: Sequence[Sample], views: Sequence[View], batch: int, rank: int, world: int
    ) -> Iterator[Batch]:
        blocks = torch.arange(len(views)).split(batch)
        mine = [share(block, rank, world).tolist() for block in blocks]
        workers = max(1, (os.cpu_count() or 1) // world)
        shown = _Views(samples, views, self.size)
        try:
            yield from DataLoader(
                shown, batch_sampler=mine, num_workers=workers, collate_fn=shown.collate
            )
        except UserError as error:
            error.__traceback__ = None  # it is part of a cycle, which would keep the workers alive
            line = str(error).strip().splitlines()[-1]  # the lines before: the worker's traceback
            raise UserError(line.partition(": ")[2]) from None
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = str(error).partition("\n")[0]  # torch advises on shared memory where it helps
            raise WorkerLost(f"a process that reads the images ended: {reason}") from None

    def steps_per_epoch(self, batch_size: int) -> int:
        """Return the number of whole batches in the training images."""
        return self.train_count // batch_size

    def train_batches(
        self,
        epoch: int,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        first_step: int = 0,
    ) -> Iterator[Batch]:
        """Yield batches that are shuffled, randomly cropped from the scaled image and mirrored."""
        steps = self.steps_per_epoch(batch_size)
        order = torch.randperm(self.train_count, generator=generator(seed, SHUFFLE, epoch))
        views = self._augmented(order, generator(seed, AUGMENT, epoch))
        mine = views[first_step * batch_size : steps * batch_size]
        yield from self._load(self.train, mine, batch_size, rank, world)

    def _augmented(self, order: Tensor, random: torch.Generator) -> list[View]:
        room = round(self.size * MARGIN) - self.size + 1
        corners = torch.randint(room, (len(order), 2), generator=random)
        mirrored = torch.rand(len(order), generator=random) < 0.5
        samples = zip(order.tolist(), corners.tolist(), mirrored.tolist(), strict=True)
        return [(i, top, left, flip) for i, (top, left), flip in samples]

    def _middle(self, index: Sequence[int]) -> list[View]:
        corner = (round(self.size * MARGIN) - self.size) // 2
        return [(i, corner, corner, False) for i in index]

    def eval_batches(
        self, batch_size: int, rank: int = 0, world: int = 1, training: bool = False
    ) -> Iterator[Batch]:
        """Yield the middle crop of all evaluation (or training) images in order, in batches."""
        samples = self.train if training else self.evaluation
        yield from self._load(samples, self._middle(range(len(samples))), batch_size, rank, world)

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
        random = generator(seed, CALIBRATE)
        order = torch.randperm(self.train_count, generator=random)[: count * batch_size]
        views = self._augmented(order, random)
        yield from self._load(self.train, views, batch_size, rank, world)
