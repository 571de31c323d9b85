"""Environment that a run records: versions, commit, device, threads, but no host name."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("orthocond", "torch", "torchvision", "accelerate", "numpy")
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Names of the instructions for products in bfloat16, in torch.cpu.get_capabilities."""


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


def _version(name: str) -> str:
    """Return the version of a package; ``unknown`` for a source tree that is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    """Return the model of the processor (on Linux), or its architecture (on other systems)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _capabilities() -> Mapping[str, Any]:
    """Return torch's list of what the CPU can do; it is empty if an older torch has none."""
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities


def has_bfloat16() -> bool:
    """Return whether the CPU multiplies in bfloat16, or True if an older torch can't tell."""
    capabilities = _capabilities()
    return not capabilities or any(capabilities.get(name) for name in BFLOAT16)


def _instructions() -> str:
    """Return the CPU's vector instructions that torch uses, and those for bfloat16.

    Processors with one model name, such as the virtual "AMD EPYC", differ in them. The kernels
    that torch chooses, and so the last digits of a run, depend on them.
    """
    capabilities = _capabilities()
    bfloat16 = [name for name in BFLOAT16 if capabilities.get(name)]
    return " ".join((torch.backends.cpu.get_cpu_capability(), *bfloat16))


def describe(device: torch.device, precision: str, processes: int) -> dict[str, Any]:
    """Return the environment of a run, as written to environment.json.

    Example:
        >>> describe(torch.device("cpu"), "float32", 1)["device"]
        'cpu'
    """
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
        "system": platform.system(),
        "device": device.type,
        "device_name": (
            torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
        ),
        "instructions": _instructions(),
        "dtype": precision,
        "threads": torch.get_num_threads(),
        "processes": processes,
    }
