"""Sphinx extension: a line at the top of each page if the book is built from other runs.

``kit.study_text`` replaces the sentences that do not hold for them. Other text has no check.
"""

import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

LINE = (
    "Built from the runs in {folders}. Text that is not computed from runs was written about the "
    "committed runs."
)


def announce(app: Sphinx, config: Config) -> None:
    """Name the folders of runs in the announcement of the theme."""
    sys.path.insert(0, str(Path(app.srcdir)))
    import kit  # here: the path of the book is known only now

    if not kit.of_committed_runs():
        folders = ", ".join(map(str, kit.folders()))
        config.html_theme_options |= {"announcement": LINE.format(folders=folders)}


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the event."""
    app.connect("config-inited", announce)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
