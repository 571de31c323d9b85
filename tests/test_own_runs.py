"""The book of a reader's own runs: fewer or more seeds, fewer methods, a demo, an empty folder."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib.pyplot as plt
import pytest
from fresh_kit import fresh_kit
from pages import BOOK, Cell, shown
from study_factory import write_run, write_study

from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_writer import RunWriter
from orthocond.report.commands import MissingRuns
from orthocond.report.figures import architecture_diagram
from orthocond.report.tables import preset_hours

pytest.importorskip("IPython", reason="the book extra is not installed")

RUNS = BOOK.parent / "runs"
MAIN = ("cifar10-cpu", "tiny32-cpu", "tiny-imagenet-cpu")
LAYERS = functools.cache(architecture_diagram.layers)  # the same in every book
Shown = list[tuple[Cell, str]]


def link(out: Path, study: str, methods: tuple[str, ...] = (), seeds: str = "01") -> None:
    """Make a study of some committed runs; without methods, of all methods."""
    (out / study).mkdir(parents=True, exist_ok=True)
    for run in sorted((RUNS / study).iterdir()):
        method, _, seed = run.name.rpartition("-s")
        if seed in seeds and (not methods or method.endswith(tuple(f"-{m}" for m in methods))):
            (out / study / run.name).symlink_to(run)


def reseed(path: Path, seed: int, out: Path) -> None:
    """Write a run again as that of another seed."""
    run = Run(path)
    tables = {n: getattr(run, n) for n in ("metrics", "timings", "conditioning")}
    rows = {
        n: t.astype(object).where(t.notna(), None).to_dict("records") for n, t in tables.items()
    }
    with RunWriter(out / re.sub(r"-s\d+$", f"-s{seed}", path.name)) as writer:
        config = {key: value for key, value in run.config.items() if key != "hash"}
        writer.begin(config | {"seed": seed}, run.environment)
        writer.finish(run.summary | {"seed": seed}, rows)


def fewer_seeds(out: Path) -> None:
    link(out, "tiny32-cpu", ("svd", "svd+nog", "bn"), "0")


def fewer_methods(out: Path) -> None:
    link(out, "cifar10-cpu", ("svd", "svd+nog"), "0")
    link(out, "tiny-imagenet-cpu", ("svd",), "0")


def more_seeds(out: Path) -> None:
    link(out, "tiny32-cpu", ("svd", "svd+slow"))
    for run in list((out / "tiny32-cpu").glob("*-s0")):
        reseed(run.resolve(), 9, out / "tiny32-cpu")


def demo(out: Path) -> None:
    quick = ("bn", "ns", "svd", "svd+ol", "svd+ow", "svd+nog", "svd+nog+ow+olr")
    write_study(out / "demo", quick, seeds=1, data="leaves")
    write_study(out / "demo", ("gap", "ns", "svd", "svd+nog+ow+olr"), "gcp", 1, data="leaves")


def tiny(out: Path) -> None:
    write_run(out, "dbn", "svd+nog", 3, data="leaves")
    write_run(out, "dbn", "svd", 0, data="leaves", status="diverged")


def pooling(out: Path) -> None:
    write_study(out / "mine", ("svd", "svd+nog"), "gcp", seeds=1, data="leaves")


def empty(out: Path) -> None:
    pass


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The book's kit, which draws each figure once and writes no picture."""

    def write_figure(study: Any, figure: Any, *_: Any) -> dict[str, Any]:
        data = figure.data(study)
        plt.close(figure.draw(data))
        own = data.provenance
        texts = {"caption": figure.caption, "alt": figure.alt(data)}
        return texts | {"note": own.note, "remarks": own.remarks}

    monkeypatch.setattr(preset_hours, "_operations", lambda *_: 1e9)  # seconds for each network
    monkeypatch.setattr(architecture_diagram, "layers", LAYERS)
    kit = fresh_kit(BOOK.parent, monkeypatch)
    monkeypatch.setattr(kit.elements, "FILES", tmp_path / "files")
    monkeypatch.setattr(kit.study_elements, "write_figure", write_figure)
    (tmp_path / "files").mkdir()
    return kit


@pytest.fixture
def pages(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Path], None]], Shown]:
    """What all pages show of a folder of runs."""

    def build(make: Callable[[Path], None]) -> Shown:
        (tmp_path / "mine").mkdir()
        make(tmp_path / "mine")
        monkeypatch.setenv("ORTHOCOND_RUNS", str(tmp_path / "mine"))
        found = list(shown())
        assert not kit.of_committed_runs() and len({cell.page for cell, _ in found}) > 8
        texts = [text for cell, text in found if "study_text" in cell.source]
        assert [text for text in texts if re.search(r"\bnan\b", text)] == []
        return found

    return build


@pytest.mark.parametrize(
    "make", [fewer_seeds, fewer_methods, more_seeds, demo, tiny, pooling, empty]
)
def test_every_page_shows_other_runs(
    make: Callable[[Path], None], pages: Callable[..., Shown], kit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def no_committed_runs() -> None:
        raise MissingRuns("reading them takes seconds")

    monkeypatch.setattr(kit.runs, "_committed_study", no_committed_runs)
    found = pages(make)
    missing = [text for _, text in found if "missing-runs" in text]
    assert missing and all(re.search("orthocond |diverged", text) for text in missing)


def test_sentences_have_the_numbers_of_both(
    kit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for study in MAIN:
        link(tmp_path, study)
    monkeypatch.setenv("ORTHOCOND_RUNS", str(tmp_path))
    *_, (_, text) = shown("overview", "study_text")
    assert text.startswith("::::{admonition} Written about the committed runs; yours differ")
    committed = re.search(r"\| OLR \| (\S+ \[.*?\]) \(yours: (\S+ \[.*?\])\) \|", text)
    assert committed and committed[1] != committed[2]
