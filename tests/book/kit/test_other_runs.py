"""Sentences with the numbers of the committed runs and of a reader's runs beside each other."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

BOOK = Path(__file__).parents[3] / "book"


@pytest.fixture(scope="module")
def other_runs() -> ModuleType:
    sys.path.insert(0, str(BOOK))
    from kit import other_runs

    return other_runs


@pytest.mark.parametrize(
    ("committed", "own", "shown"),
    [
        ("NOG costs 0.6 points.", "NOG costs 0.6 points.", "NOG costs 0.6 points."),
        ("by +0.6 [+0.1, +1.1].", "by -2.0 [-3.0, +1.1].",
         "by +0.6 [+0.1, +1.1] (yours: -2.0 [-3.0, +1.1])."),
        ("| NOG | +0.6 [0.1, 1.1] |", "| NOG | -1.0 [-2.0, 0.5] |",
         "| NOG | +0.6 [0.1, 1.1] (yours: -1.0 [-2.0, 0.5]) |"),
        (r"is $6.2\cdot10^{6}$ here", r"is $1.0\cdot10^{3}$ here",
         r"is $6.2\cdot10^{6}$ (yours: $1.0\cdot10^{3}$) here"),
        ("zero: none. Next", "zero: OW; NOG. Next", "zero: none. (yours: OW; NOG.) Next"),
        ("a\n\nb 1\n\n- c 2", "a\n\nb 3\n\n- c 2", "a\n\nb 1 (yours: 3)\n\n- c 2"),
        ("not zero: OW against SVD; NOG.", "not zero: NOG.",
         "not zero: OW against SVD; (yours: without this) NOG."),
    ],
)  # fmt: skip
def test_words_that_differ_stand_beside_each_other(
    other_runs: ModuleType, committed: str, own: str, shown: str
) -> None:
    assert other_runs.beside(committed, own) == shown


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ("'svd+ow'", [("svd+ow", False)]),
        ("'svd+nog - svd+rescale'", [("svd+nog", False), ("svd+rescale", False)]),
        ("('svd+olr', 'svd+slow')", [("svd+olr", False), ("svd+slow", False)]),
        ("\"['ns', 'bn'] not in index\"", [("ns", False), ("bn", False)]),
        ("'svd (11×11 stem)'", [("svd", True)]),
        ("\"None of [Index(['gap'], dtype='object', name='method')] are in the [index]\"",
         [("gap", False)]),
        ("0", []),
    ],
)  # fmt: skip
def test_the_methods_that_an_error_names(
    other_runs: ModuleType, error: str, named: list[tuple[str, bool]]
) -> None:
    assert other_runs.named_methods(error) == named


def test_a_text_without_its_checks_has_the_same_words(other_runs: ModuleType) -> None:
    bound = 3

    def write(value: int) -> str:
        assert value > bound, "too small"
        return f"{value} is more than {bound}"

    with pytest.raises(AssertionError):
        write(1)
    assert other_runs.without_checks(write)(1) == "1 is more than 3"


def test_numbers_that_the_runs_do_not_have_are_words(other_runs: ModuleType) -> None:
    text = other_runs.replaced("by 1.0 [0.5, 1.5]", "by +nan [nan, nan]", AssertionError())
    assert "by 1.0 [0.5, 1.5] (yours: not measured [no interval])" in text
    lacking = other_runs.replaced("by 1.0", None, IndexError("single\nindexer"))
    assert "`IndexError: single indexer`" in lacking and lacking.rstrip(":\n").endswith("by 1.0")
    assert "needs (`cifar10-cpu`)" in other_runs.replaced("by 1.0", None, KeyError("cifar10-cpu"))
