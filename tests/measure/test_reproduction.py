from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import small_run
import torch

from orthocond.artifacts.csv_tables import COLUMNS_OF, from_csv, to_csv
from orthocond.artifacts.manifests import MANIFEST, CorruptRun, parse_hashed, seal, with_hash
from orthocond.artifacts.run_reader import Run
from orthocond.config.sources import resolve
from orthocond.errors import UserError
from orthocond.measure.receipt import as_markdown, as_record
from orthocond.measure.reproduction import Reproduction, seeds_beside
from orthocond.measure.retraining import retrain
from orthocond.training.session import Session
from orthocond.training.signals import Interrupted, StopSignal

TINY = [
    *("epochs=3", "eval_every=2", "batch_size=8", "lr=0.02", "lr_milestones=[1,2]"),
    *("data.train_images=16", "data.test_images=8", "data.classes=2", "data.size=8"),
    *("probe_every=1", "recalibration_batches=1"),
]
EPOCH = 2  # steps


def train(study: Path, seeds: str, *settings: str) -> None:
    grid = resolve(flags={"methods": ["nog"], "seeds": seeds}, settings=[*TINY, *settings])
    list(Session(grid, study).train(lambda *_: None))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = tmp_path_factory.mktemp("runs") / "study"
    train(study, "0-3")
    return study


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "study"))


@pytest.fixture
def out(trained: Path, tmp_path: Path) -> Path:
    """A folder with a finished retraining of seed 0: a retraining writes the same files."""
    shutil.copytree(named(trained), named(tmp_path / "out"))
    return tmp_path / "out"


def named(study: Path, seed: int = 0) -> Path:
    return study / f"dbn-leaves-small-svd+nog-s{seed}"


def rewrite(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file of a run and seal the run again, as the project itself seals runs."""
    manifest = parse_hashed((path / MANIFEST).read_bytes(), "sha256")
    files = {file: (path / file).read_bytes() for file in manifest["files"]}
    files[name] = change(files[name])
    (path / name).write_bytes(files[name])
    about = {key: manifest[key] for key in ("run", "config", "format")}
    about["config"] = parse_hashed(files["config.json"], "hash")["hash"]
    (path / MANIFEST).write_bytes(seal(about, files))


def changed_row(table: str, row: int, **values: Any) -> Callable[[bytes], bytes]:
    columns = COLUMNS_OF[table]

    def change(data: bytes) -> bytes:
        rows = from_csv(columns, data)
        rows[row] |= values
        return to_csv(columns, rows)

    return change


def changed_environment(**values: Any) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(json.loads(data) | values).encode()


def on_another_machine(study: Path) -> None:
    for path in study.glob("dbn-*"):
        rewrite(path, "environment.json", changed_environment(device_name="Another CPU"))


def reproduced(path: Path, out: Path, **arguments: Any) -> Reproduction:
    run = Run(path)
    return Reproduction(run, retrain(run, out, **arguments), seeds_beside(run))


def test_a_run_reproduces_to_the_bit_and_is_not_touched(study: Path, tmp_path: Path) -> None:
    before = small_run.listing(study)
    found = reproduced(named(study), tmp_path / "out")
    assert found.verdict.reproduces and found.other_machine == []
    assert found.verdict.text == "reproduced to the bit: all 11 rows are equal"
    assert all(f.difference == f.largest == f.tolerance == 0 and f.within for f in found.figures)
    assert {"train_eval_top1", "eval log10 kappa", "lr"} <= {f.name for f in found.figures}
    assert small_run.listing(study) == before
    again = tmp_path / "out" / named(study).name
    for name in ("metrics.csv", "conditioning.csv", "summary.json", "config.json"):
        assert (again / name).read_bytes() == (named(study) / name).read_bytes()
    assert reproduced(named(study), tmp_path / "out").verdict == found.verdict  # without training


@pytest.mark.parametrize(
    ("epochs", "rows", "figure", "epoch"),
    [(0.5, (0, 1), "train rank", 1), (1, (1, 2), "train_loss", 1), (2.5, (2, 6), "eval_loss", 2)],
)
def test_the_first_epochs_follow_the_schedule_of_the_whole_run(
    study, tmp_path, epochs, rows, figure, epoch
) -> None:
    found = reproduced(named(study), tmp_path / "out", epochs=epochs)
    assert found.verdict.reproduces
    counts = [(r.recorded, r.here, r.equal) for r in found.rows.values()]
    assert counts == [(n, n, n) for n in rows]
    assert {f.name: f.epoch for f in found.figures}[figure] == epoch
    again = found.retrained.run
    assert not again.is_complete and found.retrained.steps == round(epochs * EPOCH)
    if epochs == 2.5:
        assert again.metrics["lr"].tolist() == Run(named(study)).metrics["lr"].tolist()[:2]
        # The same folder goes on with it, to the bytes of an uninterrupted run.
        assert reproduced(named(study), tmp_path / "out").verdict.reproduces
        assert Run(again.path).is_complete


def test_a_changed_figure_does_not_reproduce(study: Path, out: Path) -> None:
    path = named(study)
    loss = float(Run(path).metrics["train_loss"][1])
    rewrite(path, "metrics.csv", changed_row("metrics", 1, train_loss=loss * (1 + 1e-6)))
    found = reproduced(path, out)
    assert not found.verdict.reproduces
    assert found.verdict.text.startswith("not reproduced: 1 of 11 rows differ, on the same machine")
    figure = next(f for f in found.figures if f.name == "train_loss")
    assert figure.difference == 0 and figure.largest == pytest.approx(loss * 1e-6, rel=1e-2)
    assert reproduced(path, out, epochs=1).verdict.reproduces  # the row is later


def test_a_row_of_the_conditioning_counts_too(study: Path, out: Path) -> None:
    path = named(study)
    rewrite(path, "conditioning.csv", changed_row("conditioning", 0, negative_max=64))
    found = reproduced(path, out, epochs=0.5)
    assert (found.verdict.reproduces, found.rows["conditioning"].equal) == (False, 0)


def test_on_another_machine_the_spread_of_the_seeds_is_the_tolerance(study, out) -> None:
    on_another_machine(study)
    path = named(study)
    assert reproduced(path, out).verdict.text == "reproduced to the bit: all 11 rows are equal"
    metrics = Run(path).metrics
    changed = changed_row("metrics", 2, train_loss=float(metrics["train_loss"][2]) + 1e-6)
    rewrite(path, "metrics.csv", changed)
    found = reproduced(path, out)
    assert found.other_machine == ["device_name"] and found.verdict.reproduces
    assert found.verdict.text.startswith("reproduced within the spread of 3 other seeds: all ")
    assert "not to the bit: 1 of 11 rows differ" in found.verdict.text
    figure = next(f for f in found.figures if f.name == "train_loss")
    assert figure.difference == pytest.approx(-1e-6, rel=1e-2) and figure.tolerance > 0
    assert "Student" in as_markdown(found)

    rewrite(path, "metrics.csv", changed_row("metrics", 2, train_loss=1e6, lr=0.03))
    found = reproduced(path, out)
    assert found.verdict.text == (
        f"not reproduced: 2 of {len(found.figures)} figures are outside their tolerance: lr, "
        "train_loss"
    )
    assert not found.verdict.reproduces and "| NO " in as_markdown(found)


def test_few_seeds_decide_nothing_unless_the_rows_are_equal(study: Path, out: Path) -> None:
    on_another_machine(study)
    shutil.rmtree(named(study, 1))
    path = named(study)
    assert reproduced(path, out).verdict.reproduces
    rewrite(path, "metrics.csv", changed_row("metrics", 0, train_top1=20.0))
    for count in ("there are 2", "there is 1", "there are none"):
        found = reproduced(path, out)
        assert not found.verdict.reproduces
        assert found.verdict.text.startswith("not decidable: 1 of 11 rows differ, and a tolerance ")
        assert found.verdict.text.endswith(
            f"3 other seeds of this method and these settings, and {count}"
        )
        assert all(f.tolerance is None for f in found.figures)
        text = as_markdown(found)
        assert (
            "No tolerance: a tolerance needs 3 other seeds" in text
            and f", and {count}. The" in text
            and "| -        |" in text
        )
        for other in sorted(study.glob("dbn-*-s[23]"))[:1]:
            shutil.rmtree(other)


def test_only_runs_with_the_same_settings_are_seeds(study: Path, tmp_path: Path) -> None:
    train(tmp_path / "other", "4", "lr=0.03")
    shutil.copytree(named(tmp_path / "other", 4), named(study, 4))
    shutil.copytree(named(study, 2), study / "copy-s7")
    assert [r.settings["seed"] for r in seeds_beside(Run(named(study)))] == [1, 2, 3]
    (named(study, 2) / "metrics.csv").write_bytes(b"")
    with pytest.raises(CorruptRun, match="s2' is damaged"):
        seeds_beside(Run(named(study)))


def test_an_environment_that_does_not_identify_the_machine_is_another_one(study, out) -> None:
    """Older runs did not record the instructions."""
    path = named(study)

    def without(data: bytes) -> bytes:
        environment = json.loads(data)
        del environment["instructions"]
        return json.dumps(environment).encode()

    rewrite(path, "environment.json", without)
    assert reproduced(path, out, epochs=0.5).other_machine == ["instructions"]
    rewrite(path, "environment.json", changed_environment(earlier=[{"threads": 2}]))
    found = reproduced(path, out, epochs=0.5)
    assert set(found.other_machine) == {"instructions", "resumed in another environment"}
    assert "| resumed in another environment | yes " in as_markdown(found)


def test_other_versions_of_the_code_are_no_other_machine(study: Path, out: Path) -> None:
    packages = Run(named(study)).environment["packages"]
    change = changed_environment(commit="0" * 40, packages=packages | {"orthocond": "0.0.9"})
    rewrite(named(study), "environment.json", change)
    found = reproduced(named(study), out, epochs=0.5)
    assert found.other_machine == [] and f"| {'0' * 40}" in as_markdown(found)


def test_the_recorded_number_of_threads_is_used(study: Path, tmp_path: Path) -> None:
    rewrite(named(study), "environment.json", changed_environment(threads=2))
    before = torch.get_num_threads()
    found = reproduced(named(study), tmp_path / "out", epochs=0.5)
    assert found.retrained.environment["threads"] == 2 and torch.get_num_threads() == before
    assert "threads" not in found.other_machine


def test_an_older_run_is_completed_and_its_missing_columns_are_not_compared(tmp_path):
    """A run as format 1 stored it: without the newer settings and columns."""
    train(tmp_path / "old", "0", "calibration_stream=shared", "eval_every=1")
    path = named(tmp_path / "old")

    def older(data: bytes) -> bytes:
        settings = json.loads(data)
        for key in ("calibration_stream", "eval_every", "running", "gamma_start"):
            del settings[key]
        return with_hash(settings, "hash")

    def narrower(data: bytes) -> bytes:
        columns = COLUMNS_OF["metrics"]
        kept = [c for c in columns if not c.startswith("train_eval")]
        return to_csv(kept, [{c: r[c] for c in kept} for r in from_csv(columns, data)])

    rewrite(path, "config.json", older)
    rewrite(path, "metrics.csv", narrower)
    found = reproduced(path, tmp_path / "out")
    assert found.verdict.reproduces
    assert found.unrecorded == ["train_eval_loss", "train_eval_top1", "train_eval_top5"]
    assert found.run.config["hash"] != found.retrained.run.config["hash"]
    assert "newer than the run: train_eval_loss" in as_markdown(found)


def test_covariance_pooling_reproduces(tmp_path: Path) -> None:
    settings = ("task=gcp", "epochs=1", "data.size=16", "lr_milestones=[]")
    grid = resolve(flags={"methods": ["olr"]}, settings=[*TINY, *settings])
    (result,) = Session(grid, tmp_path / "study").train(lambda *_: None)
    found = reproduced(tmp_path / "study" / result.name, tmp_path / "out")
    assert found.verdict.reproduces and "eta" in {f.name for f in found.figures}


def test_a_run_that_diverged_must_diverge_again(tmp_path, monkeypatch) -> None:
    original = torch.nn.utils.get_total_norm

    def fail_at(step: int) -> None:
        calls = iter(range(1000))
        monkeypatch.setattr(
            torch.nn.utils,
            "get_total_norm",
            lambda g: torch.tensor(torch.nan) if next(calls) == step else original(g),
        )

    fail_at(3)
    train(tmp_path / "study", "0")
    path = named(tmp_path / "study")
    assert Run(path).status == "diverged"
    fail_at(3)
    assert reproduced(path, tmp_path / "out").verdict.reproduces
    assert reproduced(path, tmp_path / "out", epochs=1).verdict.reproduces  # it is later
    fail_at(1000)
    found = reproduced(path, tmp_path / "other")
    assert found.verdict.text.endswith("the recorded run diverged, this one did not diverge")
    assert not found.verdict.reproduces


def test_a_stopped_retraining_is_resumed(study: Path, tmp_path: Path) -> None:
    stop, out = StopSignal(), tmp_path / "out"

    def report(done: int, total: int) -> None:
        assert total == 3 * EPOCH
        stop.signum = 15 if done == 3 else 0

    with pytest.raises(Interrupted):
        retrain(Run(named(study)), out, stop=stop, report=report)
    steps: list[int] = []
    found = reproduced(named(study), out, report=lambda done, _: steps.append(done))
    assert found.verdict.reproduces and steps == [4, 5, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "--epochs 0: allowed are numbers above 0, up to the 3 epochs of the run"),
        ({"epochs": 3.5}, "--epochs 3.5: allowed"),
        ({"epochs": float("nan")}, "--epochs nan: allowed"),
        ({"data": "leavs"}, "did you mean 'leaves'"),
        ({"data": "folder:/absent"}, "no such image folder"),
    ],
)
def test_bad_arguments_are_refused(arguments, message, study: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        retrain(Run(named(study)), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_other_data_are_refused(study: Path, tmp_path: Path) -> None:
    def other(data: bytes) -> bytes:
        settings = json.loads(data)
        settings["data"] |= {"fingerprint": "f" * 64}
        return with_hash(settings, "hash")

    rewrite(named(study), "config.json", other)
    with pytest.raises(UserError, match=r"'leaves' has other images than .* with --data") as error:
        retrain(Run(named(study)), tmp_path / "out")
    assert "\n" not in str(error.value) and "ffffffffffff" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_data_in_a_folder_must_be_named(study: Path, tmp_path: Path) -> None:
    def other(data: bytes) -> bytes:
        settings = json.loads(data)
        settings["data"] |= {"name": "cifar10-jpeg"}
        return with_hash(settings, "hash")

    rewrite(named(study), "config.json", other)
    with pytest.raises(UserError, match=r"trained on 'cifar10-jpeg': name its .* --data folder:PA"):
        retrain(Run(named(study)), tmp_path / "out")
    # Data are known by their content: the name of the folder does not matter.
    assert reproduced(named(study), tmp_path / "out", data="leaves", epochs=0.5).verdict.reproduces


def test_the_run_itself_is_never_written(study: Path, tmp_path: Path) -> None:
    before = small_run.listing(study)
    with pytest.raises(UserError, match="holds the run itself: name another folder with --out"):
        retrain(Run(named(study)), study)
    (tmp_path / "link").symlink_to(study)
    with pytest.raises(UserError, match="holds the run itself"):
        retrain(Run(named(study)), tmp_path / "link")
    assert small_run.listing(study) == before
    assert not list(study.rglob(".lock"))


def test_a_damaged_or_incomplete_run_is_refused(study: Path, tmp_path: Path) -> None:
    (named(study) / "metrics.csv").write_bytes(b"")
    with pytest.raises(CorruptRun, match="is damaged"):
        retrain(Run(named(study)), tmp_path / "out")
    (named(study, 1) / MANIFEST).unlink()
    with pytest.raises(UserError, match="is not complete"):
        retrain(Run(named(study, 1)), tmp_path / "out")


def test_another_run_in_the_folder_is_refused(study: Path, tmp_path: Path) -> None:
    train(tmp_path / "out", "0", "lr=0.03", "epochs=1", "lr_milestones=[]")
    with pytest.raises(UserError, match=r"another configuration: epochs is 1 there and 3 here"):
        retrain(Run(named(study)), tmp_path / "out")


def test_the_receipt_and_its_record_name_what_a_stranger_needs(study, out, tmp_path) -> None:
    found = reproduced(named(study), out, epochs=1)
    record, text = as_record(found), as_markdown(found)
    run = Run(named(study))
    for expected in (
        run.name,
        "study `study`",
        run.config["hash"],
        run.settings["data"]["fingerprint"],
        "1 of 3 epochs (2 steps)",
        f"| packages.torch       | {torch.__version__.split('+')[0]}",
        "| threads ",
        "**Verdict for 1 of 3 epochs: reproduced to the bit: all 3 rows are equal.**\n",
    ):
        assert expected in text
    assert str(tmp_path) not in text  # a receipt can be posted: it has no paths
    assert record["verdict"] == found.verdict.text and record["reproduces"] is True
    assert record["rows"]["metrics"] == {"recorded": 1, "here": 1, "equal": 1}
    assert json.loads(json.dumps(record))["figures"][0]["name"] == "lr"
    assert record["environments"]["device"] == {"recorded": "cpu", "here": "cpu"}
