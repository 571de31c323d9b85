"""``orthocond table``: print the paper's tables next to the same numbers from a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def table(
    tables: Annotated[
        list[str],
        typer.Argument(help="overview, differences, tab1 to tab6, regimes, findings, or all."),
    ],
    runs: Annotated[Path, typer.Option(help="A study, or a folder of studies.")] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for files. Default: print to the standard output.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Use only the runs on this data set.")] = None,
    study: Annotated[
        str | None, typer.Option(help="Use only the runs of this study, if --runs has several.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Show only the rows of this method, in findings its columns; may be repeated."
        ),
    ] = None,
    format: Annotated[str, typer.Option(help="md, csv, latex or html.")] = "md",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> int:
    """Summarize a study, or print the paper's tables next to the same numbers from runs.

    The table overview has one row per method: errors, rank and condition numbers. The table
    differences has one row per contrast: the difference at equal seeds, with its interval. Where
    both tasks have runs, there is one overview and one table of differences for each. The table
    regimes has one row per study: train and test accuracy, images and steps. The table
    findings has one row per study: the effect of each treatment on the error. The paper's tables
    show the mean, standard deviation, minimum and count over the seeds, first with moving averages
    and then with recalibrated statistics. The best value of each column is marked.

    Examples: orthocond table overview --runs runs/cifar10-cpu --method svd --method nog;
    orthocond table tab1 tab4 --runs runs/cifar10-cpu --format latex; orthocond table tab4 --study
    cifar10-few
    """
    from orthocond.report.output import write_table
    from orthocond.report.registry import EVERY_STUDY, TABLES, chosen, make_tables
    from orthocond.report.study import Study
    from orthocond.report.tables.render import to_records

    from .printing import print_further, print_json, print_skipped

    names = chosen("table", tables, TABLES)
    own = Study(runs, data, study)
    built, skipped = make_tables(own, names, method or None, strict="all" not in tables)
    texts = {name: write_table(table, name, out, format) for name, table in built.items()}
    if as_json:
        records = {name: to_records(table) for name, table in built.items()}
        print_json({"tables": records, "skipped": skipped})
        return 0
    for text in texts.values():
        typer.echo(text)
    for name, table in built.items():
        for command in table.provenance.commands:
            typer.echo(f"{name}: not run here: {command}", err=True)
    print_further([] if study or built.keys() <= EVERY_STUDY else own.further)
    print_skipped(skipped)
    return 0
