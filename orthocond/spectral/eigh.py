"""Eigendecomposition of symmetric matrices, with an outcome recorded for each of them.

Note [Never silently wrong]
    LAPACK may raise for a whole batch because of one matrix, and torch.linalg.eigh of a matrix
    with a single NaN can return NaN without raising. So the input is checked before and the
    factors after; a batch that raises is taken apart, and a matrix that fails is tried again with
    a jittered diagonal and then on another driver. What still fails gets zero eigenvalues, the
    identity for eigenvectors and the outcome FAILED: finite, and never without a record.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from orthocond.errors import DecompositionError, UserError, require_floating

JITTER = 2.0**-40  # relative to the largest entry: far above float64 rounding, far below float32's


class Outcome(IntEnum):
    """How the decomposition of one matrix ended."""

    OK = 0
    RETRIED = 1
    FAILED = 2


class Eigh(NamedTuple):
    """Factors of P = U diag(values) U^T, eigenvalues ascending, with the outcome per matrix."""

    values: Tensor  # (..., d)
    vectors: Tensor  # (..., d, d)
    outcome: Tensor  # (...), int8, of Outcome

    def require(self) -> Eigh:
        """Return itself, or raise DecompositionError where a matrix failed."""
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
    # Distinct shifts, so that clustered eigenvalues, on which iterations stall, are pulled apart.
    shift = torch.linspace(0, JITTER, P.shape[-1], dtype=P.dtype, device=P.device)
    return torch.linalg.eigh(P + torch.diag(shift * P.abs().amax()))


def _other_driver(P: Tensor) -> tuple[Tensor, Tensor]:
    # P = U S V^T with V = U up to signs: the sign of an eigenvalue is that of <u, v>.
    U, S, Vh = torch.linalg.svd(P)
    # Where l and -l are both eigenvalues, U may mix their vectors and then does not rebuild P.
    values, order = (S * (U * Vh.mT).sum(-2).sign()).sort()
    vectors = U[:, order]
    rounding = 16 * len(P) * torch.finfo(P.dtype).eps * P.norm()
    if torch.dist((vectors * values) @ vectors.mT, P) > rounding:
        raise torch.linalg.LinAlgError("the singular vectors are no eigenvectors")
    return values, vectors


def _one(P: Tensor) -> tuple[Tensor, Tensor, Outcome]:
    """Decompose one matrix, by every means there is."""
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
    """Decompose symmetric matrices, P = U diag(l) U^T (eq. 3), and record how it went.

    Args:
        P: (..., d, d), symmetric; the symmetric part of what comes is decomposed.
        dtype: of the arithmetic and of the result; None keeps P's own.

    Returns:
        An Eigh of eigenvalues (..., d), ascending, eigenvectors (..., d, d) and an int8 outcome
        (...). A matrix that failed has zero eigenvalues, the identity for eigenvectors, and the
        outcome FAILED; ``.require()`` turns that into an exception.

    Raises:
        UserError: P is not a batch of square matrices of at least 1 x 1 and of a real floating
            dtype, or the arithmetic is neither float64 nor float32.

    Example:
        >>> l, U, outcome = eigh(torch.diag(torch.tensor([4.0, 1.0])))
        >>> l.tolist(), Outcome(int(outcome)).name
        ([1.0, 4.0], 'OK')
    """
    require_floating(P, "matrices")
    if P.dim() < 2 or P.shape[-1] != P.shape[-2] or P.shape[-1] == 0:
        raise UserError(f"expected square matrices (..., d, d), got shape {tuple(P.shape)}")
    dtype = P.dtype if dtype is None else dtype
    if dtype not in (torch.float32, torch.float64):  # LAPACK has no others
        raise UserError(f"dtype of the arithmetic: torch.float64 or torch.float32, got {dtype}")
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
