"""Command lines and configurations that nobody would write: exit 0, 1 or 2, and one line."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from faults.counting import Count
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from orthocond.config.schema import Config, DataConfig
from orthocond_cli.main import run

WORDS = ["", "0", "-1", "1e999", "nan", "inf", "nog", "svd+bn", "NOG+OW", "leaves", "quick", "fig2"]
WORDS += [
    "tab1",
    "all",
    "folder:.",
    "folder:/",
    "imagenet:",
    "a\nb",
    "🙂",
    "../x",
    "/dev/null",
    "0-9",
]
FLAGS = ["--preset", "--config", "--task", "--method", "--data", "--seeds", "--set", "--timeout"]
FLAGS += ["--track", "--json", "--dry-run", "--help", "--version", "--runs", "--format", "--model"]
FLAGS += ["--layer", "--weights", "--side", "--size", "--batches", "--nonsense", "-h", "--"]
KEYS = [*Config.model_fields, *(f"data.{name}" for name in DataConfig.model_fields), "methods"]
PLAUSIBLE = {  # so that not all is refused at the first look
    "--preset": ["quick"],
    "--task": ["dbn", "gcp"],
    "--method": ["svd", "ns", "olr+nog", "ow", "sn+nog"],
    "--seeds": ["0", "0-2", "1,3"],
    "--set": ["epochs=3", "lr=0.2", "data.size=16", "groups=2", "lr_milestones=[1, 2]"],
    "--timeout": ["1", "60"],
    "--track": ["tensorboard"],
}
PLAIN = {
    "epochs": [1, 100],
    "lr": [0.1, 1],
    "batch_size": [1, 128],
    "eps": [0, 0.01],
    "backward": ['"pade"'],
    "precision": ['"float64"'],
    "lr_milestones": [[], [1, 2.5]],
    "data.classes": [2, 5],
    "data.holdout": [0, 0.5],
    "methods": [["svd"], ["bn", "nog"]],
    "seeds": ['"0-3"'],
}

texts = st.one_of(st.sampled_from(WORDS), st.text(st.characters(codec="utf-8"), max_size=12))
values = st.recursive(
    st.one_of(st.integers(), st.floats(), st.booleans(), texts.map(repr), texts),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
set_options = st.builds("--set={}={}".format, st.sampled_from(KEYS) | texts, values)
tokens = st.one_of(st.sampled_from(FLAGS), texts, set_options)
pairs = st.sampled_from(sorted(PLAUSIBLE)).flatmap(
    lambda flag: st.tuples(st.just(flag), st.sampled_from(PLAUSIBLE[flag]))
)
command_lines = st.builds(
    lambda command, plausible, rest: [
        command,
        *(word for pair in plausible for word in pair),
        *rest,
    ],
    st.sampled_from(["train", "plot", "table", "measure"]) | texts,
    st.lists(pairs, max_size=4),
    st.lists(tokens, max_size=4),
)
sensible_lines = st.lists(pairs, max_size=5).map(lambda ps: ["train", *(w for p in ps for w in p)])


def _toml(settings_: dict[str, Any], junk: str) -> str:
    lines = [f"{key} = {str(value).lower()}" for key, value in settings_.items()]
    return "\n".join([*lines, junk])


plain = st.sampled_from(sorted(PLAIN)).flatmap(
    lambda key: st.tuples(st.just(key), st.sampled_from(PLAIN[key]))
)
configurations = st.builds(
    lambda plain, wild, junk: _toml({**dict(plain), **wild}, junk),
    st.lists(plain, max_size=4),
    st.just({}) | st.dictionaries(st.sampled_from(KEYS), values, max_size=2),
    st.just("") | st.sampled_from(["[data]", "x", "[[data]]", "= 1", "\x00", "[config]"]) | texts,
)


def _judged(code: object, said: str) -> str | None:
    """How an answer is none that a person should get."""
    if "Traceback" in said:
        return said[-500:]
    if code not in (0, 1, 2):
        return f"exit {code!r}"
    lines = [line for line in said.splitlines() if "Warning" not in line]
    return f"{len(lines)} lines: {said[:300]!r}" if code == 2 and len(lines) != 1 else None


def _answer(count: Count, arguments: list[str]) -> str | None:
    """How the command line's answer to these arguments is wrong."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            code: object = run(arguments)
        except SystemExit as error:
            code = error.code
        except BaseException:
            return traceback.format_exc()[-500:]
    count.note(f"exit {code}")
    return _judged(code, said.getvalue())


@contextmanager
def _nothing_is_trained(folder: Path) -> Iterator[None]:
    """Work in an empty folder, with a session that plans and trains nothing."""

    class Idle:
        def __init__(self, grid: Any, study: Path, **options: Any) -> None:
            self.is_main, self.stop = False, mock.Mock(signum=0)

        def planned(self) -> list[Any]:
            return []

        def train(self, report: object) -> Iterator[Any]:
            yield from ()

    folder.mkdir(parents=True, exist_ok=True)
    with (
        contextlib.chdir(folder),
        mock.patch("orthocond.training.session.Session", Idle),
        mock.patch("orthocond_cli.launch.launch", return_value=0),
    ):
        yield


def _tried(count: Count, folder: Path, cases: Any, examples: int, arguments: Any) -> Count:
    @seed(0)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def once(case: Any) -> None:
        count.add(repr(case)[:200], _answer(count, arguments(case)))

    with _nothing_is_trained(folder):
        once()
    return count


def lines_in_process(folder: Path, examples: int = 500) -> Count:
    """Random command lines inside this process; nothing is trained or measured."""
    count = Count("a random command line: exit 0, 1 or 2, one line, no traceback")
    return _tried(count, folder, command_lines | sensible_lines, examples, lambda case: case)


def configurations_in_process(folder: Path, examples: int = 500) -> Count:
    """Random configuration files inside this process."""

    def arguments(text: str) -> list[str]:
        Path("config.toml").write_text(text, encoding="utf-8", newline="")
        return ["train", "--config", "config.toml"]

    count = Count("a random configuration: exit 0, 1 or 2, one line, no traceback")
    return _tried(count, folder, configurations, examples, arguments)


def real_commands(folder: Path, examples: int = 20) -> Count:
    """Random command lines as processes of their own; what is sound is planned only."""
    count, cases = Count("a random command line as a process of its own: the same"), []

    @seed(1)
    @settings(max_examples=examples, database=None, deadline=None, phases=[Phase.generate])
    @given(command_lines | sensible_lines)
    def collect(case: list[str]) -> None:
        cases.append([word for word in case if "\0" not in word])

    collect()
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases[:examples]:
        dry = ["train", "--dry-run", *case[1:]] if case[:1] == ["train"] else case
        done = subprocess.run(
            [sys.executable, "-m", "orthocond_cli", *dry],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        count.note(f"exit {done.returncode}")
        count.add(repr(dry)[:200], _judged(done.returncode, done.stderr))
    return count
