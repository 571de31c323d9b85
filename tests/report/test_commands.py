from __future__ import annotations

import shlex
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orthocond.config.schema import Config, parse_seeds
from orthocond.config.sources import resolve
from orthocond.report.commands import as_ranges, train_command


def parsed(command: str) -> Config:
    """The first run that ``orthocond train`` would resolve a command to."""
    words = shlex.split(command)
    assert words[:2] == ["orthocond", "train"]
    options: dict[str, list[str]] = {}
    for name, value in zip(words[2::2], words[3::2], strict=True):
        options.setdefault(name, []).append(value)
    flags = {"methods": options["--method"], "seeds": options["--seeds"][0]}
    if "--task" in options:
        flags |= {"task": options["--task"][0]}
    if "--data" in options:
        flags |= {"data": {"name": options["--data"][0]}}
    preset = options.get("--preset", [None])[0]
    return next(iter(resolve(preset, None, flags, options.get("--set", []))))


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


def test_without_an_existing_run_a_command_starts_from_a_preset() -> None:
    assert parsed(train_command("dbn", ["ns"], Path("runs/x"))).method == "ns"


def test_a_command_names_a_folder_of_images_without_its_location() -> None:
    stored = Config().model_dump() | {"data": {"name": "cifar10-jpeg", "fingerprint": "f"}}
    assert "--data folder:PATH/cifar10-jpeg" in train_command("dbn", ["svd"], Path("r"), stored)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 60), min_size=1))
def test_train_reads_back_the_seeds_of_a_command(seeds: set[int]) -> None:
    assert parse_seeds(as_ranges(seeds)) == sorted(seeds)
