"""Second derivatives, forward mode and torch.func of the spectral functions.

Torch's gradcheck compares with central differences; what torch.func returns is compared with
autograd on one matrix at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from reference import spectrum
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import orthocond as oc

Function = Callable[[Tensor], Tensor]

SPECTRA = {
    "simple": [3.0, 2.0, 1.0],
    "double": [2.0, 2.0, 1.0],
    "triple": [1.0, 1.0, 1.0],
    "near": [1 + 1e-9, 1.0, 0.5],
}
FUNCTIONS: dict[str, Function] = {
    "sqrt": oc.matrix_sqrt,
    "inv_sqrt": oc.matrix_inv_sqrt,
    "sqrt-minimax": partial(oc.matrix_sqrt, solver="minimax"),
    "inv_sqrt-minimax": partial(oc.matrix_inv_sqrt, solver="minimax"),
    "log": oc.matrix_log,
    "power 1/3": partial(oc.matrix_power, p=1 / 3),
    "power -1.7": partial(oc.matrix_power, p=-1.7),
    "power 3": partial(oc.matrix_power, p=3),
}
ALL = pytest.mark.parametrize("name", FUNCTIONS)
TARGET = spectrum([1.0, 2.0, -3.0], seed=1)
DIRECTION = spectrum([1.0, -1.0, 2.0], seed=2)


def loss(name: str, P: Tensor) -> Tensor:
    return (FUNCTIONS[name](P) * TARGET).sum()


@ALL
@pytest.mark.parametrize("kind", SPECTRA)
def test_first_and_second_derivatives(name: str, kind: str) -> None:
    """Reverse and forward mode, and both ways to compose them."""
    P = spectrum(SPECTRA[kind]).requires_grad_()

    def f(P: Tensor) -> Tensor:
        return FUNCTIONS[name]((P + P.mT) / 2)

    fast = "minimax" in name  # along one random direction
    assert gradcheck(f, P, check_forward_ad=True, fast_mode=fast)
    assert gradgradcheck(f, P, check_fwd_over_rev=True, fast_mode=fast)


@ALL
def test_torch_func_on_one_matrix_and_on_each_of_a_batch(name: str) -> None:
    P = torch.stack([spectrum(values) for values in SPECTRA.values()])
    f = partial(loss, name)
    expected = torch.stack([torch.autograd.grad(f(p.requires_grad_()), p)[0] for p in P.clone()])
    vmap, grad = torch.func.vmap, torch.func.grad
    close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-12)
    close(vmap(FUNCTIONS[name])(P), FUNCTIONS[name](P))
    close(grad(f)(P[0]), expected[0])
    close(vmap(grad(f))(P), expected)  # per-sample gradients
    close(vmap(vmap(grad(f)))(P.view(2, 2, 3, 3)), expected.view(2, 2, 3, 3))
    close(vmap(FUNCTIONS[name], in_dims=2)(P.movedim(0, 2)), FUNCTIONS[name](P))
    slopes = vmap(lambda P: torch.func.jvp(f, (P,), (DIRECTION,))[1])(P)
    close(slopes, (expected * DIRECTION).sum((1, 2)))
    hessian = torch.autograd.functional.hessian(f, P[1])
    close(torch.func.hessian(f)(P[1]), hessian)
    close(vmap(torch.func.jacrev(torch.func.jacfwd(f)))(P)[1], hessian)


def test_a_third_derivative_of_a_root() -> None:
    """tr P^(1/2) has the third derivative 3/8 tr P^(-5/2) in the direction I."""
    P = spectrum([4.0, 4.0, 1.0]).requires_grad_()
    value = oc.matrix_sqrt(P).trace()
    for _ in range(3):
        (gradient,) = torch.autograd.grad(value, P, create_graph=True)
        value = gradient.trace()
    assert value.item() == pytest.approx(3 / 8 * (2 * 4**-2.5 + 1), rel=1e-12)


def test_second_derivatives_in_float32_and_in_batches() -> None:
    P = torch.stack([spectrum(values) for values in SPECTRA.values()])

    def penalty(P: Tensor) -> Tensor:
        P = P.clone().requires_grad_()
        (g,) = torch.autograd.grad(oc.matrix_inv_sqrt(P).square().sum(), P, create_graph=True)
        return torch.autograd.grad(g.square().sum(), P)[0]

    single = penalty(P.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), penalty(P), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(penalty(P)[1], penalty(P[1]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("matrix_root", [oc.matrix_sqrt, oc.matrix_inv_sqrt])
@pytest.mark.parametrize(
    "options",
    [*({"backward": rule} for rule in ("pade", "taylor", "raw")), {"solver": "newton-schulz"}],
    ids=str,
)
def test_other_rules_have_a_first_derivative_only(
    matrix_root: Callable[..., Tensor], options: dict[str, str]
) -> None:
    P = spectrum(SPECTRA["simple"]).requires_grad_()

    def f(P: Tensor) -> Tensor:
        return matrix_root(P, **options).square().sum()

    (plain,) = torch.autograd.grad(f(P), P)
    (g,) = torch.autograd.grad(f(P), P, create_graph=True)
    assert torch.equal(g, plain) and torch.equal(torch.func.grad(f)(P.detach()), plain)
    line = "has a first derivative only: use solver 'eigh' or 'minimax' with backward 'exact'"
    with pytest.raises(oc.UserError, match=line):
        g.sum().backward()
    if "solver" in options:
        with pytest.raises(oc.UserError, match="newton-schulz has no forward mode: use solver"):
            torch.func.jvp(f, (P.detach(),), (DIRECTION,))
    else:
        slope = torch.func.jvp(f, (P.detach(),), (DIRECTION,))[1]
        assert slope.item() == pytest.approx((plain * DIRECTION).sum().item())


def test_a_singular_matrix_has_a_square_root_and_no_derivative() -> None:
    P = torch.diag(torch.tensor([4.0, 0.0, 1.0], dtype=torch.float64)).requires_grad_()
    Q = oc.matrix_sqrt(P)
    assert torch.equal(Q, torch.diag(torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64)))
    line = "infinite derivative at a singular matrix: pass eps > 0, which is added to the diagonal"
    with pytest.raises(oc.UserError, match=line):
        Q.sum().backward()
    with pytest.raises(oc.UserError, match=line):
        torch.func.vmap(torch.func.grad(lambda P: oc.matrix_sqrt(P).sum()))(P.detach()[None])
    with pytest.raises(oc.UserError, match=line):
        torch.func.jvp(oc.matrix_sqrt, (P.detach(),), (P.detach(),))
    assert gradgradcheck(lambda P: oc.matrix_sqrt((P + P.mT) / 2, eps=0.5), P)
