"""Matrix functions under torch.compile, as one graph: values, gradients and errors are eager's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from reference import spectrum
from torch import Tensor

import orthocond as oc
from orthocond.errors import DecompositionError, UserError

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt": oc.matrix_sqrt,
    "sqrt, newton-schulz": partial(oc.matrix_sqrt, solver="newton-schulz"),
    "inverse sqrt": oc.matrix_inv_sqrt,
    "inverse sqrt, minimax": partial(oc.matrix_inv_sqrt, solver="minimax"),
    "logarithm": oc.matrix_log,
    "power 0.3": partial(oc.matrix_power, p=0.3),
    "power -1.7": partial(oc.matrix_power, p=-1.7),
    "power 3": partial(oc.matrix_power, p=3),
    "covariance sqrt": oc.covariance_sqrt,
    "polar": oc.polar_factor,
}


def compiled(
    f: Callable[[Tensor], Tensor], backend: str = "aot_eager"
) -> Callable[[Tensor], Tensor]:
    torch._dynamo.reset()
    return torch.compile(f, fullgraph=True, backend=backend)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_compiled_function_is_the_eager_one(name: str) -> None:
    f = FUNCTIONS[name]
    P = torch.stack([spectrum([3.0, 1.0, 1.0, 0.2], seed) for seed in range(2)])
    a, b = (P.clone().requires_grad_() for _ in range(2))
    # The iteration has many operators: whether they are one graph shows with the faster backend.
    ours, theirs = compiled(f, "eager" if "minimax" in name else "aot_eager")(a), f(b)
    g = torch.randn_like(theirs)
    ours.backward(g), theirs.backward(g)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-11)


SINGULAR = torch.diag(torch.tensor([2.0, 1.0, 0.0])).double()
LOST = torch.full((3, 3), torch.nan)
IN_VALUE = [
    ("inverse sqrt", SINGULAR, UserError, "no inverse square root: smallest eigenvalue 0; pass"),
    ("sqrt, newton-schulz", LOST, DecompositionError, "failed on 1 of 1 matrices: they hold NaN"),
    ("sqrt", LOST, DecompositionError, "1 of 1 matrices could not be decomposed"),
    ("logarithm", SINGULAR, UserError, "the matrix has no logarithm: smallest eigenvalue 0; pass"),
    ("power -1.7", -SINGULAR, UserError, "the matrix has no power -1.7: smallest eigenvalue -2"),
    (
        "power 3",
        -SINGULAR,
        UserError,
        "positive semi-definite matrix for its power 3, got the .* -2",
    ),
    ("power 3", 1e200 * SINGULAR, UserError, r"power 3 of the .* overflows: .* eigenvalue 2e\+200"),
    ("covariance sqrt", LOST, DecompositionError, "1 of 1 covariances could not be decomposed"),
    ("polar", LOST, DecompositionError, "the matrix holds NaN or Inf and has no polar factor"),
]
IN_GRADIENT = [
    ("sqrt", "infinite derivative at a singular"),
    ("power 0.3", "infinite derivative at a singular"),
    ("polar", "polar_factor has no derivative at a rank-deficient"),
]


@pytest.mark.parametrize(("name", "P", "error", "line"), IN_VALUE)
def test_compiled_code_raises_as_eager_code_does(
    name: str, P: Tensor, error: type[Exception], line: str
) -> None:
    for f in (FUNCTIONS[name], compiled(FUNCTIONS[name])):
        with pytest.raises(error, match=line):
            f(P)


@pytest.mark.parametrize(("name", "line"), IN_GRADIENT)
def test_compiled_gradients_are_refused_as_eager_ones_are(name: str, line: str) -> None:
    for f in (FUNCTIONS[name], compiled(FUNCTIONS[name])):
        F = f(SINGULAR.clone().requires_grad_())
        with pytest.raises(UserError, match=line):
            F.sum().backward()
