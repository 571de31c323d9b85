"""Sub-commands of ``measure``, and the older spellings, which name none: both do the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from study_factory import write_study

from orthocond_cli.main import run

LAYER = ["--model", "squeezenet1_1", "--layer", "features.0", "--size", "32"]
LAYER += ["--batch-size", "2", "--batches", "1"]
TIME = ["--method", "nog", "--batch-size", "2", "--size", "8"]
OWN = {  # sub-command: its options, and the arguments of an example
    "runs": {"--csv", "--json"},
    "layer": {
        *("--model", "--layer", "--size", "--batch-size", "--side", "--per-sample"),
        *("--channel-dim", "--data", "--weights", "--batches", "--json"),
    },
    "time": {
        *("--model", "--size", "--batch-size", "--task", "--method", "--repeats", "--set"),
        *("--out", "--json"),
    },
    "against": {"--data", "--epochs", "--out", "--receipt", "--json"},
}
WHICH = "name one of: RUNS, --model with --layer, --timing, or --against RUN"


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]):
    def measure(*arguments: str) -> tuple[int, str, str]:
        code = run(["measure", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return measure


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with studies that are named like sub-commands, and one that is not."""
    folder = tmp_path_factory.mktemp("studies")
    for number, name in enumerate((*OWN, "demo"), 1):
        write_study(folder / name, ("svd",), seeds=number)
    return folder


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_runs_in_both_spellings(more, folder, told):
    paths = [str(folder / "demo"), str(folder / "runs")]
    for arguments in (paths, paths[:1], [str(folder)], ["/absent"]):
        new = told("runs", *arguments, *more)
        assert new == told(*arguments, *more) == told(*more, *arguments)
        assert new[0] == (2 if arguments == ["/absent"] else 0)


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--json"],
        ["--per-sample", "--side", "input"],
        ["--channel-dim", "4"],
        ["--layer", "conv2"],
        ["--model", "resnet19"],
        ["--side", "ouput"],
        ["--batches", "0"],
        ["--size", "8"],
        ["--weights", "/absent.pt"],
        ["--unknown"],
        ["--size"],
    ],
    ids=" ".join,
)
def test_a_layer_in_both_spellings(more, told):
    assert told("layer", *LAYER, *more) == told(*LAYER, *more)


@pytest.mark.parametrize(
    "more",
    [["--repeats", "3"], ["--method", "nogg"], ["--task", "dbm"], ["--set", "lrr=1"], ["--model"]],
    ids=" ".join,
)
def test_bad_timing_in_both_spellings(more, told):
    new = told("time", *TIME, *more)
    assert new == told("--timing", *TIME, *more) and new[0] == 2
    assert new == told(*TIME[:2], "--timing", *TIME[2:], *more)


def test_timing_in_both_spellings(tmp_path, told):
    """The milliseconds differ; all else is equal."""
    texts = []
    for number, spelling in enumerate((["time"], ["--timing"])):
        out = tmp_path / str(number)
        code, text, error = told(*spelling, *TIME, "--out", str(out), "--json")
        assert (code, error) == (0, "")
        texts.append([(row["case"], row["rounds"]) for row in json.loads(text)])
        assert sorted(path.name for path in out.iterdir()) == sorted(c for c, _ in texts[-1])
    assert texts[0] == texts[1] and len(texts[0]) == 2


@pytest.mark.parametrize("name", list(OWN))
def test_a_folder_that_is_named_like_a_sub_command_needs_its_path(name, folder, told, monkeypatch):
    monkeypatch.chdir(folder)
    expected = told("demo")
    assert told("./demo") == expected and expected[0] == 0
    for path in (f"./{name}", str(folder / name)):
        code, text, error = told(path, "--json")
        results = json.loads(text)
        count = list(OWN).index(name) + 1
        assert (code, error, len(results if isinstance(results, list) else [0])) == (0, "", count)
    assert told("runs", name, "--json")[1] == text  # after the sub-command it is a path
    more = ["--task", "dbm"] if name == "time" else []  # else it would time all methods
    assert told(name, *more)[0] == 2  # by itself it is the sub-command, with nothing to measure


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnus"], "there is no run or study 'rnus', and no such sub-command: allowed are runs, "),
        (["rnus"], "layer, time, against; did you mean 'runs'?"),
        (["agianst"], "did you mean 'against'?"),
        (["against"], "Missing argument 'RUN'"),
        (["--against"], "requires an argument"),
        (["--against", "x", "y"], WHICH),
        (["--against", "x", "--timing"], WHICH),
        (["runs", "--against", "x"], WHICH),
        (["--against", "x", "--batches", "2"], "goes with --model, not with --against"),
        (["--timing", "--epochs", "2"], "--epochs goes with --against, not with --timing"),
        (["--timing", "--data", "x"], "--data goes with --model or --against, not with --timing"),
        (["x", "--out", "y"], "--out goes with --timing or --against, not with RUNS"),
        (["tmie", "--json"], "did you mean 'time'?"),
        (["--json", "layr"], "did you mean 'layer'?"),
        (["absent/rnus"], "there is no run or study 'absent/rnus'\n"),
        (["runs", "rnus"], "there is no run or study 'rnus'\n"),
        (["runs"], "Missing argument 'RUN"),
        (["layer"], "Missing option '--model'"),
        (["layer", "--model", "resnet18"], "Missing option '--layer'"),
        (["time", "extra"], "Got unexpected extra argument"),
        (["runs", "--size", "8", "."], "--size goes with --model or --timing, not with RUNS; see "),
        (["time", "--weights", "x"], "--weights goes with --model, not with --timing; see orthoc"),
        (["layer", *LAYER, "--repeats", "3"], "not with --model; see orthocond measure time --he"),
        (["layer", *LAYER, "--timing"], WHICH),
        (["runs", "--jsno"], "No such option: --jsno"),
        (["runs", "--json=3", "."], "does not take a value"),
        (["--timing", "time"], WHICH),
        (["--", "--timing"], "there is no run or study '--timing'\n"),
        (["--"], WHICH),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_reported_in_one_line_with_the_allowed_usage(arguments, message, told):
    code, text, error = told(*arguments)
    assert (code, text) == (2, "")
    assert message in error and error.count("\n") == 1


def test_the_help_names_each_sub_command_with_an_example(told):
    code, text, error = told("--help")
    assert (code, error) == (0, "")
    words = " ".join(text.split())
    for name in OWN:
        assert re.search(rf"orthocond measure {name} \S", words)
    assert "./runs" in words and "--timing" in words and "--against RUN" in words
    for older in (["demo", "--help"], ["--timing", "--help"], ["-h"], ["--model", "x", "-h"]):
        assert told(*older) == (0, text, "")


@pytest.mark.parametrize("name", list(OWN))
def test_the_help_of_a_sub_command_shows_its_own_options_only(name, told):
    code, text, error = told(name, "--help")
    assert (code, error) == (0, "")
    options = re.findall(r"^│ +\*? +(--[a-z-]+)|^│ (--[a-z-]+)", text, re.MULTILINE)
    assert {first or second for first, second in options} == OWN[name] | {"--help"}
    assert re.search(rf"Examples?: orthocond measure {name} ", " ".join(text.split()))


def test_help_of_the_sub_commands_does_not_import_torch():
    code = (
        "import sys; from orthocond_cli.main import run; run(['measure', '--help']);"
        "run(['measure', 'layer', '--help']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
