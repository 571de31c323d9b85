"""An ImageFolder tree of small images, every one different."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_image(path: Path, size: int = 16, mode: str = "RGB") -> None:
    """Noise that depends on the path's last parts only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = list("/".join(path.parts[-3:]).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def write_tree(
    root: Path,
    classes: tuple[str, ...] = ("a", "b"),
    count: int = 4,
    size: int = 16,
    parts: tuple[str, ...] = ("train", "val"),
) -> Path:
    """``count`` images of each class in each part."""
    for part in parts:
        for name in classes:
            for i in range(count):
                write_image(root / part / name / f"{i}.png", size)
    return root
