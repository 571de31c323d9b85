"""Singular value decomposition, singular values and eigenvalues, all verified.

A result that does not pass its check in ``spectral/verification.py`` causes a RuntimeWarning, and
the matrices that did not pass are decomposed again, one by one. The host reads one flag.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from orthocond.errors import DecompositionError
from orthocond.host import has_float64
from orthocond.spectral.eigh import Outcome, eigh
from orthocond.spectral.verification import are_eigenvalues, are_singular_values, is_svd

Factors = tuple[Tensor, Tensor, Tensor]


def _warn(driver: str, wrong: Tensor, A: Tensor) -> None:
    size = " x ".join(map(str, A.shape[-2:]))
    warnings.warn(
        f"torch.linalg.{driver} on {A.device} returned a wrong result for {int(wrong.sum())} of "
        f"{len(A)} matrices of size {size} without an error; they are decomposed again",
        RuntimeWarning,
        stacklevel=3,
    )


def _again(A: Tensor) -> Factors:
    """Return the thin SVD of one matrix (m, n), by itself or by its transpose."""
    reason = "no driver returned factors that pass the check"
    for transposed in (False, True):
        try:
            U, s, Vh = torch.linalg.svd(A.mT if transposed else A, full_matrices=False)
        except torch.linalg.LinAlgError as error:
            reason = str(error)
            continue
        if transposed:
            U, Vh = Vh.mT, U.mT
        if is_svd(A[None], U[None], s[None], Vh[None]):
            return U, s, Vh
    raise DecompositionError(f"the SVD of a matrix did not converge: {reason}")


def svd(A: Tensor) -> Factors:
    """Return the thin singular value decomposition A = U diag(s) V^T, without a derivative.

    Args:
        A: (..., m, n), finite, float32 or float64.

    Returns:
        U (..., m, k), s (..., k) and V^T (..., k, n), with k = min(m, n).

    Raises:
        DecompositionError: no driver gave factors that pass the check.

    Example:
        >>> svd(torch.diag(torch.tensor([2.0, 3.0])))[1].tolist()
        [3.0, 2.0]
    """
    if not has_float64(A.device):  # Note [No float64] of host.py
        U, s, Vh = svd(A.cpu())
        return U.to(A.device), s.to(A.device), Vh.to(A.device)
    A = A.detach()
    batch, (m, n) = A.shape[:-2], A.shape[-2:]
    stack = A.reshape(-1, m, n)
    try:
        factors = torch.linalg.svd(A, full_matrices=False)
        sound = is_svd(stack, *(t.reshape(-1, *t.shape[len(batch) :]) for t in factors))
        if sound.all():
            return factors[0], factors[1], factors[2]
        _warn("svd", ~sound, stack)
    except torch.linalg.LinAlgError:
        pass
    U, s, Vh = (torch.stack(t) for t in zip(*map(_again, stack), strict=True))
    return U.view(*batch, *U.shape[1:]), s.view(*batch, -1), Vh.view(*batch, *Vh.shape[1:])


def singular_values(A: Tensor) -> Tensor:
    """Return the descending singular values (..., k) of A (..., m, n), without a derivative.

    Args:
        A: float32 or float64.

    Raises:
        DecompositionError: A holds NaN or Inf, or no driver gave values that pass the check.

    Example:
        >>> singular_values(torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])).tolist()
        [4.0, 3.0]
    """
    if not has_float64(A.device):
        return singular_values(A.cpu()).to(A.device)
    A = A.detach()
    if not A.isfinite().all():
        raise DecompositionError("the matrix holds NaN or Inf and has no singular values")
    stack = A.reshape(-1, *A.shape[-2:])
    try:
        s = torch.linalg.svdvals(A)
        sound = are_singular_values(stack, s.reshape(-1, s.shape[-1]))
        if sound.all():
            return s
        _warn("svdvals", ~sound, stack)
    except torch.linalg.LinAlgError:
        pass
    return svd(A)[1]


def covariance_eigenvalues(P: Tensor) -> Tensor:
    """Return the ascending eigenvalues (..., d) of covariances (..., d, d), NaN for a failed one.

    A covariance fails if it holds NaN or Inf, or if no driver gives eigenvalues that pass the
    check. Only the lower triangle is read.
    """
    if not has_float64(P.device):
        return covariance_eigenvalues(P.cpu()).to(P.device)
    d = P.shape[-1]
    stack = P.detach().reshape(-1, d, d)
    finite = stack.isfinite().flatten(1).all(1)
    stack = torch.where(finite[:, None, None], stack, 0)
    wrong = torch.ones_like(finite)
    l = stack.new_zeros(stack.shape[:-1])
    try:
        l = torch.linalg.eigvalsh(stack)
        wrong = ~are_eigenvalues(stack, l)
        if wrong.any():
            _warn("eigvalsh", wrong, stack)
    except torch.linalg.LinAlgError:
        pass
    if wrong.any():
        lower = stack[wrong].tril()
        l[wrong], _, outcome = eigh(lower + lower.tril(-1).mT, dtype=None)
        finite[wrong] &= outcome != int(Outcome.FAILED)
    return torch.where(finite.unsqueeze(-1), l, torch.nan).view(P.shape[:-1])
