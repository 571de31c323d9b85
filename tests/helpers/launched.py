"""Training started as a user starts it: the networks, a small run's settings, its processes."""

from __future__ import annotations

from pathlib import Path

NETWORKS = Path(__file__).parent / "plain_networks"
"""Folder for PYTHONPATH: networks whose results do not depend on how a batch is divided."""

SETTINGS = [
    *("epochs=5", "batch_size=16", "data.train_images=160", "data.test_images=40"),  # 50 steps
    *("data.classes=4", "data.size=16", "lr=0.02", "probe_every=5", "recalibration_batches=2"),
    *("precision=float64", "checkpoint_every=1"),
]


def process_of_rank(launcher: int, rank: int) -> int:
    """Return the id of the process with this rank among the children of ``launcher``."""
    for children in Path(f"/proc/{launcher}/task").glob("*/children"):
        for child in children.read_text().split():
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
    raise AssertionError(f"no process has rank {rank}")
