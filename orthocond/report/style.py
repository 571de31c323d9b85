"""Style of figures: colour, dash pattern and marker per method, for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.colors import to_hex, to_rgb

from orthocond.config.methods import SOLVERS, Method

COLUMN = 3.5  # inches: the width of one column of a paper, and of a phone screen
INK, PAPER = "#1a1a1a", "#ffffff"
DARK_INK, DARK_PAPER = "#e6e6e6", "#121212"
BLUE, ORANGE, GREEN, RED, PINK, BROWN, _, GREY, _, SKY = sns.color_palette("colorblind").as_hex()
WINE = (
    "#882255"  # from Paul Tol's palette "muted", in place of seaborn's colours too pale for lines
)
SMALL = 7  # points: the smallest text of a figure of one column, 9 pixels on a phone

INK_SHARE = 0.2  # fraction of ink in each colour: pale colours need it on white

SOLID: tuple[float, ...] = ()
DASHED, DOTTED, DASHDOT = (4, 1.6), (1, 1.4), (5, 1.4, 1, 1.4)
LONG, DASHDOTDOT = (8, 2), (5, 1.4, 1, 1.4, 1, 1.4)


@dataclass(frozen=True)
class Style:
    """Look of a line, which sets it apart from other lines with and without colour."""

    color: str | None  # None: the page's ink
    dashes: tuple[float, ...]
    marker: str


STYLES = {
    "svd": Style(None, SOLID, ""),
    "ns": Style(WINE, DASHED, "x"),
    "bn": Style(GREY, DOTTED, ""),
    "gap": Style(GREY, DOTTED, ""),
    "svd+sn": Style(BROWN, DASHDOTDOT, "v"),
    "svd+ol": Style(PINK, DASHED, "d"),
    "svd+ow": Style(GREEN, DASHDOT, "s"),
    "svd+nog": Style(BLUE, SOLID, "o"),
    "svd+olr": Style(ORANGE, DASHDOT, "^"),
    "svd+nog+sn": Style(BROWN, DASHED, "v"),
    "svd+nog+ol": Style(PINK, DOTTED, "d"),
    "svd+nog+ow": Style(SKY, LONG, "s"),
    "svd+nog+olr": Style(SKY, DASHED, "^"),
    "svd+ow+olr": Style(GREEN, DASHDOTDOT, "s"),
    "svd+nog+ow+olr": Style(RED, SOLID, "D"),
    "svd+ow-stiefel": Style(GREEN, DOTTED, "p"),
    "svd+ow-conv": Style(GREEN, DASHED, "h"),
    "svd+polargrad": Style(BLUE, DASHED, "P"),
    "svd+muon": Style(BLUE, DOTTED, "X"),
    "svd+olr-newton": Style(ORANGE, DASHED, ">"),
    "svd+olr-exact": Style(ORANGE, DOTTED, "<"),
    "svd+nog+ow+olr-exact": Style(RED, DASHED, "D"),
    "svd+ow+slow": Style(GREEN, LONG, "8"),
    "svd+rescale": Style(BLUE, LONG, "H"),
    "svd+slow": Style(SKY, SOLID, "*"),
    "svd+nog+ow+slow": Style(SKY, DOTTED, "s"),
}
"""Styles of methods. Methods of one figure differ in colour, and in dashes or marker as well."""

OTHER = Style(PINK, DASHDOTDOT, "*")
"""Style of methods that have no style of their own."""


def page_color(color: str | None) -> str:
    """Mix a colour with the page's ink, for contrast; None stands for the ink itself."""
    ink = mpl.rcParams["text.color"]
    pairs = zip(to_rgb(color or ink), to_rgb(ink), strict=True)
    red, green, blue = ((1 - INK_SHARE) * a + INK_SHARE * b for a, b in pairs)
    return to_hex((red, green, blue))


def line_style(method: str) -> dict[str, Any]:
    """Return the keyword arguments of ``Axes.plot`` for a method, equal in every figure.

    Example:
        >>> line_style("svd+nog")["marker"]
        'o'
    """
    style = STYLES.get(method, OTHER)
    return {
        "color": page_color(style.color),
        "linestyle": (0, style.dashes) if style.dashes else "-",
        "marker": style.marker,
        "markersize": 3,
        "markerfacecolor": mpl.rcParams["axes.facecolor"],
    }


def label(method: str) -> str:
    """Return a canonical method's name as figures and tables write it.

    Example:
        >>> label("svd+nog+ow")
        'SVD + NOG + OW'
    """
    solver, *treatments = method.split("+")
    return Method(solver, tuple(treatments)).label if solver in SOLVERS else method


def short_label(method: str) -> str:
    """Return the treatments of a method, for figures in which every treatment is of plain SVD.

    Example:
        >>> short_label("svd+nog+ow"), short_label("svd")
        ('NOG + OW', 'SVD')
    """
    return label(method).removeprefix("SVD + ")


@contextmanager
def theme(dark: bool = False) -> Iterator[None]:
    """Set fonts, sizes and colours for figures that are drawn inside the context.

    Args:
        dark: use light ink on the background colour of dark pages.
    """
    ink, paper = (DARK_INK, DARK_PAPER) if dark else (INK, PAPER)
    colors = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
    ) | dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), paper)
    settings: Any = {
        **sns.axes_style("ticks"),
        **colors,
        "font.size": 8,
        "font.family": ["DejaVu Sans"],  # part of matplotlib: looks the same everywhere
        "mathtext.fontset": "dejavusans",
        "axes.labelsize": 8,
        "axes.titlesize": 8,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "lines.linewidth": 1.3,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.07,
        "figure.dpi": 150,
    }
    with mpl.rc_context(settings):
        yield
