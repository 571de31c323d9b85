"""Moments against the plain float64 covariance, at any mean and in any order."""

import pytest
import torch
from reference import covariance

from orthocond.layers.moments import CHUNK, moments, no_moments


def samples(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(0, 1).flatten(1)  # (C, n)


@pytest.mark.parametrize("ratio", [0, 100, 1e4])
def test_the_covariance_is_exact_at_any_mean(ratio):
    torch.manual_seed(0)
    x = torch.randn(12, 5, 8, 8) + ratio
    expected = covariance(samples(x))
    taken = moments(x)
    assert torch.dist(taken.covariance()[0], expected) < 1e-6 * expected.norm()
    assert torch.allclose(taken.mean(), x.double().mean((0, 2, 3)), rtol=0, atol=1e-7)


def test_a_first_chunk_unlike_the_rest_costs_no_more_than_its_share():
    torch.manual_seed(0)
    images = CHUNK // (4 * 64 * 64)
    x = torch.randn(4 * images, 4, 64, 64)
    x[:images] += 1e4
    expected = samples(x).double().cov(correction=0)
    assert torch.dist(moments(x).covariance()[0], expected) < 1e-6 * expected.norm()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_are_the_blocks_and_parts_add_up(groups):
    torch.manual_seed(0)
    x = 3 + torch.randn(9, 4, 3, 3)
    expected = covariance(samples(x))
    total = no_moments(4, groups, x.device)
    for part in x.split(4):
        total = total.plus(moments(part, groups))
    assert total.n == 81
    for block, (a, b) in zip(
        total.covariance(), [(j, j + 4 // groups) for j in range(0, 4, 4 // groups)], strict=True
    ):
        assert torch.allclose(block, expected[a:b, a:b], atol=1e-6)


def test_no_images_have_no_moments():
    assert all(part.eq(0).all() for part in moments(torch.zeros(0, 3, 2, 2)))
