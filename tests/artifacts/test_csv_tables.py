from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orthocond.artifacts import csv_tables
from orthocond.artifacts.csv_tables import (
    CONDITIONING,
    METRICS,
    from_csv,
    rounded,
    to_csv,
    to_frame,
)

COLUMNS = ("phase", "step", "kappa")
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "phase": st.sampled_from(["train", "eval"]),
            "step": st.integers(0, 10**12),
            "kappa": st.none() | st.floats(),
        }
    )
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
@example([{"phase": "train", "step": 0, "kappa": -0.0}])
def test_reading_and_writing_a_table_keeps_its_bytes(rows):
    data = to_csv(COLUMNS, rows)
    again = from_csv(COLUMNS, data)
    assert to_csv(COLUMNS, again) == data
    assert [row["step"] for row in again] == [row["step"] for row in rows]
    for row, back in zip(rows, again, strict=True):
        if row["kappa"] is None:
            assert back["kappa"] is None
        else:
            assert back["kappa"] == pytest.approx(row["kappa"], rel=1e-8, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_a_rounded_row_is_the_row_that_is_read_back(rows):
    data = to_csv(COLUMNS, rows)
    assert to_csv(COLUMNS, [rounded(row) for row in rows]) == data
    for row, back in zip(rows, from_csv(COLUMNS, data), strict=True):
        kappa = back["kappa"] if back["kappa"] is None else float(back["kappa"])
        assert rounded(row)["step"] == back["step"]
        assert repr(rounded(row)["kappa"]) == repr(kappa)  # as text: nan, and the sign of 0


def test_the_conditioning_columns_equal_those_of_the_committed_runs():
    # They are made from MEASURED: a field more or less there would be another file format.
    fields = "kappa negative kappa_eps rank kappa_support effective_rank stable_rank lambda_max"
    fields += " kappa_common"
    measured = [f"{field}{end}" for field in fields.split() for end in ("", "_min", "_max")]
    expected = ("phase", "epoch", "step", "samples", *measured)
    assert (*expected, "rank_tol", "structural_rank", "common_rank") == CONDITIONING


def test_the_csv_format_of_each_kind_of_value():
    rows = [
        {"phase": "train", "step": np.int64(7), "kappa": np.float64(math.pi)},
        {"phase": "eval", "step": True, "kappa": math.inf},
        {"step": 10**12, "kappa": 1e300},
        {"kappa": -0.0},
    ]
    expected = b"phase,step,kappa\ntrain,7,3.14159265\neval,1,inf\n,1000000000000,1e+300\n,,-0\n"
    assert to_csv(COLUMNS, rows) == expected


def test_a_key_that_is_not_a_column_is_refused():
    with pytest.raises(ValueError, match="loss"):
        to_csv(COLUMNS, [{"loss": 1.0}])


def test_a_frame_has_float_columns_and_the_text_column():
    frame = to_frame(COLUMNS, to_csv(COLUMNS, [{"phase": "train", "step": 1}, {"kappa": math.inf}]))
    assert frame.columns.tolist() == list(COLUMNS)
    assert frame["step"].dtype == frame["kappa"].dtype == np.float64
    assert frame["phase"][0] == "train"
    assert math.isnan(frame["kappa"][0]) and frame["kappa"][1] == math.inf


@pytest.mark.parametrize("columns", [METRICS, CONDITIONING])
def test_an_empty_table_has_its_columns(columns):
    data = to_csv(columns, [])
    assert from_csv(columns, data) == []
    assert to_frame(columns, data).columns.tolist() == list(columns)


HEADER = b"phase,step,kappa\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"phase,step\n",
        b"," * 5_000_000,
        b"\xff" * 100,
        HEADER + b"train,x,2\n",
        HEADER + b"train,1,2,3\n",
        HEADER + b"train,1\n",
        HEADER + b"train,1,\xff\n",
        HEADER + b"train,1," + b"9" * 200_000 + b"x\n",
    ],
    ids=["empty", "header", "commas", "binary", "text", "more", "fewer", "encoding", "field"],
)
@pytest.mark.parametrize("read", [from_csv, to_frame])
def test_data_that_is_not_such_a_table_is_refused(read, data):
    with pytest.raises(ValueError, match=r"^(does not begin with the columns|is not a table)"):
        read(COLUMNS, data)


def test_a_column_that_was_added_later_reads_as_blank_in_an_older_file(monkeypatch):
    older = to_csv(COLUMNS, [{"phase": "train", "step": 1, "kappa": 2.0}])
    newer = ("phase", "step", "gap", "kappa", "rate")
    with pytest.raises(ValueError, match="does not begin with the columns phase,step,gap"):
        from_csv(newer, older)
    monkeypatch.setattr(csv_tables, "ADDED", frozenset({"gap", "rate"}))
    expected = {"phase": "train", "step": 1, "gap": None, "kappa": 2, "rate": None}
    assert from_csv(newer, older) == [expected]
    frame = to_frame(newer, older)
    assert frame.columns.tolist() == list(newer) and frame["kappa"][0] == 2
    assert frame[["gap", "rate"]].isna().all(axis=None)
    both = to_csv(newer, [{"phase": "eval", "step": 2, "gap": 0.5, "kappa": 1.0, "rate": 3.0}])
    assert from_csv(newer, both)[0]["gap"] == 0.5


@pytest.mark.parametrize(
    "header",
    [b"phase,kappa\n", b"step,phase,kappa\n", b"phase,step,step,kappa\n", b"phase,step,x\n"],
)
def test_only_added_columns_may_be_absent(monkeypatch, header):
    monkeypatch.setattr(csv_tables, "ADDED", frozenset({"gap"}))
    with pytest.raises(ValueError, match="does not begin with the columns"):
        from_csv(("phase", "step", "gap", "kappa"), header)
