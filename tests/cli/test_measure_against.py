"""``orthocond measure against``: exit codes, output and files; its parts are tested in measure/."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_run

from orthocond.artifacts.csv_tables import COLUMNS_OF, from_csv, to_csv
from orthocond.artifacts.manifests import MANIFEST, parse_hashed, seal
from orthocond.training import accelerator, session
from orthocond_cli.main import run

TINY = [
    *("--method", "bn", "--set", "epochs=2", "--set", "batch_size=8", "--set", "data.size=8"),
    *("--set", "data.train_images=16", "--set", "data.test_images=8", "--set", "data.classes=2"),
    *("--set", "probe_every=1", "--set", "recalibration_batches=1"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("trained") / "study"
    assert run(["train", *TINY, "--out", str(study)]) == 0
    return study / "dbn-leaves-small-bn-s0"


def test_the_receipt_is_printed_and_written_in_both_spellings(trained, tmp_path, capsys) -> None:
    before = small_run.listing(trained)
    file = tmp_path / "receipt.md"
    assert run(["measure", "against", str(trained), "--receipt", str(file)]) == 0
    said = capsys.readouterr()
    assert said.out == file.read_text() and said.err == ""
    assert said.out.startswith("# Reproduction receipt: dbn-leaves-small-bn-s0\n")
    assert said.out.endswith(": reproduced to the bit: all 8 rows are equal.**\n")
    assert run(["measure", "--epochs", "1", "--against", str(trained), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["reproduces"], told["steps"], told["epochs"]) == (True, 2, 1)
    assert small_run.listing(trained) == before


def test_a_changed_figure_exits_with_1(trained: Path, tmp_path: Path, capsys) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "study" / trained.name))
    shutil.copytree(trained, tmp_path / "out" / trained.name)  # a finished retraining
    manifest = parse_hashed((copy / MANIFEST).read_bytes(), "sha256")
    rows = from_csv(COLUMNS_OF["metrics"], (copy / "metrics.csv").read_bytes())
    rows[1]["train_loss"] += 0.001
    (copy / "metrics.csv").write_bytes(to_csv(COLUMNS_OF["metrics"], rows))
    files = {name: (copy / name).read_bytes() for name in manifest["files"]}
    about = {key: manifest[key] for key in ("run", "config", "format")}
    (copy / MANIFEST).write_bytes(seal(about, files))
    arguments = ["measure", "--against", str(copy), "--out", str(tmp_path / "out")]
    assert run(arguments) == 1
    out = capsys.readouterr().out
    assert "| train_loss " in out and "| -0.001 " in out and "| NO " in out
    assert (
        "**Verdict for 2 of 2 epochs: not reproduced: 1 of 8 rows differ, on the same machine"
        in out
    )


def test_a_retraining_is_kept_only_where_it_is_asked_for(trained, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    out = tmp_path / "kept"
    assert run(["measure", "against", str(trained), "--epochs", "0.5"]) == 0
    assert list(tmp_path.iterdir()) == []
    assert run(["measure", "against", str(trained), "--epochs", "0.5", "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == [trained.name]


@pytest.mark.parametrize("kept", [True, False])
def test_a_stopped_retraining_is_told_in_one_line(kept, trained, tmp_path, monkeypatch, capsys):
    original = session.Trainer.run

    def stopped(trainer: session.Trainer, *arguments: object) -> None:
        trainer.stop.signum = signal.SIGTERM
        original(trainer, *arguments)

    monkeypatch.setattr(session.Trainer, "run", stopped)
    more = ["--out", str(tmp_path / "out")] if kept else []
    assert run(["measure", "against", str(trained), *more]) == 128 + signal.SIGTERM
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("orthocond: stopped by SIGTERM: ")
    assert ("the same command resumes it from" if kept else "nothing is kept") in said.err


def test_an_emulated_precision_is_warned_of(trained, monkeypatch, capsys) -> None:
    monkeypatch.setattr(accelerator, "has_bfloat16", lambda: False)
    monkeypatch.setattr(
        "orthocond.measure.retraining._config",
        lambda *_: session.Config(precision="bfloat16", data={"train_images": 16}),
    )
    assert run(["measure", "against", str(trained)]) == 2  # these are other images
    assert "orthocond: warning: this CPU emulates bfloat16, which is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/absent"], "there is no run '/absent'"),
        (["RUN", "--epochs", "3"], "--epochs 3: allowed are numbers above 0, up to the 2 epochs"),
        (["RUN", "--data", "leavs"], "did you mean 'leaves'?"),
        (["RUN", "--data", "folder:/absent"], "no such image folder: '/absent'"),
        (["RUN", "--out", "STUDY"], "holds the run itself: name another folder with --out"),
        (["RUN", "--size", "8"], "--size goes with --model or --timing, not with --against"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_reported_in_one_line_with_exit_code_2(arguments, words, trained, capsys):
    named = {"RUN": str(trained), "STUDY": str(trained.parent)}
    arguments = [named.get(argument, argument) for argument in arguments]
    for spelling in (["against"], ["--against"]):
        assert run(["measure", *spelling, *arguments]) == 2
        said = capsys.readouterr()
        assert words in said.err and said.err.count("\n") == 1 and said.out == ""


def test_its_help_does_not_import_torch() -> None:
    code = (
        "import sys; from orthocond_cli.main import run; run(['measure', 'against', '--help']);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.mark.parametrize("place", ["file/receipt.md", "folder"])
def test_a_receipt_that_cannot_be_written_is_refused_before_the_training(
    place, trained, tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr("orthocond_cli.measure_against.retrain", lambda *_: 1 / 0)
    assert run(["measure", "against", str(trained), "--receipt", str(tmp_path / place)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot write" in said


def test_the_folder_of_a_receipt_is_made(trained, tmp_path) -> None:
    receipt = tmp_path / "new" / "receipt.md"
    arguments = ["measure", "against", str(trained), "--epochs", "1", "--receipt", str(receipt)]
    assert run(arguments) == 0
    assert receipt.read_text().startswith("# Reproduction receipt")
    assert list(receipt.parent.iterdir()) == [receipt]
