"""ImageFolder trees: ``train/``, and ``val/`` or ``test/``, each with one folder per class."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from orthocond.data.memory import ImageSet
from orthocond.errors import UserError, is_out_of_memory

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

    found: list[Path] = []
    for parent, _, names in os.walk(folder, onerror=refuse, followlinks=True):
        _require_no_loop(Path(parent))
        paths = map(Path(parent).joinpath, names)
        found += (path for path in paths if path.suffix.lower() in ENDINGS)
    return sorted(found)


def _require_no_loop(folder: Path) -> None:
    """Raise a UserError if a folder is a link to one that contains it: its images would repeat."""
    if folder.is_symlink():
        target = folder.resolve()
        if any(parent.resolve() == target for parent in folder.absolute().parents):
            raise UserError(f"image folder {str(folder)!r} is a link to a folder that contains it")


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
        UserError: the file is not an image, is damaged or not a regular file, is a PostScript
            program, has more than 50 million pixels according to its header, or has grey values of
            more than 8 bits.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise UserError(f"cannot read image {str(path)!r}: it is not a regular file")
        with Image.open(path) as image:
            if image.format == "EPS":  # whatever the file's name is; Pillow would run Ghostscript
                raise UserError(
                    f"image {str(path)!r} is a PostScript program, and was not run: convert it"
                )
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
    except UserError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise errors of any class
        if is_out_of_memory(error):
            raise
        reason = str(error) or type(error).__name__
        raise UserError(f"cannot read image {str(path)!r}: {reason}") from None


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
