"""Training started as a user starts it: the networks, a small run's settings, its processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from orthocond.training import treated_network
from orthocond_cli.main import run

NETWORKS = Path(__file__).parent / "plain_networks"
"""Folder for PYTHONPATH: networks whose results do not depend on how a batch is divided."""

SETTINGS = [
    *("epochs=2", "batch_size=16", "data.train_images=160", "data.test_images=40"),  # 20 steps
    *("data.classes=4", "data.size=16", "lr=0.02", "probe_every=5", "recalibration_batches=2"),
    *("precision=float64", "checkpoint_every=1"),
]


def train_here(*arguments: object) -> None:
    """Train these networks on the CPU in this process, which has done its imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(NETWORKS), *sys.path])
        from networks import plain_model

        patch.setattr(treated_network, "build_model", plain_model)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        assert run(["train", *map(str, arguments)]) == 0


def process_of_rank(launcher: int, rank: int) -> int:
    """Return the id of the process with this rank among the children of ``launcher``."""
    for children in Path(f"/proc/{launcher}/task").glob("*/children"):
        for child in children.read_text().split():
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
    raise AssertionError(f"no process has rank {rank}")
