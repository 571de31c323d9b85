"""``orthocond table``: the paper's tables beside the same numbers from a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def table(
    tables: Annotated[list[str], typer.Argument(help="overview, differences, tab1 to tab6, all.")],
    runs: Annotated[Path, typer.Option(help="A study, or a folder of studies.")] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="Write files there, and not to the standard output.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Only the runs on this data set.")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Only the rows of this method; may be repeated.")
    ] = None,
    format: Annotated[str, typer.Option(help="md, csv, latex or html.")] = "md",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> int:
    """Sum up a study, or put the paper's tables beside the same numbers from runs.

    The overview has a row a method: errors, rank and condition numbers; differences a row a
    contrast, at equal seeds, with its interval. In the paper's tables:
    mean and standard deviation over the seeds, minimum and count, with the moving averages first
    and recalibrated statistics beside them; the best of each column is marked.

    Examples: orthocond table overview --runs runs/cifar10-cpu --method svd --method nog;
    orthocond table tab1 tab4 --runs runs/cifar10-cpu --format latex
    """
    from orthocond.report.registry import TABLES, chosen
    from orthocond.report.render import to_records
    from orthocond.report.saving import build_all, write_table
    from orthocond.report.study import Study
    from orthocond.report.tables import only

    from .printing import print_json, print_skipped

    names = chosen("table", tables, TABLES)
    built, skipped = build_all(Study(runs, data), names, strict="all" not in tables)
    if method:
        built = {name: only(frame, method) for name, frame in built.items()}
    texts = {name: write_table(frame, name, out, format) for name, frame in built.items()}
    if as_json:
        records = {name: to_records(frame) for name, frame in built.items()}
        print_json({"tables": records, "skipped": skipped})
        return 0
    for text in texts.values():
        typer.echo(text)
    for name, frame in built.items():
        for command in frame.attrs["commands"]:
            typer.echo(f"{name}: not run here: {command}", err=True)
    print_skipped(skipped)
    return 0
