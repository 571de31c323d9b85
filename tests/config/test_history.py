"""Runs that were stored before a setting existed: completed when compared, never rewritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import small_run

from orthocond.artifacts.atomic_files import canonical_json
from orthocond.artifacts.manifests import MANIFEST, seal, with_hash
from orthocond.artifacts.run_reader import CONFIG, LIMITS, Run
from orthocond.artifacts.run_writer import RunWriter
from orthocond.config.schema import Config
from orthocond.config.stored_settings import FORMAT, HISTORICAL, completed, reduced
from orthocond.errors import UserError
from orthocond.report.study import Study
from orthocond_cli.main import run

COMMITTED = Path(__file__).resolve().parents[2] / "runs"
TINY = [
    *("train", "--set", "epochs=1", "--set", "batch_size=8", "--set", "data.train_images=16"),
    *("--set", "data.test_images=8", "--set", "data.classes=4", "--set", "data.size=16"),
    *("--set", "recalibration_batches=1", "--set", "lr=0.02"),
]
SHARED = ("--set", "calibration_stream=shared")


def as_format_1(path: Path) -> None:
    """Rewrite a complete run as the first version would have written it."""
    stored = {k: v for k, v in json.loads((path / CONFIG).read_bytes()).items() if k != "hash"}
    data = with_hash({k: v for k, v in stored.items() if k not in HISTORICAL}, "hash")
    (path / CONFIG).write_bytes(data)
    about = {"run": path.name, "config": json.loads(data)["hash"]}
    (path / MANIFEST).write_bytes(seal(about, {n: (path / n).read_bytes() for n in LIMITS}))


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A study with one run of format 1."""
    assert run([*TINY, *SHARED, "--method", "svd", "--out", str(tmp_path)]) == 0
    (path,) = (p for p in tmp_path.iterdir() if p.is_dir())
    as_format_1(path)
    assert not HISTORICAL.keys() & Run(path).config.keys()
    return tmp_path


def test_a_method_trained_beside_older_runs_is_in_one_selection_with_them(older: Path) -> None:
    before = {p: p.read_bytes() for p in older.rglob("*") if p.is_file()}
    alone = Study(older).select("dbn")
    assert run([*TINY, *SHARED, "--method", "svd", "--method", "nog", "--out", str(older)]) == 0
    both = Study(older).select("dbn")
    assert sorted(both.runs) == ["svd", "svd+nog"] and both.set_aside == 0
    assert both.hash == alone.hash, "captions name older runs as they did before"
    assert {p: p.read_bytes() for p in before} == before
    manifest = json.loads((both.runs["svd+nog"][0].path / MANIFEST).read_bytes())
    assert manifest["format"] == FORMAT


def test_the_command_for_what_is_missing_repeats_the_historical_value(older: Path) -> None:
    command = Study(older).select("dbn", ["svd", "bn"]).command
    assert "--set 'calibration_stream=\"shared\"'" in command


def test_another_value_is_another_configuration(
    older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*TINY, "--method", "svd", "--out", str(older)]) == 2
    said = 'another configuration: calibration_stream is "shared" there and "own" here'
    assert said in capsys.readouterr().err
    assert run([*TINY, "--method", "nog", "--out", str(older)]) == 0
    assert Study(older).select("dbn").set_aside == 1


def test_an_older_run_resumes_from_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / small_run.NAME
    small_run.train(path, last=1, finish=False)
    stored = (path / CONFIG).read_bytes()
    with RunWriter(path) as writer:
        checkpoint = writer.begin(completed(small_run.CONFIG), small_run.ENVIRONMENT)
        assert checkpoint is not None and checkpoint.step == 1
        writer.finish(small_run.SUMMARY, checkpoint.tables)
    assert (path / CONFIG).read_bytes() == stored
    assert Run(path).is_complete


@pytest.mark.parametrize(
    ("study", "preset"),
    [("cifar10-cpu", "cifar-cpu"), ("tiny32-cpu", "tiny32-cpu"), ("tiny-imagenet-cpu", "gcp-cpu")],
)
def test_a_new_method_is_selected_together_with_the_committed_runs(
    tmp_path: Path, study: str, preset: str
) -> None:
    from orthocond.config.sources import resolve

    committed = next(p for p in sorted((COMMITTED / study).iterdir()) if p.name.endswith("svd-s0"))
    copy = tmp_path / committed.name
    shutil.copytree(committed, copy, ignore=shutil.ignore_patterns("checkpoint", ".lock"))
    stored = Run(copy).settings
    new = resolve(preset, flags={"methods": ["ow-stiefel+olr-exact"]}).config
    settings = new.model_dump(mode="json") | {"method": "svd+ow-stiefel+olr-exact", "seed": 0}
    settings |= {key: stored[key] for key in ("data", "stem_kernel")}
    name = copy.name.replace("-svd-s0", "-svd+ow-stiefel+olr-exact-s0")
    with RunWriter(tmp_path / name) as writer:
        writer.begin(settings, Run(copy).environment)
        writer.finish({"status": "complete"}, {})
    selection = Study(tmp_path).select(new.task)
    assert len(selection.runs) == 2 and selection.set_aside == 0


def test_a_run_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = small_run.train(tmp_path / small_run.NAME).path
    about = {"run": path.name, "config": Run(path).config["hash"], "format": FORMAT + 1}
    (path / MANIFEST).write_bytes(seal(about, {n: (path / n).read_bytes() for n in LIMITS}))
    with pytest.raises(UserError, match=rf"format {FORMAT + 1}, written by a newer orthocond"):
        _ = Run(path).metrics


def test_historical_values_are_valid_values_of_known_settings() -> None:
    Config.model_validate(dict(HISTORICAL))
    assert reduced(completed({"lr": 0.1})) == {"lr": 0.1}
    assert canonical_json(completed(reduced(HISTORICAL))) == canonical_json(HISTORICAL)
