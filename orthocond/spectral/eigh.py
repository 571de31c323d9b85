"""Eigendecomposition of symmetric matrices, verified, with an outcome recorded for each matrix.

Note [Never silently wrong]
    LAPACK may raise for a whole batch because of one matrix. torch.linalg.eigh of a matrix with a
    single NaN can return NaN without raising, and there are reports of drivers that return wrong
    vectors. So ``eigh`` checks the matrices before the decomposition and the factors after it
    (Note [Check by a few vectors] in ``spectral/verification.py``), both on the device. The host
    reads one flag: whether every check passed. (On CUDA, torch.linalg.eigh itself also waits for
    the driver's error codes.) Otherwise the matrices that did not pass are decomposed again, one by
    one, then with a jittered diagonal, and then by another driver. Each result is checked. A matrix
    that still fails gets zero eigenvalues, identity eigenvectors and the outcome FAILED. So the
    factors are always finite and right, every failure is recorded, and a driver that was wrong
    without an error causes a RuntimeWarning.

Note [One opaque operator]
    A branch on the flag can't be traced. Under torch.compile and torch.export the decomposition
    with its check is one operator, ``torch.ops.orthocond.eigh``. ONNX and torch.jit.trace have no
    such operator, and are refused. Operators of torch.library refuse torch.func.grad, so eager code
    calls the function instead, with a written rule for torch.vmap.
"""

from __future__ import annotations

import warnings
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from orthocond.errors import DecompositionError, UserError, require_floating
from orthocond.host import has_float64, with_dtype
from orthocond.spectral.verification import is_eigh

JITTER = 2.0**-40  # relative to the largest entry; far above float64 and below float32 rounding


class Outcome(IntEnum):
    """Outcome of the decomposition of one matrix, or of the function that is computed by it."""

    OK = 0
    RETRIED = 1
    FAILED = 2
    INEXACT = 3  # the result is finite, but it or its gradient is not exact


class Eigh(NamedTuple):
    """Factors of P = U diag(values) U^T, with ascending eigenvalues and an outcome per matrix."""

    values: Tensor  # (..., d)
    vectors: Tensor  # (..., d, d)
    outcome: Tensor  # (...), int8 values of Outcome


def _by_svd(P: Tensor) -> tuple[Tensor, Tensor]:
    """Decompose P (d, d) by its SVD. The result is wrong if both l and -l are eigenvalues."""
    # P = U S V^T with V = U up to signs, so <u, v> has the sign of the eigenvalue.
    U, S, Vh = torch.linalg.svd(P)
    values, order = (S * (U * Vh.mT).sum(-2).sign()).sort()
    return values, U[:, order]


def _jittered(P: Tensor) -> Tensor:
    # Distinct shifts separate clustered eigenvalues, which can stall the iterations of LAPACK.
    shift = torch.linspace(0, JITTER, P.shape[-1], dtype=P.dtype, device=P.device)
    return P + torch.diag(shift * P.abs().amax())


def _again(P: Tensor, first: Outcome) -> tuple[Tensor, Tensor, Outcome]:
    """Decompose one matrix (d, d), trying each method in turn until a result passes the check."""
    for outcome, A, decompose in (
        (first, P, torch.linalg.eigh),
        (Outcome.RETRIED, _jittered(P), torch.linalg.eigh),
        (Outcome.RETRIED, P, _by_svd),
    ):
        try:
            values, vectors = decompose(A)
        except torch.linalg.LinAlgError:
            continue
        if is_eigh(A[None], values[None], vectors[None]):
            return values, vectors, outcome
    d = P.shape[-1]
    return P.new_zeros(d), torch.eye(d, dtype=P.dtype, device=P.device), Outcome.FAILED


def _repair(P: Tensor, finite: Tensor, sound: Tensor | None, factors: Eigh) -> None:
    """Correct the factors of P (b, d, d) in place, where they are not sound; None: nowhere."""
    values, vectors, outcome = factors
    values[~finite], outcome[~finite] = 0, int(Outcome.FAILED)
    wrong = finite if sound is None else finite & ~sound
    if sound is not None and wrong.any():
        warnings.warn(
            f"torch.linalg.eigh on {P.device} returned wrong factors for {int(wrong.sum())} of "
            f"{len(P)} matrices of size {P.shape[-1]} without an error; they are decomposed again",
            RuntimeWarning,
            stacklevel=2,
        )
    first = Outcome.OK if sound is None else Outcome.RETRIED
    for i in wrong.nonzero().flatten().tolist():
        values[i], vectors[i], ended = _again(P[i], first)
        outcome[i] = int(ended)


def _decompose(P: Tensor, strict: bool) -> Eigh:
    """Return the checked factors of P (..., d, d). The host reads one flag."""
    batch, d = P.shape[:-2], P.shape[-1]
    P = P.reshape(-1, d, d)
    finite = P.isfinite().flatten(1).all(1)
    identity = torch.eye(d, dtype=P.dtype, device=P.device)
    P = torch.where(finite[:, None, None], P, identity)
    sound: Tensor | None
    try:
        values, vectors = torch.linalg.eigh(P)
        sound = is_eigh(P, values, vectors)
        passed = bool((sound & finite).all())
    except torch.linalg.LinAlgError:
        values, vectors = P.new_zeros(P.shape[:-1]), identity.repeat(len(P), 1, 1)
        sound, passed = None, False
    outcome = torch.zeros(len(P), dtype=torch.int8, device=P.device)
    if not passed:
        _repair(P, finite, sound, Eigh(values, vectors, outcome))
        failed = int((outcome == int(Outcome.FAILED)).sum())
        if strict and failed:
            raise DecompositionError(
                f"{failed} of {len(outcome)} matrices could not be decomposed: they hold "
                "NaN or Inf, or no driver converged; check the features before the covariance"
            )
    vectors = vectors.mT.contiguous().mT  # the strides of torch.linalg.eigh, without a copy
    return Eigh(values.view(*batch, d), vectors.view(*batch, d, d), outcome.view(batch))


class _Eager(torch.autograd.Function):
    """The decomposition without a derivative, in all modes of autograd and inside of torch.vmap."""

    @staticmethod
    def forward(P: Tensor, strict: bool) -> tuple[Tensor, Tensor, Tensor]:
        values, vectors, outcome = _decompose(P, strict)
        return values, vectors, outcome

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], P: Tensor, strict: bool) -> Any:
        return _Eager.apply(P.movedim(in_dims[0], 0), strict), (0, 0, 0)


@torch.library.custom_op("orthocond::eigh", mutates_args=())
def _operator(P: Tensor, strict: bool) -> tuple[Tensor, Tensor, Tensor]:
    values, vectors, outcome = _decompose(P, strict)
    return values, vectors, outcome


def _require_runtime() -> None:
    """Raise a UserError if the graph of this moment is for a runtime without decompositions."""
    if torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        raise UserError(
            "an eigendecomposition can't be exported to ONNX or by torch.jit.trace: use solver "
            "'minimax', which has the square roots only, or torch.export; for a treated layer, "
            "call treated.remove() or oc.fold(model) before the export"
        )


@_operator.register_fake
def _(P: Tensor, strict: bool) -> tuple[Tensor, Tensor, Tensor]:
    _require_runtime()  # dynamo takes is_in_onnx_export for False; a fake is not traced
    outcome = P.new_empty(P.shape[:-2], dtype=torch.int8)
    return P.new_empty(P.shape[:-1]), P.new_empty(P.shape).mT, outcome


def lower_eigh(P: Tensor, strict: bool = False) -> Eigh:
    """Return the result of ``eigh`` in P's dtype, float64 or float32.

    The decomposition reads the lower triangle only, as torch.linalg.eigh does. The upper triangle
    may differ from it by rounding.
    """
    _require_runtime()
    P = P.detach()
    if not has_float64(P.device):  # Note [No float64] of host.py
        return Eigh(*(t.to(P.device) for t in lower_eigh(P.cpu(), strict)))
    opaque = torch.compiler.is_compiling() or type(P) is not Tensor or P.is_meta
    if opaque:  # Note [One opaque operator]
        return Eigh(*_operator(P, strict))
    return Eigh(*_Eager.apply(P, strict))


def eigh(P: Tensor, dtype: torch.dtype | None = torch.float64, strict: bool = False) -> Eigh:
    """Decompose symmetric matrices, P = U diag(l) U^T (eq. 3), and record each outcome.

    Args:
        P: (..., d, d), symmetric. If P is not symmetric, (P + P^T) / 2 is decomposed.
        dtype: dtype of the arithmetic and of the result; None means the dtype of P.
        strict: True to raise a DecompositionError if a matrix failed.

    Returns:
        An Eigh with ascending eigenvalues (..., d), eigenvectors (..., d, d) and an int8 outcome
        (...). A matrix that failed has zero eigenvalues, identity eigenvectors and the outcome
        FAILED. For float64 they are on the CPU if the device of P has no float64.

    Raises:
        UserError: P is not a batch of square matrices of at least 1 x 1 and of a real floating
            dtype, or the dtype of the arithmetic is neither float64 nor float32.
        DecompositionError: with ``strict``, a matrix holds NaN or Inf, or no driver gave factors
            that pass the check.

    Example:
        >>> l, U, outcome = eigh(torch.diag(torch.tensor([4.0, 1.0])))
        >>> l.tolist(), Outcome(int(outcome)).name
        ([1.0, 4.0], 'OK')
    """
    require_floating(P, "matrices")
    if P.dim() < 2 or P.shape[-1] != P.shape[-2] or P.shape[-1] == 0:
        raise UserError(f"expected square matrices (..., d, d), got shape {tuple(P.shape)}")
    dtype = P.dtype if dtype is None else dtype
    if dtype not in (torch.float32, torch.float64):  # LAPACK supports no other real dtype
        raise UserError(
            f"the dtype of the arithmetic must be torch.float64 or torch.float32, got {dtype}"
        )
    P = with_dtype(P, dtype)
    return lower_eigh((P + P.mT) / 2, strict)
