from __future__ import annotations

import os

import pytest

from orthocond.artifacts.manifests import CorruptRun
from orthocond.artifacts.run_search import find_runs
from orthocond.artifacts.timing_artifacts import Timing, find_timings, write_timing
from orthocond.errors import UserError

DATA = {"forward_ms": [1.5, 2.0], "method": "svd"}
ENVIRONMENT = {"threads": 1}


def test_written_timings_are_found_sorted_by_name(tmp_path):
    assert find_timings(tmp_path / "absent") == []
    for name in ("svd", "bn"):
        path = write_timing(tmp_path / "study", name, DATA, ENVIRONMENT)
        assert sorted(os.listdir(path)) == ["environment.json", "manifest.json", "timing.json"]
    found = find_timings(tmp_path / "study")
    assert found == [Timing(name, DATA, ENVIRONMENT) for name in ("bn", "svd")]
    assert find_runs(tmp_path / "study") == []


def test_a_case_is_not_overwritten(tmp_path):
    write_timing(tmp_path, "svd", DATA, ENVIRONMENT)
    with pytest.raises(UserError, match=r"^timing '.*svd' exists already: remove it"):
        write_timing(tmp_path, "svd", {}, {})
    assert find_timings(tmp_path)[0].data == DATA


def test_a_name_that_points_outside_the_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^case '\.\./svd' can't be"):
        write_timing(tmp_path, "../svd", DATA, ENVIRONMENT)


@pytest.mark.parametrize("name", ["timing.json", "environment.json", "manifest.json"])
def test_a_damaged_timing_is_named(tmp_path, name):
    path = write_timing(tmp_path, "svd", DATA, ENVIRONMENT)
    data = bytearray((path / name).read_bytes())
    data[4] ^= 1
    (path / name).write_bytes(data)
    with pytest.raises(CorruptRun, match=rf"{name} (is|does) not .*remove '.*svd' and measure"):
        find_timings(tmp_path)


def test_a_renamed_timing_is_refused(tmp_path):
    write_timing(tmp_path, "svd", DATA, ENVIRONMENT).rename(tmp_path / "bn")
    with pytest.raises(CorruptRun, match=r"manifest.json belongs to timing 'svd', not 'bn'"):
        find_timings(tmp_path)
