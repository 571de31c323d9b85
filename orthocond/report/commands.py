"""Command lines that make the runs that a figure or a table lacks."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from orthocond.config.assignments import assignments
from orthocond.config.schema import Config
from orthocond.config.sources import read_preset, resolve
from orthocond.errors import UserError

EMBEDDED = ("leaves", "cifar10", "cifar100", "fashion-mnist")
"""Data sets that ``--data`` takes by name; any other data set is a folder of images."""


class Recipe(NamedTuple):
    """Origin of a committed study: its name, its preset, its data set and its own settings."""

    study: str
    preset: str
    data: str
    settings: tuple[str, ...] = ()  # as --set takes them


RECIPES = (
    Recipe("cifar10-cpu", "cifar-cpu", "cifar10-jpeg"),
    Recipe("tiny32-cpu", "tiny32-cpu", "tiny-imagenet-100"),
    Recipe("tiny-imagenet-cpu", "gcp-cpu", "tiny-imagenet-100"),
    Recipe("cifar10-few", "cifar10-few", "cifar10-jpeg"),
    Recipe("cifar10-few-h200", "cifar10-few", "cifar10-jpeg", ("precision=bfloat16",)),
    Recipe("cifar10-long", "cifar10-long", "cifar10-jpeg"),
    Recipe("tiny32-few", "tiny32-few", "tiny-imagenet-100"),
    Recipe("as-released-cpu", "as-released-cpu", "cifar10-jpeg"),
)
"""The studies in ``runs`` that a preset makes; the main one of each task and data set first."""


class MissingRuns(UserError):
    """Error for missing runs of a figure, a table or a text.

    Args:
        reason: what is missing, without a full stop.
        commands: the commands that make it; their order does not matter.
    """

    def __init__(self, reason: str, *commands: str) -> None:
        super().__init__(": ".join(filter(None, (reason, "; ".join(commands)))))
        self.reason = reason
        self.commands = commands


def find_recipe(task: str, data: str | None = None) -> Recipe:
    """Return the origin of the main study that is committed for a task.

    Args:
        task: ``dbn`` or ``gcp``.
        data: data set of the study. If no committed study has it, any data set is taken.

    Example:
        >>> find_recipe("dbn").study, find_recipe("dbn", "tiny-imagenet-100").study
        ('cifar10-cpu', 'tiny32-cpu')
    """
    own = [recipe for recipe in RECIPES if read_preset(recipe.preset)["task"] == task]
    return min(own, key=lambda recipe: recipe.data != data)


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


def _data_arguments(name: str) -> list[str]:
    """Return the arguments that select a data set; the path of a folder is the reader's."""
    return ["--data", name if name in EMBEDDED else f"folder:PATH/{name}"]


def _like(settings: Mapping[str, Any]) -> list[str]:
    """Return the arguments that repeat a run's settings: the shortest ones, often from a preset."""
    task, data = settings["task"], settings["data"]["name"]
    bases: list[tuple[list[str], Config]] = [(["--task", task], Config())]
    for recipe in RECIPES:
        config = resolve(recipe.preset).config
        if (config.task, recipe.data) == (task, data):
            bases.append((["--preset", recipe.preset], config))
    found = []
    for start, base in bases:
        with suppress(UserError):  # this preset can't be turned into the settings
            changed = assignments(settings, ("task", "method", "seed", "data.name"), base)
            found.append(start + _data_arguments(data) + [w for c in changed for w in ("--set", c)])
    return min(found, key=len)


def recipe_command(
    recipe: Recipe, folder: Path, methods: Iterable[str] = (), seeds: Iterable[int] = ()
) -> str:
    """Return the ``orthocond train`` command that makes runs of a committed study.

    Args:
        recipe: preset, data set and settings.
        folder: folder of the studies.
        methods: canonical names; without methods, all methods of the preset.
        seeds: without seeds, the seeds of the preset.

    Example:
        >>> import pathlib
        >>> recipe_command(RECIPES[0], pathlib.Path("runs"), ["svd+nog"])
        'orthocond train --preset cifar-cpu --data folder:PATH/cifar10-jpeg --method nog --out runs/cifar10-cpu'
    """  # noqa: E501
    start = ["--preset", recipe.preset, *_data_arguments(recipe.data)]
    start += [word for setting in recipe.settings for word in ("--set", setting)]
    return _command(start, methods, seeds, folder / recipe.study)


def _command(start: list[str], methods: Iterable[str], seeds: Iterable[int], out: Path) -> str:
    """Return a command from its first arguments, canonical methods, seeds and folder."""
    arguments = ["orthocond", "train", *start]
    for method in methods:
        arguments += ["--method", method.removeprefix("svd+")]
    arguments += ["--seeds", spelled] if (spelled := as_ranges(seeds)) else []
    return shlex.join([*arguments, "--out", str(out)])


def train_command(
    task: str,
    methods: Iterable[str],
    out: Path,
    settings: Mapping[str, Any] | None = None,
    seeds: Iterable[int] = (),
    data: str | None = None,
) -> str:
    """Return the ``orthocond train`` command that makes the runs.

    Without settings of existing runs, it is the command of a committed study, from its preset and
    into a folder of its own.

    Args:
        task: ``dbn`` or ``gcp``.
        methods: canonical names of the methods.
        out: folder of the study or, without ``settings``, folder of the studies.
        settings: configuration that the new runs must share with existing ones, or None.
        seeds: seeds of the runs. Without seeds, the command leaves them to its preset or, with
            ``settings``, to the default.
        data: data set of the committed study; None takes the main one of the task.

    Example:
        >>> import pathlib
        >>> train_command("dbn", ["svd+nog"], pathlib.Path("runs/a"))
        'orthocond train --preset cifar-cpu --data folder:PATH/cifar10-jpeg --method nog --out runs/a/cifar10-cpu'
    """  # noqa: E501
    if settings:
        return _command(_like(settings), methods, seeds, out)
    return recipe_command(find_recipe(task, data), out, methods, seeds)
