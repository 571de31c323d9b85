"""The command lines that make runs which a figure or a table is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orthocond.settings import assignments

EMBEDDED = ("leaves", "cifar10", "cifar100", "fashion-mnist", "imagenet")
"""Data sets that are asked for by their name; any other is a folder of images."""

START = {
    "dbn": ("--preset", "quick"),
    "gcp": ("--preset", "gcp-cpu", "--data", "folder:PATH"),
}
"""How a study of a task starts where there is no run to take the settings from."""


def as_ranges(numbers: Iterable[int]) -> str:
    """Numbers in the spelling of --seeds.

    Example:
        >>> as_ranges([4, 0, 1, 2])
        '0-2,4'
    """
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def _like(settings: Mapping[str, Any]) -> list[str]:
    """The arguments that repeat a run's settings: those that are not the defaults."""
    name = settings["data"]["name"]
    data = name if name in EMBEDDED else f"folder:PATH/{name}"
    arguments = ["--task", settings["task"], "--data", data]
    for assignment in assignments(settings, ("task", "method", "seed", "data.name")):
        arguments += ["--set", assignment]
    return arguments


def train_command(
    task: str,
    methods: Iterable[str],
    out: Path,
    settings: Mapping[str, Any] | None = None,
    seeds: Iterable[int] = (0,),
) -> str:
    """The ``orthocond train`` that makes the runs.

    Args:
        task: ``dbn`` or ``gcp``.
        methods: canonical names.
        out: the study's folder.
        settings: the configuration of a run beside which the new ones shall stand, or None.
        seeds: of the runs.

    Example:
        >>> import pathlib
        >>> train_command("dbn", ["svd+nog"], pathlib.Path("runs/a"))
        'orthocond train --preset quick --method nog --seeds 0 --out runs/a'
    """
    arguments = ["orthocond", "train", *(_like(settings) if settings else START[task])]
    for method in methods:
        arguments += ["--method", method.removeprefix("svd+")]
    arguments += ["--seeds", as_ranges(seeds), "--out", str(out)]
    return shlex.join(arguments)
