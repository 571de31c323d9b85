"""Options, printed lines and result files that the benchmarks share."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

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
    if threads != torch.get_num_threads():  # a call makes batched inverses fail: pytorch #141358
        torch.set_num_threads(threads)
    return "cuda" if torch.cuda.is_available() else "cpu"


def show(title: str, medians: dict[str, float], reference: str) -> None:
    """Print the milliseconds of each case and its ratio to the reference case."""
    print(title)
    for name, seconds in medians.items():
        ratio = seconds / medians[reference]
        print(f"  {name:32s} {1e3 * seconds:10.3f} ms  {ratio:8.3f} x {reference}")


def machine() -> dict[str, str | int]:
    """Return torch's version, the device, the CPU's instructions and the number of threads."""
    return {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def training_step(model: nn.Module, device: str) -> Callable[[], None]:
    """Return a function that takes a training step of a network on 128 images of 32 pixels."""
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(128, 3, 32, 32, device=device)
    labels = torch.randint(10, (128,), device=device)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return run


def write(folder: Path, name: str, **values: object) -> None:
    """Write values, and the machine that they were measured on, to <folder>/<name>.json."""
    folder.mkdir(parents=True, exist_ok=True)
    content = machine() | values
    part = folder / f".{name}.{os.getpid()}.part"
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(folder / f"{name}.json")
