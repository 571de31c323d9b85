"""Tasks: the networks that are trained, and how they differ for training and for reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from orthocond.errors import unknown


@dataclass(frozen=True)
class Task:
    """Everything that depends on the task of a run.

    Args:
        name: as in a configuration and in the names of run folders.
        label: for figures and tables.
        short_label: for titles of narrow panels and for sentences with both tasks.
        baseline: method without a spectral layer, which the other methods are compared with.
        pre_svd: name of the layer before the meta-layer; the treatments apply to it.
        meta_layer: name of the layer that decomposes the covariance of its input.
        image_size: pixels of an image's side that the small network is made for.
        per_sample: True if each sample has a covariance of its own, False if the batch has one.
        has_eps: True if the meta-layer adds ``eps`` to the covariance's diagonal.
        has_groups: True if the meta-layer can split its channels into ``groups``.
        has_gamma: True if the meta-layer scales its output by a trained gamma.
        wide_stem: True if the network also exists with a wider first convolution
            (``stem_kernel``).

    Example:
        >>> TASKS["gcp"].solvers
        ('svd', 'ns', 'gap')
    """

    name: str
    label: str
    short_label: str
    baseline: str
    pre_svd: str
    meta_layer: str
    image_size: int
    per_sample: bool
    has_eps: bool
    has_groups: bool
    has_gamma: bool
    wide_stem: bool

    @property
    def running_statistics(self) -> bool:
        """True if the meta-layer evaluates with moving averages of the covariance of a batch.

        Recalibration can replace them by population statistics.
        """
        return not self.per_sample

    @property
    def solvers(self) -> tuple[str, str, str]:
        """Solvers that the network can be built with, the baseline last."""
        return ("svd", "ns", self.baseline)


DBN = Task(
    name="dbn",
    label="decorrelated BN",
    short_label="decorrelated BN",
    baseline="bn",
    pre_svd="conv1",
    meta_layer="bn1",
    image_size=32,
    per_sample=False,
    has_eps=True,
    has_groups=True,
    has_gamma=True,
    wide_stem=True,
)
GCP = Task(
    name="gcp",
    label="global covariance pooling",
    short_label="GCP",
    baseline="gap",
    pre_svd="avgpool.reduction",
    meta_layer="avgpool.root",
    image_size=64,
    per_sample=True,
    has_eps=False,
    has_groups=False,
    has_gamma=False,
    wide_stem=False,
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in (DBN, GCP)})
"""Name of each task: the task. The first one is the default."""


def find_task(name: str) -> Task:
    """Return the task of a name.

    Raises:
        UserError: there is no such task.

    Example:
        >>> find_task("dbn").label
        'decorrelated BN'
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]
