from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import study_factory
from study_factory import write_study

from orthocond.report.ledger.criteria import Compared
from orthocond.report.ledger.evidence import Claim, Finding
from orthocond.report.ledger.judging import (
    Court,
    over_studies,
    verdict_in,
    verdict_over,
    with_all_measures,
)
from orthocond.report.ledger.regime_rule import GAP, has_gap, within_regime
from orthocond.report.ledger.verdicts import ABOVE, Verdict
from orthocond.report.regimes import Regime
from orthocond.report.study import Study

HOLDS, FAILS, OPEN = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN
REGIME, SPLIT, ABSENT = Verdict.REGIME, Verdict.SPLIT, Verdict.ABSENT
INCOMPARABLE = Verdict.INCOMPARABLE
USUAL = study_factory.metrics


@pytest.mark.parametrize(
    ("verdicts", "over_all"),
    [
        ([HOLDS, HOLDS], HOLDS),
        ([FAILS, OPEN, ABSENT], FAILS),
        ([HOLDS, FAILS], SPLIT),
        ([OPEN, REGIME], OPEN),
        ([REGIME, ABSENT], REGIME),
        ([ABSENT], ABSENT),
        ([], ABSENT),
    ],
)
def test_studies_that_cannot_decide_contradict_none(
    verdicts: list[Verdict], over_all: Verdict
) -> None:
    assert over_studies(verdicts) is over_all
    assert over_studies(reversed(verdicts)) is over_all


def _regime(gap: float, method: str = "svd") -> Regime:
    return Regime("a", "leaves", method, 60 + gap, 60.0, None, 10, 2, True)


@pytest.mark.parametrize("measure", ["error", "averaged", "support"])
@pytest.mark.parametrize("verdict", [HOLDS, FAILS, OPEN, ABSENT])
def test_only_errors_need_a_gap_and_a_missing_run_stays_missing(
    measure: str, verdict: Verdict
) -> None:
    part, finding = Compared("svd+nog", measure=measure), Finding(verdict, "part", "numbers")
    assert within_regime(part, finding, [_regime(GAP)]) == finding
    kept = measure == "support" or verdict is ABSENT
    for short in (_regime(GAP - 0.1), _regime(float("nan")), _regime(9.0, "bn")):
        assert not has_gap(short)
        found = within_regime(part, finding, [_regime(GAP), short])
        assert found.verdict is (verdict if kept else REGIME)
        assert found.found == "numbers" and (found == finding) == kept


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies of one data set, of which one has a gap, and in which NOG is better (4 points
    in few) and worse than SVD; and pooling."""

    def metrics(gap: float, gain: float) -> None:
        def made(task: str, method: str, rng: object) -> list[dict[str, object]]:
            rows = USUAL(task, method, rng)
            top1 = 60 + gain * (method == "svd+nog") + 0.1 * rows[-1]["eval_top1"]
            ends = {"eval_top1": top1, "recalibrated_top1": top1, "train_top1": 66.5 + gap}
            rows[-1] |= {key: value for key, value in ends.items() if key in rows[-1]}
            return rows

        monkeypatch.setattr(study_factory, "metrics", made)

    metrics(16.0, 4.0)
    write_study(tmp_path / "few", ("svd", "svd+nog"), epochs=45, data={"train_images": 4992})
    metrics(0.5, -4.0)
    write_study(tmp_path / "all", ("svd", "svd+nog"), seeds=3)
    metrics(8.0, -4.0)
    write_study(tmp_path / "pool", ("svd", "svd+nog"), "gcp", data="tiny-imagenet-100")
    return tmp_path


def test_a_claim_on_errors_is_decided_by_the_study_with_a_gap(runs: Path) -> None:
    court = Court(Study(runs))
    judged = court.judge(Claim("", "NOG is better", (Compared("svd+nog"),), ()))
    assert [verdict_in(judged, study) for study in ("all", "few", "pool")] == [REGIME, HOLDS, None]
    assert verdict_over(judged) is HOLDS
    (without,) = (each.finding for each in judged if each.study == "all")
    assert "points in all, is not 5 points or more" in without.beside
    assert without.n == 3 and "all: cifar10-jpeg" in without.source
    conditioned = Compared("svd+nog", measure="support")
    both = court.judge(Claim("", "", (conditioned,), ()))
    assert {each.study: each.finding.n for each in both} == {"all": 3, "few": 2}


def test_studies_that_decide_differently_disagree(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthocond.report.ledger.regime_rule.GAP", 0.0)
    monkeypatch.setattr("orthocond.report.ledger.regime_rule.has_gap", lambda regime: True)
    judged = Court(Study(runs)).judge(Claim("", "NOG is better", (Compared("svd+nog"),), ()))
    assert {each.study: each.finding.verdict for each in judged} == {"all": FAILS, "few": HOLDS}
    assert verdict_over(judged) is SPLIT


def test_one_of_two_measures_decides_nothing_where_another_study_has_both() -> None:
    one = Finding(HOLDS, "", "", measures=("kappa_eps",))
    both = Finding(INCOMPARABLE, "", "", measures=("kappa_common", "kappa_eps"))
    own = Finding(FAILS, "", "", measures=("support",))
    checked = with_all_measures({"a": one, "b": both, "c": own})
    assert [f.verdict for f in checked.values()] == [INCOMPARABLE, INCOMPARABLE, FAILS]
    assert "In b this measure contradicts" in checked["a"].beside
    agreeing = replace(both, verdict=HOLDS)
    assert with_all_measures({"a": one, "b": agreeing}) == {"a": one, "b": agreeing}


def test_parts_of_two_tasks_are_judged_in_their_own_studies(runs: Path) -> None:
    parts = (Compared("svd+nog"), Compared("svd+nog", side=ABOVE, task="gcp"))
    judged = Court(Study(runs)).judge(Claim("", "", parts, ()))
    assert verdict_in(judged, "few") is HOLDS and verdict_in(judged, "pool") is HOLDS
    assert verdict_over(judged) is HOLDS
    opposite = (parts[0], replace(parts[1], side=-1))
    assert verdict_over(Court(Study(runs)).judge(Claim("", "", opposite, ()))) is FAILS


def test_a_task_whose_runs_all_diverged_stops_no_verdict_on_the_other(runs: Path) -> None:
    shutil.rmtree(runs / "pool")
    write_study(runs / "pool", ("svd",), "gcp", data="tiny-imagenet-100", status="diverged")
    judged = Court(Study(runs)).judge(Claim("", "NOG is better", (Compared("svd+nog"),), ()))
    assert verdict_in(judged, "few") is HOLDS


def test_only_what_every_study_lacks_has_a_command(runs: Path) -> None:
    write_study(runs / "few", ("svd+sn",), epochs=45, data={"train_images": 4992})
    court = Court(Study(runs))
    there = court.judge(Claim("", "", (Compared("svd+sn"),), ()))
    assert verdict_in(there, "all") is ABSENT and court.commands(there) == []
    absent = court.judge(Claim("", "", (Compared("svd+ol"), Compared("svd", data="CIFAR100")), ()))
    commands = court.commands(absent)
    assert any("--method ol" in text for text in commands)
    assert any("paper-dbn-cifar100" in text for text in commands)
