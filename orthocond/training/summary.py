"""Summary of a run, from its tables; it has no times, so that equal runs have equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from types import MappingProxyType
from typing import Any

from orthocond.artifacts.csv_tables import Rows
from orthocond.spectral.conditioning import MEASURED

SUMMARIZED = tuple(field for field in MEASURED if field not in ("stable_rank", "lambda_max"))
LAST_PART = 0.1  # fraction of the steps: the conditioning is summarized over the last ones


def _late_conditioning(conditioning: Rows, steps: int) -> dict[str, float | None]:
    """Return medians over the last part of the steps, or the last record if none is in it.

    Steps count from 0, so a run of fewer than 10 steps has no step in the last tenth.
    """
    trained = [row for row in conditioning if row["phase"] == "train"]
    late = [row for row in trained if row["step"] >= (1 - LAST_PART) * steps] or trained[-1:]
    values = {f: [row[f] for row in late if row.get(f) is not None] for f in SUMMARIZED}
    return {f: median(found) if found else None for f, found in values.items()}


def summarize(
    config: dict[str, Any],
    tables: dict[str, Rows],
    status: str,
    steps: int,
    parameters: int,
    images: int | None = None,
    unfinished: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        config: resolved settings of the run.
        tables: rows of the run's metrics and conditioning tables.
        status: ``complete`` or ``diverged``.
        steps: number of optimizer steps taken.
        parameters: number of trained values in the network.
        images: number of training images, which can be less than the settings ask for.
        unfinished: ``failures`` and ``unrecovered`` since the last row of the metrics.

    Returns:
        Final accuracies and errors in percent (None if no epoch was finished, or if the task has
        no recalibration), failures in the whole run, and medians of the conditioning over the last
        tenth of the steps, or the last record where no probed step is in that tenth.
    """
    metrics = tables["metrics"]
    last = metrics[-1] if metrics else {}
    top1, again = last.get("eval_top1"), last.get("recalibrated_top1")
    return {
        "method": config["method"],
        "task": config["task"],
        "data": config["data"]["name"],
        "model": config["model"],
        "seed": config["seed"],
        "status": status,
        "train_images": images,
        "epochs": len(metrics),
        "steps": steps,
        "top1": top1,
        "top5": last.get("eval_top5"),
        "error": None if top1 is None else 100 - top1,
        "recalibrated_top1": again,
        "recalibrated_top5": last.get("recalibrated_top5"),
        "recalibrated_error": None if again is None else 100 - again,
        "failures": sum(row["failures"] for row in metrics) + unfinished.get("failures", 0),
        "unrecovered": sum(row["unrecovered"] for row in metrics)
        + unfinished.get("unrecovered", 0),
        "parameters": parameters,
        "conditioning": _late_conditioning(tables["conditioning"], steps),
    }
