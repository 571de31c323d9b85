from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from orthocond.artifacts.timing_artifacts import write_timing
from orthocond.report.commands import MissingRuns
from orthocond.report.study import Study
from orthocond.report.tables import tab6
from orthocond.report.tables.render import render


def timing(method: str, forward: float, **changes: Any) -> dict[str, Any]:
    """The figures of one case, as ``measure --timing`` writes them."""

    def spread(median: float) -> dict[str, float]:
        return {"median": median, "min": median - 2, "q1": median - 1, "q3": median + 1.5}

    return {
        "task": "dbn",
        "model": "small",
        "method": method,
        "batch_size": 128,
        "image_size": 32,
        "classes": 10,
        "precision": "float32",
        "rounds": 20,
        "forward_ms": spread(forward),
        "backward_ms": spread(2 * forward),
        "update_ms": spread(3),
        "step_ms": spread(3 * forward),
        "ratio": {"forward": forward / 100, "backward": 1.25, "update": 1, "step": 1},
        **changes,
    }


@pytest.fixture
def timings(tmp_path: Path) -> Study:
    environment = {"device_name": "A CPU", "threads": 2, "commit": "abc"}
    for method, forward in (("bn", 100.0), ("svd", 104.0), ("svd+sn", 105.0)):
        write_timing(tmp_path / "timing", f"a-{method}", timing(method, forward), environment)
    data = timing("bn", 10.0, model="resnet50")
    write_timing(tmp_path / "timing", "b", data, environment | {"device_name": "A GPU"})
    return Study(tmp_path)


def test_milliseconds_are_shown_beside_those_of_the_paper(timings: Study) -> None:
    table = tab6.build(timings)
    assert list(table.frame.index[-1:]) == ["svd+sn"]  # a method that the paper did not time
    assert table.frame.at["svd", ("paper", "FP (ms)")] == 44
    group = "here: dbn small, A CPU"
    assert table.frame.at["svd", (group, "FP (ms) median")] == 104
    assert table.frame.at["svd", (group, "FP ratio")] == 1.04
    assert table.frame.at["svd", (group, "BP ratio")] == 1.25
    assert table.frame.at["bn", ("here: dbn resnet50, A GPU", "FP (ms) median")] == 10


def test_two_sizes_on_one_device_are_both_named(tmp_path: Path) -> None:
    for precision in ("bfloat16", "float32"):
        data = timing("bn", 10.0, precision=precision)
        write_timing(tmp_path / "timing", precision, data, {"device_name": "A GPU"})
    groups = tab6.build(Study(tmp_path)).frame.columns.get_level_values(0)
    assert set(groups) == {
        "paper",
        "here: dbn small, A GPU, 128 x 32 px, bfloat16",
        "here: dbn small, A GPU, 128 x 32 px, float32",
    }


def test_a_cell_shows_a_median_with_its_quartiles(timings: Study) -> None:
    text = render(tab6.build(timings), "md")
    assert "104 [103, 106]" in text
    assert "| † " in text and "| 44 " in text and "not run here" in text
    assert "batch 128, 32 pixels, float32, 2 CPU threads, 20 rounds" in text


def test_without_timings_the_error_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingRuns, match=r"orthocond measure time .*--out"):
        tab6.build(Study(tmp_path))


def test_the_command_can_be_pasted(tmp_path: Path) -> None:
    (folder := tmp_path / "my runs; x").mkdir()
    with pytest.raises(MissingRuns) as error:
        tab6.build(Study(folder))
    (command,) = error.value.commands
    assert shlex.split(command)[-2:] == ["--out", str(folder / "timing")]
