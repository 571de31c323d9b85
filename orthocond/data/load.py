"""``load_data``: read or make an image set by its name."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch.nn.functional import pad

from orthocond.data.folder import list_folder, read_images
from orthocond.data.leaves import CLASSES, make_leaves
from orthocond.data.memory import ImageSet, InMemoryData
from orthocond.data.protocol import ImageData
from orthocond.data.streaming import StreamedData
from orthocond.errors import UserError, unknown

T = TypeVar("T")
DATA_SETS = ("leaves", "cifar10", "cifar100", "fashion-mnist", "folder:PATH", "imagenet:PATH")
LEAVES_TRAIN, LEAVES_TEST, LEAVES_SIZE = 10_000, 2_000, 32
TRAIN, TEST = 0, 1  # random streams of the two sets of leaves


def balanced(labels: Sequence[int], count: int | None) -> list[int]:
    """Return the sorted positions of ``count`` samples, taken from the classes in turn.

    Within a class, the first samples are taken; None takes all samples.

    Example:
        >>> balanced([0, 0, 0, 1, 1], 4)
        [0, 1, 3, 4]
    """
    seen: dict[int, int] = defaultdict(int)
    turns = []
    for i, label in enumerate(labels):
        turns.append((seen[label], label, i))
        seen[label] += 1
    return sorted(i for _, _, i in sorted(turns)[:count])


def split_holdout(labels: Sequence[int], holdout: float) -> tuple[list[int], list[int]]:
    """Return the positions of the training samples and of the held-out samples.

    The held-out samples are the last ones of each class. Every class has its share of them.

    Raises:
        UserError: the fraction is of no image, or leaves none to train on.

    Example:
        >>> split_holdout([0, 0, 0, 0, 1, 1], 0.5)
        ([0, 1, 4], [2, 3, 5])
    """
    sizes, count = Counter(labels), round(holdout * len(labels))
    if holdout and count == 0:
        raise UserError(
            f"data.holdout {holdout:g} of {len(labels)} training images is 0 images: raise it"
        )
    if count == len(labels):
        raise UserError(
            f"data.holdout {holdout:g} of {len(labels)} training images leaves none to train on: "
            "lower it"
        )
    left = {label: sizes[label] - held for label, held in _shares(sizes, holdout, count).items()}
    stay: list[int] = []
    held_out: list[int] = []
    for i, label in enumerate(labels):
        (stay if left[label] > 0 else held_out).append(i)
        left[label] -= 1
    return stay, held_out


def _shares(sizes: Mapping[int, int], holdout: float, count: int) -> dict[int, int]:
    """Return how many samples to hold out of each class: ``holdout`` of its size, rounded.

    The classes with the largest remainders are rounded up, so that the sum is ``count``. Of equal
    remainders the one of the last class counts as the largest.
    """
    shares = {label: int(holdout * size) for label, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda k: (holdout * sizes[k] - shares[k], k), reverse=True)
    for label in by_remainder[: count - sum(shares.values())]:
        shares[label] += 1
    return shares


def _pick(samples: Sequence[T], index: Sequence[int]) -> list[T]:
    return [samples[i] for i in index]


def load_data(
    name: str,
    size: int | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    classes: int | None = None,
    holdout: float = 0.0,
) -> ImageData:
    """Read or make an image set.

    Args:
        name: ``leaves`` (made on the fly), ``cifar10``, ``cifar100`` or ``fashion-mnist``
            (torchvision downloads them), ``folder:PATH`` (an ImageFolder tree, read into memory) or
            ``imagenet:PATH`` (one that is read as it is needed).
        size: side of the square images in pixels; None takes the size of the set.
        train_images, test_images: number of images to keep, taken from the classes in turn; None
            keeps all.
        classes: number of classes to keep, the first ones in sorted order; None keeps all.
        holdout: fraction of the training images to evaluate on, in place of the test images; then
            ``test_images`` counts these. For ``leaves``, ``train_images`` images are made and then
            split.

    Raises:
        UserError: the set is unknown or can't be read, or has no such size or number of classes.

    Example:
        >>> data = load_data("leaves", train_images=40, test_images=20)
        >>> data.train_count, len(data.classes), data.size
        (40, 10, 32)
    """
    kind, _, path = name.partition(":")
    if kind == "leaves" and not path:
        return _leaves(size, train_images, test_images, classes, holdout)
    if kind in ("cifar10", "cifar100", "fashion-mnist") and not path:
        return _torchvision(kind, size, train_images, test_images, classes, holdout)
    if kind in ("folder", "imagenet") and path:
        return _folder(kind, path, size, train_images, test_images, classes, holdout)
    if kind in ("folder", "imagenet"):
        raise UserError(f"data set {name!r} needs a path: {kind}:PATH")
    raise unknown("data set", name, DATA_SETS)


def _subset(images: ImageSet, index: Sequence[int] | torch.Tensor) -> ImageSet:
    chosen = torch.as_tensor(index, dtype=torch.int64)
    return ImageSet(images.images[chosen], images.labels[chosen])


def _leaves(
    size: int | None,
    train_images: int | None,
    test_images: int | None,
    classes: int | None,
    holdout: float,
) -> InMemoryData:
    size, count = size or LEAVES_SIZE, classes or len(CLASSES)
    if size < 8 or size > 256:
        raise UserError(f"data.size {size}: leaves have from 8 to 256 pixels")
    if count > len(CLASSES):
        raise UserError(f"leaves has {len(CLASSES)} classes, not {count}")
    train = make_leaves(train_images or LEAVES_TRAIN, size, count, TRAIN)
    if holdout:
        stay, held = split_holdout(train.labels.tolist(), holdout)
        train, test = _subset(train, stay), _subset(train, held)
        test = _subset(test, balanced(test.labels.tolist(), test_images))
    else:
        test = make_leaves(test_images or LEAVES_TEST, size, count, TEST)
    return InMemoryData.of("leaves", CLASSES[:count], train, test)


def _torchvision(
    kind: str,
    size: int | None,
    train_images: int | None,
    test_images: int | None,
    classes: int | None,
    holdout: float,
) -> InMemoryData:
    names, train, test = _download(kind)
    keep = len(names) if classes is None else classes
    if keep > len(names):
        raise UserError(f"{kind} has {len(names)} classes, not {keep}")
    if size not in (None, train.images.shape[-1]):
        raise UserError(f"{kind} images have {train.images.shape[-1]} pixels, not {size}")
    train, test = (_subset(s, (s.labels < keep).nonzero().flatten()) for s in (train, test))
    if holdout:
        stay, held = split_holdout(train.labels.tolist(), holdout)
        train, test = _subset(train, stay), _subset(train, held)
    train = _subset(train, balanced(train.labels.tolist(), train_images))
    test = _subset(test, balanced(test.labels.tolist(), test_images))
    return InMemoryData.of(kind, names[:keep], train, test)


def _folder(
    kind: str,
    path: str,
    size: int | None,
    train_images: int | None,
    test_images: int | None,
    classes: int | None,
    holdout: float,
) -> ImageData:
    try:
        root = Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"image folder {path!r}: {error}") from None
    names, train_files, test_files = list_folder(root, classes)
    if holdout:
        stay, held = split_holdout([label for _, label in train_files], holdout)
        train_files, test_files = _pick(train_files, stay), _pick(train_files, held)
    train_files = _pick(train_files, balanced([k for _, k in train_files], train_images))
    test_files = _pick(test_files, balanced([k for _, k in test_files], test_images))
    label = root.resolve().name
    if kind == "imagenet":
        return StreamedData(label, names, train_files, test_files, size or 224)
    if size is None:
        size = read_images(train_files[:1], None).images.shape[-1]
    train, test = read_images(train_files, size), read_images(test_files, size)
    return InMemoryData.of(label, names, train, test)


def _download(name: str) -> tuple[list[str], ImageSet, ImageSet]:
    """Return the class names, training set and test set of a torchvision data set.

    torchvision checks the checksums of downloaded files before it unpickles them.
    """
    from torchvision import datasets

    kind = {
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
        "fashion-mnist": datasets.FashionMNIST,
    }[name]
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orthocond"
    except RuntimeError:
        raise UserError(
            f"{name} is kept in the cache of your home folder, and there is none: set "
            "XDG_CACHE_HOME to a folder"
        ) from None
    try:
        parts = [kind(root, train=train, download=True) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{name} is not in {str(root)!r} and can't be downloaded ({error}); "
            "use leaves or folder:PATH"
        ) from None
    sets = []
    for part in parts:
        images = torch.as_tensor(part.data)
        if images.dim() == 3:  # (n, 28, 28), grey
            images = pad(images, [2] * 4)[:, None].expand(-1, 3, -1, -1).contiguous()
        else:  # (n, 32, 32, 3)
            images = images.permute(0, 3, 1, 2).contiguous()
        sets.append(ImageSet(images, torch.as_tensor(part.targets)))
    return list(parts[0].classes), sets[0], sets[1]
