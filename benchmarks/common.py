"""Options, printed lines and result files that the benchmarks share."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch

from orthocond.training.allocator import keep_memory

RESULTS = Path(__file__).parent / "results"


def options(description: str, rounds: int, **flags: str) -> argparse.Namespace:
    """Return the command line's options, with the flags (name to help text)."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result")
    for name, text in flags.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=text)
    return parser.parse_args()


def begin(threads: int, fresh_memory: bool = False) -> str:
    """Seed torch, set its threads, and keep freed memory as training does; return the device.

    With ``fresh_memory``, malloc keeps its default settings.
    """
    if not fresh_memory:
        keep_memory()
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    return "cuda" if torch.cuda.is_available() else "cpu"


def show(title: str, medians: dict[str, float], reference: str) -> None:
    """Print the milliseconds of each case and its ratio to the reference case."""
    print(title)
    for name, seconds in medians.items():
        ratio = seconds / medians[reference]
        print(f"  {name:32s} {1e3 * seconds:10.3f} ms  {ratio:8.3f} x {reference}")


def machine() -> dict[str, str | int]:
    """Return torch's version, the device and the number of threads of the measurement."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
    }


def write(folder: Path, name: str, tables: dict[str, dict[str, float]], **others: object) -> None:
    """Write medians in seconds, and other values, to <folder>/<name>.json atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    content = machine() | {"median_seconds": tables} | others
    part = folder / f".{name}.{os.getpid()}.part"
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(folder / f"{name}.json")
