"""Environment that a run records: versions, commit, device, threads, but no host name."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("orthocond", "torch", "torchvision", "accelerate", "numpy")


def commit() -> str | None:
    """Return the commit of the source tree that the package runs from, with '+' if it is modified.

    None is returned outside a git repository, or if git can't be run.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "orthocond", "cli")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    """Return the model of the processor (on Linux), or its architecture (on other systems)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe(device: torch.device, precision: str, processes: int) -> dict[str, Any]:
    """Return the environment of a run, as written to environment.json.

    Example:
        >>> describe(torch.device("cpu"), "float32", 1)["device"]
        'cpu'
    """
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "commit": commit(),
        "system": platform.system(),
        "device": device.type,
        "device_name": (
            torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
        ),
        "dtype": precision,
        "threads": torch.get_num_threads(),
        "processes": processes,
    }
