"""Eigendecomposition of symmetric matrices, with an outcome recorded for each matrix.

Note [Never silently wrong]
    LAPACK may raise for a whole batch because of one matrix. torch.linalg.eigh of a matrix with a
    single NaN can return NaN without raising. So ``eigh`` checks the matrices before the
    decomposition and the factors after it. If a batch raises, its matrices are decomposed one by
    one. A matrix that fails is retried with a jittered diagonal, and then with another driver. A
    matrix that still fails gets zero eigenvalues, identity eigenvectors and the outcome FAILED.
    So the factors are always finite, and every failure is recorded.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from orthocond.errors import DecompositionError, UserError, require_floating

JITTER = 2.0**-40  # relative to the largest entry; far above float64 and below float32 rounding


class Outcome(IntEnum):
    """Outcome of the decomposition of one matrix, or of the iteration for its root."""

    OK = 0
    RETRIED = 1
    FAILED = 2
    INEXACT = 3  # an iteration ended with a finite root and too large a residual


class Eigh(NamedTuple):
    """Factors of P = U diag(values) U^T, with ascending eigenvalues and an outcome per matrix."""

    values: Tensor  # (..., d)
    vectors: Tensor  # (..., d, d)
    outcome: Tensor  # (...), int8 values of Outcome

    def require(self) -> Eigh:
        """Return these factors, or raise a DecompositionError if a matrix failed."""
        failed = int((self.outcome == Outcome.FAILED).sum())
        if failed:
            raise DecompositionError(
                f"{failed} of {self.outcome.numel()} matrices could not be decomposed: they hold "
                "NaN or Inf, or no driver converged; check the features before the covariance"
            )
        return self


def _is_valid(values: Tensor, vectors: Tensor) -> Tensor:
    return values.isfinite().all(-1) & vectors.isfinite().flatten(-2).all(-1)


def _jittered(P: Tensor) -> tuple[Tensor, Tensor]:
    # Distinct shifts separate clustered eigenvalues, which can stall the iterations of LAPACK.
    shift = torch.linspace(0, JITTER, P.shape[-1], dtype=P.dtype, device=P.device)
    return torch.linalg.eigh(P + torch.diag(shift * P.abs().amax()))


def _other_driver(P: Tensor) -> tuple[Tensor, Tensor]:
    # P = U S V^T with V = U up to signs, so <u, v> has the sign of the eigenvalue.
    U, S, Vh = torch.linalg.svd(P)
    # If l and -l are both eigenvalues, U may mix their vectors. The product below then differs
    # from P.
    values, order = (S * (U * Vh.mT).sum(-2).sign()).sort()
    vectors = U[:, order]
    rounding = 16 * len(P) * torch.finfo(P.dtype).eps * P.norm()
    if torch.dist((vectors * values) @ vectors.mT, P) > rounding:
        raise torch.linalg.LinAlgError("the singular vectors are not eigenvectors")
    return values, vectors


def _one(P: Tensor) -> tuple[Tensor, Tensor, Outcome]:
    """Decompose one matrix (d, d), trying each method in turn until one succeeds."""
    for outcome, decompose in (
        (Outcome.OK, torch.linalg.eigh),
        (Outcome.RETRIED, _jittered),
        (Outcome.RETRIED, _other_driver),
    ):
        try:
            values, vectors = decompose(P)
        except torch.linalg.LinAlgError:
            continue
        if _is_valid(values, vectors):
            return values, vectors, outcome
    d = P.shape[-1]
    return P.new_zeros(d), torch.eye(d, dtype=P.dtype, device=P.device), Outcome.FAILED


def eigh(P: Tensor, dtype: torch.dtype | None = torch.float64) -> Eigh:
    """Decompose symmetric matrices, P = U diag(l) U^T (eq. 3), and record each outcome.

    Args:
        P: (..., d, d), symmetric. If P is not symmetric, (P + P^T) / 2 is decomposed.
        dtype: dtype of the arithmetic and of the result; None means the dtype of P.

    Returns:
        An Eigh with ascending eigenvalues (..., d), eigenvectors (..., d, d) and an int8 outcome
        (...). A matrix that failed has zero eigenvalues, identity eigenvectors and the outcome
        FAILED. Call ``.require()`` to raise a DecompositionError instead.

    Raises:
        UserError: P is not a batch of square matrices of at least 1 x 1 and of a real floating
            dtype, or the dtype of the arithmetic is neither float64 nor float32.

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
    P = P.detach().to(dtype)
    P = (P + P.mT) / 2
    d, batch = P.shape[-1], P.shape[:-2]
    P = P.reshape(-1, d, d)  # (b, d, d)
    finite = P.isfinite().flatten(1).all(1)
    identity = torch.eye(d, dtype=P.dtype, device=P.device)
    P = torch.where(finite[:, None, None], P, identity)
    outcome = torch.where(finite, int(Outcome.OK), int(Outcome.FAILED)).to(torch.int8)
    try:
        values, vectors = torch.linalg.eigh(P)
        wrong = ~_is_valid(values, vectors)
    except torch.linalg.LinAlgError:
        values, vectors = P.new_zeros(P.shape[:-1]), torch.zeros_like(P)
        wrong = torch.ones_like(finite)
    for i in wrong.nonzero().flatten().tolist():
        values[i], vectors[i], ended = _one(P[i])
        outcome[i] = max(int(outcome[i]), ended)
    values = torch.where(finite[:, None], values, 0)
    return Eigh(values.reshape(*batch, d), vectors.reshape(*batch, d, d), outcome.reshape(batch))
