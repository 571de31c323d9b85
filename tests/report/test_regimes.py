from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import study_factory
from study_factory import write_run, write_study

from orthocond.report.regimes import final_accuracies, gap, regime, regime_lines, regimes
from orthocond.report.study import Study


@pytest.mark.parametrize(
    ("task", "ends", "accuracies"),
    [
        ("dbn", {}, (70.0, 65.0)),  # as in the runs made before the new columns
        ("dbn", {"train_eval_top1": 72.0}, (72.0, 65.0)),
        ("gcp", {}, (70.0, 64.0)),  # pooling has nothing to recalibrate
    ],
)
def test_the_gap_is_train_minus_test_accuracy_in_the_last_row(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    ends: dict[str, float],
    accuracies: tuple[float, float],
) -> None:
    rows = study_factory.metrics(task, "svd", np.random.default_rng(0))
    rows[-1] |= {"train_top1": 70.0, "eval_top1": 64.0, **ends}
    if task == "dbn":
        rows[-1]["recalibrated_top1"] = 65.0
    monkeypatch.setattr(study_factory, "metrics", lambda *_: rows)
    write_run(tmp_path, task, "svd", 0)
    (run,) = Study(tmp_path).runs
    assert final_accuracies(run) == accuracies
    assert gap(run) == accuracies[0] - accuracies[1]
    own = regime(Study(tmp_path).select(task))
    assert own is not None and own.gap == pytest.approx(gap(run))
    assert own.evaluated == bool(ends) and ("while training" in own.line) != bool(ends)


def test_a_regime_is_the_mean_over_the_seeds_of_plain_svd(tmp_path: Path) -> None:
    write_study(tmp_path / "few", ("svd", "bn"), seeds=3, epochs=45, data={"train_images": 4992})
    own = regime(Study(tmp_path).select("dbn"))
    runs = Study(tmp_path).select("dbn", ["svd"]).runs["svd"]
    assert own is not None and own.seeds == 3 and own.method == "svd"
    assert own.train == pytest.approx(np.mean([run.metrics["train_top1"].iloc[-1] for run in runs]))
    assert "on 4,992 training images in 120 steps" in own.line and own.line.startswith("few: SVD ")


def test_each_study_has_one_line_and_none_without_a_complete_run(tmp_path: Path) -> None:
    write_study(tmp_path / "a", ("svd",))
    write_study(tmp_path / "a", ("svd",), stem_kernel=11)
    write_study(tmp_path / "b", ("bn",), data="tiny-imagenet-100")
    write_run(tmp_path / "c", "dbn", "svd", 0, status="diverged", data="leaves")
    study = Study(tmp_path)
    own = study.select("dbn", name="a")
    beside = study.beside(own, stem_kernel=11)
    assert beside is not None and len(regime_lines([own, beside])) == 1
    assert list(regimes(study, "dbn")) == ["a", "b"]
    assert regimes(study, "dbn")["b"].method == "bn"
