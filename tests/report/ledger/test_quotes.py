"""The paper's words in the ledger: verbatim, whole, and none of them twice."""

from __future__ import annotations

import re
from itertools import permutations
from pathlib import Path

import pytest

from orthocond.report.ledger.claims import CLAIMS

PAPER = Path(__file__).parents[4] / "shared" / "paper.md"
FRACTION = re.compile(r"\\frac\{((?:[^{}]|\{[^{}]*\})*)\}\{((?:[^{}]|\{[^{}]*\})*)\}")
SYMBOLS = {"approx": "≈", "ll": "≪", "sigma": "σ", "eta": "η", "kappa": "κ", "partial": "∂"}
BEFORE = (".", ",", ":", ")", "]")  # marks before the beginning of a quote
NEXT = (",", ".", "and", "but", "since", "while")  # marks and words after its end

needs_paper = pytest.mark.skipif(
    not PAPER.exists(), reason="the paper's text is not part of the project"
)


def plain(text: str) -> str:
    """Without white space and the marks of Markdown and LaTeX."""
    text = FRACTION.sub(lambda m: f"{m[1]}/({m[2]})" if "+" in m[2] else f"{m[1]}/{m[2]}", text)
    for name, symbol in SYMBOLS.items():
        text = re.sub(rf"\\{name}(?![a-z])", symbol, text)
    text = re.sub(r"\\(?:mathbf|mathrm|text)(?![a-z])", "", text)
    return re.sub(r"\\,|[\s$*{}\\]", "", text)


@pytest.fixture(scope="module")
def paper() -> str:
    return plain(PAPER.read_text())


@needs_paper
def test_every_quote_occurs_in_the_paper(paper: str) -> None:
    assert [claim.quote for claim in CLAIMS if plain(claim.quote) not in paper] == []


@needs_paper
def test_no_quote_is_cut_within_a_clause(paper: str) -> None:
    for claim in CLAIMS:
        words = plain(claim.quote)
        places = [m.start() for m in re.finditer(re.escape(words), paper)]
        before = {
            words[0].isupper() or words.startswith(NEXT) or paper[:at].endswith(BEFORE)
            for at in places
        }
        after = {words.endswith(".") or paper[at + len(words) :].startswith(NEXT) for at in places}
        assert before == after == {True}, claim.quote


@needs_paper
def test_a_conjecture_is_quoted_as_one(paper: str) -> None:
    conjectured = paper.count("Weconjecture")
    assert sum(claim.quote.startswith("We conjecture that") for claim in CLAIMS) == conjectured


def test_no_words_are_quoted_twice() -> None:
    quotes = [plain(claim.quote) for claim in CLAIMS]
    assert [one for one, other in permutations(quotes, 2) if one in other] == []


def test_the_sentences_that_were_missing_are_there() -> None:
    quotes = " ".join(claim.quote for claim in CLAIMS)
    for words in (
        "very coherent with our experiment",
        "complementary and can benefit each other",
        "might cause unstable training",
        "Similarly for orthogonal gradient",
        "might not be enforced under the gradient manipulation",
    ):
        assert words in quotes
