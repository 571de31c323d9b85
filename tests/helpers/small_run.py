"""A small run, as training would write it: what the tests of files and faults work on."""

from __future__ import annotations

import hashlib
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthocond.artifacts.checkpoints import Checkpoint
from orthocond.artifacts.run_reader import Run
from orthocond.artifacts.run_writer import RunWriter

NAME = "dbn-leaves-small-svd+nog-s0"
CONFIG = {"task": "dbn", "data": {"name": "leaves", "size": 32}, "lr": 0.1, "epochs": 3, "seed": 0}
ENVIRONMENT = {"python": "3.11", "threads": 1, "packages": {"torch": "2.15"}}
SUMMARY = {"status": "complete", "top1": 50.0, "conditioning": {"kappa": math.inf}}
STEPS_PER_EPOCH = 2


def tensors(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model.weight": torch.randn(2, 3, generator=generator),
        "model.count": torch.tensor(step),
        "momentum.weight": torch.tensor([math.nan, math.inf, -0.0]),
    }


def tables(step: int) -> dict[str, list[dict[str, Any]]]:
    """The rows after some steps."""
    epochs = step // STEPS_PER_EPOCH
    return {
        "metrics": [
            {"epoch": e, "step": e * STEPS_PER_EPOCH, "lr": 0.1, "train_loss": 1 / (3 * e)}
            for e in range(1, epochs + 1)
        ],
        "timings": [{"epoch": e, "seconds": 0.5 * e} for e in range(1, epochs + 1)],
        "conditioning": [
            {"phase": "train", "epoch": 1, "step": s, "samples": 1, "kappa": 10.0 ** (s / 3)}
            for s in range(step)
        ],
    }


def state(step: int, within_epoch: bool = True) -> dict[str, Any]:
    sums = {"loss": step / 7, "worst": math.nan} if within_epoch else {}
    return {"sums": sums, "scaler": None}


def train(
    path: Path,
    last: int = 4,
    finish: bool = True,
    config: dict[str, Any] = CONFIG,
    pause: float = 0.0,
) -> Run:
    """Train, or resume, as the training loop does: a save a step, two at the end of an epoch."""
    with RunWriter(path) as writer:
        checkpoint = writer.begin(config, ENVIRONMENT)
        done = checkpoint.step if checkpoint else 0
        for step in range(done, last + 1):
            time.sleep(pause)
            if step > done:
                writer.save(Checkpoint(step, tensors(step), state(step), tables(step - 1)))
            within_epoch = step > done or (checkpoint and checkpoint.state["sums"])
            if step % STEPS_PER_EPOCH == 0 and within_epoch:
                writer.save(Checkpoint(step, tensors(step), state(step, False), tables(step)))
        if finish:
            writer.finish(SUMMARY, tables(last))
    return Run(path)


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder, with the SHA-256 of its content; a lock that was left aside."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
