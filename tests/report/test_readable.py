from __future__ import annotations

import math

import pytest

from orthocond.report.readable import readable, readable_cell


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (9.994, "9.99"),
        (9.996, "10.0"),  # rounding adds a digit before the point
        (99.96, "100"),
        (999.6, "1,000"),
        (-12345.6, "-12,346"),
        (0.001, "0.00100"),
        (0.00099, "9.9e-04"),
        (12345678.0, "1.2e+07"),
        (math.inf, "inf"),
    ],
)
def test_three_digits_are_kept_and_whole_digits_are_never_dropped(value: float, text: str) -> None:
    assert readable(value) == text


@pytest.mark.parametrize("seed", range(3))
def test_a_text_is_within_half_a_unit_of_its_third_digit(seed: int) -> None:
    for power in range(-3, 7):
        value = (1 + 0.897 * seed) * 1.2345 * 10**power
        assert float(readable(value).replace(",", "")) == pytest.approx(value, rel=5e-3)


def test_cells_that_are_no_numbers_stay_and_missing_ones_are_empty() -> None:
    cells = ["eigh", True, None, math.nan, 50_000]
    assert [readable_cell(cell) for cell in cells] == ["eigh", True, "", "", "50,000"]
