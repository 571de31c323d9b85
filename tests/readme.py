"""The figure and the table of the README, from the runs that they name: ``make readme``."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib

from orthocond.files import write_bytes
from orthocond.report.registry import TABLES
from orthocond.report.render import render
from orthocond.report.saving import plot
from orthocond.report.study import Study

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FIGURES = ROOT / "book/_static/readme"
TABLE = re.compile(r"(<!-- orthocond table (\w+) --runs (\S+) -->\n).*?(?=<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"<!-- orthocond plot (\w+) --runs (\S+) -->")


def with_tables(text: str) -> str:
    """The text with each table as the command above it prints it."""

    def table(match: re.Match[str]) -> str:
        command, name, runs = match.groups()
        return f"{command}\n{render(TABLES[name].build(Study(ROOT / runs)))}\n"

    return TABLE.sub(table, text)


def draw(out: Path) -> list[Path]:
    """Draw each figure that the README names."""
    files = []
    for name, runs in FIGURE.findall(README.read_text()):
        drawn = plot(Study(ROOT / runs), name, out, ["svg"])
        files += [Path(file) for file in drawn["files"]]
    return files


if __name__ == "__main__":
    matplotlib.use("agg")
    write_bytes(README, with_tables(README.read_text()).encode())
    draw(FIGURES)
