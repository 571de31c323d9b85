"""Covariances against numpy in float64 and extended precision."""

import numpy as np
import pytest
import torch
from forked import in_forks
from hypothesis import given, settings
from hypothesis import strategies as st

from orthocond.probes import covariance
from orthocond.probes.covariance import batch_covariance, sample_covariances


def features(b: int, d: int, n: int, seed: int, mean: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(b, d, n, dtype=torch.float64, generator=generator)
    return mean + x * torch.logspace(0, -2, d, dtype=torch.float64)[:, None]


def reference(x: torch.Tensor) -> np.ndarray:
    """The plain definition, in the longest float there is."""
    X = x.numpy().astype(np.longdouble).transpose(1, 0, 2).reshape(x.shape[1], -1)
    X = X - X.mean(1, keepdims=True)
    return (X @ X.T / X.shape[1]).astype(np.float64)


@given(
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(1, 7),
    st.sampled_from([0.0, 100.0, 1e6]),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([1, 20, 2**18]),
)
@settings(max_examples=60, deadline=None)
def test_the_batch_covariance_is_the_definition(b, d, n, mean, dtype, chunk):
    x = features(b, d, n, b + 10 * d + 100 * n, mean).to(dtype)
    before, covariance.CHUNK = covariance.CHUNK, chunk
    try:
        P, count = batch_covariance(x)
    finally:
        covariance.CHUNK = before
    expected = reference(x)
    # float64 sums of centred features: only the mean's own rounding is left of the mean.
    tolerance = 1e-14 * (1 + mean * np.sqrt(np.abs(expected).max()))
    assert np.abs(P.numpy() - expected).max() <= tolerance
    assert (P.dtype, count) == (torch.float64, b * n)


def test_each_sample_has_the_covariance_of_its_own_positions():
    x = features(5, 4, 9, 0, mean=3.0)
    P = sample_covariances(x)
    for i in range(5):
        assert np.allclose(P[i].numpy(), np.cov(x[i].numpy(), bias=True), atol=1e-14)


def test_float32_features_are_not_multiplied_in_float32():
    x = features(8, 6, 50, 1).float()
    x[:, 5] = x[:, 0]  # singular: a float32 product would show 1e-7 here
    l = torch.linalg.eigvalsh(batch_covariance(x)[0])
    assert abs(l[0] / l[-1]) < 1e-14


def test_covariance_of_one_sample_and_of_no_sample():
    assert batch_covariance(torch.ones(1, 3, 1))[0].eq(0).all()
    P, n = batch_covariance(torch.ones(0, 3, 4))
    assert n == 0 and P.eq(0).all()
    assert sample_covariances(torch.ones(2, 3, 1)).eq(0).all()
    assert sample_covariances(torch.ones(0, 3, 4)).shape == (0, 3, 3)


def test_nan_stays_nan():
    assert batch_covariance(torch.full((2, 2, 2), torch.nan))[0].isnan().all()


@pytest.mark.parametrize("first", [0, 1, 5])
def test_two_processes_give_the_result_of_one(tmp_path, first):
    x = features(8, 4, 6, 2, mean=50.0)
    parts = (x[:first], x[first:])
    found = in_forks(lambda rank: batch_covariance(parts[rank]), tmp_path)
    expected, n = batch_covariance(x)
    for P, count in found:
        assert count == n
        assert torch.allclose(P, expected, rtol=1e-13, atol=1e-14)
