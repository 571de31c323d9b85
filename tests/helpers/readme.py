"""What the README shows of runs and rivals, its figure, tables and verdicts: ``make readme``."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import matplotlib
from typer.testing import CliRunner

from orthocond.artifacts.atomic_files import write_bytes
from orthocond.artifacts.timing_artifacts import find_timings
from orthocond.report.demonstrations import rivals
from orthocond.report.ledger import ledger, summary
from orthocond.report.output import write_figure
from orthocond.report.registry import FIGURES as STUDY_FIGURES
from orthocond.report.study import Study
from orthocond_cli.app import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FIGURES = ROOT / "book/_static/readme"
RESULTS = ROOT / "benchmarks/results"
TABLE = re.compile(r"(<!-- orthocond (table [^>]*) -->\n).*?(?=<!-- end -->)", re.DOTALL)
LEDGER = re.compile(r"(<!-- ledger -->\n).*?(?=<!-- end -->)", re.DOTALL)
RIVALS = re.compile(r"(<!-- rivals -->\n).*?(?=<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"<!-- orthocond plot (\w+) --runs (\S+) -->")


def with_tables(text: str) -> str:
    """The text with each table as the command above it prints it."""

    def table(match: re.Match[str]) -> str:
        comment, command = match.groups()
        with contextlib.chdir(ROOT):
            printed = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
        return f"{comment}\n{printed.stdout}"

    return TABLE.sub(table, text)


def with_verdicts(text: str) -> str:
    """The text with the summary of the ledger, from all committed runs."""
    with contextlib.chdir(ROOT):
        frame = ledger.build(Study("runs"), find_timings(RESULTS / "h200/timing")).frame
        found = summary.to_markdown(frame)
    return LEDGER.sub(lambda match: f"{match[1]}{found}\n", text)


def with_rivals(text: str) -> str:
    """The text with the table of five rivals, from the committed measurements."""
    measured = rivals.load(RESULTS)
    assert measured is not None
    return RIVALS.sub(lambda match: f"{match[1]}{rivals.readme(measured)}", text)


def draw(out: Path) -> list[Path]:
    """Draw each figure that the README names."""
    files = []
    for name, runs in FIGURE.findall(README.read_text()):
        drawn = write_figure(Study(ROOT / runs), STUDY_FIGURES[name], out, ["svg"])
        files += [Path(file) for file in drawn["files"]]
    return files


if __name__ == "__main__":
    matplotlib.use("agg")
    text = with_rivals(with_verdicts(with_tables(README.read_text())))
    write_bytes(README, text.encode())
    draw(FIGURES)
