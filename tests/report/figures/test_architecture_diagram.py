from __future__ import annotations

import pytest

from orthocond.config.tasks import TASKS
from orthocond.models.backbones import build_model
from orthocond.report.figures.architecture_diagram import describe_network, draw_network, layers
from orthocond.report.registry import FIGURES
from orthocond.report.study import Study
from orthocond.report.style import theme


@pytest.mark.parametrize(("task", "model"), [("dbn", "small"), ("gcp", "small")])
def test_the_diagram_has_every_layer_of_the_model(task: str, model: str) -> None:
    frame = layers(task, model, classes=7, size=32)
    network = build_model(task, model, "svd", 7)
    assert frame["parameters"].sum() == sum(p.numel() for p in network.parameters())
    roles = frame.set_index("role")["layer"]
    assert roles["pre-svd"] == TASKS[task].pre_svd and roles["meta"] == TASKS[task].meta_layer
    assert frame["layer"].iloc[0] == "conv1" and frame["output"].iloc[-1] == "7"


def test_figure_6_shows_the_stem_of_the_paper_and_figure_7_its_covariance(study: Study) -> None:
    stem = FIGURES["fig6"].data(study).frame.iloc[1]
    assert stem["step"] == "3×3 convolution, 3 → 64, stride 1"
    assert stem["output"] == "64 × 32 × 32"
    pool = FIGURES["fig7"].data(study).frame.set_index("layer")
    assert pool.at["avgpool.reduction", "output"] == "256 × 14 × 14"
    assert pool.at["avgpool.root", "output"] == "256 × 256"
    assert pool.at["avgpool", "output"] == f"{256 * 257 // 2:,}"


def test_every_step_is_drawn_and_described() -> None:
    frame = layers("dbn", "small", 10, 32)
    with theme():
        figure = draw_network(frame)
    drawn = {text.get_text() for text in figure.axes[0].texts}
    assert set(frame["step"]) <= drawn and {"Pre-SVD layer", "SVD meta-layer"} <= drawn
    words = describe_network(frame)
    assert "Pre-SVD layer conv1: 3×3 convolution" in words and "$" not in words


def test_the_diagrams_need_no_runs(tmp_path: object) -> None:
    data = FIGURES["fig6"].data(Study(str(tmp_path)))
    assert FIGURES["fig6"].alt(data).startswith("From image to classes")
