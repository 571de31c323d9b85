"""``orthocond train``: train a grid of runs and write one run folder each."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from orthocond.training.session import Planned, Result, Session


Preset = Annotated[
    str | None, typer.Option(help="Settings that ship with orthocond, such as quick.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file of settings, read after the preset.")
]
Task = Annotated[
    str | None, typer.Option(help="dbn (decorrelated batch norm) or gcp (covariance pooling).")
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        help="svd, ns, bn, gap, or treatments such as nog+ow+olr; may be repeated.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(help="leaves, cifar10, cifar100, fashion-mnist, folder:PATH or imagenet:PATH."),
]
Seeds = Annotated[str | None, typer.Option(help="Seeds of the runs, such as 0, 0-4 or 0,2,5-7.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting, as key=value, such as epochs=3 or data.classes=20; may be repeated.",
    ),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of the study. Default: runs/PRESET, or runs/local.")
]
Processes = Annotated[
    int | None, typer.Option(min=1, help="Number of processes to start on this machine.")
]
Nodes = Annotated[
    int, typer.Option(min=1, help="Machines that train each run, with --num-processes on each.")
]
Rendezvous = Annotated[
    str | None,
    typer.Option(
        help="HOST:PORT of one of the --nodes, where they meet. All get the same command."
    ),
]
Timeout = Annotated[
    float,
    typer.Option(min=1, max=31_536_000, help="Seconds to wait for a process that does not answer."),
]
Track = Annotated[
    str | None, typer.Option(help="tensorboard: also log there, under OUT/tensorboard.")
]
Cluster = Annotated[
    str | None, typer.Option(help="slurm: submit the missing runs as an array, one task per run.")
]
Sbatch = Annotated[
    list[str] | None,
    typer.Option(help="Option of sbatch for each task, such as gres=gpu:1; may be repeated."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done for each run, and stop.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print results as JSON.")]


def train(
    preset: Preset = None,
    config: ConfigFile = None,
    task: Task = None,
    method: Methods = None,
    data: Data = None,
    seeds: Seeds = None,
    set_: Settings = None,
    out: Out = None,
    num_processes: Processes = None,
    nodes: Nodes = 1,
    rendezvous: Rendezvous = None,
    timeout: Timeout = 600,
    track: Track = None,
    cluster: Cluster = None,
    sbatch: Sbatch = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> int:
    """Train a grid of methods and seeds.

    Complete runs are skipped, interrupted runs are resumed, and a run that diverges is kept while
    the other runs continue. Settings come from the defaults, the preset, the file, the flags and
    --set. Each source overrides the sources before it.

    Example: orthocond train --preset quick --method svd --method nog+ow+olr --seeds 0-2
    """
    from orthocond.config.sources import resolve

    flags: dict[str, Any] = {"task": task, "methods": method, "seeds": seeds}
    flags = {name: value for name, value in flags.items() if value is not None}
    if data is not None:
        flags["data"] = {"name": data}
    grid = resolve(preset, config, flags, set_ or [])
    study = out or Path("runs") / (preset or "local")
    _require_options_that_fit(track, cluster, sbatch, nodes, rendezvous, as_json)
    if cluster is not None:
        from .cluster import hand_over

        common = [f"--timeout={timeout:g}"]
        common += [f"--track={track}"] if track else []
        hand_over(grid, study, sbatch or [], common, nodes, num_processes or 1, dry_run)
        return 0

    from .launch import inside_launcher, launch, require_started

    processes = num_processes or 1
    if num_processes and inside_launcher():
        require_started(num_processes)
    if (processes > 1 or rendezvous) and not inside_launcher():
        return launch(processes, sys.argv[1:], nodes, rendezvous or "localhost:0", timeout)

    from orthocond.training.session import Session

    return _train_here(Session(grid, study, timeout=timeout, tracker=track), dry_run, as_json)


def _require_options_that_fit(
    track: str | None,
    cluster: str | None,
    sbatch: list[str] | None,
    nodes: int,
    rendezvous: str | None,
    as_json: bool,
) -> None:
    """Raise where a tracker or cluster is unknown, or an option would have no effect.

    Raises:
        UserError: the tracker is unknown or not installed.
        typer.BadParameter: the cluster is unknown, or options contradict each other.
    """
    if track is not None:
        from orthocond.training.tracking import require_tracker

        require_tracker(track)
    if sbatch and cluster is None:
        raise typer.BadParameter("--sbatch is for --cluster slurm")
    if cluster is not None:
        if cluster != "slurm":
            raise typer.BadParameter(f"unknown cluster {cluster!r}: allowed is slurm")
        if rendezvous:
            raise typer.BadParameter("--rendezvous: with --cluster slurm the script chooses it")
        if as_json:
            raise typer.BadParameter("--json prints results, and --cluster slurm has none yet")
        return
    if (nodes > 1) != (rendezvous is not None):
        raise typer.BadParameter(
            "--nodes goes with --cluster slurm, or with the --rendezvous of all of them"
        )
    place = re.fullmatch(r"[^\s:]+:(\d{1,5})", rendezvous or "host:1", re.ASCII)
    if place is None or not 1 <= int(place[1]) <= 65_535:
        raise typer.BadParameter(
            f"--rendezvous {rendezvous!r}: expected HOST:PORT, with a port from 1 to 65535"
        )


def _train_here(session: Session, dry_run: bool, as_json: bool) -> int:
    """Train the grid of a session, or show its plan, and return the exit code."""
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
    """Train all runs, with one progress bar per run on the standard error."""
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
            progress.start()  # only now: if the grid is refused, its error is the only line
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
    """Print the settings that all runs share, and what would be done for each run."""
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
    """Return the fields of a result that are printed."""
    summary = result.summary or {}
    names = ("top1", "recalibrated_top1", "failures", "steps")
    return {"run": result.name, "status": result.status, **{n: summary.get(n) for n in names}}


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as JSON."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from tabulate import tabulate

    typer.echo(tabulate(rows, headers="keys", floatfmt=".2f", missingval="-"))
