"""A method of a comparison, and packages that may be missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor

DISTRIBUTIONS = {
    "kornia": "kornia",
    "spd_learn": "spd-learn",
    "torchspd": "torchspd",
    "ot": "POT",
    "geotorch": "geotorch",
    "orthogonium": "orthogonium",
}
"""Module of each rival that a registry ships: its distribution, in the extra ``rivals``."""


@dataclass(frozen=True)
class Method:
    """A method by its name, with the function that runs it.

    ``layout`` names the arrangement of the features that the method takes: ``columns`` (d, n),
    ``rows`` (n, d) or ``map`` (B, d, H, W). A rival gets the layout of its documentation, so that
    no conversion counts as its time.
    """

    name: str
    source: str  # orthocond, torch, a module of DISTRIBUTIONS, or paper
    run: Callable[[Tensor], Tensor]
    layout: str = "columns"


def package(name: str) -> Any:
    """Import a rival, or raise a ModuleNotFoundError, which the result then states."""
    return import_module(name)


def versions() -> dict[str, str | None]:
    """Return the version of each rival of DISTRIBUTIONS, None if it is not installed."""
    found: dict[str, str | None] = {}
    for module, distribution in DISTRIBUTIONS.items():
        try:
            found[module] = version(distribution)
        except PackageNotFoundError:
            found[module] = None
    return found
