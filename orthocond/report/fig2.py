"""Figure 2: the covariance conditioning of decorrelated BN under the weight treatments."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from orthocond.report.study import Study
from orthocond.report.training_figure import describe, draw_training, training_data

METHODS = ("svd", "svd+sn", "svd+ol", "svd+ow", "ns", "bn")


def data(study: Study) -> pd.DataFrame:
    """The curves, one row a method and probed step."""
    return training_data(study, METHODS)


def draw(study: Study) -> Figure:
    """The figure, in the current theme."""
    return draw_training(data(study), METHODS)


def alt(study: Study) -> str:
    """What the figure shows, in words."""
    return describe(data(study))
