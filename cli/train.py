"""``orthocond train``: a grid of runs, from images to run directories."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from orthocond.grid import Planned, Result, Session


def train(
    preset: Annotated[
        str | None, typer.Option(help="Settings that ship with the package, such as quick.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings, read after the preset.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="dbn (decorrelated batch norm) or gcp (covariance pooling).")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="svd, ns, bn, gap, or treatments such as nog+ow+olr; repeat for more."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="leaves, cifar10, cifar100, fashion-mnist, folder:PATH or imagenet:PATH."
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Such as 0, 0-4 or 0,2,5-7.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any setting, as key=value: epochs=3, data.classes=20."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The study's folder: runs/NAME.")] = None,
    num_processes: Annotated[
        int | None, typer.Option(min=1, help="Start this many processes on this machine.")
    ] = None,
    nodes: Annotated[
        int, typer.Option(min=1, help="Machines of one run, each with --num-processes.")
    ] = 1,
    rendezvous: Annotated[
        str | None,
        typer.Option(help="HOST:PORT of one of the --nodes, which all get the same command."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait for a process that is lost.")
    ] = 600,
    track: Annotated[
        str | None, typer.Option(help="tensorboard: also log there, under OUT/tensorboard.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="slurm: submit what is missing there, one array task a run."),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(help="What each task asks Slurm for, such as gres=gpu:1; repeat for more."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what each run would do, and stop.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
) -> int:
    """Train a grid of methods and seeds.

    What is complete is skipped, what was interrupted is resumed, and a run that diverges is kept
    while the others go on. Settings come from the defaults, the preset, the file, the flags and
    --set, each overriding the one before.

    Example: orthocond train --preset quick --method svd --method nog+ow+olr --seeds 0-2
    """
    from orthocond.config import resolve

    flags: dict[str, Any] = {"task": task, "methods": method, "seeds": seeds}
    flags = {name: value for name, value in flags.items() if value is not None}
    if data is not None:
        flags["data"] = {"name": data}
    grid = resolve(preset, config, flags, set_ or [])
    study = out or Path("runs") / (preset or "local")
    if track is not None:
        from orthocond.tracking import require_tracker

        require_tracker(track)
    if sbatch and cluster is None:
        raise typer.BadParameter("--sbatch is for --cluster slurm")
    if cluster is not None:
        if cluster != "slurm":
            raise typer.BadParameter(f"unknown cluster {cluster!r}: allowed is slurm")
        from .cluster import hand_over

        common = [f"--timeout={timeout:g}"]
        common += [f"--num-processes={num_processes}"] if num_processes else []
        common += [f"--track={track}"] if track else []
        hand_over(grid, study, sbatch or [], common, nodes, dry_run)
        return 0
    if (nodes > 1) != (rendezvous is not None):
        raise typer.BadParameter(
            "--nodes goes with --cluster slurm, or with the --rendezvous of all of them"
        )
    if rendezvous and not re.fullmatch(r"[^\s:]+:\d{1,5}", rendezvous):
        raise typer.BadParameter(f"--rendezvous {rendezvous!r}: expected HOST:PORT")

    from .launch import inside_launcher, launch

    processes = num_processes or 1
    if (processes > 1 or rendezvous) and not inside_launcher():
        return launch(processes, sys.argv[1:], nodes, rendezvous or "localhost:0", timeout)

    from orthocond.grid import Session

    session = Session(grid, study, timeout=timeout, tracker=track)
    if dry_run:
        plan = session.planned()
        if session.is_main:
            _print_plan(plan, as_json)
        return 0
    results = _train_with_progress(session)
    if session.is_main:
        _print([_row(result) for result in results], as_json)
    if session.stop.signum:
        return 128 + session.stop.signum
    return int(any(result.status == "diverged" for result in results))


def _train_with_progress(session: Session) -> list[Result]:
    """Train, with a bar per run on the standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    results: list[Result] = []
    bars: dict[str, Any] = {}
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[about]}"),
        console=Console(stderr=True),
        disable=not session.is_main,
    )

    def report(planned: Planned, step: int, steps: int, about: str) -> None:
        name = planned.folder.name
        if name not in bars:
            progress.start()  # not before: a grid that is refused prints its one line only
            bars[name] = progress.add_task(name, total=steps, about="")
        progress.update(bars[name], completed=step, about=about)

    try:
        for result in session.train(report):
            results.append(result)
    finally:
        if bars:
            progress.stop()
    return results


def _print_plan(plan: list[Planned], as_json: bool) -> None:
    """The settings that all runs share, and what each of them would do."""
    settings = plan[0].settings
    shared = {key: settings[key] for key in settings if key not in ("method", "seed")}
    rows = [
        {
            "run": planned.folder.name,
            "method": planned.config.method,
            "seed": planned.config.seed,
            "would": planned.action,
        }
        for planned in plan
    ]
    if as_json:
        typer.echo(json.dumps({"settings": shared, "runs": rows}, indent=2))
        return
    typer.echo(json.dumps(shared, indent=2))
    _print(rows, as_json)


def _row(result: Result) -> dict[str, Any]:
    summary = result.summary or {}
    names = ("top1", "recalibrated_top1", "failures", "steps")
    return {"run": result.name, "status": result.status, **{n: summary.get(n) for n in names}}


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from tabulate import tabulate

    typer.echo(tabulate(rows, headers="keys", floatfmt=".2f", missingval="-"))
