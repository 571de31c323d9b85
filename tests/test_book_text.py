"""The sources of the book: numbers of chapters, equations of the paper, links."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[1] / "book"
TOC = (BOOK / "_toc.yml").read_text()
PAGES = {path.stem: path.read_text() for path in BOOK.glob("*.md")}
START, *PARTS = (re.findall(r"(?:file|root): (\w+)", part) for part in TOC.split("- caption:"))
NUMBERED = re.findall(r"^( *)- file: (\w+)", TOC.split("- caption:")[1], re.MULTILINE)
PAGE_CHAPTERS: dict[str, int] = {}
"""Numbers of chapters, by page; a chapter's further pages are indented in the contents."""
for indent, file in NUMBERED:
    PAGE_CHAPTERS[file] = max(PAGE_CHAPTERS.values(), default=0) + (indent == NUMBERED[0][0])
LABELS = set(re.findall(r"^\$\$ \((eq-\w+)\)$", "\n".join(PAGES.values()), re.MULTILINE))
DEPEND_ON_DEVIATIONS = {
    "overview": "",
    "meta_layer": "the-backward-pass solver-and-precision-of-the-forward-pass",
    "condition_number": "how-conditioning-is-measured",
    "pre_svd_layer": "scale-of-the-skew-filter ow-of-a-1x1-convolution",
    "nearest_orthogonal_gradient": "nog-where-the-gradient-is-zero",
    "optimal_learning_rate": "the-matrix-that-nog-and-olr-read-under-ow "
    "bounds-of-the-optimal-learning-rate an-olr-switch-that-selects-no-parameter",
    "decorrelated_batch_norm": "value-and-place-of-ε start-of-γ the-network "
    "mean-and-normaliser-of-the-covariance solver-and-precision-of-the-forward-pass",
    "dbn_conditioning": "how-conditioning-is-measured the-treatments schedule "
    "precision-of-the-network",
    "dbn_accuracy": "data-and-training schedule precision-of-the-network the-epoch-that-counts",
    "stale_statistics": "what-the-running-statistics-average "
    "evaluation-with-re-estimated-statistics",
    "other_data": "data-and-training",
    "global_covariance_pooling": "layers-around-covariance-pooling steps-of-newton-schulz schedule",
    "cost": "solver-and-precision-of-the-forward-pass precision-of-the-network",
    "ledger": "",
    "reproduce": "schedule precision-of-the-network",
    "scaling": "several-devices",
    "what_survives": "failures-of-the-decomposition",
    "rivals": "solver-and-precision-of-the-forward-pass",
    "reproducibility": "an-olr-switch-that-selects-no-parameter",
}
"""Sections of the page of deviations that a page must link to; it links to the page in any case."""


@pytest.mark.parametrize("page", PAGES)
def test_a_chapter_is_linked_by_its_own_number(page: str) -> None:
    named = re.findall(r"\[chapter\s+(\d+)\]\((\w+)\.md", PAGES[page], re.IGNORECASE)
    assert [(n, file) for n, file in named if PAGE_CHAPTERS[file] != int(n)] == []


def test_pages_of_a_chapter_have_its_number() -> None:
    assert PAGE_CHAPTERS["decorrelated_batch_norm"] == PAGE_CHAPTERS["other_data"] == 7
    assert (PAGE_CHAPTERS["global_covariance_pooling"], PAGE_CHAPTERS["rivals"]) == (8, 15)


def test_every_page_is_in_the_table_of_contents() -> None:
    assert sorted([*START, *chain(*PARTS)]) == sorted(PAGES)


def test_every_equation_of_the_paper_is_in_the_book() -> None:
    assert {f"eq-{n}" for n in range(1, 45)} <= LABELS


def test_the_table_of_changes_names_existing_equations_once() -> None:
    rows = [
        row.split(" | ") for row in PAGES["derivations"].splitlines() if row.startswith("| {eq}")
    ]
    first = [label for row in rows for label in re.findall(r"`(eq-\w+)`", row[0])]
    assert len(first) == len(set(first)) > 30
    assert all(len(row) == 4 for row in rows)
    assert set(re.findall(r"`(eq-\w+)`", PAGES["derivations"])) - {"eq-"} <= LABELS


def test_chapters_that_depend_on_deviations_link_to_them() -> None:
    assert {p for p in DEPEND_ON_DEVIATIONS if "](deviations.md" not in PAGES[p]} == set()
    lost = {
        (page, section)
        for page, sections in DEPEND_ON_DEVIATIONS.items()
        for section in sections.split()
        if f"](deviations.md#{section})" not in PAGES[page]
    }
    assert lost == set()


def test_every_numbered_chapter_links_to_the_deviations() -> None:
    assert PAGE_CHAPTERS.keys() - {"deviations"} <= DEPEND_ON_DEVIATIONS.keys()


def test_anchors_of_deviations_are_headings() -> None:
    headings = re.findall(r"^#+ (.+)$", PAGES["deviations"], re.MULTILINE)
    known = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
    linked = set(re.findall(r"\]\(deviations\.md#([^)]+)\)", "\n".join(PAGES.values())))
    assert linked <= known and len(linked) > 8
