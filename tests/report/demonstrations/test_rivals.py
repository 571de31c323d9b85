"""The tables and figures of the comparison with rivals, and the committed measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from orthocond.report.demonstrations import rival_figures
from orthocond.report.demonstrations.rivals import (
    Rivals,
    accuracy,
    by_dimension,
    even_powers,
    faster,
    load,
    memory,
    nearest,
    on_float64,
    readme,
    speed,
    standing,
)

RESULTS = Path(__file__).parents[3] / "benchmarks/results"
OK = "ok"


def error(value: float | None, gradient: float | None, outcome: str = OK) -> dict[str, Any]:
    return {"value": value, "gradient": gradient, "outcome": outcome}


def cost(milliseconds: float, mb: float = 1.0) -> dict[str, Any]:
    seconds = milliseconds / 1e3
    return {"outcome": OK, "peak_mb": mb, "forward": seconds / 2, "seconds": seconds}


ERRORS = {
    "whitening, 64, 1e+04": {
        "orthocond": error(1e-6, 1e-6),
        "orthocond, float64": error(2e-8, 2e-8),
        "kornia": error(1e-5, 1e-4),
        "kornia, float64": error(2e-8, 1e-8),
        "IterNorm, T = 5": error(0.7, 0.9),
    },
    "whitening, 64, exactly tied": {
        "orthocond": error(1e-7, 1e-7),
        "orthocond, float64": error(1e-8, 1e-8),
        "kornia": error(1e-8, None, "gradient not finite"),
        "kornia, float64": error(1e-8, 1e-8),
        "IterNorm, T = 5": error(None, None, "RuntimeError: no"),
    },
    "pooling, 64, 1e+04": {"orthocond": error(1e-7, 1e-7), "iSQRT-COV, N = 5": error(0.1, 0.2)},
    "polar, 64, 1e+02": {
        "orthocond": {"value": 1e-7, "outcome": OK},
        "torch.optim.Muon": {"value": 0.3, "outcome": OK},
    },
    "linear, 64, float32": {
        "orthocond, ow-stiefel": {"distance": 1e-6, "outcome": OK},
        "geotorch, expm": {"distance": None, "outcome": "not installed"},
    },
}
TIMES = {
    "whitening, 64, 8": {
        "orthocond": cost(2, 4),
        "kornia": cost(3, 2),
        "IterNorm, T = 5": cost(1),
        "kornia, float64": {"outcome": "RuntimeError: no"},
    },
    "pooling, 64, 16": {"orthocond": cost(4), "iSQRT-COV, N = 5": cost(1)},
    "polar, 64, 128": {"orthocond": cost(2), "torch.optim.Muon": cost(1)},
    "linear, 64": {"orthocond, ow-stiefel": cost(2)},
}
SETTING = {"torch": "2.0", "device": "cpu", "processor": "a CPU", "threads": 1}


@pytest.fixture
def measured(tmp_path: Path) -> Rivals:
    versions = {"kornia": "0.9"}
    for name, cases in (("rivals", ERRORS), ("rivals-times", TIMES)):
        content = SETTING | {"versions": versions, "cases": cases}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    found = load(tmp_path)
    assert found is not None
    return found


def test_nothing_is_shown_before_it_is_measured(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    (tmp_path / "rivals.json").write_text("{}")
    assert load(tmp_path) is None


def test_notes_name_one_version_and_one_machine(measured: Rivals) -> None:
    assert measured.errors_note == measured.times_note == "torch 2.0, a CPU, 1 thread"


def test_a_failure_is_in_its_cell(measured: Rivals) -> None:
    table = accuracy(measured.errors, "whitening", 64, "gradient").set_index("method")
    assert table.loc["orthocond"].tolist() == ["1.0e-06", "1.0e-07"]
    assert table["exactly tied"]["kornia"] == "NaN"
    assert table["exactly tied"]["IterNorm, T = 5"] == "raises RuntimeError"
    weights = accuracy(measured.errors, "linear", 64, "distance").set_index("method")
    assert weights["float32"]["geotorch, expm"] == "not installed"


def test_a_page_has_even_powers_of_ten_and_the_special_spectra() -> None:
    columns = ["method", *(f"1e+{power:02}" for power in range(13)), "tied", "mean / std = 100"]
    shown = list(even_powers(pd.DataFrame(columns=columns)))
    even = ["1e+00", "1e+02", "1e+04", "1e+06", "1e+08", "1e+10", "1e+12"]
    assert shown == ["method", *even, "tied", "mean / std = 100"]


def test_the_nearest_rival_is_the_most_accurate_of_its_precision(measured: Rivals) -> None:
    table = nearest(measured.errors, "gradient").set_index(["task", "case"])
    row = table.loc[("whitening", "1e+04")]
    assert (row["rival"], row["error"]) == ("kornia", 1e-4)
    assert (row["rival64"], row["error64"]) == ("kornia, float64", 1e-8)
    assert pd.isna(table.loc[("whitening", "exactly tied")]["error"])


def test_the_standing_says_where_we_lose(measured: Rivals) -> None:
    errors = measured.errors
    gradient = standing(errors, "whitening", "gradient")
    assert (gradient["cases"], gradient["more accurate"], gradient["less accurate"]) == (2, 2, 0)
    assert gradient["largest factor"] == ""
    value = standing(errors, "whitening", "value")
    assert (value["more accurate"], value["equal"], value["less accurate"]) == (1, 0, 1)
    assert value["factor if more (median)"] == pytest.approx(10)
    assert value["factor if less (median)"] == pytest.approx(10)
    assert str(value["largest factor"]).startswith("10: kornia, d = 64")
    wide = standing(errors, "whitening", "gradient", wide=True)
    assert wide["less accurate"] == 2
    assert str(wide["largest factor"]).startswith("1e+02: kornia, float64, d = 64")
    assert on_float64(errors, "whitening", "gradient") == 2


def test_the_fastest_accurate_rival_is_not_the_fastest(measured: Rivals) -> None:
    row = faster(measured).set_index("task").loc["whitening"]
    assert (row["fastest"], row["fastest, factor"]) == ("IterNorm, T = 5", 2)
    assert not row["fastest accurate"]  # the error of kornia's gradient is not below 1e-4
    assert pd.isna(row["fastest accurate, factor"])
    assert "linear" not in faster(measured)["task"].tolist()


def test_times_are_relative_to_ours(measured: Rivals) -> None:
    table = speed(measured.times, "whitening").set_index("method")["64 x 8"]
    assert table["orthocond, milliseconds"] == 2 and table["kornia"] == 1.5
    assert pd.isna(table["kornia, float64"])
    sizes = memory(measured.times, "whitening").set_index("method")["64 x 8"]
    assert sizes.to_dict() == {"orthocond": 4, "kornia": 2, "IterNorm, T = 5": 1}
    dimensions = by_dimension(measured.errors).set_index(["task", "method"])["d = 64"]
    assert dimensions["pooling", "orthocond"] == "1.0e-07"


def test_the_readme_names_those_that_were_measured(measured: Rivals) -> None:
    lines = readme(measured).splitlines()
    assert lines[2] == "| kornia 0.9 | whitening | 1.0e-06 | 1.0e-04 | 1.50 | 0.50 |"
    assert [line.split("|")[1].strip() for line in lines[2:6]] == [
        *("kornia 0.9", "IterNorm", "iSQRT-COV", "Muon")
    ]  # geotorch has no time


def test_figures_are_drawn_with_a_text(measured: Rivals) -> None:
    for figure in (
        rival_figures.draw_conditions(measured.errors),
        rival_figures.draw_speed(measured),
    ):
        assert all(axis.get_legend_handles_labels()[1] for axis in figure.axes[:2])
        plt.close(figure)
    assert "kornia" in rival_figures.alt_speed(measured)
    assert rival_figures.alt_conditions(measured.errors).count("1e8") == 3


def test_committed_text_agrees_with_the_measurements() -> None:
    committed = load(RESULTS)
    assert committed is not None
    text = readme(committed)
    assert (RESULTS / "rivals.txt").read_text() == text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 2 + 5
