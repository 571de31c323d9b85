from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orthocond.config.schema import Config, Grid, parse_seeds
from orthocond.config.sources import resolve
from orthocond.report.commands import (
    RECIPES,
    Recipe,
    as_ranges,
    find_recipe,
    recipe_command,
    train_command,
)
from orthocond.report.studies.selection import settings_hash
from orthocond.report.study import Study

ROOT = Path(__file__).parents[2]


def grid(command: str) -> Grid:
    """The runs that ``orthocond train`` would resolve a command to."""
    words = shlex.split(command)
    assert words[:2] == ["orthocond", "train"]
    options: dict[str, list[str]] = {}
    for name, value in zip(words[2::2], words[3::2], strict=True):
        options.setdefault(name, []).append(value)
    flags: dict[str, Any] = {}
    for flag, option in (("methods", "--method"), ("seeds", "--seeds"), ("task", "--task")):
        if option in options:
            flags[flag] = options[option] if flag == "methods" else options[option][0]
    if "--data" in options:
        flags |= {"data": {"name": options["--data"][0]}}
    preset = options.get("--preset", [None])[0]
    return resolve(preset, None, flags, options.get("--set", []))


def parsed(command: str) -> Config:
    """The first run that ``orthocond train`` would resolve a command to."""
    return next(iter(grid(command)))


def hash_of(settings: Mapping[str, Any]) -> str:
    """The hash of a configuration without what only the images tell, method and seed."""
    data = {k: v for k, v in settings["data"].items() if k not in ("fingerprint", "size")}
    own = {k: v for k, v in settings.items() if k not in ("method", "seed")}
    return settings_hash(own | {"data": data | {"name": Path(data["name"]).name}})


def commands_in(text: str) -> list[str]:
    """The commands of ``orthocond train`` in a text, one for each value of a shell loop."""
    lines = re.sub(r"\\\n\s*", "", text)
    loops = re.findall(r"^for value in (.*); do\n\s*(.*)\ndone$", lines, re.MULTILINE)
    plain = re.findall(r"(?:^|`)(orthocond train [^`\n]+)", lines, re.MULTILINE)
    return plain + [line.replace("$value", v) for values, line in loops for v in values.split()]


def folder_of(command: str) -> Path:
    """The folder of runs that a command writes to."""
    words = shlex.split(command)
    return ROOT / words[words.index("--out") + 1] if "--out" in words else ROOT / "nowhere"


@functools.cache
def committed(study: Path) -> set[tuple[str, str]]:
    """Configuration and method of the runs in a committed study."""
    return {(hash_of(run.settings), run.config["method"]) for run in Study(study).runs}


TEXTS = (ROOT / "runs/README.md", *sorted((ROOT / "book").glob("*.md")))
WRITTEN = [
    (path.name, command, folder_of(command))
    for path in TEXTS
    for command in commands_in(path.read_text())
    if folder_of(command).is_dir()
]
"""The commands in texts whose folder is a committed study: text, command, folder."""


def test_a_command_repeats_the_settings_that_are_not_the_defaults() -> None:
    config = Config.model_validate(
        {
            "task": "gcp",
            "data": {"name": "leaves", "size": 64, "classes": 20},
            "method": "svd+nog+ow",
            "seed": 3,
            "epochs": 15,
            "lr_milestones": [8, 12.5],
            "precision": "bfloat16",
            "channels_last": True,
        }
    )
    command = train_command("gcp", [config.method], Path("a b"), config.model_dump(), [3])
    assert "--method nog+ow" in command and command.endswith("--out 'a b'")
    assert parsed(command) == config


def test_a_command_starts_from_the_preset_of_a_committed_study_where_that_is_shorter() -> None:
    (run,) = (
        r for r in Study(ROOT / "runs/cifar10-few-h200").runs if r.name.endswith("stem11-bn-s0")
    )
    command = train_command("dbn", ["svd+ow"], Path("x"), run.settings, [1])
    assert command == (
        "orthocond train --preset cifar10-few --data folder:PATH/cifar10-jpeg --set data.size=32 "
        "--set stem_kernel=11 --set 'precision=\"bfloat16\"' --method ow --seeds 1 --out x"
    )
    every = run.settings | {"data": run.settings["data"] | {"train_images": None}}
    command = train_command("dbn", ["svd+ow"], Path("x"), every)  # --set can't remove the number
    assert "--preset" not in command
    assert hash_of(parsed(command).model_dump()) == hash_of(every)


def test_without_an_existing_run_a_command_starts_from_a_preset() -> None:
    assert parsed(train_command("dbn", ["ns"], Path("runs/x"))).method == "ns"


def test_a_command_names_a_folder_of_images_without_its_location() -> None:
    stored = Config().model_dump() | {"data": {"name": "cifar10-jpeg", "fingerprint": "f"}}
    assert "--data folder:PATH/cifar10-jpeg" in train_command("dbn", ["svd"], Path("r"), stored)
    stored["data"]["name"] = "imagenet"  # as --data takes no such word alone
    assert "--data folder:PATH/imagenet" in train_command("dbn", ["svd"], Path("r"), stored)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 60), min_size=1))
def test_train_reads_back_the_seeds_of_a_command(seeds: set[int]) -> None:
    assert parse_seeds(as_ranges(seeds)) == sorted(seeds)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.study)
def test_the_command_without_runs_makes_those_of_the_committed_study(recipe: Recipe) -> None:
    made = Study(ROOT / "runs", name=recipe.study)
    task = made.main_task
    first = find_recipe(task, recipe.data)
    command = train_command(task, ["svd"], Path("runs"), data=recipe.data)
    assert command.endswith(f" --out runs/{first.study}")
    assert (hash_of(parsed(command).model_dump()), "svd") in committed(ROOT / "runs" / first.study)
    more = made.missing(task, ["svd+ow"], beside=made.runs).commands
    assert hash_of(parsed(*more).model_dump()) == hash_of(made.runs[0].settings)
    whole = parsed(recipe_command(recipe, Path("runs")))
    assert hash_of(whole.model_dump()) == hash_of(made.runs[0].settings)
    assert {run.config["data"]["name"] for run in made.runs} == {recipe.data}


@pytest.mark.parametrize(("name", "command", "folder"), WRITTEN)
def test_a_command_in_a_text_makes_the_runs_of_its_folder(
    name: str, command: str, folder: Path
) -> None:
    made = {(hash_of(run.model_dump()), run.method) for run in grid(command)}
    there = {config for config, _ in committed(folder)}
    assert {config for config, _ in made} <= there


def test_every_committed_study_has_its_commands_in_the_text() -> None:
    made = set()
    for name, command, folder in WRITTEN:
        if name == "README.md":
            made |= {(folder, hash_of(run.model_dump()), run.method) for run in grid(command)}
    studies = [p for p in (ROOT / "runs").glob("*") if p.is_dir() and p.name != "settings"]
    studies = [p for p in [*studies, *(ROOT / "runs/settings").glob("*")] if Study(p).runs]
    runs = {(folder, *run) for folder in studies for run in committed(folder)}
    assert len(studies) > 15 and runs <= made
