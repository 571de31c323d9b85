"""Dead leaves: images of occluding discs, with the statistics of natural images, from a seed.

Discs with power-law sizes that occlude each other give scale-invariant images with heavy-tailed
edges (Lee, Mumford, Huang 2001); colours share most of their variance over the channels, as those
of photographs do, which is what makes a first layer's covariance ill-conditioned.
"""

from __future__ import annotations

import numpy as np
import torch

from orthocond.data.memory import ImageSet

CLASSES = tuple(
    f"{size}-{hue}"
    for hue in ("red", "yellow", "green", "blue", "violet")
    for size in ("fine", "coarse")
)
EXPONENTS = {"fine": 3.0, "coarse": 1.5}  # of the density of the radii
HUES = {
    "red": (1.0, -0.5, -0.5),
    "yellow": (0.5, 0.5, -1.0),
    "green": (-0.5, 1.0, -0.5),
    "blue": (-0.5, -0.5, 1.0),
    "violet": (0.5, -1.0, 0.5),
}
DISCS = 64  # enough to cover nearly every pixel
CHUNK = 256  # images of one random stream
TINT, SPREAD, GRAIN = 0.06, 0.10, 0.02  # standard deviations and shift, of colours from 0 to 1


def _radii(uniform: np.ndarray, exponents: np.ndarray, size: int) -> np.ndarray:
    """Inverse of the distribution of a power law between 1/32 and 1/3 of the image."""
    low, high, power = size / 32, size / 3, 1 - exponents[:, None]
    return (low**power + uniform * (high**power - low**power)) ** (1 / power)


def _chunk(stream: list[int], labels: np.ndarray, size: int) -> np.ndarray:
    random, n = np.random.default_rng(stream), len(labels)
    kinds = [CLASSES[label].split("-") for label in labels]
    exponents = np.array([EXPONENTS[kind] for kind, _ in kinds])
    tints = np.array([HUES[hue] for _, hue in kinds])  # (n, 3)
    radii = _radii(random.random((n, DISCS)), exponents, size)
    centres = random.random((n, DISCS, 2)) * size
    brightness = random.random((n, DISCS, 1)) * 0.7 + 0.15
    colours = brightness + TINT * tints[:, None] + SPREAD * random.normal(size=(n, DISCS, 3))
    pixels = np.arange(size) + 0.5
    squares = (pixels - centres[..., None]) ** 2  # (n, discs, 2, S)
    inside = squares[:, :, 0, :, None] + squares[:, :, 1, None, :] < radii[..., None, None] ** 2
    front = inside.argmax(1)  # (n, S, S): the first disc that covers the pixel
    image = np.take_along_axis(colours, front.reshape(n, -1, 1), axis=1)  # (n, S*S, 3)
    image = image + GRAIN * random.normal(size=image.shape)
    image = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return image.reshape(n, size, size, 3).transpose(0, 3, 1, 2)


def make_leaves(count: int, size: int, classes: int, stream: int) -> ImageSet:
    """Make images of the first ``classes`` classes, in turn.

    Args:
        count: how many.
        size: in pixels.
        classes: from 2 to 10.
        stream: images of different streams are different; image i depends on stream and i only.

    Example:
        >>> make_leaves(4, 32, 2, stream=0).images.shape
        torch.Size([4, 3, 32, 32])
    """
    labels = np.arange(count) % classes
    chunks = []
    for start in range(0, count, CHUNK):
        part = np.resize(np.arange(start, start + CHUNK) % classes, CHUNK)
        chunks.append(_chunk([stream, classes, start], part, size))
    images = np.concatenate(chunks)[:count]
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels))
