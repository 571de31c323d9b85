"""The page that compares paper, release and project: complete entries, existing settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orthocond.config.schema import Config
from orthocond.config.sources import read_preset, resolve
from orthocond.config.stored_settings import HISTORICAL, flat
from orthocond.layers.decorrelated import DecorrelatedBatchNorm2d
from orthocond.training.treated_network import build_network

BOOK = Path(__file__).parents[1] / "book"
PAGE = (BOOK / "deviations.md").read_text()
ENTRIES = {
    entry.partition("\n")[0]: dict(re.findall(r"^(\w+)\n: (.+)$", entry, re.MULTILINE))
    for entry in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]
}
WITHOUT_LINK = {"grigorieff1991note", "higham1989nearness"}  # no address that we could verify


def named_settings() -> set[str]:
    """Return the settings that the page names."""
    return {e["Setting"].strip("`") for e in ENTRIES.values() if e["Setting"].startswith("`")}


@pytest.mark.parametrize("title", ENTRIES)
def test_an_entry_answers_the_five_questions(title: str) -> None:
    entry = ENTRIES[title]
    assert list(entry) == ["Paper", "Release", "Here", "Effect", "Setting"]
    setting = entry["Setting"]
    assert setting in ("none", "not needed") or setting.strip("`") in flat(Config().model_dump())


def test_the_preset_differs_from_cifar10_few_in_choices_of_the_release_only() -> None:
    before, after = (
        flat(resolve(p).config.model_dump()) for p in ("cifar10-few", "as-released-cpu")
    )
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"running", "gamma_start"} <= named_settings()
    assert all(before[key] == HISTORICAL[key] for key in changed), "plain runs count as before"
    preset = read_preset("as-released-cpu")
    assert preset["eps"] == 1e-2 and preset["methods"] == ["svd"]
    assert {config.seed for config in resolve("as-released-cpu")} == {0, 1, 2}


def test_the_preset_builds_the_layer_that_the_page_describes() -> None:
    model = build_network(next(iter(resolve("as-released-cpu"))), 10)[0]
    norm = model.get_submodule("bn1")
    assert isinstance(norm, DecorrelatedBatchNorm2d)
    assert (norm.eps, norm.momentum, norm.running) == (1e-2, 0.1, "root")
    assert 0 <= norm.weight.min() < norm.weight.max() < 1 and not norm.bias.any()


def test_every_choice_is_a_setting_or_in_the_list_of_those_that_are_none() -> None:
    assert {"eps", "running", "gamma_start"} <= named_settings()
    assert sum(entry["Setting"] == "none" for entry in ENTRIES.values()) > 10
    assert "file: deviations" in (BOOK / "_toc.yml").read_text()


def test_entries_of_the_bibliography_have_a_link_and_are_known_to_the_pages() -> None:
    entries = dict(
        re.findall(r"^@\w+\{(\w+),(.+?)^\}", (BOOK / "references.bib").read_text(), re.M | re.S)
    )
    link = re.compile(r"^  (doi|url|eprint) = \{\S+\},?$", re.MULTILINE)
    without = {key for key, fields in entries.items() if not link.search(fields)}
    assert without == WITHOUT_LINK
    cited = {
        key.strip()
        for page in BOOK.glob("*.md")
        for keys in re.findall(r"\{cite:[tp]\}`([^`]+)`", page.read_text())
        for key in keys.split(",")
    }
    assert cited <= set(entries) and len(entries) > 20
    assert {"song2023orthogonal", "tuddenham2022orthogonalising"} <= cited
