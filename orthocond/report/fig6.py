"""Figure 6: the paper's ResNet-50 with decorrelated batch norm, for CIFAR100."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from orthocond.report.scheme import describe_network, draw_network, network_data
from orthocond.report.study import Study


def data(study: Study) -> pd.DataFrame:
    """The network's steps; no runs are needed."""
    return network_data("dbn", "resnet50", classes=100, size=32)


def draw(study: Study) -> Figure:
    """The figure, in the current theme."""
    return draw_network(data(study))


def alt(study: Study) -> str:
    """What the figure shows, in words."""
    return describe_network(data(study))
