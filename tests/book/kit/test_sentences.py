"""Sentences of the committed runs, of other runs, and of runs that are missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from study_factory import metrics as study_metrics
from study_factory import write_run, write_study

from orthocond.report.results import results_csv
from orthocond.report.study import Study
from orthocond.report.tables import overview


def test_sentences_show_their_numbers_or_the_command_for_missing_runs(
    kit: ModuleType, tmp_path: Path
) -> None:
    def rank(runs: Study) -> str:
        return f"rank {overview.of_task(runs, 'dbn').frame.at['svd+ow', ('', 'rank')]:.0f}"

    write_study(tmp_path / "runs/mine", ("svd",))
    assert "--method ow" in kit.study_text("dbn", rank).data
    write_study(tmp_path / "runs/mine", ("svd+ow",))
    for cached in (kit.runs._read, kit.of_committed_runs):
        cached.cache_clear()
    assert kit.study_text("dbn", rank).data == "rank 64"


def errors(runs: Study) -> str:
    """A sentence that holds where NOG has an error of less than 34 %."""
    error = overview.of_task(runs, "dbn").frame[("", "error mean")]
    assert error["svd+nog"] < 34, "NOG is too bad"
    return f"The error of NOG is {error['svd+nog']:.1f} % in {len(runs.runs)} runs."


def commit(folder: Path) -> None:
    """List the runs of a folder as the committed ones."""
    (folder / "results.csv").write_bytes(results_csv(Study(folder).runs))


def test_a_false_sentence_about_the_committed_runs_stops_the_build(
    kit: ModuleType, tmp_path: Path
) -> None:
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"))
    commit(tmp_path / "runs")
    assert "% in 4 runs." in kit.study_text("dbn", errors).data

    def wrong(runs: Study) -> str:
        assert not runs.runs
        return "There are no runs."

    with pytest.raises(AssertionError):
        kit.study_text("dbn", wrong)
    with pytest.raises(KeyError, match="svd\\+ow"):
        kit.study_text("dbn", lambda runs: runs.select("dbn").runs["svd+ow"])


def test_a_sentence_that_does_not_hold_for_other_runs_has_the_numbers_of_both(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"))
    commit(tmp_path / "runs")
    known = kit.study_text("dbn", errors).data
    monkeypatch.setattr("study_factory.metrics", worse)
    write_study(tmp_path / "worse", ("svd", "svd+nog"), seeds=1)
    monkeypatch.setenv("ORTHOCOND_RUNS", str(tmp_path / "worse"))
    kit.of_committed_runs.cache_clear()
    page = kit.study_text("dbn", errors).data
    assert "Written about the committed runs; yours differ" in page
    error = known.split()[5]
    assert f"The error of NOG is {error} (yours: 90.0) % in 4 (yours: 2) runs." in page

    def holds(runs: Study) -> str:
        assert runs.runs
        return f"{len(runs.runs)} runs"

    assert kit.study_text("dbn", holds).data == "2 runs"

    def first_epochs(runs: Study) -> str:
        return f"{runs.runs[0].metrics['eval_top1'].tolist()[len(runs.runs)]:.0f} %"

    assert "IndexError" not in kit.study_text("dbn", first_epochs).data


def test_a_seed_that_was_added_to_the_committed_runs_makes_them_others(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"))
    commit(tmp_path / "runs")
    monkeypatch.setattr("study_factory.metrics", worse)
    write_run(tmp_path / "runs/mine", "dbn", "svd+nog", 2)
    page = kit.study_text("dbn", errors).data
    assert "(yours: " in page and "in 4 (yours: 5) runs" in page


def test_without_some_committed_runs_only_the_readers_numbers_are_shown(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study_factory.metrics", worse)
    write_study(tmp_path / "runs/mine", ("svd", "svd+nog"))
    commit(tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/mine/dbn-cifar10-jpeg-small-svd-s1")
    page = kit.study_text("dbn", errors).data
    assert "The committed runs are not all in `runs/`" in page
    assert "is 90.0 % in 3 runs" in page and "(yours:" not in page


@pytest.mark.parametrize(
    ("missing", "commands"),
    [
        ("svd+ow", ["--method ow --seeds 0-1 --out"]),
        ("svd+ow - svd", ["--method ow --seeds 0-1 --out"]),
        ("svd (11×11 stem)", ["--set stem_kernel=11 --method svd --seeds 0-1 --out"]),
        (
            "gap - svd",
            ["--preset gcp-cpu --data folder:PATH/tiny-imagenet-100 --method gap --method svd"],
        ),
    ],
)
def test_a_sentence_names_the_commands_for_the_methods_that_it_lacks(
    kit: ModuleType, tmp_path: Path, missing: str, commands: list[str]
) -> None:
    write_study(tmp_path / "runs/mine", ("svd",))

    def lacking(runs: Study) -> str:
        return {"svd": ""}[missing]

    page = kit.study_text("dbn", lacking).data
    assert "No runs yet" in page and all(command in page for command in commands)
    assert page.count("orthocond train") == len(commands)


def worse(task: str, method: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Metrics of runs that learned nothing."""
    rows = study_metrics(task, method, rng)
    return [row | {"eval_top1": 10.0, "recalibrated_top1": 10.0} for row in rows]
