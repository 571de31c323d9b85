from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import small_run

from orthocond.artifacts.manifests import CorruptRun
from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_search import find_runs, run_name, study_of
from orthocond.errors import UserError


def test_run_names():
    assert run_name("dbn", "leaves", "small", "svd+nog", 0) == small_run.NAME


@pytest.mark.parametrize("kind", ["task", "data", "model", "method"])
def test_a_part_that_is_no_name_is_named_by_its_kind(kind):
    parts = {"task": "dbn", "data": "leaves", "model": "small", "method": "svd", "seed": 0}
    with pytest.raises(UserError, match=rf"^{kind} '\.\./x' can't be part of a folder's name"):
        run_name(**parts | {kind: "../x"})


def test_find_runs_lists_what_is_complete_and_nothing_else(tmp_path):
    assert find_runs(tmp_path / "absent") == []
    assert find_runs(tmp_path) == []
    for name in ("b", "a", "c"):
        small_run.train(tmp_path / name, finish=name != "c")
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "notes.txt").touch()
    shutil.copytree(tmp_path / "a", tmp_path / ".hidden")
    found = find_runs(tmp_path)
    assert [run.name for run in found] == ["a", "b"]
    assert all(isinstance(run, Run) and run.status == "complete" for run in found)
    assert find_runs(tmp_path / "a") == find_runs(tmp_path / "a" / "checkpoint") == []


def test_find_runs_names_a_damaged_one(tmp_path):
    small_run.train(tmp_path / "a")
    small_run.train(tmp_path / "b")
    (tmp_path / "b" / "config.json").unlink()
    with pytest.raises(
        CorruptRun, match=r"^run 'b' is damaged: config.json is missing; remove man"
    ):
        find_runs(tmp_path)


@pytest.mark.parametrize(
    ("folder", "study"),
    [
        (b"a |b", "a |b"),
        ("é λ".encode(), "é λ"),
        (b"caf\xe9", r"caf\udce9"),
        (b"a\nb\x1b[1m", r"a\nb\x1b[1m"),
    ],
)
def test_the_name_of_a_study_is_text_on_one_line(folder, study):
    assert study_of(Run(Path("/runs", os.fsdecode(folder), "run"))) == study
