from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from orthocond.report.ledger import ledger
from orthocond.report.ledger.claims import CLAIMS
from orthocond.report.ledger.history import changes
from orthocond.report.ledger.history.changed_rules import CHANGES, Change
from orthocond.report.ledger.history.former_verdicts import FORMER, present
from orthocond.report.ledger.verdicts import Verdict
from orthocond.report.study import Study


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The ledger without runs: derived claims have a verdict, all others need runs."""
    return ledger.build(Study(tmp_path_factory.mktemp("empty"))).frame


def test_every_former_claim_is_in_one_present_claim() -> None:
    quotes = [claim.quote for claim in CLAIMS]
    assert [f.number for f in FORMER] == list(range(1, 86))
    assert [f.number for f in FORMER if len(present(f, quotes)) != 1] == []


def test_the_former_count_is_the_published_one() -> None:
    verdicts = [former.verdict for former in FORMER]
    counts = [verdicts.count(v) for v in (Verdict.HOLDS, Verdict.FAILS, Verdict.OPEN)]
    assert [*counts, verdicts.count(Verdict.ABSENT)] == [26, 42, 15, 2]


def test_a_change_names_former_claims_and_says_when_and_why() -> None:
    known = {former.number for former in FORMER}
    for change in CHANGES:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", change.date)
        assert change.reason.endswith(".") and change.rule.endswith(".")
        assert set(change.claims) <= known and set(change.before) <= set(change.claims)
    assert [c.date for c in CHANGES] == sorted(c.date for c in CHANGES)


def test_claims_that_a_derivation_or_a_rule_decides_moved_as_the_page_says(
    frame: pd.DataFrame,
) -> None:
    now = {m.former.number: (m.before, m.now) for c in CHANGES for m in changes.moved(c, frame)}
    fails = str(Verdict.FAILS)
    assert now[14] == (fails, Verdict.MISPRINT)
    assert now[27] == now[79] == (fails, Verdict.CONJECTURE)
    derived = {m.former.number for m in changes.by_runs(frame) if m.now != Verdict.ABSENT}
    assert derived == set()  # no derivation moved without a rule


def test_the_page_has_every_change_both_counts_and_each_move(frame: pd.DataFrame) -> None:
    page = changes.to_html(frame, "ledger.html")
    assert page.count("<h3>") == len(CHANGES) + 1  # and the claims that moved by (missing) runs
    assert all(change.date in page for change in CHANGES)
    assert f"{Verdict.FAILS} → <b>{Verdict.MISPRINT}</b>" in page
    table = changes.counts(frame).set_index("verdict")
    assert list(table.loc["all"]) == [85, len(CLAIMS)]
    assert table.at["a misprint", "present rules"] == 1


def test_a_claim_before_an_earlier_change_has_its_verdict_of_that_time(frame: pd.DataFrame) -> None:
    change = Change("2026-01-01", "", "", "", (25,), {25: Verdict.FAILS})
    (moved,) = changes.moved(change, frame)
    assert (moved.before, moved.former.verdict) == (Verdict.FAILS, Verdict.HOLDS)


def test_the_page_is_in_the_book() -> None:
    book = Path(__file__).parents[4] / "book"
    assert "file: rules" in (book / "_toc.yml").read_text()
    assert "study_rules()" in (book / "rules.md").read_text()
