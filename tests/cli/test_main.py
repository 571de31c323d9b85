import os
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from orthocond_cli.main import run


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from orthocond_cli.main import run; run(['--help']);"
        "sys.exit('torch' in sys.modules or 'orthocond' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_version_prints_the_version_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == version("orthocond")


def test_version_of_a_source_tree_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("orthocond_cli.app.version", absent)
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == "unknown"


@pytest.mark.parametrize("command", ["train", "measure", "plot", "table"])
def test_every_command_has_help_with_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "--help"]) == 0
    assert f"orthocond {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["trian"], ["train", "--sed", "1"], ["train", "extra"]])
def test_wrong_usage_is_reported_in_one_line_with_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("orthocond: ") and error.count("\n") == 1


def test_a_warning_is_one_line_without_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        run(["--version"])
        warnings.warn("a checkpoint\nwas passed over", stacklevel=1)
    assert capsys.readouterr().err == "orthocond: warning: a checkpoint was passed over\n"


def test_the_backend_of_matplotlib_in_the_environment_is_no_matter(tmp_path: Path) -> None:
    """Find no runs, in one line: an unknown backend ended in a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "orthocond_cli", "table", "regimes", "--runs", str(tmp_path)],
        env=os.environ | {"MPLBACKEND": "foo"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("orthocond: no runs")
