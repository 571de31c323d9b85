"""Scripts of the folder examples, run on a page."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import torch

from kit.runs import ROOT


def run_example(name: str, *launcher: str) -> None:
    """Run a script of the folder examples with Python, and print its output.

    Without a launcher the script runs in this process, which has imported torch already.

    Args:
        name: name of the script, without ``.py``.
        launcher: arguments of Python before the script, such as those of ``torch.distributed.run``.

    Raises:
        RuntimeError: a launched script failed; the text is what it wrote to its standard error.
    """
    script = str(ROOT / "examples" / f"{name}.py")
    if not launcher:
        print(_output(script))
        return
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, *launcher, script]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    print(done.stdout)


def _output(script: str) -> str:
    """Run a script in this process, in one thread, and return what it prints."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()) as shown:
            warnings.simplefilter("ignore")
            with redirect_stderr(StringIO()):  # bars of progress
                runpy.run_path(script, run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    return shown.getvalue()
