"""Images that claim to be large: refused before they are decoded, wherever images are read."""

from __future__ import annotations

import io
import shutil
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faults.counting import Count
from faults.hostile import little_memory, refused
from PIL import Image

from orthocond.data.folder import open_image
from orthocond.data.load import load_data
from orthocond.data.protocol import ImageData

SIDES = (8_000, 12_000, 50_000)  # pillow itself would decode the first, and warn of the second
GOOD = Image.effect_noise((32, 32), 90).convert("RGB")


def _saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    GOOD.save(file, kind, **options)
    return file.getvalue()


def _patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    new = struct.pack(form, *values)
    return data[:at] + new + data[at + len(new) :]


def _png(side: int) -> bytes:
    data = _patched(_saved("PNG"), 16, ">II", side, side)
    return _patched(data, 29, ">I", zlib.crc32(data[12:29]))


def _jpeg(side: int) -> bytes:
    data = _saved("JPEG")
    return _patched(data, data.index(b"\xff\xc0") + 5, ">HH", side, side)


def _bmp(side: int) -> bytes:
    return _patched(_saved("BMP"), 18, "<ii", side, side)


def _ppm(side: int) -> bytes:
    return _saved("PPM").replace(b"32 32", b"%d %d" % (side, side))


def _tiff(side: int) -> bytes:
    data = _saved("TIFF")
    (directory,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", data, entry)[0] in (256, 257):  # width and height
            data = _patched(data, entry + 2, "<HII", 4, 1, side)
    return data


def _webp(side: int) -> bytes:
    side = min(side, 1 << 14)  # all that the format has room for
    data = _saved("WEBP", lossless=True)
    return _patched(data, data.index(b"VP8L") + 9, "<I", (side - 1) | (side - 1) << 14)


FORMATS: dict[str, Callable[[int], bytes]] = {
    ".png": _png,
    ".jpg": _jpeg,
    ".bmp": _bmp,
    ".ppm": _ppm,
    ".tif": _tiff,
    ".webp": _webp,
}


def _tree(root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (root / place).mkdir(parents=True)
        GOOD.save(root / place / "good.png")


def _all_batches(name: str) -> None:
    data: ImageData = load_data(name, size=32)
    list(data.train_batches(0, 0, 2))
    list(data.eval_batches(2))


def large_images(folder: Path, sides: tuple[int, ...] = SIDES) -> Count:
    """Every format and size, alone and in a folder; the largest also in one that is streamed."""
    count, mark = Count("an image that claims to be large is refused before decoding"), folder / "x"
    root = folder / "images"
    for suffix, make in FORMATS.items():
        for side in sides:
            for part in ("train", "val"):
                _tree(root)
                path = root / part / "a" / f"0{suffix}"
                path.write_bytes(make(side))
                reads = {
                    "alone": partial(open_image, path),
                    "folder": partial(_all_batches, f"folder:{root}"),
                }
                if side == max(sides):
                    reads["imagenet"] = partial(_all_batches, f"imagenet:{root}")
                for how, read in reads.items():
                    with little_memory():
                        refused(count, f"{suffix} of {side}, {part}, {how}", read, mark)
    return count
