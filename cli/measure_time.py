"""``orthocond measure time``: print how long a training step of each method takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from tabulate import tabulate

from orthocond.artifacts.atomic_files import require_writable
from orthocond.artifacts.timing_artifacts import write_timing
from orthocond.config.methods import Method
from orthocond.config.sources import resolve
from orthocond.config.tasks import TASKS
from orthocond.errors import UserError, memory_short
from orthocond.measure.step_time import case_name, time_cases, timed_cases
from orthocond.report.paper import PAPER_TABLES
from orthocond.training.accelerator import make_accelerator
from orthocond.training.environment import describe

from .printing import print_json, progress

SHOWN = ("forward", "backward", "update")


@memory_short("lower --batch-size or --size")
def measure_time(
    flags: dict[str, Any],
    methods: list[str] | None,
    settings: list[str],
    repeats: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Time a training step of each method, print the times, and store them in ``out`` if given."""
    config = resolve(None, None, flags, settings).config
    if methods is None:
        solvers = TASKS[config.task].solvers
        methods = [m for m in PAPER_TABLES[6].rows if Method.parse(m).solver in solvers]
    cases = timed_cases(config, methods)
    for name in map(case_name, cases):
        if out is not None and (out / name).exists():
            raise UserError(
                f"there is a timing {str(out / name)!r} already: remove it to measure again"
            )
    if out is not None:
        require_writable(out / case_name(cases[0]))
    accelerator = make_accelerator(config.precision)
    with progress("timing") as report:
        rows = time_cases(cases, accelerator, repeats, report)
    if out is not None:
        for row in rows:
            environment = describe(accelerator.device, config.precision, 1)
            write_timing(out, row["case"], row, environment)
    if as_json:
        print_json(rows)
        return
    first = rows[0]
    typer.echo(
        f"{first['task']} {first['model']}, {first['batch_size']} images of "
        f"{first['image_size']} pixels, {first['precision']}, {first['rounds']} rounds: median ms "
        f"[quartiles], ratio to {first['method']}"
    )
    typer.echo(tabulate([_cells(row) for row in rows], headers="keys", disable_numparse=True))


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Return the printed cells of one method: median, quartiles and ratio of each span."""
    cells = {"method": row["method"]}
    for span in SHOWN:
        ms, ratio = row[f"{span}_ms"], row["ratio"][span]
        cells[span] = f"{ms['median']:.2f} [{ms['q1']:.2f}, {ms['q3']:.2f}]  x{ratio:.3f}"
    return cells
