"""The final figures of a run, from its tables: no times, so that equal runs end in equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from types import MappingProxyType
from typing import Any

from orthocond.tables import Table

FIELDS = ("kappa", "negative", "kappa_eps", "rank", "kappa_support", "effective_rank")
LAST_PART = 0.1  # of the steps: over these the conditioning is summarised


def _late_conditioning(conditioning: Table, steps: int) -> dict[str, float | None]:
    late = [
        row
        for row in conditioning
        if row["phase"] == "train" and row["step"] >= (1 - LAST_PART) * steps
    ]
    return {f: median(row[f] for row in late) if late else None for f in FIELDS}


def summarize(
    config: dict[str, Any],
    tables: dict[str, Table],
    status: str,
    steps: int,
    parameters: int,
    unfinished: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """What summary.json holds.

    Args:
        config: the resolved settings of the run.
        tables: its metrics and conditioning rows.
        status: ``complete`` or ``diverged``.
        steps: optimizer steps taken.
        parameters: trained numbers in the network.
        unfinished: ``failures`` and ``unrecovered`` since the last row of the metrics.

    Returns:
        Final accuracies and errors in percent (None where no epoch was finished, or where the task
        has no recalibration), failures over the whole run, and the conditioning's medians over the
        last tenth of the steps.
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
