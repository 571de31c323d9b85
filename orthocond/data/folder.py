"""ImageFolder trees: ``train/``, and ``val/`` or ``test/``, each with one folder per class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from orthocond.data.memory import ImageSet
from orthocond.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
MAX_PIXELS = 50_000_000  # per image; a larger size in the header is refused before decoding
THREADS = 8
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # open_image raises

Sample = tuple[Path, int]


def _class_names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    """Return the images in a folder and the folders in it, sorted; links are followed."""

    def refuse(error: OSError) -> None:
        raise UserError(f"cannot read the image folder {str(folder)!r}: {error}")

    return sorted(
        path
        for parent, _, names in os.walk(folder, onerror=refuse, followlinks=True)
        for path in map(Path(parent).joinpath, names)
        if path.suffix.lower() in ENDINGS
    )


def list_folder(root: Path, count: int | None) -> tuple[list[str], list[Sample], list[Sample]]:
    """Return the class names, the training files and the evaluation files, each sorted.

    Evaluation files are those in ``val/``, or in ``test/`` if there is no ``val/``.

    Args:
        root: folder of the tree.
        count: number of classes to keep, the first ones by name; None keeps all.

    Raises:
        UserError: ``train/`` or both other folders are missing; one of them, or a class in it, has
            no images; their classes differ; or there are fewer than 2 classes, or fewer than
            ``count``.
    """
    if not root.is_dir():
        raise UserError(f"no such image folder: {str(root)!r}")
    train = root / "train"
    tests = [root / name for name in ("val", "test") if (root / name).is_dir()]
    if not train.is_dir() or not tests:
        raise UserError(f"image folder {str(root)!r} needs train/, and val/ or test/ beside it")
    classes = _class_names(train)
    if set(_class_names(tests[0])) != set(classes):
        differing = sorted(set(_class_names(tests[0])) ^ set(classes))
        raise UserError(
            f"train/ and {tests[0].name}/ of image folder {str(root)!r} need the same classes: "
            f"only one of them has {differing[0]!r}"
        )
    if count is not None and count > len(classes):
        raise UserError(f"image folder {str(root)!r} has {len(classes)} classes, not {count}")
    classes = classes[:count]
    if len(classes) < 2:
        raise UserError(
            f"image folder {str(root)!r} has {len(classes)} classes: at least 2 are needed"
        )
    samples = []
    for part in (train, tests[0]):
        found = [_images(part / name) for name in classes]
        if empty := [name for name, paths in zip(classes, found, strict=True) if not paths]:
            folder = part if len(empty) == len(classes) else part / empty[0]
            raise UserError(
                f"there are no images in {str(folder)!r}: allowed are {', '.join(ENDINGS)}"
            )
        files = [(path, label) for label, paths in enumerate(found) for path in paths]
        samples.append(files)
    return classes, samples[0], samples[1]


def open_image(path: Path) -> Image.Image:
    """Open an image as RGB.

    Raises:
        UserError: the file is not an image or is truncated, its header gives more than 50 million
            pixels, or it has grey values of more than 8 bits.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UserError(
                    f"image {str(path)!r} has {width} x {height} pixels according to its header: "
                    f"at most {MAX_PIXELS:,} pixels are allowed"
                )
            if image.mode.startswith(("I", "F")):  # values above 255 would all become white
                raise UserError(
                    f"image {str(path)!r} has more than 8 bits per channel (mode {image.mode}): "
                    "convert it to 8 bits"
                )
            return image.convert("RGB")
    except (Image.DecompressionBombError, UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f"cannot read image {str(path)!r}: {error}") from None


def read_images(samples: Sequence[Sample], size: int | None) -> ImageSet:
    """Decode images to one size; an image of another size has its middle square scaled.

    Args:
        samples: paths and labels.
        size: side of the square images in pixels; None takes that of the first image.

    Raises:
        UserError: an image can't be read; or ``size`` is None and the first image is not square.
    """
    if size is None:
        width, height = open_image(samples[0][0]).size
        if width != height:
            raise UserError(
                f"image {str(samples[0][0])!r} is {width} x {height}, not square: set data.size"
            )
        size = width
    images = np.empty((len(samples), size, size, 3), np.uint8)

    def read(i: int) -> None:
        image = open_image(samples[i][0])
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
        images[i] = np.asarray(image)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, range(len(samples))))
    labels = torch.tensor([label for _, label in samples])
    return ImageSet(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)
