"""Sphinx extension: the built book loads nothing from other hosts.

MathJax comes from the package sphinx-mathjax-offline, which contains the released files of MathJax
3.2.2. Only the files that a page can load are copied. MathJax's right-click menu is off, because
it would offer parts that are not copied. Vega, which draws the chart of the explorer, comes from
the package vl-convert-python; only that page loads it. The other scripts that Jupyter Book loads
from the network (require.js with the widget manager, and thebe) serve interactive notebooks; this
book has none.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import vl_convert
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

VEGA_LITE = "6.1"  # 6.4 writes "undefined" for the text in a tooltip of the nearest point
PARTS = ["tex-chtml.js", "input/tex/extensions", "output/chtml/fonts"]


def mathjax_folder() -> Path:
    spec = find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise ExtensionError("MathJax is missing: pip install '.[book]'")
    return Path(spec.origin).parent / "static" / "mathjax"


def copy_mathjax(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    source, target = mathjax_folder(), Path(app.outdir) / "_static" / "mathjax"
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / part, target / part)


def write_vega(app: Sphinx) -> None:
    if app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    # In a function: its global names would clash with those of other scripts.
    script = vl_convert.javascript_bundle(vl_version=VEGA_LITE)
    (static / "vega.js").write_text(f"(() => {{{script}}})();")


def local_scripts_only(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{script} {dict(getattr(script, 'attributes', {}))}"
    ]


def configure(app: Sphinx, config: Any) -> None:
    config.mathjax_path = "mathjax/tex-chtml.js"
    config.mathjax3_config = {"options": {"enableMenu": False, "enableAssistiveMml": True}}
    config.nb_ipywidgets_js = {}


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", configure, priority=100)
    app.connect("builder-inited", copy_mathjax)
    app.connect("builder-inited", write_vega)
    app.connect("html-page-context", local_scripts_only, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
