"""The probe against brute-force covariances, on one process and on two."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from forked import in_forks
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from orthocond.errors import UserError
from orthocond.probes import ConditioningProbe
from orthocond.spectral.conditioning import MEASURED, conditioning


def stem() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())


def images(b: int = 4, size: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(b, 3, size, size, generator=torch.Generator().manual_seed(seed))


def brute_force(x: torch.Tensor) -> np.ndarray:
    """Covariance of (B, d, ...) over everything but the channels, by numpy in float64."""
    rows = x.detach().double().numpy()
    return np.cov(np.moveaxis(rows, 1, 0).reshape(rows.shape[1], -1), bias=True)


def test_the_batch_covariance_of_a_layers_input():
    model = stem().double()
    with ConditioningProbe(model, "1", eps=1e-2, structural_rank=model[0]) as probe:
        model(images().double())
    (record,) = probe.records
    l = np.linalg.eigvalsh(brute_force(model[0](images().double())))
    assert (record.step, record.phase, record.samples) == (0, "train", 1)
    assert record.median == record.min == record.max
    found = record.median
    assert (found.rank, found.structural_rank, found.dimension) == (27, 27, 64)
    assert found.kappa > 1e14  # the noise of a singular matrix
    assert found.kappa_eps == pytest.approx((l[-1] + 1e-2) / 1e-2, rel=1e-9)
    assert found.kappa_support == pytest.approx(l[-1] / l[-27], rel=1e-9)
    assert found.lambda_max == pytest.approx(l[-1])
    assert found.stable_rank == pytest.approx(l.sum() / l[-1])


def test_the_input_of_the_next_layer_is_the_output_of_this_one():
    model = stem()
    with ConditioningProbe(model, "1") as a, ConditioningProbe(model, "0", side="output") as b:
        model(images())
    assert a.records == b.records
    assert a.records[0].median.dimension == 64


@pytest.mark.parametrize("dtype, rank_tol", [
    (torch.float32, 4 * 64 * 2**-52),
    (torch.float16, (2**-10 / 8) ** 2),
    (torch.bfloat16, (2**-7 / 8) ** 2),
])  # fmt: skip
def test_the_rank_is_27_in_every_precision(dtype, rank_tol):
    model = stem()
    features = model[0](images(8, 16)).to(dtype)
    with ConditioningProbe(model, "1") as probe:
        model[1].to(dtype)(features)
    found = probe.records[0].median
    assert found.rank_tol == rank_tol
    # The rounding of bfloat16 features lifts the null space to 2e-7: far above float64's zero.
    assert found.rank == 27
    noise = {torch.float32: 1e-12, torch.float16: 1e-6, torch.bfloat16: 1e-5}
    assert 1 / found.kappa < noise[dtype]


def test_a_covariance_per_sample_with_median_and_range():
    model, x = nn.Sequential(nn.Identity()), torch.randn(5, 4, 9).double().cumsum(0)
    with ConditioningProbe(model, "0", per_sample=True, channel_dim=1, common_rank=3) as probe:
        model(x)
    (record,) = probe.records
    covariances = [torch.from_numpy(brute_force(sample[None])) for sample in x]
    alone = [conditioning(P, common_rank=3) for P in covariances]
    assert record.samples == 5
    for name in MEASURED:
        values = sorted(getattr(one, name) for one in alone)
        found = [getattr(part, name) for part in (record.min, record.median, record.max)]
        assert found == pytest.approx([values[0], values[2], values[4]], rel=1e-8)


def test_fewer_positions_than_channels_are_singular():
    model = nn.Sequential(nn.Conv2d(200, 96, 1), nn.Identity())
    with ConditioningProbe(model, "1", 10, True, structural_rank=model[0], channel_dim=1) as probe:
        model(torch.randn(3, 200, 8, 8))
    median = probe.records[0].median
    assert median.rank == median.structural_rank == 63
    assert median.kappa > 1e14 > 1e6 > median.kappa_support


def test_every_tenth_training_forward_and_every_tenth_batch_of_an_evaluation():
    model = stem()
    with ConditioningProbe(model, "1") as probe:
        for _ in range(2):
            model.train()
            for _ in range(15):
                model(images(1))
            model.eval()
            for _ in range(12):
                model(images(1))
    assert [(r.phase, r.step) for r in probe.records] == [
        ("train", 0), ("train", 10), ("eval", 15), ("eval", 15),
        ("train", 20), ("eval", 30), ("eval", 30),
    ]  # fmt: skip


def test_setting_the_step_makes_resuming_exact():
    def steps(first: int, last: int, micro_batches: int = 1) -> list[int]:
        model = stem()
        with ConditioningProbe(model, "1", every=4) as probe:
            for step in range(first, last):
                probe.step = step
                for _ in range(micro_batches):
                    model(images(1))
        return [record.step for record in probe.take()]

    assert steps(0, 20) == steps(0, 7) + steps(7, 20) == [0, 4, 8, 12, 16]
    assert steps(3, 9, micro_batches=3) == [4, 8]


def test_taking_records_forgets_them_and_closing_leaves_the_model():
    model = stem()
    probe = ConditioningProbe(model, "1", every=1)
    model(images())
    assert len(probe.take()) == 1 and probe.take() == []
    probe.close()
    model(images())
    assert probe.records == []
    assert not model[1]._forward_pre_hooks


def test_the_probe_changes_nothing():
    plain, probed = stem().double(), stem().double()
    x = images().double()
    before = x.clone()
    with ConditioningProbe(probed, "1", every=1), ConditioningProbe(probed, "0", every=1):
        outputs = [model(x) for model in (plain, probed)]
        for output in outputs:
            output.square().sum().backward()
    assert torch.equal(*outputs) and torch.equal(x, before)
    for a, b in zip(plain.parameters(), probed.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_a_closed_probe_is_refused_as_a_context():
    model = stem()
    probe = ConditioningProbe(model, "1")
    with probe:
        model(images())
    with pytest.raises(UserError, match="the probe of layer '1' is closed and would record"), probe:
        model(images())
    assert len(probe.records) == 1


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_forward_that_a_checkpoint_repeats_is_no_step(reentrant):
    model = stem()
    with ConditioningProbe(model, "1", every=2) as probe:
        for _ in range(4):
            x = images().requires_grad_()
            checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    assert [record.step for record in probe.records] == [0, 2] and probe.step == 4


def test_a_row_has_the_columns_of_conditioning_csv():
    from orthocond.artifacts.csv_tables import CONDITIONING

    model = stem()
    with ConditioningProbe(model, "1") as probe:
        model(images())
    row = probe.records[0].row()
    assert set(row) == set(CONDITIONING) - {"epoch"}
    assert row["rank"] == row["rank_min"] == 27 and row["structural_rank"] is None


class Attention(nn.Module):
    """Calls its parts by keyword and with channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(input=self.norm(x))


def test_layers_with_channels_last_and_keyword_inputs():
    model, x = Attention().double(), torch.randn(3, 7, 6).double()
    with ConditioningProbe(model, "mlp") as probe:
        model(x)
    expected = conditioning(torch.from_numpy(brute_force(model.norm(x).movedim(-1, 1))))
    # LayerNorm's output sums to zero over the channels.
    assert probe.records[0].median.rank == expected.rank == 5
    assert probe.records[0].median.kappa_support == pytest.approx(expected.kappa_support)


def test_features_without_positions_and_of_any_memory_format():
    linear, x = nn.Sequential(nn.Linear(5, 4)), torch.randn(20, 5).double()
    with ConditioningProbe(linear.double(), "0") as probe:
        linear(x)
    expected = conditioning(torch.from_numpy(brute_force(x)))
    assert probe.records[0].median.kappa == pytest.approx(expected.kappa)
    model = stem()
    with ConditioningProbe(model, "0", every=1) as probe:
        model(images())
        model(images().to(memory_format=torch.channels_last))
    first, second = (record.median.kappa for record in probe.records)
    assert first == pytest.approx(second, rel=1e-12)


@pytest.mark.parametrize("value, kappa", [(0.0, math.inf), (2.5, math.inf), (math.nan, math.nan)])
def test_degenerate_features_are_recorded_and_do_not_raise(value, kappa):
    model = nn.Sequential(nn.Identity())
    for per_sample in (False, True):
        with ConditioningProbe(model, "0", per_sample=per_sample, channel_dim=1) as probe:
            model(torch.full((2, 3, 4, 4), value))
        found = probe.records[0].median
        assert found.kappa == pytest.approx(kappa, nan_ok=True)
        assert found.rank == 0


def test_an_empty_batch_leaves_no_record():
    model = nn.Sequential(nn.Identity())
    for per_sample in (False, True):
        with ConditioningProbe(model, "0", per_sample=per_sample, channel_dim=1) as probe:
            model(torch.zeros(0, 3, 4, 4))
        assert probe.records == []


@pytest.mark.parametrize("per_sample", [False, True])
def test_two_processes_record_the_global_batch(tmp_path, per_sample):
    x = images(7)

    def rows(part: torch.Tensor) -> list[dict[str, Any]]:
        model = stem()
        with (
            ConditioningProbe(
                model,
                "1",
                every=2,
                per_sample=per_sample,
                structural_rank=model[0],
                common_rank=model[0],
            ) as probe,
            torch.no_grad(),
        ):
            for i in range(3):
                model(part + i)
        return [record.row() for record in probe.records]

    expected = rows(x)
    assert len(expected) == 2
    parts = (x[0::2], x[1::2])
    for found in in_forks(lambda rank: rows(parts[rank]), tmp_path):
        for one, two in zip(expected, found, strict=True):
            assert (one["phase"], one["step"]) == (two["phase"], two["step"])
            # kappa of a singular matrix is rounding noise, which no two sums share
            unsure = ("phase", "kappa", "kappa_min", "kappa_max", "negative")
            sure = [
                k for k in one if not k.startswith(("negative", "kappa_eps")) and k not in unsure
            ]
            assert [two[k] for k in sure] == pytest.approx([one[k] for k in sure], rel=1e-9)


def test_a_distributed_wrapper_is_looked_through(tmp_path):
    def dimension(rank: int) -> int:
        wrapped = DistributedDataParallel(stem())
        with ConditioningProbe(wrapped, "1") as probe, torch.no_grad():
            wrapped(images())
        return probe.records[0].median.dimension

    assert in_forks(dimension, tmp_path) == [64, 64]


def test_bad_input_is_named():
    model = stem()
    with pytest.raises(UserError, match=r"unknown layer 'layer_1' of Sequential.*"):
        ConditioningProbe(model, "layer_1")
    named = nn.ModuleDict({"conv1": nn.Conv2d(3, 4, 1)})
    with pytest.raises(UserError, match=r"unknown layer 'conv'.*; did you mean 'conv1'\?"):
        ConditioningProbe(named, "conv")
    with pytest.raises(UserError, match="every is 0: allowed are whole numbers from 1"):
        ConditioningProbe(model, "1", every=0)
    for eps in (-1.0, math.nan):
        with pytest.raises(UserError, match=f"eps must be 0 or more and finite, got {eps}"):
            ConditioningProbe(model, "1", eps=eps)
    with pytest.raises(UserError, match="unknown side 'out': allowed are input, output"):
        ConditioningProbe(model, "1", side="out")
    for every in (1.5, True, None):
        with pytest.raises(UserError, match=f"every is {every!r}: allowed are whole numbers"):
            ConditioningProbe(model, "1", every=every)
    with pytest.raises(UserError, match="a BatchNorm2d has no fan-in"):  # not in the forward
        ConditioningProbe(model, "1", structural_rank=model[1])
    assert not model[1]._forward_pre_hooks
    embedding = nn.Sequential(nn.Embedding(4, 2))
    with (
        pytest.raises(UserError, match=r"probed Embedding is \(2, 3\) of torch.int64"),
        ConditioningProbe(embedding, "0"),
    ):
        embedding(torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize("r", [0, -1, 2.5, True, 65])
def test_a_common_rank_outside_of_the_spectrum_is_refused(r):
    model = stem()
    with (
        pytest.raises(UserError, match=r"common_rank is .*: allowed are whole numbers from"),
        ConditioningProbe(model, "1", common_rank=r),
    ):
        model(images())
