"""The model of many processes against a ring that is played through, and where it is plain."""

from __future__ import annotations

from typing import Any

import pytest

from orthocond.report.demonstrations.scaling import PROCESSES, Network, build, on_the_ring

FREE = Network(latency=0.0, bandwidth=float("inf"))


def row(processes: int, batch: int, seconds: float, meta: float = 0.0) -> dict[str, Any]:
    shared = processes > 1
    return {
        "case": "dbn svd",
        "processes": processes,
        "batch": batch,
        "seconds": seconds,
        "sent": 5e6 * shared,
        "meta_bytes": meta * shared,
        "meta_messages": 2.0 * shared,
        "gradient_bytes": 4e6 * shared,
        "gradient_messages": 1.0 * shared,
    }


# 0.1 s and 10 ms an image
MEASURED = {"rows": [row(1, 128, 1.38), row(1, 64, 0.74), row(2, 128, 0.8, meta=66_568.0)]}


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_bytes_on_the_ring_agree_with_a_simulated_ring(processes: int) -> None:
    """Each process holds p parts of a vector: p - 1 rounds add them up, p - 1 hand the sums on."""
    p, size = processes, 840
    held = [[float(rank + part) for part in range(p)] for rank in range(p)]
    sent = [0.0] * p
    for r in range(2 * (p - 1)):
        parts = [(rank - r + (r >= p - 1) * p) % p for rank in range(p)]
        messages = [held[rank][part] for rank, part in enumerate(parts)]
        for rank, part in enumerate(parts):
            to = (rank + 1) % p
            adds = r < p - 1
            held[to][part] = messages[rank] + (held[to][part] if adds else 0.0)
            sent[rank] += size / p
    sums = [sum(rank + part for rank in range(p)) for part in range(p)]
    assert held == [sums] * p
    assert sent == pytest.approx([on_the_ring(size, p)] * p)


def test_one_process_or_an_infinitely_fast_network_needs_the_measured_time() -> None:
    table = build(MEASURED, FREE).set_index("processes")
    assert table["images/s modelled"].tolist() == pytest.approx([p * 64 / 0.74 for p in PROCESSES])
    assert table["efficiency"].tolist() == pytest.approx([1.0] * len(PROCESSES))
    assert table.loc[[1, 2], "images/s measured"].tolist() == pytest.approx([64 / 0.74, 128 / 0.8])
    assert table.loc[8:, "images/s measured"].isna().all()


def test_latency_grows_with_the_processes_and_bytes_do_not() -> None:
    slow = build(MEASURED, Network(latency=1e-3, bandwidth=float("inf"))).set_index("processes")
    narrow = build(MEASURED, Network(latency=0.0, bandwidth=1e6)).set_index("processes")
    # three messages of 2 (p - 1) hops, and twice 4.07 MB at most
    assert 512 * 64 / slow.loc[512, "images/s modelled"] == pytest.approx(0.74 + 3 * 2 * 511 * 1e-3)
    at_most = 0.74 + 2 * (4e6 + 66_568) / 1e6
    assert 512 * 64 / narrow.loc[512, "images/s modelled"] == pytest.approx(at_most, rel=2e-3)
    assert narrow.loc[512, "meta-layer kB"] == pytest.approx(2 * 66.568 * 511 / 512)


def test_nothing_is_sent_by_one_process() -> None:
    table = build(MEASURED).set_index("processes")
    assert table.loc[1, ["meta-layer kB", "gradient kB"]].tolist() == [0.0, 0.0]
    assert table.loc[1, "images/s modelled"] == pytest.approx(table.loc[1, "images/s measured"])
