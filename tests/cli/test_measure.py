from __future__ import annotations

import json
import os
import pickle
from importlib.util import find_spec
from pathlib import Path

import pytest
import small_run
import torch
from image_tree import write_tree
from safetensors.torch import save_file
from study_factory import write_study

from orthocond.artifacts.timing_artifacts import find_timings
from orthocond.models.external_models import torchvision_model
from orthocond_cli.main import run

MODEL = ["--model", "resnet18", "--layer", "conv1", "--batches", "2", "--batch-size", "4"]
SMALL = ["--model", "squeezenet1_1", "--layer", "features.0", "--batch-size", "4"]
BLOCK = [*MODEL, "--layer", "layer1", "--size", "16", "--batches", "1"]
VIT = ["--model", "vit_b_16", "--layer", "conv_proj", "--batch-size", "2", "--batches", "1"]
TIMING = ["--timing", "--method", "nog", "--batch-size", "2", "--size", "8"]


@pytest.fixture
def measured(capsys: pytest.CaptureFixture[str]):
    def measure(*arguments: str | Path) -> str:
        code = run(["measure", *map(str, arguments)])
        said = capsys.readouterr()
        assert (code, said.err) == (0, "")
        return said.out

    return measure


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_study(tmp_path_factory.mktemp("runs") / "study", ("svd", "bn"), seeds=1)
    small_run.train(folder / small_run.NAME, last=3, finish=False)
    return folder


def test_runs_are_verified_and_their_conditioning_is_printed(study, measured):
    before = small_run.listing(study)
    text = measured(study / "dbn-cifar10-jpeg-small-svd-s0")
    assert "dbn-cifar10-jpeg-small-svd-s0  complete, verified" in text
    assert "train (60 records)" in text and "eval (12 records)" in text
    lines = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert lines["rank"] == ["27", "13.5", "54", "27", "13.5", "54"]
    assert small_run.listing(study) == before


def test_a_study_is_measured_by_its_runs_and_the_checkpoints_of_incomplete_ones(study, measured):
    told = json.loads(measured(study, "--json"))
    assert [result["status"] for result in told] == ["complete", "complete", "incomplete"]
    assert told[2]["run"] == small_run.NAME and set(told[2]["phases"]) == {"train"}
    assert told[0]["phases"]["train"]["rank"] == {"median": 27.0, "min": 13.5, "max": 54.0}
    assert told == json.loads(measured(study.parent, "--json"))


def test_several_runs_have_one_line_each(study, measured):
    lines = measured(study).splitlines()
    assert lines[0].split() == ["run", "status", "rank", "kappa", "kappa_support", "kappa_eps"]
    told = {line.split()[0]: line.split()[1:] for line in lines[2:5]}
    assert told["dbn-cifar10-jpeg-small-svd-s0"][:2] == ["complete", "27"]
    assert told[small_run.NAME][0] == "incomplete"
    assert lines[-1].startswith("3 runs, verified")


def test_values_that_are_not_finite_are_valid_json(tmp_path, measured):
    from orthocond.artifacts.csv_tables import CONDITIONING
    from orthocond.artifacts.run_writer import RunWriter

    row = dict.fromkeys(CONDITIONING, float("inf")) | {"phase": "train", "epoch": 1, "step": 0}
    with RunWriter(tmp_path / small_run.NAME) as writer:
        writer.begin(small_run.CONFIG, small_run.ENVIRONMENT)
        writer.finish(small_run.SUMMARY, {"conditioning": [row]})
    text = measured(tmp_path, "--json")
    assert (
        json.loads(text, parse_constant=pytest.fail)[0]["phases"]["train"]["kappa"]["max"] == "inf"
    )


def test_a_layer_is_measured_over_leaves(measured):
    told = json.loads(measured(*MODEL, "--size", "16", "--json"))
    assert (told["model"], told["layer"], told["data"]) == ("resnet18", "conv1", "leaves")
    assert told["size"] == 16 and told["weights"] == "random weights"
    phase = told["phases"]["eval"]
    assert phase["records"] == 2 and phase["structural_rank"] == 64
    text = measured(*MODEL, "--size", "16", "--per-sample", "--side", "input")
    assert text.startswith(
        "input of conv1 in resnet18 (random weights), 3 channels, over leaves at 16 pixels: "
        "2 batches of 4 images, one covariance an image\n"
    )


def test_a_layer_whose_type_does_not_tell_its_channels_is_measured_where_it_is_said(measured):
    for channel_dim, channels in (("1", 64), ("-3", 64), ("-1", 4)):
        text = measured(*BLOCK, "--channel-dim", channel_dim)
        assert f"output of layer1 in resnet18 (random weights), {channels} channels" in text


def test_only_the_images_that_are_measured_are_made(measured, monkeypatch):
    from orthocond.data import load

    made: list[int] = []
    original = load.make_leaves
    monkeypatch.setattr(
        load, "make_leaves", lambda count, *more: made.append(count) or original(count, *more)
    )
    measured(*MODEL, "--size", "16")
    assert made == [8, 1]


def test_a_layer_is_measured_over_a_folder_of_all_its_classes(tmp_path, measured):
    tree = write_tree(tmp_path / "images", ("a", "b", "c", "d"), count=9)
    told = json.loads(measured(*MODEL, "--data", f"folder:{tree}", "--json"))
    assert told["data"] == "images" and told["size"] == 16
    assert told["phases"]["eval"]["records"] == 2


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_a_file_are_measured(tmp_path, suffix, measured):
    state = torchvision_model("resnet18").state_dict()
    state["conv1.weight"] = state["conv1.weight"] * 2
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    random = json.loads(measured(*MODEL, "--size", "16", "--json"))
    told = json.loads(measured(*MODEL, "--size", "16", "--weights", path, "--json"))
    for field, factor in (("lambda_max", 4), ("kappa", 1), ("rank", 1)):  # twice the features
        medians = [t["phases"]["eval"][field]["median"] for t in (random, told)]
        assert medians[1] == pytest.approx(factor * medians[0], rel=1e-12)
    assert told["weights"] == f"weights of {path}"


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize(
    ("model", "layer"),
    [("resnet18", "conv1"), ("convnext_atto", "stages.0.blocks.0.conv_dw")],
)
def test_a_layer_of_a_model_of_timm_is_measured(tmp_path, model, layer, measured):
    import timm

    arguments = ["--model", f"timm:{model}", "--layer", layer, "--batches", "2"]
    arguments += ["--batch-size", "4", "--size", "32", "--json"]
    told = json.loads(measured(*arguments))
    assert told["model"] == f"timm:{model}" and told["phases"]["eval"]["records"] == 2
    torch.manual_seed(0)
    network = timm.create_model(model)
    assert told["phases"]["eval"]["rank"]["median"] <= network.get_submodule(layer).out_channels
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    again = json.loads(measured(*arguments, "--weights", tmp_path / "weights.pt"))
    assert again["phases"] == told["phases"] and "weights.pt" in again["weights"]


class Runs:
    """What it unpickles to makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda v, p: p.write_bytes(pickle.dumps(v))])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, save, capsys):
    save({"conv1.weight": Runs(tmp_path / "made")}, tmp_path / "weights.pt")
    assert run(["measure", *MODEL, "--weights", str(tmp_path / "weights.pt")]) == 2
    error = capsys.readouterr().err
    assert "is a pickle of more than tensors" in error and error.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_timing_takes_turns_and_keeps_what_it_measured(tmp_path, measured, capsys):
    text = measured(*TIMING, "--out", tmp_path / "timing")
    assert text.startswith("dbn small, 2 images of 8 pixels, float32, 20 rounds: median ms [quart")
    assert [line.split()[0] for line in text.splitlines()[3:]] == ["bn", "svd+nog"]
    names = [timing.name for timing in find_timings(tmp_path / "timing")]
    assert names == ["dbn-small-bn-float32-b2-x8", "dbn-small-svd+nog-float32-b2-x8"]
    before = small_run.listing(tmp_path)
    assert run(["measure", *TIMING, "--out", str(tmp_path / "timing")]) == 2
    assert "remove it to measure again" in capsys.readouterr().err
    assert small_run.listing(tmp_path) == before
    rows = json.loads(measured(*TIMING, "--json"))
    assert [row["method"] for row in rows] == ["bn", "svd+nog"] and rows[0]["rounds"] == 20
    assert set(rows[0]["forward_ms"]) == {"median", "min", "q1", "q3"}


WHICH = "name one of: RUNS, --model with --layer, --timing, or --against RUN"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], WHICH),
        (["--layer", "conv1"], WHICH),
        (["runs", "--timing"], WHICH),
        (["runs", "--model", "resnet18", "--layer", "conv1"], WHICH),
        (["runs", "--layer", "conv1"], "--layer goes with --model, not with RUNS"),
        (["runs", "--size", "32"], "--size goes with --model or --timing, not with RUNS"),
        ([*MODEL, "--repeats", "30"], "--repeats goes with --timing, not with --model"),
        ([*TIMING, "--weights", "x"], "--weights goes with --model, not with --timing"),
        (["/does/not/exist"], "there is no run or study '/does/not/exist'"),
        (["--model", "resnet18"], "--model needs --layer"),
        ([*MODEL, "--model", "resnet19"], "unknown model 'resnet19'"),
        ([*MODEL, "--layer", "conv2"], "unknown layer 'conv2' of ResNet"),
        ([*MODEL, "--layer", "conv2"], "did you mean 'conv1'?"),
        ([*MODEL, "--side", "ouput"], "unknown side 'ouput': allowed are input, output"),
        ([*BLOCK], "Sequential does not tell where its channels are: pass channel_dim= (--channel"),
        ([*BLOCK, "--channel-dim", "0"], "channel_dim is 0: allowed are 1, 2, ... or -1, -2, ..."),
        ([*BLOCK, "--channel-dim", "4"], "allowed are 1 to 3 or -1 to -3"),
        ([*MODEL, "--channel-dim", "2"], "has 64 channels, and dimension 2 of its output"),
        (["runs", "--channel-dim", "1"], "--channel-dim goes with --model, not with RUNS"),
        ([*MODEL, "--data", "leavs"], "did you mean 'leaves'?"),
        ([*MODEL, "--data", "folder:/absent"], "no such image folder: '/absent'"),
        ([*MODEL, "--weights", "/absent.pt"], "cannot read the weights '/absent.pt'"),
        ([*MODEL, "--batches", "0"], "--batches"),
        ([*SMALL, "--size", "8"], "does not take images (4, 3, 8, 8)"),
        ([*SMALL, "--size", "8"], "; choose another --size than 8"),
        ([*SMALL, "--model", "vit_b_16"], "unknown layer"),
        ([*VIT, "--size", "40"], "Expected 224 but got 40!; choose another --size than 40"),
        ([*VIT], "Expected 224 but got 32!; choose another --size than 32"),
        ([*SMALL, "--model", "timm:"], "unknown model 'timm:'"),
        ([*TIMING, "--model", "timm:resnet18"], "unknown model for dbn 'timm:resnet18'"),
        ([*TIMING, "--method", "nogg"], "did you mean 'nog'?"),
        ([*TIMING, "--task", "dbm"], "'dbn' or 'gcp'"),
        ([*TIMING, "--model", "smal"], "did you mean 'small'?"),
        ([*TIMING, "--repeats", "3"], "a median of less than 20 is not reported"),
        ([*TIMING, "--set", "lrr=1"], "unknown setting 'lrr'"),
        ([*TIMING, "--size", "1"], "does not take images (2, 3, 1, 1)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_reported_in_one_line_with_exit_code_2(arguments, words, capsys):
    assert run(["measure", *arguments]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.out == ""


def test_runs_of_two_studies_are_told_apart_and_their_figures_are_written(measured, tmp_path):
    for name in ("all", "few"):
        write_study(tmp_path / "runs" / name, ("svd",), seeds=1)
    listed = measured("runs", tmp_path / "runs")
    assert "all/dbn-cifar10-jpeg-small-svd-s0" in listed and "few/dbn-cifar10" in listed
    out = tmp_path / "new" / "results.csv"
    assert measured("runs", tmp_path / "runs", "--csv", out).split() == [str(out)]
    studies = [line.split(",")[0] for line in out.read_text().splitlines()]
    assert studies == ["study", "all", "few"]


def test_figures_take_the_place_of_no_pipe(study, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "pipe", "not a regular file"), (".", "Is a directory")):
        assert run(["measure", "runs", str(study), "--csv", str(path)]) == 2
        assert words in capsys.readouterr().err
    assert (tmp_path / "pipe").is_fifo()


def test_figures_are_written_or_printed_but_not_both(study, tmp_path, capsys):
    assert run(["measure", "runs", str(study), "--csv", str(tmp_path / "a.csv"), "--json"]) == 2
    assert "--csv writes a file and --json prints: give one of them" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_a_folder_that_cannot_be_made_is_refused_before_the_timing(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setattr("orthocond_cli.measure_time.time_cases", lambda *_: 1 / 0)
    assert run(["measure", "time", "--method", "bn", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "cannot write" in capsys.readouterr().err
