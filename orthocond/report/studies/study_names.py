"""Names of studies: by folder, and within one folder by data set and regime."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_search import study_of


class Kind(NamedTuple):
    """Data set and regime of a run: the training images (None: all) and the epochs."""

    data: str
    images: int | None
    epochs: int


def kind_of(run: Run) -> Kind:
    """Return the data set and the regime of a run."""
    data = run.settings["data"]
    return Kind(data["name"], data["train_images"], run.settings["epochs"])


def _suffix(kind: Kind, others: set[Kind]) -> str:
    """Return the part of a name that tells the kinds of one folder apart."""
    if len(others) == 1:
        return ""
    if sum(other.data == kind.data for other in others) == 1:
        return f"/{kind.data}"
    images = "all" if kind.images is None else kind.images
    return f"/{kind.data}-{images}-images-{kind.epochs}-epochs"


def study_names(runs: Iterable[Run]) -> dict[Path, str]:
    """Return the name of the study that each run belongs to, by the path of the run.

    A study is named after its folder; folders of one name are one study. If a folder has runs of
    one task on several data sets, or of several regimes on one data set, each of them is a study:
    ``mine/cifar10``, ``mine/cifar10-4992-images-45-epochs``.

    Args:
        runs: complete runs, such as all runs in a folder of studies.
    """
    runs = list(runs)
    folders = {run.path: study_of(run) for run in runs}
    kinds: dict[tuple[str, str], set[Kind]] = defaultdict(set)
    for run in runs:
        kinds[folders[run.path], run.config["task"]].add(kind_of(run))
    return {
        run.path: folders[run.path]
        + _suffix(kind_of(run), kinds[folders[run.path], run.config["task"]])
        for run in runs
    }
