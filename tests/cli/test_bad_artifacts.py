"""A damaged run meets every command: one line that names the run and the file, nothing touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_run import listing

from orthocond.artifacts.run_reader import Run
from orthocond_cli.main import run

TINY = [
    *("--method", "bn", "--set", "epochs=1", "--set", "batch_size=8", "--set", "data.size=8"),
    *("--set", "data.train_images=16", "--set", "data.test_images=8", "--set", "data.classes=2"),
    *("--set", "probe_every=1", "--set", "recalibration_batches=1"),
]
FILES = (
    "config.json",
    "environment.json",
    "metrics.csv",
    "timings.csv",
    "conditioning.csv",
    "summary.json",
    "manifest.json",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("trained") / "study"
    assert run(["train", *TINY, "--out", str(study)]) == 0
    return study


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "study")
    return tmp_path / "study"


def only_run(study: Path) -> Path:
    (folder,) = (path for path in study.iterdir() if path.name.startswith("dbn-"))
    return folder


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """After a whole line, which leaves valid CSV."""
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\n", 0, -1) + 1] if b"\n" in data[:-1] else data[:-8])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def commands(study: Path) -> dict[str, list[str]]:
    out = str(study.parent / "out")
    return {
        "measure": ["measure", str(only_run(study))],
        "measure the study": ["measure", str(study)],
        "plot": ["plot", "fig2", "--runs", str(study), "--out", out],
        "plot all": ["plot", "all", "--runs", str(study), "--out", out],
        "table": ["table", "tab1", "--runs", str(study), "--out", out],
        "train": ["train", *TINY, "--out", str(study)],
        "train dry": ["train", *TINY, "--out", str(study), "--dry-run"],
    }


def refused(study: Path, names: list[str], file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command gives exit code 2 and one line with run and file, and changes nothing."""
    folder = only_run(study)
    before = listing(study.parent)
    for name in names:
        code = run(commands(study)[name])
        said = capsys.readouterr()
        assert code == 2, f"{name}: {said}"
        assert said.err.count("\n") == 1, f"{name}: {said.err}"
        assert said.err.startswith(f"orthocond: run {folder.name!r} is damaged: {file} "), name
        assert "orthocond train redoes it from" in said.err
        assert listing(study.parent) == before, f"{name} changed something"


def test_an_undamaged_run_is_accepted_by_every_command(study, capsys):
    for name, arguments in commands(study).items():
        if name != "plot all":  # every figure again
            assert run(arguments) == 0, capsys.readouterr()


@pytest.mark.parametrize("damage", [flip, cut, empty])
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named_by_every_command(study, file, damage, capsys):
    damage(only_run(study) / file)
    refused(study, list(commands(study)), file, capsys)


@pytest.mark.parametrize("file", [name for name in FILES if name != "manifest.json"])
def test_a_missing_file_is_named_by_every_command(study, file, capsys):
    (only_run(study) / file).unlink()
    refused(study, list(commands(study)), file, capsys)


@pytest.mark.parametrize("damage", [flip, cut, empty])
@pytest.mark.parametrize(
    "file", ["state.safetensors", "state.json", "metrics.csv", "manifest.json"]
)
def test_a_damaged_checkpoint_of_an_incomplete_run_is_named(study, file, damage, capsys):
    folder = only_run(study)
    (folder / "manifest.json").unlink()
    (checkpoint,) = (folder / "checkpoint").iterdir()
    damage(checkpoint / file)
    names = ["measure", "measure the study", "train", "train dry"]
    refused(study, names, f"checkpoint/{checkpoint.name}/{file}", capsys)


def test_a_damaged_configuration_of_an_incomplete_run_is_named(study, capsys):
    folder = only_run(study)
    (folder / "manifest.json").unlink()
    flip(folder / "config.json")
    refused(study, ["measure", "measure the study", "train", "train dry"], "config.json", capsys)


def test_the_remedy_in_the_error_message_works(trained, study, capsys):
    """Remove what it says, train again, and the run is what it was."""
    folder = only_run(study)
    cut(folder / "conditioning.csv")
    refused(study, ["train"], "conditioning.csv", capsys)
    for name in ("manifest.json", "conditioning.csv"):
        (folder / name).unlink()
    assert run(commands(study)["train"]) == 0
    for name in ("config.json", "metrics.csv", "conditioning.csv", "summary.json"):
        assert (folder / name).read_bytes() == (only_run(trained) / name).read_bytes()


def test_other_runs_of_a_study_with_a_damaged_one_are_left_alone(study, capsys):
    other = [*TINY, "--method", "svd", "--out", str(study)]
    flip(only_run(study) / "metrics.csv")
    before = listing(study)
    assert run(["train", *other]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert listing(study) == before


def test_another_configuration_is_refused_key_by_key(study, capsys):
    before = listing(study)
    changed = ["--set", "lr=0.3", "--set", "probe_every=2"]
    assert run([*commands(study)["train"], *changed]) == 2
    error = capsys.readouterr().err
    assert "lr is 0.1 there and 0.3 here; probe_every is 1 there and 2 here" in error
    assert error.count("\n") == 1 and listing(study) == before
    assert Run(only_run(study)).is_complete
