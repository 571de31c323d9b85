"""``orthocond measure``: conditioning of runs, of a layer of any model, and the time of a step."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

FIELDS = (
    "kappa",
    "kappa_support",
    "rank",
    "structural_rank",
    "rank_tol",
    "negative",
    "kappa_eps",
    "effective_rank",
    "stable_rank",
    "lambda_max",
)
PHASES = ("forward", "backward", "update")
Report = Callable[[int, int], None]


def measure(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Runs, or studies of runs.", show_default=False)
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A torchvision model such as resnet18; with --timing one of our own."),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="The layer to measure, such as conv1 or layer1.0.bn1.")
    ] = None,
    side: Annotated[
        str,
        typer.Option(
            help="output: the covariance of what the layer puts out, for the layer before a "
            "normalization or a spectral layer. input: of what comes into it, for that layer "
            "itself. In resnet18 the output of conv1 is the input of bn1."
        ),
    ] = "output",
    per_sample: Annotated[
        bool,
        typer.Option(
            "--per-sample",
            help="One covariance an image, as covariance pooling takes it, not one a batch.",
        ),
    ] = False,
    data: Annotated[
        str,
        typer.Option(
            help="leaves, cifar10, cifar100, fashion-mnist, folder:PATH or imagenet:PATH."
        ),
    ] = "leaves",
    size: Annotated[
        int | None, typer.Option(min=1, help="Pixels of the square images; the data's own if not.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Weights of the model: safetensors, or a state dict of torch.save. A file that "
            "would run code is refused. Without it the weights are random."
        ),
    ] = None,
    batches: Annotated[int, typer.Option(min=1, help="Measure so many batches.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, help="Images in a batch.")] = 128,
    timing: Annotated[
        bool,
        typer.Option(
            "--timing", help="Milliseconds of a training step of each method beside plain BN."
        ),
    ] = False,
    task: Annotated[str, typer.Option(help="With --timing: dbn or gcp.")] = "dbn",
    method: Annotated[
        list[str] | None,
        typer.Option(help="With --timing: repeat for more; all of Table 6 if not."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(help="With --timing: steps of each method, 20 at least.")
    ] = 20,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="With --timing: a setting of the network, as key=value."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="With --timing: a folder that gets one timing.json a method."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; inf and nan are strings in it.")
    ] = False,
) -> int:
    """Measure how well conditioned covariances are, or how long a training step takes.

    Of RUNS it verifies every file and prints the median and the range of each field of their
    conditioning, in training and in evaluation; a run that is not complete is measured by its
    newest checkpoint. With --model and --layer it measures a layer of any torchvision model over
    images. With --timing it times methods in turns, as Table 6 does.

    Examples: orthocond measure runs/demo;
    orthocond measure --model resnet18 --layer conv1 --data folder:PATH --weights FILE;
    orthocond measure --timing --method svd --method nog+ow+olr --out runs/timing
    """
    asked = [bool(runs), model is not None and not timing, timing]
    if sum(asked) != 1:
        raise typer.BadParameter(
            "name one of: RUNS, --model with --layer, or --timing; see orthocond measure --help"
        )
    if runs:
        _measure_runs(runs, as_json)
    elif timing:
        flags = {"task": task, "model": model, "batch_size": batch_size, "size": size}
        _measure_time(flags, method, set_ or [], repeats, out, as_json)
    else:
        if model is None or layer is None:
            raise typer.BadParameter("--model needs --layer: which layer is measured?")
        _measure_model(
            model, layer, side, per_sample, data, size, weights, batches, batch_size, as_json
        )
    return 0


def _measure_runs(paths: list[Path], as_json: bool) -> None:
    from orthocond.measuring import measure_run, named_runs

    results = [measure_run(run) for run in named_runs(paths)]
    if as_json:
        _print_json(results)
        return
    for result in results:
        typer.echo(f"{result['run']}  {result['status']}, verified")
        _print_phases(result["phases"])


def _measure_model(
    name: str,
    layer: str,
    side: str,
    per_sample: bool,
    data: str,
    size: int | None,
    weights: Path | None,
    batches: int,
    batch_size: int,
    as_json: bool,
) -> None:
    import torch
    from pandas import DataFrame

    from orthocond.data import load_data
    from orthocond.measuring import by_phase, measure_layer
    from orthocond.zoo import torchvision_model

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = torchvision_model(name, weights).to(device)
    source = load_data(data, size=size)
    images = (batch.to(device) for batch, _ in source.eval_batches(batch_size))
    total = min(batches, math.ceil(source.eval_count / batch_size))
    with _progress(f"{name} {layer}") as report:
        records = measure_layer(network, layer, images, side, per_sample, total, report)
    phases = by_phase(DataFrame([record.row() for record in records]))
    kind = "weights of " + str(weights) if weights else "random weights"
    if as_json:
        about = {"model": name, "layer": layer, "side": side, "data": source.name}
        _print_json(about | {"size": source.size, "weights": kind, "phases": phases})
        return
    each = f"{records[0].samples} images each" if per_sample else f"of {batch_size} images"
    typer.echo(
        f"{side} of {layer} in {name} ({kind}), {records[0].median.dimension} channels, over "
        f"{source.name} at {source.size} pixels: {len(records)} batches {each}"
    )
    _print_phases(phases)


def _measure_time(
    flags: dict[str, Any],
    methods: list[str] | None,
    settings: list[str],
    repeats: int,
    out: Path | None,
    as_json: bool,
) -> None:
    import torch

    from orthocond.config import resolve
    from orthocond.environment import describe
    from orthocond.paper import TABLES
    from orthocond.timing import case_name, time_cases, timed_cases
    from orthocond.timings import write_timing

    size = flags.pop("size")
    given = {name: value for name, value in flags.items() if value is not None}
    config = resolve(
        None, None, given | ({"data": {"size": size}} if size else {}), settings
    ).config
    if methods is None:
        methods = [m for m in TABLES[6].rows if config.task == "dbn" or m != "bn"]
    cases = timed_cases(config, methods)
    for name in map(case_name, cases):
        if out is not None and (out / name).exists():
            raise typer.BadParameter(f"{str(out / name)!r} exists: remove it to measure again")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _progress("timing") as report:
        rows = time_cases(cases, device, repeats, report)
    for row in rows if out is not None else ():
        write_timing(out, row["case"], row, describe(device, config.precision, 1))
    if as_json:
        _print_json(rows)
        return
    from tabulate import tabulate

    first = rows[0]
    typer.echo(
        f"{first['task']} {first['model']}, {first['batch_size']} images of "
        f"{first['image_size']} pixels, {first['precision']}, {first['rounds']} rounds: median ms "
        f"[quartiles], ratio to {first['method']}"
    )
    typer.echo(tabulate([_time_row(row) for row in rows], headers="keys", disable_numparse=True))


def _time_row(row: dict[str, Any]) -> dict[str, str]:
    cells = {"method": row["method"]}
    for phase in PHASES:
        ms, ratio = row[f"{phase}_ms"], row["ratio"][phase]
        cells[phase] = f"{ms['median']:.2f} [{ms['q1']:.2f}, {ms['q3']:.2f}]  x{ratio:.3f}"
    return cells


def _print_phases(phases: dict[str, Any]) -> None:
    from tabulate import tabulate

    table = []
    for field in FIELDS:
        row = [field]
        for phase in phases.values():
            value = phase[field]
            ends = ("median", "min", "max")
            row += [_number(value[e]) for e in ends] if isinstance(value, dict) else [
                _number(value), "", "",
            ]  # fmt: skip
        table.append(row)
    headers = ["field"]
    for name, phase in phases.items():
        headers += [f"{name} ({phase['records']} records)", "min", "max"]
    typer.echo(tabulate(table, headers=headers, disable_numparse=True) if phases else "no records")
    typer.echo("")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(_finite(value), indent=2))


def _finite(value: Any) -> Any:
    """The value with inf and nan, which JSON does not have, as strings."""
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def _progress(name: str) -> Iterator[Report]:
    """A bar on the standard error, where a person looks at it."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
