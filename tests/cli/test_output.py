"""Output that can't be written: a full disk, a reader that has gone, an encoding without kappa."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from study_factory import write_study

from orthocond.artifacts.run_reader import Run
from orthocond_cli.main import run
from orthocond_cli.output import REPLACE, Descriptor, Text

COMMAND = [sys.executable, "-m", "orthocond_cli"]
LINE = b"orthocond: cannot write the output: No space left on device\n"
TINY = [
    *("train", "--method", "bn", "--set", "epochs=1", "--set", "batch_size=8"),
    *("--set", "data.train_images=16", "--set", "data.test_images=8", "--set", "data.classes=2"),
    *("--set", "data.size=8", "--set", "recalibration_batches=1"),
]

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("runs") / "study", ("svd", "bn"), seeds=1)


def command(
    arguments: list[str], redirected: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run it as a shell does, with its streams where ``redirected`` says."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$@" {redirected}', "bash", *COMMAND, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def commands(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    out = str(tmp_path_factory.mktemp("out"))
    study = ["--runs", str(runs)]
    return {
        "help": ["--help"],
        "version": ["--version"],
        "help of a command": ["table", "--help"],
        "table": ["table", "overview", *study],
        "plot": ["plot", "fig3", *study, "--out", out, "--format", "png"],
        "measure": ["measure", str(runs), "--json"],
    }


@pytest.mark.parametrize(
    "name", ["help", "version", "help of a command", "table", "plot", "measure"]
)
def test_a_full_disk_is_reported_in_one_line_with_exit_code_1(commands, name: str) -> None:
    done = command(commands[name], "> /dev/full")
    assert done.returncode == 1
    *others, last = done.stderr.splitlines(keepends=True)
    assert last == LINE
    assert not others or name == "plot", "there are remarks on the figure"


@pytest.mark.parametrize("name", ["help", "version", "table"])
def test_a_closed_pipe_is_silent_with_exit_code_0(commands, name: str) -> None:
    done = command(commands[name], "| exec true")
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_encoding_without_kappa_gets_a_replacement(commands, capsys) -> None:
    assert run(commands["table"]) == 0
    text = capsys.readouterr().out
    assert "κ" in text
    done = command(commands["table"], PYTHONIOENCODING="cp1252")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == text.encode("cp1252", errors="replace")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = command(commands["table"], **plain)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == text.encode("ascii", errors="replace")


def test_a_closed_output_is_reported_in_one_line_with_exit_code_1() -> None:
    done = command(["--version"], ">&-")
    assert done.returncode == 1
    assert done.stderr == b"orthocond: cannot write the output: Bad file descriptor\n"
    assert command(["--version"], "<&- >&- 2>&-").returncode == 1


@pytest.mark.parametrize("redirected", ["2> /dev/full", "2>&-"])
def test_an_error_that_cannot_be_printed_keeps_its_exit_code(redirected: str) -> None:
    """And is not told in the place of the output."""
    done = command(["tabel"], redirected)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


def test_a_run_is_trained_though_its_results_cannot_be_shown(tmp_path: Path) -> None:
    done = command([*TINY, "--out", str(tmp_path)], "> /dev/full")
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert done.stderr.splitlines(keepends=True)[-1] == LINE
    assert Run(tmp_path / "dbn-leaves-small-bn-s0").is_complete


def test_a_run_outlives_the_reader_and_a_log_that_is_full(tmp_path: Path) -> None:
    """And its exit code does: a run that diverges is 1, whether anybody reads that or not."""
    diverging = [*TINY, "--set", "lr=1e30", "--out", str(tmp_path)]
    assert command(diverging, "2> /dev/full | exec true").returncode == 1
    assert Run(tmp_path / "dbn-leaves-small-bn-s0").status == "diverged"


# The streams by themselves


def text_on(descriptor: Descriptor, encoding: str) -> Text:
    return Text(io.BufferedWriter(descriptor), encoding=encoding, errors=REPLACE)


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("utf-8", b"a\xffb \xce\xba ?"),
        ("ascii", b"a\xffb ? ?"),
        ("cp1252", b"a\xffb ? ?"),
    ],
)
def test_a_name_that_is_not_utf8_is_printed_with_its_bytes(tmp_path, encoding, written) -> None:
    """Those that are no characters: plot prints such a path for another program."""
    with open(tmp_path / "out", "wb") as file:
        text = text_on(Descriptor(file.fileno(), "w", closefd=False), encoding)
        text.write(os.fsdecode(b"a\xffb") + " κ \ud800")
        text.flush()
    assert (tmp_path / "out").read_bytes() == written


def test_a_pipe_that_does_not_block_is_written_whole() -> None:
    """As a terminal that another program shares may be."""
    data = b"x" * 300_000
    code = (
        "import os, io; from orthocond_cli.output import Descriptor; os.set_blocking(1, False);"
        "out = io.BufferedWriter(Descriptor(1, 'w', closefd=False));"
        f"out.write(b'x' * {len(data)}); out.flush(); print(out.raw.failure, file=sys.stderr)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; {code}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.communicate(timeout=600) == (data, b"None\n")


def test_the_first_failure_of_the_output_is_reported() -> None:
    with open("/dev/full", "wb", buffering=0) as file:
        descriptor = Descriptor(file.fileno(), "w", closefd=False)
        assert descriptor.write(b"abc") == 3
        first = descriptor.failure
        descriptor.write(b"abc")
    assert first is not None and descriptor.failure is first
