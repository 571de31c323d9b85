"""Collectives against their definition on plain tensors, on one process and on two."""

from __future__ import annotations

import pytest
import torch
from forked import in_forks

from orthocond.distributed import gathered, is_distributed, lost_processes_named, reduced


def test_one_process_gets_its_own_tensors():
    a, b = torch.randn(3), torch.randn(2, 2)
    assert not is_distributed()
    assert all(x is y for x, y in zip(reduced(a, b), (a, b), strict=True))
    assert gathered(b) is b


def test_tensors_of_all_shapes_are_summed_over_processes(tmp_path):
    shapes = ((), (3,), (2, 3, 4), (0, 5))

    def tensors(rank):
        generator = torch.Generator().manual_seed(rank)
        return [torch.randn(s, dtype=torch.float64, generator=generator) for s in shapes]

    expected = [a + b for a, b in zip(tensors(0), tensors(1), strict=True)]
    for found in in_forks(lambda rank: [is_distributed(), *reduced(*tensors(rank))], tmp_path):
        assert found[0]
        assert all(torch.equal(x, y) for x, y in zip(found[1:], expected, strict=True))


@pytest.mark.parametrize("first", [0, 1, 5])
def test_rows_are_gathered_in_order_whatever_their_number(tmp_path, first):
    rows = torch.arange(10.0).reshape(5, 2)
    parts = (rows[:first], rows[first:])
    for found in in_forks(lambda rank: gathered(parts[rank]), tmp_path):
        assert torch.equal(found, rows)


def test_an_error_on_one_process_is_not_blamed_on_the_group():
    with pytest.raises(RuntimeError, match=r"^gloo/transport$"), lost_processes_named(1):
        raise RuntimeError("gloo/transport")
