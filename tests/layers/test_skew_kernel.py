"""The skew filter, the bound on its norm and its exponential against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import dense_convolution
from torch import Tensor

from orthocond.layers.skew_kernel import exponential, skew, unfoldings


def drawn(c: int, k: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(c, c, k, k, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_dense_matrix_is_skew_up_to_the_border(k: int) -> None:
    D = dense_convolution(skew(drawn(3, k)), 5, 6)
    assert np.array_equal(D, -D.T)


@given(c=st.integers(1, 4), k=st.sampled_from([1, 3, 5]), n=st.integers(1, 6), seed=st.integers(0))
@settings(max_examples=40, deadline=None)
def test_the_bound_is_above_the_norm(c: int, k: int, n: int, seed: int) -> None:
    L = drawn(c, k, seed % 2**32)  # any filter, not only a skew one
    bound = k * min(np.linalg.norm(A.numpy(), 2) for A in unfoldings(L))
    assert np.linalg.norm(dense_convolution(L, n, n), 2) <= bound * (1 + 1e-12)
    # On an endless image the norm is the largest over frequencies.
    frequencies = np.fft.fft2(L.numpy(), (32, 32), axes=(2, 3)).transpose(2, 3, 0, 1)
    assert np.linalg.norm(frequencies, 2, axis=(2, 3)).max() <= bound * (1 + 1e-12)


def test_exponential_of_nothing_is_the_identity() -> None:
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    L = torch.zeros(3, 3, 3, 3, dtype=torch.float64)
    assert torch.equal(exponential(x, L, 5), x)
