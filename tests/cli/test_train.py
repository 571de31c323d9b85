import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from orthocond.artifacts.run_reader import Run
from orthocond_cli.main import run

TINY = [
    *("--set", "epochs=1", "--set", "batch_size=16", "--set", "data.train_images=64"),
    *("--set", "data.test_images=40", "--set", "data.classes=4", "--set", "data.size=16"),
    *("--set", "probe_every=2", "--set", "recalibration_batches=2", "--set", "lr=0.02"),
]
COMMAND = [sys.executable, "-m", "orthocond_cli", "train"]


def test_a_dry_run_writes_nothing_and_shows_the_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    arguments = ["train", *TINY, "--method", "nog+svd", "--method", "bn", "--seeds", "0-1"]
    assert run([*arguments, "--out", str(study), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert [r["would"] for r in plan["runs"]] == ["train"] * 4
    assert plan["runs"][0]["run"] == "dbn-leaves-small-svd+nog-s0"
    assert plan["settings"]["batch_size"] == 16
    assert not study.exists()


def test_a_grid_is_trained_and_then_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", *TINY, "--method", "bn", "--method", "svd", "--out", str(tmp_path)]
    assert run([*arguments, "--json", "--track", "tensorboard"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in rows] == ["complete", "complete"]
    assert list((tmp_path / "tensorboard").rglob("events*"))
    assert run([*arguments, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("skip") == 2


def image(path: Path, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (32, 32)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for name in ("a", "b"):
            for i, mode in enumerate(("RGB", "L", "RGBA")):
                image(tmp_path / "images" / part / name / f"{i}.png", mode)
    return tmp_path / "images"


def break_image(folder: Path) -> None:
    path = folder / "train" / "a" / "3.jpg"
    Image.effect_noise((32, 32), 90).save(path)
    path.write_bytes(path.read_bytes()[:300])


def one_class(folder: Path) -> None:
    for part in ("train", "val"):
        for path in (folder / part / "b").iterdir():
            path.unlink()
        (folder / part / "b").rmdir()


def no_images(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.unlink()


@pytest.mark.parametrize("spoil", [break_image, one_class, no_images])
def test_a_bad_image_folder_is_reported_in_one_line(
    folder: Path, spoil: object, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(folder)  # type: ignore[operator]
    study = folder.parent / "study"
    assert run(["train", "--data", f"folder:{folder}", "--out", str(study)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not study.exists()


def test_greyscale_and_transparent_images_are_mixed_in(folder: Path) -> None:
    arguments = ["--data", f"folder:{folder}", "--out", str(folder.parent / "study")]
    settings = ["--set", "batch_size=6", "--set", "epochs=1", "--method", "bn"]
    assert run(["train", *arguments, *settings]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "nogg"], "did you mean 'nog'"),
        (["--method", "nog+nog"], "nog"),
        (["--data", "leavs"], "did you mean 'leaves'"),
        (["--data", "folder:/does/not/exist"], "/does/not/exist"),
        (["--preset", "quik"], "did you mean 'quick'"),
        (["--set", "epoch=1"], "did you mean 'epochs'"),
        (["--set", "epochs=0"], "greater than or equal to 1"),
        (["--set", "epochs=x"], "valid integer"),
        (["--set", "batch_size=100000"], "larger than"),
        (["--set", "model=smal"], "did you mean 'small'"),
        (["--seeds", "3-1"], "run backwards"),
        (["--task", "dbm"], "'dbn' or 'gcp'"),
        (["--set", "sync_batch_norm=true"], "needs GPUs"),
        (["--track", "wandb"], "allowed is tensorboard"),
        (["--config", "missing.toml"], "cannot read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_reported_in_one_line_with_exit_code_2(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    assert run(["train", *TINY, *arguments, "--out", str(study)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    assert run(["train", *TINY, "--out", str(tmp_path / "study")]) == 2
    assert "cannot" in capsys.readouterr().err


def test_a_file_instead_of_the_study_folder_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study").write_text("mine")
    assert run(["train", *TINY, "--out", str(tmp_path / "study")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "study").read_text() == "mine"


def processes(count: int, study: Path, *more: str) -> subprocess.CompletedProcess[str]:
    arguments = [*COMMAND, *TINY, "--out", str(study), "--num-processes", str(count), *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=600)


def test_two_processes_give_the_results_of_one_process(tmp_path: Path) -> None:
    """On the first steps, where rounding has not grown; and twice the same bytes."""
    settings = ["--method", "nog", "--set", "precision=float64"]
    finals = []
    for name, count in (("one", 1), ("two", 2), ("again", 2)):
        if count == 1:  # in this process, which has done its imports
            assert run(["train", *TINY, *settings, "--out", str(tmp_path / name)]) == 0
        else:
            done = processes(count, tmp_path / name, *settings)
            assert done.returncode == 0, done.stderr
        finals.append(Run(tmp_path / name / "dbn-leaves-small-svd+nog-s0"))
    one, two, again = finals
    assert two.environment["processes"] == 2
    for name in ("metrics.csv", "conditioning.csv"):
        assert (two.path / name).read_bytes() == (again.path / name).read_bytes()
    # the batch norms of the later layers are local, so only the probe's covariance is comparable
    first = [run.conditioning.iloc[0] for run in (one, two)]
    assert first[0]["lambda_max"] == pytest.approx(first[1]["lambda_max"], rel=1e-8)
    assert first[0]["rank"] == first[1]["rank"]


def test_an_error_of_all_processes_is_printed_once(tmp_path: Path) -> None:
    done = processes(2, tmp_path / "study", "--data", "folder:/does/not/exist")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.count("/does/not/exist") == 1


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_state_and_sets_the_exit_code(
    tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    arguments = [*COMMAND, *TINY, "--set", "epochs=500", "--out", str(tmp_path), "--method", "bn"]
    arguments += ["--set", "checkpoint_every=1"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoints = tmp_path / "dbn-leaves-small-bn-s0" / "checkpoint"
    while not list(checkpoints.glob("[0-9]*")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signum)
    _, error = process.communicate(timeout=600)
    assert process.returncode == code, error
    assert "Traceback" not in error
    assert Run(checkpoints.parent).has_checkpoint
