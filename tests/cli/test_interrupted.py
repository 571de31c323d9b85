"""Ctrl-C while the command is not training: one exit code, and nothing to read."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("interrupted_import")
MOMENTS = {  # modules, each imported by a command later than those before it
    "typer": ["--help"],
    "orthocond_cli.table": ["--help"],
    "torch.nn": ["train", "--dry-run"],
    "accelerate": ["train", "--dry-run"],
    "pandas": ["table", "tab1"],
}


def command(*arguments: str, at: str, ignoring: bool = False) -> subprocess.CompletedProcess[str]:
    """Run it with a Ctrl-C at an import; a process inherits what its parent ignores."""
    environment = {"PYTHONPATH": str(FOLDER), "INTERRUPTED_IMPORT": at}
    handler = signal.SIG_IGN if ignoring else signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)
    try:
        return subprocess.run(
            [sys.executable, "-m", "orthocond_cli", *arguments],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("at", MOMENTS)
def test_ctrl_c_during_imports_is_silent_with_exit_code_130(at: str) -> None:
    done = command(*MOMENTS[at], at=at)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    """As a shell without job control starts what runs in the background."""
    done = command("--version", at="typer", ignoring=True)
    assert done.returncode == 0 and done.stderr == ""
