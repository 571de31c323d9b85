"""Figures 2 to 4: the conditioning of decorrelated BN under groups of treatments."""

from __future__ import annotations

from orthocond.report.figures.study_figure import StudyFigure
from orthocond.report.figures.training_figure import (
    describe,
    draw_training,
    finding,
    training_data,
)


def _figure(name: str, caption: str, *methods: str) -> StudyFigure:
    """Return the figure of some methods' curves; ``methods`` are in drawing order."""
    return StudyFigure(
        name,
        caption,
        data=lambda study: training_data(study, methods),
        draw=lambda data: draw_training(data, methods),
        alt=lambda data: describe(data.frame),
        finding=lambda data: finding(data.frame),
        methods=methods,
    )


FIGURES = (
    _figure(
        "fig2",
        "Figure 2: the covariance conditioning of decorrelated BN under the weight treatments.",
        *("svd", "svd+sn", "svd+ol", "svd+ow", "ns", "bn"),
    ),
    _figure(
        "fig3",
        "Figure 3: conditioning with orthogonal gradients, alone and with weight treatments.",
        *("svd", "svd+nog", "svd+nog+sn", "svd+nog+ol", "svd+nog+ow", "ns", "bn"),
    ),
    _figure(
        "fig4",
        "Figure 4: conditioning with the optimal learning rate, alone and in hybrids.",
        *("svd", "svd+olr", "svd+nog+olr", "svd+ow+olr", "svd+nog+ow+olr", "ns", "bn"),
    ),
)
