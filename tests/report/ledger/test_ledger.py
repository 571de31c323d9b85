from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import study_factory
from scipy import stats
from study_factory import write_run, write_study

from orthocond.artifacts.timing_artifacts import write_timing
from orthocond.config.methods import Method
from orthocond.report.ledger import ledger
from orthocond.report.ledger.claims import CLAIMS
from orthocond.report.ledger.criteria import Compared, LessImproved, Level, Often
from orthocond.report.ledger.derived_claims import Derived
from orthocond.report.ledger.evidence import Bench
from orthocond.report.ledger.time_claims import Timed, ratio
from orthocond.report.ledger.verdicts import ABOVE, Verdict
from orthocond.report.provenance import Numbers
from orthocond.report.study import Study

HOLDS, FAILS, OPEN, ABSENT = Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN, Verdict.ABSENT
ROOT = Path(__file__).parents[3]
PAPER = ROOT.parent / "shared" / "paper.md"
NOISE = np.array([0.0, 0.3, -0.2, 0.1, -0.1])

Errors = Mapping[str, Iterable[float]]
Written = Callable[..., Bench]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Writes runs that end with given errors, a method and list of seeds at a time."""
    usual = study_factory.metrics

    def write(errors: Errors, task: str = "dbn", **more: object) -> Bench:
        for method, values in errors.items():
            for seed, error in enumerate(values):
                ends = {"eval_top1": 100 - error, "recalibrated_top1": 101 - error}
                row = usual(task, method, np.random.default_rng(seed))[-1]
                keys = {key: value for key, value in ends.items() if key in row}
                rows = [row | keys]
                monkeypatch.setattr(study_factory, "metrics", lambda *_, rows=rows: rows)
                write_run(tmp_path / task, task, method, seed, **more)
        return Bench(Study(tmp_path))

    return write


@pytest.mark.parametrize(
    ("shift", "noise", "verdict"),
    [(-1.0, 0.2, HOLDS), (1.0, 0.2, FAILS), (-0.1, 3.0, OPEN)],
)
def test_an_effect_holds_fails_or_stays_undecided_as_simulated(
    written: Written, shift: float, noise: float, verdict: Verdict
) -> None:
    base, own = 30 + NOISE, 30 + shift + NOISE + noise * np.array([1, -1, 2, -1.5, 0])
    found = Compared("svd+nog").judge(written({"svd": base, "svd+nog": own}))
    reference = stats.ttest_rel(own, base)
    interval = reference.confidence_interval(0.95)
    assert found.verdict == verdict
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.n, found.p) == (5, pytest.approx(reference.pvalue))  # a family of one
    assert "5" in found.found and "seeds 0-4" in found.source and len(found.runs) == 10
    assert "recalibrated" in found.beside


def test_undecided_claims_state_the_smallest_detectable_difference(written: Written) -> None:
    bench = written({"svd": 30 + NOISE, "svd+sn": 30 - 2 * NOISE})
    found = Compared("svd+sn").judge(bench)
    deviation = np.std(3 * NOISE, ddof=1)
    # Power of the paired t test at this size, by the noncentral t distribution.
    shift, critical = found.detectable / deviation * 5**0.5, stats.t.ppf(0.975, 4)
    assert found.verdict == OPEN
    assert stats.nct.sf(critical, 4, shift) == pytest.approx(0.8)


def test_only_the_primary_family_has_adjusted_p_values(written: Written) -> None:
    own = 29.77 + NOISE[::-1]
    bench = written({"svd": 30 + NOISE, "svd+nog": own, "svd+olr": own, "svd+sn": own})
    raw = stats.ttest_rel(own, 30 + NOISE).pvalue
    assert 0.025 < raw < 0.05  # decided alone, not in a family of two
    assert Compared("svd+nog").judge(bench).verdict == OPEN
    assert Compared("svd+nog").judge(bench).p == pytest.approx(2 * raw)
    assert Compared("svd+sn").judge(bench).verdict == HOLDS


@pytest.mark.parametrize("seeds", [1, 0])
def test_with_too_few_runs_the_finding_names_the_command(written: Written, seeds: int) -> None:
    bench = written({"svd": 30 + NOISE, "svd+nog+sn": 29 + NOISE[:seeds]})
    found = Compared("svd+nog+sn").judge(bench)
    (command,) = bench.commands(found.needs)
    assert found.verdict == ABSENT and "fewer than 2 pairs" in found.found
    assert "--method nog+sn --seeds 0-4" in command and command.count("--method") == 1


def test_runs_that_diverged_are_told_from_missing_ones(written: Written) -> None:
    bench = written({"svd": 30 + NOISE[:2], "svd+sn": 30 + NOISE[:1]})
    bench = written({"svd+ol": NOISE[:2]}, status="diverged")
    assert "2 of SVD + OL diverged" in Compared("svd+ol").judge(bench).found


def test_ow_is_compared_with_the_control_that_has_a_wide_stem(written: Written) -> None:
    written({"svd": 32 + NOISE, "svd+ow": 30 - NOISE})
    wide = Compared("svd+ow", control=11)
    bench = Bench(Study(written({}).study.folder))
    found = wide.judge(bench)
    assert found.verdict == ABSENT and "stem_kernel=11" in bench.commands(found.needs)[0]
    bench = written({"svd": 29 + NOISE}, stem_kernel=11)
    assert wide.judge(bench).verdict == FAILS  # the plain wide stem is better
    assert Compared("svd+ow").judge(bench).verdict == HOLDS


def test_a_claim_on_a_data_set_is_judged_on_that_data_set(written: Written) -> None:
    bench = written({"svd": 30 + NOISE, "svd+sn": 29 - NOISE})
    assert Compared("svd+sn", data="CIFAR10").judge(bench).verdict == HOLDS
    found = Compared("svd+sn", data="CIFAR100").judge(bench)
    assert found.verdict == ABSENT
    assert "--preset paper-dbn-cifar100" in bench.commands(found.needs)[0]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Every method that a claim names, in both tasks, with the controls."""
    folder = tmp_path_factory.mktemp("full")
    methods = {need.method for claim in CLAIMS for part in claim.parts for need in needs(part)}
    write_study(folder / "dbn", tuple(sorted(methods - {"gap"})), seeds=3)
    for seed in range(3):
        write_run(folder / "dbn", "dbn", "svd", seed, stem_kernel=11)
    other = {"bn", "svd+rescale", "svd+slow", "svd+ow-stiefel"}
    write_study(folder / "gcp", tuple(sorted(methods - other)), "gcp", 3, data="tiny-imagenet-100")
    return Study(folder)


@pytest.fixture(scope="module")
def judged(full: Study) -> Numbers:
    return ledger.build(full)


@pytest.fixture(scope="module")
def table(judged: Numbers) -> pd.DataFrame:
    return judged.frame


def needs(part: object) -> tuple[object, ...]:
    return part.needs if isinstance(part, Compared) else ()


def test_conditioning_is_judged_by_kappa_on_the_support_and_shows_raw_kappa_too(
    full: Study,
) -> None:
    bench = Bench(full)
    found = Compared("svd+nog", measure="support").judge(bench)
    assert found.verdict == HOLDS  # made so: 5.3 against 6.2
    assert found.mean == pytest.approx(5.3 - 6.2, abs=0.1)
    assert "log10 κ as an SVD sees it" in found.beside
    assert "rounding noise in SVD + NOG (rank 27), SVD (rank 27)" in found.beside
    regular = Compared("svd+ow", "svd+nog+ow", "support").judge(bench)
    assert "rounding" not in regular.beside


def test_a_claimed_level_is_compared_with_log10_of_raw_kappa(full: Study) -> None:
    bench = Bench(full)
    found = Level("svd", 16, task="gcp").judge(bench)
    logs = [
        np.log10(run.summary["conditioning"]["kappa"])
        for run in full.select("gcp", ["svd"]).runs["svd"]
    ]
    assert found.mean == pytest.approx(np.mean(logs)) and "rounding noise" in found.beside
    assert Level("svd", 3).judge(bench).verdict == FAILS
    assert Level("svd", 0, "spike", ABOVE).judge(bench).verdict == HOLDS  # made half a decade


def test_often_holds_only_if_most_runs_have_a_failure(written: Written) -> None:
    bench = written({"ns": NOISE + 30, "svd+nog": NOISE[:4] + 30})
    assert Often("ns", task="dbn").judge(bench).verdict == FAILS  # 0 of 5
    assert Often("svd+nog", task="dbn").judge(bench).verdict == OPEN  # 0 of 4 is too few


def test_two_tasks_are_compared_by_their_intervals(full: Study) -> None:
    # The made-up conditioning is the same in both tasks: neither is improved more.
    assert LessImproved("svd+nog").judge(Bench(full)).verdict == OPEN


def test_the_interval_of_a_ratio_of_medians_covers_simulated_samples(tmp_path: Path) -> None:
    draws = np.random.default_rng(0).normal([[[10.0]], [[11.0]]], 0.5, size=(2, 2000, 20))
    covered = 0
    for own, base in zip(draws[1], draws[0], strict=True):
        spreads = (
            dict(zip(("q1", "median", "q3"), np.percentile(x, (25, 50, 75)), strict=True))
            for x in (own, base)
        )
        _, low, high = ratio(*spreads, 20)
        covered += low <= 1.1 <= high
    assert 0.92 < covered / 2000 < 0.97


@pytest.mark.parametrize(("forward", "verdict"), [(100.0, HOLDS), (120.0, FAILS), (102.0, OPEN)])
def test_a_time_is_judged_by_the_ratio_to_plain_svd(
    tmp_path: Path, forward: float, verdict: Verdict
) -> None:
    for method, value in (("svd", 100.0), ("svd+nog", forward)):
        data = {"task": "dbn", "model": "resnet50", "method": method, "rounds": 40}
        data |= {"batch_size": 128, "image_size": 32, "precision": "float32"}
        data["forward_ms"] = {"median": value, "q1": value - 1, "q3": value + 1.5}
        write_timing(tmp_path / "timing", method.replace("+", "-"), data, {"device_name": "A CPU"})
    found = Timed("svd+nog", "forward", 0.02).judge(Bench(Study(tmp_path)))
    assert found.verdict == verdict and "A CPU" in found.source


def test_without_runs_only_derived_claims_are_decided(tmp_path: Path) -> None:
    table = ledger.build(Study(tmp_path)).frame
    derived = [all(isinstance(part, Derived) for part in claim.parts) for claim in CLAIMS]
    claims = table.drop_duplicates("number")
    assert list(claims["verdict"] != ABSENT) == derived
    for command in "\n".join(claims.loc[claims["command"] != "", "command"]).splitlines():
        words = shlex.split(command)
        assert words[:2] in (["orthocond", "train"], ["orthocond", "measure"])
        for name in [b for a, b in pairwise(words) if a == "--method"]:
            Method.parse(name)
    assert (claims["command"] != "").sum() == (~np.array(derived)).sum()


def test_with_runs_of_every_method_only_data_sets_and_timings_are_missing(
    judged: Numbers,
) -> None:
    table = judged.frame
    lacking = table[table["part verdict"] == ABSENT]
    made = "CIFAR100|FP|BP|OLR's rate"  # what these runs do not have
    assert lacking["part"].str.contains(made).all()
    decided = table.drop_duplicates("number").set_index("number")["verdict"]
    assert len(decided) == len(CLAIMS) >= 20 and HOLDS in set(decided) and FAILS in set(decided)
    names = {source.run for source in judged.provenance.runs}
    assert len(names) == len(judged.provenance.runs) > 40


def test_the_ledger_page_shows_every_claim_with_its_links(table: pd.DataFrame) -> None:
    page = ledger.to_html(table, lambda name: f"[{name}]")
    assert re.findall(r'id="claim-(\d+)"', page) == [str(n + 1) for n in range(len(CLAIMS))]
    assert "[eq-20b]" in page and "&lt; 0" in page and "<b>does not hold</b>" in page


def test_the_summary_names_every_claim_once_under_its_verdict(table: pd.DataFrame) -> None:
    rows = re.findall(
        r"<tr><td><b>(.*?)</b></td><td>(.*?)</td><td>(.*?)</td></tr>",
        ledger.summary_html(table, "page"),
    )
    assert [verdict for verdict, _, _ in rows] == [str(verdict) for verdict in Verdict]
    found = {
        int(number): verdict
        for verdict, _, links in rows
        for number in re.findall(r'href="page#claim-(\d+)"', links)
    }
    assert found == dict(zip(table["number"], table["verdict"], strict=True))
    assert sum(int(count) for _, count, _ in rows) == len(CLAIMS)


def test_the_evidence_of_every_claim_is_in_the_book() -> None:
    book = "".join(path.read_text() for path in (ROOT / "book").glob("*.md"))
    kinds = {"eq-": "$$ ({})", "fig": 'study_figure("{}")', "tab": 'study_table("{}")'}
    for name in {name for claim in CLAIMS for name in claim.evidence}:
        assert kinds[name[:3]].format(name) in book, name


def plain(text: str) -> str:
    """Without the marks of Markdown and LaTeX."""
    text = re.sub(r"\\(?:mathbf|mathrm|text|frac)", "", text)
    text = text.replace(r"\approx", "≈").replace(r"\ll", "≪").replace(r"\sigma", "σ")
    text = re.sub(r"\\,|[$*{}\\]", "", text).replace("}{", "/")
    return re.sub(r"\s+", "", text)


@pytest.mark.skipif(not PAPER.exists(), reason="the paper's text is not part of the project")
def test_every_quote_occurs_in_the_paper() -> None:
    paper = plain(PAPER.read_text().replace("}{", "}/{"))
    absent = [c.quote for c in CLAIMS for q in c.quote.split("…") if plain(q) not in paper]
    assert absent == []
