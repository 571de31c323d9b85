"""A figure that can be drawn from the runs of any study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from orthocond.report.provenance import Numbers
from orthocond.report.study import Study


@dataclass(frozen=True)
class StudyFigure:
    """A figure's caption, and the functions that compute, draw and describe it.

    ``data`` is called once; the other functions receive its result.

    Args:
        name: the stem of its files, such as ``fig2``.
        caption: one sentence that says what is shown.
        data: computes the numbers; raises ``MissingRuns`` where the study lacks them.
        draw: draws them in the current theme.
        alt: describes in words what the drawing shows, for readers who cannot see it.
        methods: the methods of the figure, in drawing order.
        finding: what to see in the drawing, computed from the numbers; it ends the caption.
    """

    name: str
    caption: str
    data: Callable[[Study], Numbers]
    draw: Callable[[Numbers], Figure]
    alt: Callable[[Numbers], str]
    methods: tuple[str, ...] = ()
    finding: Callable[[Numbers], str] = lambda _: ""
