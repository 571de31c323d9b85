from __future__ import annotations

import json
import os
import re
import shutil

import pytest
import small_run

from orthocond.artifacts.atomic_files import MAX_JSON
from orthocond.artifacts.checkpoints import Checkpoint
from orthocond.artifacts.csv_tables import COLUMNS_OF
from orthocond.artifacts.manifests import CorruptRun
from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_writer import RunLocked, RunWriter
from orthocond.errors import UserError


def test_the_files_of_a_complete_run(tmp_path):
    run = small_run.train(tmp_path / small_run.NAME)
    names = "config.json environment.json metrics.csv timings.csv conditioning.csv summary.json"
    assert sorted(os.listdir(run.path)) == sorted([*names.split(), "manifest.json", "checkpoint"])
    assert os.listdir(run.path / "checkpoint") == ["4-2"]
    assert (run.path / "timings.csv").read_text().splitlines()[1] == "1,0.5,,,"


@pytest.mark.parametrize("stop", range(5))
def test_a_resumed_run_ends_in_the_same_bytes(tmp_path, stop):
    whole = small_run.train(tmp_path / "a" / small_run.NAME)
    path = tmp_path / "b" / small_run.NAME
    small_run.train(path, last=stop, finish=False)
    small_run.train(path)
    assert small_run.listing(path) == small_run.listing(whole.path)


def test_a_saved_checkpoint_is_resumed(tmp_path):
    path = tmp_path / small_run.NAME
    with RunWriter(path) as writer:
        writer.begin(small_run.CONFIG, small_run.ENVIRONMENT)
        state = {"scaler": None}
        writer.save(Checkpoint(3, small_run.tensors(3), state, small_run.tables(3)))
    with RunWriter(path) as writer:
        back = writer.begin(small_run.CONFIG, small_run.ENVIRONMENT)
    assert (back.step, back.state) == (3, {"scaler": None})
    assert back.tensors.keys() == small_run.tensors(3).keys()
    assert [row["step"] for row in back.tables["conditioning"]] == [0, 1, 2]
    assert [row["seconds"] for row in back.tables["timings"]] == [0.5]


def test_a_run_may_end_with_tables_that_have_no_rows(tmp_path):
    path = tmp_path / small_run.NAME
    with RunWriter(path) as writer:
        writer.begin(small_run.CONFIG, small_run.ENVIRONMENT)
        writer.finish(small_run.SUMMARY, {})
    assert Run(path).status == "complete"
    tables = [(path / f"{name}.csv").read_text() for name in COLUMNS_OF]
    assert [len(table.splitlines()) for table in tables] == [1, 1, 1]


def test_finishing_keeps_the_newest_checkpoint_of_this_run_alone(tmp_path):
    """Add the older checkpoint that a kill may leave, and a newer one copied from another run."""
    run = small_run.train(tmp_path / "a" / small_run.NAME, last=2, finish=False)
    other = small_run.train(
        tmp_path / "b" / small_run.NAME, 4, finish=False, config=small_run.CONFIG | {"lr": 0.5}
    )
    older = small_run.train(tmp_path / "c" / small_run.NAME, last=1, finish=False)
    for path in (older.path / "checkpoint" / "1", other.path / "checkpoint" / "4-2"):
        shutil.copytree(path, run.path / "checkpoint" / path.name)
    message = "skipped a checkpoint: checkpoint/4-2/manifest.json"
    with pytest.warns(UserWarning, match=message):
        small_run.train(run.path, last=2)
    assert os.listdir(run.path / "checkpoint") == ["2-2"]


def test_a_complete_run_is_not_begun_again(tmp_path):
    run = small_run.train(tmp_path / small_run.NAME)
    before = small_run.listing(run.path)
    with pytest.raises(UserError, match=rf"^run '{re.escape(str(run.path))}' is complete$"):
        small_run.train(run.path)
    assert small_run.listing(run.path) == before


def test_another_configuration_touches_nothing(tmp_path):
    run = small_run.train(tmp_path / small_run.NAME, last=3, finish=False)
    before = small_run.listing(run.path)
    with pytest.raises(UserError, match=r"lr is 0.1 there and 0.5 here"):
        small_run.train(run.path, config=small_run.CONFIG | {"lr": 0.5})
    assert small_run.listing(run.path) == before


def test_a_damaged_run_is_neither_deleted_nor_overwritten(tmp_path):
    run = small_run.train(tmp_path / small_run.NAME)
    (run.path / "metrics.csv").write_text("damaged")
    before = small_run.listing(run.path)
    with pytest.raises(CorruptRun, match=r"remove manifest.json and metrics.csv from '.*' and ort"):
        small_run.train(run.path)
    assert small_run.listing(run.path) == before


@pytest.mark.parametrize(
    "name", ["config.json", "environment.json", "metrics.csv", "summary.json", "manifest.json"]
)
def test_the_remedy_that_is_named_gives_the_run_back(tmp_path, name):
    run = small_run.train(tmp_path / small_run.NAME)
    before = small_run.listing(run.path)
    (run.path / name).write_text("damaged")
    with pytest.raises(CorruptRun) as caught:
        run.verify()
    for file in str(caught.value).split("; remove ")[1].split(" from ")[0].split(" and "):
        (run.path / file).unlink()
    small_run.train(run.path)
    assert small_run.listing(run.path) == before


def test_checkpoints_that_are_all_damaged_say_that_all_is_redone(tmp_path):
    run = small_run.train(tmp_path / small_run.NAME, last=3, finish=False)
    (run.path / "checkpoint" / "3" / "state.json").write_text("{}")
    before = small_run.listing(run.path)
    with pytest.raises(
        CorruptRun,
        match=r"checkpoint/3/state.json does not .*; remove '.*s0' and .* from the start",
    ):
        small_run.train(run.path)
    assert small_run.listing(run.path) == before


def test_a_checkpoint_of_the_same_run_in_another_study_is_refused(tmp_path):
    run = small_run.train(tmp_path / "a" / small_run.NAME, last=3, finish=False)
    other = small_run.train(
        tmp_path / "b" / small_run.NAME, 3, finish=False, config=small_run.CONFIG | {"lr": 0.5}
    )
    shutil.rmtree(run.path / "checkpoint")
    shutil.copytree(other.path / "checkpoint", run.path / "checkpoint")
    with pytest.raises(CorruptRun, match=r"checkpoint/3/manifest.json belongs to config"):
        small_run.train(run.path)
    (run.path / "config.json").unlink()
    with pytest.raises(CorruptRun, match=r"checkpoint/3/manifest.json belongs to config"):
        small_run.train(run.path)
    assert not (run.path / "config.json").exists()


def test_one_process_trains_a_run(tmp_path):
    path = tmp_path / small_run.NAME
    with RunWriter(path) as writer:
        writer.begin(small_run.CONFIG, small_run.ENVIRONMENT)
        with pytest.raises(
            RunLocked, match=rf"^run '{re.escape(str(path))}' is being trained by another process$"
        ):
            RunWriter(path).__enter__()
    small_run.train(path)


def test_outside_its_with_statement_a_writer_writes_nothing(tmp_path):
    with pytest.raises(RuntimeError, match=r"^use a RunWriter inside a with statement$"):
        RunWriter(tmp_path / "a").begin({}, {})
    assert os.listdir(tmp_path) == []


def test_what_killed_processes_left_is_cleared(tmp_path):
    run = small_run.train(tmp_path / small_run.NAME, last=3, finish=False)
    (run.path / ".lock").touch()
    (run.path / ".metrics.csv.99.part").write_text("half")
    (run.path / "checkpoint" / ".4.99.part").mkdir()
    (run.path / "checkpoint" / ".4.99.part" / "state.json").write_text("{")
    small_run.train(run.path)
    whole = small_run.train(tmp_path / "whole" / small_run.NAME)
    assert small_run.listing(run.path) == small_run.listing(whole.path)


@pytest.mark.parametrize("where", ["run", "checkpoint"])
def test_links_out_of_the_study_are_not_written_through(tmp_path, where):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".x.1.part").touch()
    path = tmp_path / small_run.NAME
    if where == "run":
        path.symlink_to(outside)
    else:
        path.mkdir()
        (path / "checkpoint").symlink_to(outside)
    link = path if where == "run" else path / "checkpoint"
    with pytest.raises(
        UserError, match=rf"^'{re.escape(str(link))}' is a link: a run is written into its study o"
    ):
        small_run.train(path)
    assert os.listdir(outside) == [".x.1.part"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^cannot write '.*file.*': (Not a dir|File exists)"):
        small_run.train(tmp_path / "file" / small_run.NAME)


def test_resuming_in_another_environment_warns_and_is_recorded(tmp_path):
    run = small_run.train(tmp_path / small_run.NAME, last=3, finish=False)
    elsewhere = small_run.ENVIRONMENT | {"python": "3.12", "threads": 2}
    differences = 'python is "3.11" there and "3.12" here; threads is 1 there and 2 here'
    with (
        RunWriter(run.path) as writer,
        pytest.warns(UserWarning, match=rf"another environment.*last digits: {differences}$"),
    ):
        writer.begin(small_run.CONFIG, elsewhere)
    with RunWriter(run.path) as writer:
        writer.begin(small_run.CONFIG, elsewhere)
    stored = json.loads((run.path / "environment.json").read_text())
    assert stored == {**elsewhere, "earlier": [small_run.ENVIRONMENT]}
    absurd = json.dumps(small_run.ENVIRONMENT) + " " * MAX_JSON  # larger than any real one
    for unreadable in ("damaged", absurd):
        (run.path / "environment.json").write_text(unreadable)
        with RunWriter(run.path) as writer:
            writer.begin(small_run.CONFIG, elsewhere)
        assert json.loads((run.path / "environment.json").read_text()) == elsewhere
