"""``orthocond plot``: draw the paper's figures from the runs of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plot(
    figures: Annotated[
        list[str], typer.Argument(help="fig1 to fig7, effects, findings, curves, or all.")
    ],
    runs: Annotated[Path, typer.Option(help="A study, or a folder of studies.")] = Path("runs"),
    out: Annotated[Path, typer.Option(help="Folder for the files.")] = Path("figures"),
    data: Annotated[
        str | None, typer.Option(help="The data set, if the study has several.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Use only the runs of this study, if --runs has several.")
    ] = None,
    format: Annotated[list[str] | None, typer.Option(help="png, svg or pdf. Default: all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
) -> int:
    """Draw figures of the paper from runs, and write the data of each figure as CSV.

    Each figure has a version for light pages and a version for dark pages, named NAME-dark. The
    files name the runs, commits and configurations that the figure was drawn from. The standard
    error has each figure's caption and remarks.

    Example: orthocond plot fig2 fig3 --runs runs/cifar10-cpu --out figures
    """
    import matplotlib

    from orthocond.report.output import FIGURE_FORMATS, make_all, write_figure
    from orthocond.report.registry import EVERY_STUDY, FIGURES, chosen
    from orthocond.report.study import Study

    from .printing import print_further, print_json, print_skipped

    matplotlib.use("agg")
    names = chosen("figure", figures, FIGURES)
    formats = chosen("format", format or ["all"], FIGURE_FORMATS)
    own = Study(runs, data, study)
    made, skipped = make_all(
        names,
        lambda name: write_figure(own, FIGURES[name], out, formats),
        strict="all" not in figures,
    )
    if as_json:
        print_json({"figures": list(made.values()), "skipped": skipped})
        return 0
    for result in made.values():
        for file in result["files"]:
            typer.echo(file)
        for text in (result["caption"], result["note"], *result["remarks"], *result["commands"]):
            typer.echo(f"{result['name']}: {text}", err=True)
    print_further([] if study or made.keys() <= EVERY_STUDY else own.further)
    print_skipped(skipped)
    return 0
