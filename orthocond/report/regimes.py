"""Regime of a study: the accuracies of plain SVD at the end of training, images and steps.

A treatment that acts on generalisation can only show where a network has a generalisation gap. So
each study says how far plain SVD fits its training images, and how much of this the test images
show.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orthocond.artifacts.run_reader import Run
from orthocond.config.methods import PLAIN
from orthocond.report.commands import MissingRuns
from orthocond.report.studies.selection import Selection
from orthocond.report.study import Study
from orthocond.report.style import label


def final_accuracies(run: Run) -> tuple[float, float]:
    """Return top-1 on training and on test images in percent, in the last row of the metrics.

    Training: in evaluation mode (``train_eval_top1``), or while training in a run without this
    column. Test: with recalibrated statistics, or as evaluated where nothing is recalibrated. Both
    are NaN in a run without an epoch.
    """
    if run.metrics.empty:
        return np.nan, np.nan
    last = run.metrics.iloc[-1]

    def first(*columns: str) -> float:
        return float(next((last[c] for c in columns if pd.notna(last[c])), np.nan))

    return (
        first("train_eval_top1", "train_top1"),
        first("recalibrated_top1", "eval_top1"),
    )


def train_images(run: Run) -> int | None:
    """Return the number of training images.

    Runs of earlier versions did not record it; they have the number that their settings ask for,
    or None, which stands for all images of the data set.
    """
    recorded: int | None = run.summary.get("train_images")
    return recorded or run.settings["data"]["train_images"]


def gap(run: Run) -> float:
    """Return the generalisation gap: training minus test accuracy at the end, in points."""
    train, test = final_accuracies(run)
    return train - test


@dataclass(frozen=True)
class Regime:
    """The regime of a study, from the runs of one method.

    Args:
        study: name of the study.
        data: name of the data set.
        method: canonical name; plain SVD where it was run.
        train, test: mean of ``final_accuracies`` over the seeds, in percent.
        images: number of training images; None stands for all images of the data set.
        steps: number of steps of a run.
        seeds: number of runs.
        evaluated: the training accuracy was measured in evaluation mode.
    """

    study: str
    data: str
    method: str
    train: float
    test: float
    images: int | None
    steps: int
    seeds: int
    evaluated: bool

    @property
    def gap(self) -> float:
        """Training minus test accuracy, in points."""
        return self.train - self.test

    @property
    def line(self) -> str:
        """The regime in words.

        Example:
            >>> Regime("mine", "leaves", "svd", 84.5, 67.8, 4992, 1755, 3, True).line
            'mine: SVD ends with 84.5% train and 67.8% test accuracy (gap 16.7 points), on 4,992 training images in 1,755 steps'
        """  # noqa: E501
        mode = "" if self.evaluated else " (while training)"
        images = "all" if self.images is None else f"{self.images:,}"
        return (
            f"{self.study}: {label(self.method)} ends with {self.train:.1f}% train{mode} and "
            f"{self.test:.1f}% test accuracy (gap {self.gap:.1f} points), on {images} training "
            f"images in {self.steps:,} steps"
        )


def regime(selection: Selection) -> Regime | None:
    """Return the regime of a selection, from its runs of plain SVD.

    Without such runs it is that of the first method with runs, and None where no method has any.
    """
    methods = [PLAIN, *selection.runs]
    method = next((m for m in methods if selection.runs.get(m)), None)
    if method is None:
        return None
    runs = selection.runs[method]
    train, test = np.mean([final_accuracies(run) for run in runs], axis=0)
    return Regime(
        selection.study,
        selection.data,
        method,
        float(train),
        float(test),
        train_images(runs[0]),
        max(int(run.summary["steps"]) for run in runs),
        len(runs),
        all(pd.notna(run.metrics["train_eval_top1"].iloc[-1]) for run in runs),
    )


def regime_lines(selections: Iterable[Selection]) -> list[str]:
    """Return the line of each study that selections belong to, once."""
    lines = {}
    for selection in selections:
        if selection.study not in lines and (own := regime(selection)):
            lines[selection.study] = own.line
    return list(lines.values())


def regimes(study: Study, task: str) -> dict[str, Regime]:
    """Return the regime of every study of a task, by name; studies without runs are left out."""
    found = {}
    for name in study.names(task):
        try:
            own = regime(study.select(task, name=name))
        except MissingRuns:
            continue
        if own:
            found[name] = own
    return found
