"""Metrics of a run in TensorBoard, while it trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from orthocond.artifacts.csv_tables import Rows
from orthocond.errors import UserError

TRACKER = "tensorboard"

Log = Callable[[Rows], None]


def require_tracker(name: str) -> None:
    """Check that a tracker can be used, before anything is trained.

    Raises:
        UserError: there is no such tracker, or its package is missing.
    """
    if name != TRACKER:
        raise UserError(f"unknown tracker {name[:60]!r}: allowed is {TRACKER}")
    if find_spec(TRACKER) is None:
        raise UserError(f"the package {TRACKER} is missing: pip install {TRACKER}")


@contextmanager
def epoch_log(folder: Path, run: str) -> Iterator[Log]:
    """Log a run to TensorBoard, and replace any earlier log of it.

    Args:
        folder: folder for the logs of all runs.
        run: name of the run.

    Yields:
        A function that takes all rows of metrics.csv so far, and logs the rows that are new.
    """
    from accelerate.tracking import TensorBoardTracker

    # A resumed run logs all its rows again: purge_step makes TensorBoard drop the earlier ones.
    tracker = TensorBoardTracker(run, logging_dir=folder, purge_step=0)
    tracker.start()
    logged = 0

    def log(metrics: Rows) -> None:
        nonlocal logged
        for row in metrics[logged:]:
            numbers = {k: v for k, v in row.items() if v is not None and math.isfinite(v)}
            tracker.log(numbers, row["step"])
        logged = len(metrics)

    try:
        yield log
    finally:
        tracker.finish()
