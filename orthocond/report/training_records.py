"""Training curves of runs: one number per run, quantity and step.

The static figure (``figures/training_curves.py``) and the explorer of the book draw these records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.report.statistics import WIDE
from orthocond.report.studies.selection import Selection, shown_together
from orthocond.report.study import Study
from orthocond.report.style import STYLES, label


@dataclass(frozen=True)
class Quantity:
    """A quantity that is recorded during training.

    Args:
        column: its column in a table of a run.
        name: what axes and menus call it, with its unit.
        log: it spans orders of magnitude.
        probed: it is in ``conditioning.csv``, one row per probed step; otherwise in
            ``metrics.csv``, one row per epoch.
    """

    column: str
    name: str
    log: bool = False
    probed: bool = False


QUANTITIES = (
    Quantity("train_loss", "training loss"),
    Quantity("eval_loss", "test loss"),
    Quantity("recalibrated_loss", "test loss, recalibrated"),
    Quantity("train_top1", "training accuracy (%)"),
    Quantity("train_eval_top1", "training accuracy, evaluation mode (%)"),
    Quantity("eval_top1", "test accuracy (%)"),
    Quantity("recalibrated_top1", "test accuracy, recalibrated (%)"),
    Quantity("eval_top5", "test accuracy, top 5 (%)"),
    Quantity("train_penalty", "penalty added to the loss", log=True),
    Quantity("lr", "learning rate", log=True),
    Quantity("eta", "OLR's η, mean over the epoch"),
    Quantity("eta_used", "share of steps that take OLR's η"),
    Quantity("sv_max", "largest singular value of the weight", log=True),
    Quantity("sv_min", "smallest singular value of the weight", log=True),
    Quantity("failures", "failed decompositions"),
    Quantity("kappa", "κ as an SVD sees it", log=True, probed=True),
    Quantity("kappa_support", "κ on the support", log=True, probed=True),
    Quantity("kappa_common", "κ on the common support", log=True, probed=True),
    Quantity("rank", "rank of the covariance", probed=True),
    Quantity("effective_rank", "effective rank of the covariance", probed=True),
)
"""Quantities of ``metrics.csv`` and ``conditioning.csv``, in the order of the menus."""


@dataclass(frozen=True)
class Curves:
    """The runs of one method with one configuration.

    Args:
        method: canonical name.
        name: label, which also names the stem where it is wider than in the other runs.
        control: the stem is wider than in the other runs.
        runs: in the order of their seeds.
    """

    method: str
    name: str
    control: bool
    runs: tuple[Run, ...]


def selections(study: Study, task: str, name: str | None = None) -> list[Selection]:
    """Return the runs of a study, and those of its controls with a wide stem if it has any.

    Args:
        study: the runs.
        task: ``dbn`` or ``gcp``.
        name: name of the study; None takes the largest one of the task.

    Raises:
        MissingRuns: the task has no runs, or all of them diverged.
    """
    own = study.select(task, name=name)
    return shown_together(own, study.beside(own, stem_kernel=WIDE))


def curves_of(parts: Iterable[Selection]) -> Iterator[Curves]:
    """Yield each method of selections from ``selections``: the paper's methods in its order."""
    order = {method: place for place, method in enumerate(STYLES)}
    for place, part in enumerate(parts):
        suffix = f" ({WIDE}×{WIDE} stem)" if place else ""
        for method in sorted(part.runs, key=lambda m: order.get(m, len(order))):
            if part.runs[method]:
                yield Curves(method, label(method) + suffix, bool(place), part.runs[method])


def records(
    run: Run, quantities: Iterable[Quantity] = QUANTITIES, points: int | None = None
) -> dict[str, pd.Series]:
    """Return the recorded values of quantities by training step; none where there are blanks only.

    Args:
        run: the run; each of its tables is read once.
        quantities: some of ``QUANTITIES``. Probed quantities are those of the training phase.
        points: the most values of a probed quantity: every k-th record, and the last one. None
            returns all.

    Returns:
        Column of the quantity -> values without blanks; infinite ones stay infinite.
    """
    wanted = list(quantities)
    found = {}
    for probed in {quantity.probed for quantity in wanted}:
        table = run.conditioning if probed else run.metrics
        if probed:
            table = table[table["phase"] == "train"]
        table = table.set_index("step")
        for quantity in wanted:
            if quantity.probed == probed:
                values = table[quantity.column].dropna()
                found[quantity.column] = _thinned(values, points) if probed else values
    return found


def _thinned(values: pd.Series, points: int | None) -> pd.Series:
    if points is None or len(values) <= points:
        return values
    kept = np.linspace(0, len(values) - 1, points).round().astype(int)
    return values.iloc[kept]


def spread(series: Iterable[pd.Series]) -> pd.DataFrame:
    """Return median and range at each step: columns step, median, low, high, n.

    Args:
        series: values by step, one series per seed.
    """
    recorded = [values for values in series if len(values)]
    if not recorded:
        return pd.DataFrame(columns=["step", "median", "low", "high", "n"])
    steps = pd.concat(recorded).groupby(level=0)
    table = steps.agg(["median", "min", "max", "size"]).reset_index()
    return table.set_axis(["step", "median", "low", "high", "n"], axis="columns")
