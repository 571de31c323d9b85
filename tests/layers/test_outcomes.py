"""The counters of a layer's decompositions."""

import copy
import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import grad, jvp, vmap

import orthocond as oc
from orthocond.layers.covariance_pool import CovarianceRoot
from orthocond.layers.outcomes import SpectralOutcomes
from orthocond.spectral.eigh import eigh


def test_failures_are_counted_until_they_are_reset():
    outcomes = SpectralOutcomes()
    P = torch.eye(2).repeat(3, 2, 1, 1)
    outcomes.count(eigh(P).outcome)
    assert (outcomes.failures, outcomes.unrecovered) == (0, 0)
    P[0, 1] = P[2, 1] = float("nan")
    for _ in range(2):
        outcomes.count(eigh(P).outcome)
    outcomes.count(torch.tensor(1, dtype=torch.int8))
    assert repr(outcomes) == "SpectralOutcomes(failures=5, unrecovered=4)"
    outcomes.reset()
    assert (outcomes.failures, outcomes.unrecovered) == (0, 0)


@pytest.mark.parametrize("solver", ["low-rank", "eigh"])
@pytest.mark.parametrize("counted_before", [True, False])
def test_transforms_count_all_matrices_and_leave_a_plain_counter(solver, counted_before):
    torch.manual_seed(0)
    layer = CovarianceRoot(solver, eps=1e-2)
    x = torch.randn(5, 3, 4, 4)
    expected = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x)[0]
    x = x.detach()
    bad = x.clone()
    bad[[1, 3], 0, 0, 0] = torch.nan
    if not counted_before:
        layer = CovarianceRoot(solver, eps=1e-2)

    def loss(x):
        return layer(x).square().sum()

    assert torch.allclose(grad(loss)(x), expected)
    assert torch.allclose(vmap(grad(lambda x: loss(x[None])))(x), expected, atol=1e-6)
    assert layer.outcomes.failures == 0
    grad(loss)(bad)
    jvp(loss, (bad,), (bad,))
    vmap(grad(lambda x: loss(x[None])))(bad)
    assert (layer.outcomes.failures, layer.outcomes.unrecovered) == (6, 6)
    layer(bad)
    assert layer.outcomes.failures == 8
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.outcomes.failures == 8


@pytest.mark.parametrize("training", [True, False])
def test_a_pass_over_shapes_leaves_a_layer_as_it_was(training):
    torch.manual_seed(0)
    layer = oc.DecorrelatedBatchNorm2d(3).train(training)
    x = torch.randn(4, 3, 5, 5)
    expected = copy.deepcopy(layer)(x)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert layer(torch.randn(4, 3, 5, 5)).shape == x.shape
    assert layer.outcomes.failures == 0
    layer.load_state_dict(oc.DecorrelatedBatchNorm2d(3).state_dict())
    assert torch.equal(layer(x), expected)
