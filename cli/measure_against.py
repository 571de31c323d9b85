"""``orthocond measure against``: retrain a recorded run and print how far its figures are."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from orthocond.artifacts.atomic_files import require_writable, write_bytes
from orthocond.artifacts.run_reader import Run
from orthocond.measure.receipt import as_markdown, as_record
from orthocond.measure.reproduction import Reproduction, seeds_beside
from orthocond.measure.retraining import retrain
from orthocond.training.signals import Interrupted, StopSignal

from .printing import print_json, progress


def measure_against(
    path: Path,
    data: str | None,
    epochs: float | None,
    out: Path | None,
    receipt: Path | None,
    as_json: bool,
) -> int:
    """Retrain a run, print its receipt, and return 0 if it reproduces, else 1."""
    run = Run(path)
    run.verify()
    seeds = seeds_beside(run)  # before hours of training: a damaged run beside it is an error
    if receipt is not None:
        require_writable(receipt)
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(TemporaryDirectory(prefix="orthocond-")))
        stop = stack.enter_context(StopSignal().installed())
        report = stack.enter_context(progress(run.name))
        try:
            retrained = retrain(run, folder, data, epochs, stop, report)
        except Interrupted as stopped:
            kept = f"the same command resumes it from {str(out)!r}" if out else "nothing is kept"
            name = signal.Signals(stopped.signum).name
            typer.echo(f"orthocond: stopped by {name}: {kept}", err=True)
            return 128 + stopped.signum
        reproduction = Reproduction(run, retrained, seeds)
        text = as_markdown(reproduction)
        if as_json:
            print_json(as_record(reproduction))
        else:
            typer.echo(text, nl=False)
    if receipt is not None:
        write_bytes(receipt, text.encode())
    return 0 if reproduction.verdict.reproduces else 1
