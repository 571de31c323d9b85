"""Dead leaves: generated images of occluding discs, with the statistics of natural images.

Discs that occlude each other and have power-law sizes give scale-invariant images with heavy-tailed
edges (Lee, Mumford, Huang 2001). As in photographs, the three colour channels share most of their
variance, which makes the covariance of a first layer's features ill-conditioned. A seed determines
all images.
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
EXPONENTS = {"fine": 3.0, "coarse": 1.5}  # exponents of the power-law density of the radii
HUES = {
    "red": (1.0, -0.5, -0.5),
    "yellow": (0.5, 0.5, -1.0),
    "green": (-0.5, 1.0, -0.5),
    "blue": (-0.5, -0.5, 1.0),
    "violet": (0.5, -1.0, 0.5),
}
DISCS = 64  # per image: enough to cover nearly every pixel
CHUNK = 256  # images drawn from one random stream
# For colours from 0 to 1: shift by the hue, standard deviation per disc and of the pixel noise.
TINT, SPREAD, GRAIN = 0.06, 0.10, 0.02


def _radii(uniform: np.ndarray, exponents: np.ndarray, size: int) -> np.ndarray:
    """Return power-law radii between 1/32 and 1/3 of the image size, by inverting their CDF.

    Args:
        uniform: random numbers (n, discs), uniform on [0, 1).
        exponents: exponent of the density of each image (n,).
        size: size of the image in pixels.
    """
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
    """Make images whose labels run through the first ``classes`` classes in turn.

    Args:
        count: number of images.
        size: side of the square images in pixels.
        classes: number of classes, from 2 to 10.
        stream: seed. Different streams give different images. Image i depends on ``size``,
            ``classes``, ``stream`` and i, but not on ``count``.

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
