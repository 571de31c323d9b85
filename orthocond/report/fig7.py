"""Figure 7: the paper's ResNet-18 with global covariance pooling, for ImageNet."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from orthocond.report.scheme import describe_network, draw_network, network_data
from orthocond.report.study import Study


def data(study: Study) -> pd.DataFrame:
    """The network's steps; no runs are needed."""
    return network_data("gcp", "resnet18", classes=1000, size=224)


def draw(study: Study) -> Figure:
    """The figure, in the current theme."""
    return draw_network(data(study))


def alt(study: Study) -> str:
    """What the figure shows, in words."""
    return describe_network(data(study))
