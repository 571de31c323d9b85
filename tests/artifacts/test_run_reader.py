from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import small_run

from orthocond.artifacts.atomic_files import canonical_json
from orthocond.artifacts.csv_tables import CONDITIONING, METRICS, TIMINGS
from orthocond.artifacts.manifests import MANIFEST, CorruptRun, seal, with_hash
from orthocond.artifacts.run_reader import LIMITS, Run, differences
from orthocond.errors import UserError


@pytest.fixture
def run(tmp_path):
    return small_run.train(tmp_path / "study" / small_run.NAME)


def reseal(run: Run, **changed: bytes) -> None:
    """Replace the content of a file, and write a manifest that matches it."""
    files = {name: (run.path / name).read_bytes() for name in LIMITS}
    for name, data in changed.items():
        name = next(n for n in LIMITS if n.split(".")[0] == name)
        files[name] = data
        (run.path / name).write_bytes(data)
    config = json.loads((run.path / MANIFEST).read_bytes())["config"]
    (run.path / MANIFEST).write_bytes(seal({"run": run.name, "config": config}, files))


def test_a_complete_run_is_read_as_it_was_written(run):
    assert run.is_complete and run.status == "complete"
    assert run.name == small_run.NAME
    assert {k: v for k, v in run.config.items() if k != "hash"} == small_run.CONFIG
    assert len(run.config["hash"]) == 64
    assert run.environment == small_run.ENVIRONMENT
    assert run.summary == small_run.SUMMARY
    assert run.metrics.columns.tolist() == list(METRICS)
    assert run.timings.columns.tolist() == list(TIMINGS)
    assert run.conditioning.columns.tolist() == list(CONDITIONING)
    assert run.metrics["step"].tolist() == [2, 4]
    assert run.conditioning["phase"].tolist() == ["train"] * 4
    assert np.isnan(run.metrics["eta"]).all()
    assert run.checkpoint().step == 4
    run.verify()


def test_a_table_that_a_reader_changed_is_read_again_as_it_was_written(run):
    first = run.metrics
    first["step"] = 0
    assert run.metrics["step"].tolist() == [2, 4]


def test_compared_files_contain_no_times_and_no_paths(tmp_path):
    a = small_run.train(tmp_path / "a" / small_run.NAME)
    b = small_run.train(tmp_path / "b" / small_run.NAME)
    assert small_run.listing(a.path) == small_run.listing(b.path)


def test_the_hash_is_of_the_settings_and_not_of_their_order(run, tmp_path):
    reordered = dict(reversed(small_run.CONFIG.items()))
    other = small_run.train(tmp_path / small_run.NAME, config=reordered)
    assert other.config["hash"] == run.config["hash"]
    changed = small_run.train(tmp_path / "x", config=small_run.CONFIG | {"lr": 0.2})
    assert changed.config["hash"] != run.config["hash"]


@pytest.mark.parametrize("name", [*LIMITS, MANIFEST])
@pytest.mark.parametrize("how", ["flipped", "truncated", "missing", "link", "of another run"])
def test_every_damaged_file_is_named_and_the_run_is_not_read(run, name, how, tmp_path):
    path = run.path / name
    data = path.read_bytes()
    if how == "flipped":
        path.write_bytes(bytes([data[0] ^ 4]) + data[1:])
    elif how == "truncated":
        path.write_bytes(data[: data.rindex(b"\n", 0, -1) + 1])
    elif how == "missing":
        path.unlink()
    elif how == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        config = small_run.CONFIG | {"seed": 1}
        other = small_run.train(tmp_path / "other", last=6, config=config)
        shutil.copy(other.path / name, path)
        if name == "environment.json":
            path.write_bytes(canonical_json({"threads": 2}))
        if name == "summary.json":
            path.write_bytes(canonical_json({"status": "diverged"}))
    if how == "missing" and name == MANIFEST:
        assert not Run(run.path).is_complete
        return
    for read in ("config", "environment", "summary", "metrics", "conditioning", "is_complete"):
        with pytest.raises(CorruptRun) as caught:
            getattr(Run(run.path), read)
        assert caught.value.file == name and caught.value.run == run.name
        message = str(caught.value)
        assert message.startswith(f"run {run.name!r} is damaged: {name} ")
        assert "and orthocond train redoes it from step 4" in message
        assert "\n" not in message


def test_without_its_checkpoint_a_damaged_run_starts_again(run):
    shutil.rmtree(run.path / "checkpoint")
    Run(run.path).verify()
    (run.path / "metrics.csv").write_text("")
    with pytest.raises(
        CorruptRun, match=r"; remove '.*' and orthocond train redoes it from the st"
    ):
        Run(run.path).verify()


def test_tables_are_read_from_the_verified_bytes(run):
    run.verify()
    (run.path / "metrics.csv").write_text("nonsense")
    assert run.metrics["step"].tolist() == [2, 4]


def test_a_renamed_run_is_refused(run):
    moved = run.path.rename(run.path.with_name("dbn-leaves-small-svd-s0"))
    message = r"manifest.json belongs to run 'dbn-leaves-small-svd\+nog-s0'"
    with pytest.raises(CorruptRun, match=message):
        Run(moved).verify()


def test_a_configuration_under_the_manifest_of_another_is_refused(run):
    reseal(run, config=with_hash({"lr": 1}, "hash"))
    with pytest.raises(CorruptRun, match=r"config.json is not the configuration that manifest"):
        Run(run.path).verify()


DEEP = b'{"a":' * 50_000 + b"1" + b"}" * 50_000


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("summary", DEEP, "summary.json is nested too deeply"),
        ("summary", b"[1]", "summary.json is not a JSON object"),
        ("environment", b"\x80\x04K\x01.", "environment.json is not valid JSON"),
        ("config", DEEP, "config.json is nested too deeply"),
        ("metrics", b"," * 1_000_000, "metrics.csv does not begin with the columns epoch,step"),
        ("conditioning", b"\0" * 100, "conditioning.csv does not begin with the columns phase"),
    ],
)
def test_absurd_content_under_a_manifest_that_fits_is_refused_by_name(run, name, data, reason):
    reseal(run, **{name: data})
    with pytest.raises(CorruptRun, match=reason):
        getattr(Run(run.path), name)


def test_a_file_of_absurd_size_is_refused_before_it_is_read(run):
    with (run.path / "metrics.csv").open("r+b") as file:
        file.truncate(1 << 40)  # a sparse file of 1 TiB
    with pytest.raises(CorruptRun, match=r"metrics.csv can't be read: is larger than 134217728 by"):
        Run(run.path).verify()


def test_an_incomplete_run_is_read_from_its_newest_checkpoint(tmp_path):
    run = small_run.train(tmp_path / small_run.NAME, last=3, finish=False)
    (run.path / "metrics.csv").write_text("for people to look at")
    assert not run.is_complete and run.has_checkpoint and run.status == "incomplete"
    assert run.metrics["step"].tolist() == [2]
    assert run.conditioning["step"].tolist() == [0, 1]
    assert run.config["lr"] == 0.1
    with pytest.raises(UserError, match=r"^run '.*' is not complete: orthocond train finishes it$"):
        _ = run.summary


def test_a_missing_run_is_reported(tmp_path):
    run = Run(tmp_path / "absent")
    assert not run.is_complete and not run.has_checkpoint and run.status == "incomplete"
    for read in ("config", "summary", "metrics"):
        with pytest.raises(UserError, match=r"^there is no run '.*absent'$"):
            getattr(run, read)
    run.require_config(small_run.CONFIG)


def test_settings_that_differ_are_named_key_by_key(run):
    run.require_config(small_run.CONFIG)
    run.require_config(small_run.CONFIG | {"seed": 0.0})
    asked = small_run.CONFIG | {"lr": 0.2, "data": {"name": "leaves", "size": 64}, "new": None}
    with pytest.raises(UserError) as caught:
        run.require_config(asked)
    assert str(caught.value).endswith(
        "has another configuration: data.size is 32 there and 64 here; lr is 0.1 there and 0.2 "
        "here; new is absent there and null here"
    )


def test_differences_ignore_the_hash_and_how_a_number_is_spelled():
    assert differences({"a": 1.0, "hash": "x", "b": (1, 2)}, {"a": 1, "b": [1.0, 2]}) == []
    assert differences({"a": math.nan}, {"a": math.nan}) == []
    assert differences({"a": {}}, {"a": {"b": 1}}) == ["a.b is absent there and 1 here"]


@pytest.mark.parametrize("bit", [0, 5, 17])
def test_a_damaged_configuration_of_an_incomplete_run_is_named(tmp_path, bit):
    run = small_run.train(tmp_path / small_run.NAME, last=3, finish=False)
    data = bytearray((run.path / "config.json").read_bytes())
    data[-10] ^= 1 << bit % 8
    (run.path / "config.json").write_bytes(data)
    for read in (lambda: run.config, lambda: run.require_config(small_run.CONFIG)):
        with pytest.raises(CorruptRun, match=r"config.json .*redoes it from step 3"):
            read()
