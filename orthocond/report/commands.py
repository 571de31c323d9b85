"""Command lines that make the runs that a figure or a table lacks."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orthocond.config.assignments import assignments
from orthocond.config.tasks import find_task

EMBEDDED = ("leaves", "cifar10", "cifar100", "fashion-mnist", "imagenet")
"""Data sets that ``--data`` takes by name; any other data set is a folder of images."""


def as_ranges(numbers: Iterable[int]) -> str:
    """Return the numbers as ``--seeds`` spells them.

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
    """Return the arguments that repeat a run's settings; settings with defaults are left out."""
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
    """Return the ``orthocond train`` command that makes the runs.

    Args:
        task: ``dbn`` or ``gcp``.
        methods: canonical names of the methods.
        out: folder of the study.
        settings: configuration that the new runs must share with existing ones, or None.
        seeds: seeds of the runs.

    Example:
        >>> import pathlib
        >>> train_command("dbn", ["svd+nog"], pathlib.Path("runs/a"))
        'orthocond train --preset quick --method nog --seeds 0 --out runs/a'
    """
    start = _like(settings) if settings else find_task(task).first_arguments
    arguments = ["orthocond", "train", *start]
    for method in methods:
        arguments += ["--method", method.removeprefix("svd+")]
    arguments += ["--seeds", as_ranges(seeds), "--out", str(out)]
    return shlex.join(arguments)
