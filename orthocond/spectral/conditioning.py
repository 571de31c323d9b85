"""Condition numbers and ranks of a covariance.

Note [Rank before conditioning]
    kappa is l_max / l_min as an SVD sees it. Where the covariance is singular by construction (a
    3x3 convolution from 3 channels has 27 independent outputs at most, N positions span N - 1
    dimensions) l_min is rounding noise, negative as often as not, and kappa says how precise the
    arithmetic is. So kappa stands beside the rank, and beside kappa_support, which is l_max over
    the smallest eigenvalue that is there.

Note [Half precision]
    4 d eps bounds the rounding of sums of d products in the covariance's own dtype. In bfloat16 it
    passes 1 at d = 32, and then even the identity would have rank 0. But products of half
    precision are summed in float32, by every kernel, so only the storing of each entry rounds: by
    half an eps, which moves an eigenvalue by at most
        |E|_2 <= eps/2 |P|_F <= sqrt(d) eps/2 l_max.
    Twice that is the tolerance in dtypes coarser than float32, and in none is it above 1/2.

Note [Symmetry]
    Rounding makes P_ij and P_ji differ where a product kernel sums them in different orders. A sum
    of n terms has an error of about sqrt(n) eps, and from n = 1 / eps terms on the dtype can't sum
    them at all. So a difference above sqrt(eps) max|P| is not rounding: P is no covariance.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orthocond.errors import UserError, require_floating
from orthocond.spectral.eigh import Outcome, eigh


@dataclass(frozen=True)
class Conditioning:
    """How well conditioned a covariance with eigenvalues l is.

    Attributes:
        kappa: max |l| / min |l|, as an SVD sees it; inf only where an eigenvalue is exactly 0.
        negative: how many l are below 0, which only rounding can do.
        kappa_eps: kappa of P + eps I.
        rank: how many l are above ``rank_tol`` l_max.
        kappa_support: l_max / l_rank; inf at rank 0.
        effective_rank: exp of the entropy of l / sum l.
        stable_rank: sum l / l_max.
        lambda_max: l_max.
        rank_tol: what counts as zero, relative to l_max.
        structural_rank: the rank that the architecture allows, where it is known.
        dimension: d.

    Example:
        >>> record = oc.conditioning(torch.diag(torch.tensor([4.0, 1.0, 0.0])))
        >>> record.rank, record.kappa_support, record.kappa
        (2, 4.0, inf)
    """

    kappa: float
    negative: int
    kappa_eps: float
    rank: int
    kappa_support: float
    effective_rank: float
    stable_rank: float
    lambda_max: float
    rank_tol: float
    structural_rank: int | None
    dimension: int


MEASURED = tuple(field.name for field in fields(Conditioning))[:8]
"""The fields that vary from sample to sample; the others are known before."""
COUNTS = ("negative", "rank")

LARGEST_TOLERANCE = 0.5
"""Cap of ``rank_tolerance``: at 1 not even the identity would have a rank."""


def rank_tolerance(
    dimension: int, dtype: torch.dtype = torch.float64, feature_dtype: torch.dtype | None = None
) -> float:
    """Return the fraction of l_max at or below which an eigenvalue counts as zero.

    It is max(4 d eps, (eps_feature / 8)^2): the rounding of the covariance's own arithmetic, and
    that of the features, which enters it squared. See Note [Half precision] for dtypes coarser
    than float32.

    Args:
        dimension: d.
        dtype: of the covariance.
        feature_dtype: of the features that it is of, where known.

    Raises:
        UserError: a dtype is not a real floating one.

    Example:
        >>> rank_tolerance(64) == 4 * 64 * 2**-52, rank_tolerance(64, feature_dtype=torch.bfloat16)
        (True, 9.5367431640625e-07)
    """
    eps = _epsilon(dtype)
    features = 0.0 if feature_dtype is None else _epsilon(feature_dtype)
    coarse = eps > torch.finfo(torch.float32).eps
    arithmetic = dimension**0.5 * eps if coarse else 4 * dimension * eps
    return min(max(arithmetic, (features / 8) ** 2), LARGEST_TOLERANCE)


def _epsilon(dtype: torch.dtype) -> float:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UserError(f"expected a real floating dtype, such as torch.float32, got {dtype}")
    return torch.finfo(dtype).eps


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """inf where the denominator is 0, whatever stands above it."""
    return torch.where(denominator == 0, torch.inf, numerator / denominator)


def measures(eigenvalues: Tensor, rank_tol: float, eps: float = 0.0) -> dict[str, Tensor]:
    """The measured fields of ``Conditioning`` for many spectra at once.

    Args:
        eigenvalues: (..., d), in any order.
        rank_tol: as in ``rank_tolerance``.
        eps: added to the eigenvalues for ``kappa_eps``.

    Returns:
        field -> (...), in float64. Of a spectrum with NaN or Inf all are NaN but the counts,
        which are 0. Of an all-zero one the condition numbers are inf and the ranks 0.

    Example:
        >>> measures(torch.tensor([[4.0, 1.0], [2.0, 0.0]]), 1e-12)["kappa"].tolist()
        [4.0, inf]
    """
    l = eigenvalues.double()
    finite = l.isfinite().all(-1)
    l = torch.where(finite.unsqueeze(-1), l, 0)
    largest = l.amax(-1)  # (...)
    support = l > rank_tol * largest.unsqueeze(-1)
    smallest = torch.where(support, l, torch.inf).amin(-1)
    positive = l.clamp(min=0)
    total = positive.sum(-1)
    share = positive / torch.where(total > 0, total, 1).unsqueeze(-1)
    entropy = -torch.special.xlogy(share, share).sum(-1)
    shifted = (l + eps).abs()
    values = {
        "kappa": _ratio(l.abs().amax(-1), l.abs().amin(-1)),
        "negative": (l < 0).sum(-1).double(),
        "kappa_eps": _ratio(shifted.amax(-1), shifted.amin(-1)),
        "rank": support.sum(-1).double(),
        "kappa_support": torch.where(support.any(-1), largest / smallest, torch.inf),
        "effective_rank": torch.where(total > 0, entropy.exp(), 0),
        "stable_rank": total / torch.where(largest > 0, largest, 1),
        "lambda_max": largest,
    }
    return {
        name: torch.where(finite, value, 0 if name in COUNTS else torch.nan)
        for name, value in values.items()
    }


def covariance_eigenvalues(P: Tensor) -> Tensor:
    """Ascending eigenvalues (..., d) of covariances (..., d, d); NaN where there are none."""
    finite = P.isfinite().flatten(-2).all(-1)
    P = torch.where(finite[..., None, None], P, 0)
    try:
        l = torch.linalg.eigvalsh(P)
    except torch.linalg.LinAlgError:
        l, _, outcome = eigh(P, dtype=None)
        finite = finite & (outcome != Outcome.FAILED)
    return torch.where(finite.unsqueeze(-1), l, torch.nan)


def as_record(
    values: dict[str, float], rank_tol: float, structural: int | None, dimension: int
) -> Conditioning:
    """A record of measured fields, counts as ints."""
    counts: dict[str, Any] = {name: int(values[name]) for name in COUNTS}
    return Conditioning(**{**values, **counts}, rank_tol=rank_tol, structural_rank=structural,
                        dimension=dimension)  # fmt: skip


def _as_tensor(given: Tensor | np.ndarray) -> Tensor:
    """Take what a person passes as a covariance: a floating tensor, or a NumPy array of floats."""
    what = "a covariance or its eigenvalues"
    if isinstance(given, Tensor):
        require_floating(given, what)
        return given.detach()
    if not isinstance(given, np.ndarray):
        found = type(given).__name__
        raise UserError(f"expected {what}, got {found}: pass a tensor or a NumPy array")
    if given.dtype.kind != "f":
        raise UserError(
            f"expected {what} of a real floating dtype, got NumPy's {given.dtype}: "
            "pass P.astype(float)"
        )
    # torch has no dtype longer than float64, no other byte order and no negative strides.
    native = np.dtype(np.float64) if given.dtype.itemsize > 8 else given.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(given, dtype=native, order="C"))


def _symmetric(P: Tensor) -> Tensor:
    """Return P (d, d) in float64, or raise where it is not symmetric (Note [Symmetry])."""
    A = P.double()
    apart = float((A - A.mT).abs().amax())
    largest = float(A.abs().amax())
    if apart > torch.finfo(P.dtype).eps ** 0.5 * largest:  # never where P holds NaN or Inf
        raise UserError(
            f"expected a symmetric covariance, but P - P.mT has entries up to {apart:.3g} with "
            f"{largest:.3g} the largest in P: pass features to a covariance first (torch.cov), or "
            "(P + P.mT) / 2 where the difference is rounding"
        )
    return A


def conditioning(
    P_or_eigenvalues: Tensor | np.ndarray,
    eps: float = 0.0,
    feature_dtype: torch.dtype | None = None,
    structural_rank: int | None = None,
) -> Conditioning:
    """Return how well conditioned a covariance is: kappa, rank and kappa on the support.

    kappa = max |l| / min |l| is what an SVD sees; see ``Conditioning`` for the other fields.

    The answer is about the numbers that are given: accumulate P in float64 (``ConditioningProbe``
    does), for a covariance in float32 has its noise floor at 1e-7 of the largest eigenvalue.

    Args:
        P_or_eigenvalues: a symmetric matrix (d, d), or its eigenvalues (d,) in any order: a tensor
            or a NumPy array of a real floating dtype.
        eps: what a layer adds to the diagonal, for ``kappa_eps``.
        feature_dtype: of the features that P is of; coarser ones raise ``rank_tol``.
        structural_rank: kept in the record; see the function of that name.

    Returns:
        A Conditioning. With NaN or Inf in P its numbers are NaN and its counts 0; of P = 0 the
        condition numbers are inf and the ranks 0.

    Raises:
        UserError: neither a square matrix nor a vector, empty, not symmetric beyond the rounding of
            its dtype, or of integers, booleans or complex numbers.

    Example:
        >>> record = conditioning(torch.tensor([8.0, 2.0, 0.0], dtype=torch.float64), eps=1.0)
        >>> record.kappa, record.kappa_eps, record.rank, record.kappa_support, record.stable_rank
        (inf, 9.0, 2, 4.0, 1.25)
    """
    given = _as_tensor(P_or_eigenvalues)
    square = given.dim() == 2 and given.shape[0] == given.shape[1]
    if given.numel() == 0 or not (given.dim() == 1 or square):
        raise UserError(
            f"expected a covariance (d, d) or its eigenvalues (d,), got shape {tuple(given.shape)}"
        )
    tolerance = rank_tolerance(given.shape[0], given.dtype, feature_dtype)
    l = covariance_eigenvalues(_symmetric(given)) if square else given
    values = {name: value.item() for name, value in measures(l, tolerance, eps).items()}
    return as_record(values, tolerance, structural_rank, given.shape[0])
