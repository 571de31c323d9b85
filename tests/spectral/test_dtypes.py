"""No function takes integers, booleans or complex numbers: a cast would drop something silently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import orthocond as oc
from orthocond.errors import UserError
from orthocond.spectral.conditioning import conditioning
from orthocond.spectral.covariance.lowrank import covariance_root
from orthocond.spectral.eigh import eigh
from orthocond.spectral.newton_schulz import newton_schulz
from orthocond.spectral.roots import root

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "matrix_sqrt": oc.matrix_sqrt,
    "matrix_inv_sqrt": oc.matrix_inv_sqrt,
    "matrix_sqrt by iteration": lambda P: oc.matrix_sqrt(P, "newton-schulz"),
    "matrix_sqrt by minimax": lambda P: oc.matrix_sqrt(P, "minimax"),
    "covariance_sqrt": oc.covariance_sqrt,
    "polar_factor": oc.polar_factor,
    "optimal_lr of the weight": lambda W: oc.optimal_lr(W, torch.eye(2)),
    "optimal_lr of the gradient": lambda G: oc.optimal_lr(torch.eye(2), G),
    "eigh": eigh,
    "eigh in its own dtype": lambda P: eigh(P, dtype=None),
    "newton_schulz": newton_schulz,
    "conditioning": conditioning,
    "root": lambda P: root(P, "sqrt"),
    "covariance_root": covariance_root,
}
REFUSED = [torch.int8, torch.uint8, torch.int64, torch.bool, torch.complex64, torch.complex128]


@pytest.mark.parametrize("dtype", REFUSED)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_tensor_that_is_not_real_and_floating_is_refused(name: str, dtype: torch.dtype) -> None:
    for x in (torch.eye(2, dtype=dtype), torch.eye(2, dtype=dtype).expand(3, 2, 2)):
        with pytest.raises(UserError, match=rf"of a real floating dtype, got {dtype}$"):
            FUNCTIONS[name](x)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "conditioning"])
def test_what_is_no_tensor_is_refused(name: str) -> None:
    for x, found in ((np.eye(2), "ndarray"), ([[1.0]], "list"), (None, "NoneType")):
        with pytest.raises(UserError, match=rf"as a torch\.Tensor, got {found}$"):
            FUNCTIONS[name](x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if "own dtype" not in name])
def test_every_floating_dtype_is_taken(name: str, dtype: torch.dtype) -> None:
    found = FUNCTIONS[name](torch.eye(2, dtype=dtype))
    parts = found if isinstance(found, tuple) else (found,)
    for part in parts:
        assert not isinstance(part, Tensor) or part.isfinite().all()


def test_lapack_has_no_half_precision() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        with pytest.raises(UserError, match=rf"float64 or torch\.float32, got {dtype}$"):
            eigh(torch.eye(2, dtype=dtype), dtype=None)
