from __future__ import annotations

import re

import pytest

from orthocond.config.methods import Method
from orthocond.errors import UserError
from orthocond.report.paper import PAPER_TABLES, STATED_KAPPAS, published


def test_the_paper_has_six_tables_whose_rows_fit_their_columns() -> None:
    assert list(PAPER_TABLES) == [1, 2, 3, 4, 5, 6]
    for table in PAPER_TABLES.values():
        assert all(len(row) == len(table.columns) for row in table.rows.values())
        assert set(table.names) <= set(table.rows)


def test_every_row_is_a_canonical_method() -> None:
    for method in {m for table in PAPER_TABLES.values() for m in table.rows}:
        assert str(Method.parse(method)) == method


def test_a_number_is_found_by_its_table_row_and_column() -> None:
    assert published(4, "svd+nog+ow+olr", "CIFAR10 mean") == 3.93
    assert "svd+nog+ow+olr" not in PAPER_TABLES[4].names
    assert PAPER_TABLES[6].names["svd+nog+ow+olr"] == "SVD + OW + NOG + OLR"


@pytest.mark.parametrize("column", ["mean", "std", "min"])
def test_an_error_that_two_tables_print_is_the_same_in_both(column: str) -> None:
    seen: dict[str, float] = {}
    for table in (1, 2, 3, 4):
        for method in PAPER_TABLES[table].rows:
            number = published(table, method, f"CIFAR100 {column}")
            if number is not None:
                assert seen.setdefault(method, number) == number
    assert len(seen) >= 8


def test_no_minimum_is_above_its_mean() -> None:
    for number, table in PAPER_TABLES.items():
        for method in table.rows:
            for data in ("CIFAR10", "CIFAR100"):
                if f"{data} mean" in table.columns:
                    mean = published(number, method, f"{data} mean")
                    low = published(number, method, f"{data} min")
                    assert mean is None or low is None or low <= mean


def test_cells_that_the_source_text_lacks_are_none() -> None:
    assert published(1, "svd", "CIFAR100 min") is None
    assert published(2, "svd+nog", "CIFAR100 mean") is None
    assert published(4, "svd+olr", "CIFAR10 mean") is None
    assert published(6, "svd+olr", "FP (ms)") is None
    assert published(1, "bn", "CIFAR100 mean") is None  # not a row of the paper's table


@pytest.mark.parametrize(
    ("table", "column", "message"),
    [
        (7, "CIFAR100 mean", "tables 1 to 6, got 7"),
        (1, "CIFAR10 mean", "Table 1 has columns CIFAR100 mean.*got 'CIFAR10 mean'"),
    ],
)
def test_a_cell_that_does_not_exist_is_refused(table: int, column: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        published(table, "svd", column)


def test_the_stated_condition_numbers_name_their_section() -> None:
    assert len({(k.task, k.method) for k in STATED_KAPPAS}) == len(STATED_KAPPAS)
    assert all(re.fullmatch(r"Sec\. \d(\.\d)?", k.place) for k in STATED_KAPPAS)
