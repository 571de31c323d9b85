"""Condition numbers and ranks of a covariance.

Note [Rank before conditioning]
    kappa is l_max / l_min, computed from absolute values as an SVD does. Some covariances are
    singular by construction: a 3x3 convolution from 3 channels has at most 27 independent outputs,
    and N centred positions span N - 1 dimensions. Their l_min is rounding noise, often negative,
    and their kappa measures only the precision of the arithmetic. So the record holds two more
    numbers: the rank, and kappa_support, which is l_max divided by the smallest eigenvalue above
    the rank tolerance.

Note [Half precision]
    4 d eps bounds the rounding of sums of d products in the covariance's own dtype. In bfloat16
    this bound exceeds 1 from d = 32 on, and then even the identity would have rank 0. But all
    kernels sum half-precision products in float32. Only storing an entry rounds it, by a relative
    error of at most eps/2. This error matrix E moves an eigenvalue by at most
        |E|_2 <= eps/2 |P|_F <= sqrt(d) eps/2 l_max.
    In dtypes coarser than float32 the tolerance is twice this bound. It never exceeds 1/2.

Note [Symmetry]
    Rounding makes P_ij and P_ji differ if a matrix product sums them in different orders. A sum of
    n terms has an error of about sqrt(n) eps, and the dtype can't represent sums of more than
    about 1 / eps terms. So a difference above sqrt(eps) max|P| is not rounding, and P is not a
    covariance.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from orthocond.errors import UserError, require_floating, require_whole
from orthocond.spectral.spectra import covariance_eigenvalues


@dataclass(frozen=True)
class Conditioning:
    """Conditioning record of a covariance P (d, d) with eigenvalues l: condition numbers and ranks.

    Attributes:
        kappa: max |l| / min |l|, the condition number of an SVD; inf only if an eigenvalue is
            exactly 0.
        negative: number of eigenvalues below 0. They come from rounding.
        kappa_eps: kappa of P + eps I.
        rank: number of eigenvalues above ``rank_tol`` l_max.
        kappa_support: l_max divided by the smallest eigenvalue counted in ``rank``; inf at rank 0.
        effective_rank: exp of the entropy of l / sum l.
        stable_rank: sum l / l_max.
        lambda_max: l_max, the largest eigenvalue.
        kappa_common: l_max / |l_r|, where l_r is the r-th largest eigenvalue and r is
            ``common_rank``; None if no r was given. Condition numbers on supports of different
            ranks can't be compared; these can.
        rank_tol: fraction of l_max at or below which an eigenvalue counts as zero.
        structural_rank: largest rank that the architecture allows; None if unknown.
        common_rank: r of ``kappa_common``.
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
    kappa_common: float | None
    rank_tol: float
    structural_rank: int | None
    common_rank: int | None
    dimension: int


MEASURED = tuple(field.name for field in fields(Conditioning))[:9]
"""Fields measured for each sample. The other fields are known in advance."""
COUNTS = ("negative", "rank")
CONSTANTS = ("rank_tol", "structural_rank", "common_rank")
"""Fields that are equal for all samples of a layer; records and tables store them once."""

LARGEST_TOLERANCE = 0.5
"""Upper limit of ``rank_tolerance``. With a tolerance of 1 even the identity would have rank 0."""


def rank_tolerance(
    dimension: int, dtype: torch.dtype = torch.float64, feature_dtype: torch.dtype | None = None
) -> float:
    """Return the fraction of l_max at or below which an eigenvalue counts as zero.

    It is max(4 d eps, (eps_feature / 8)^2). The first term is the rounding of the covariance's
    arithmetic. The second is the rounding of the features, which enters the covariance squared.
    See Note [Half precision] for dtypes coarser than float32.

    Args:
        dimension: d, the number of rows of the covariance.
        dtype: dtype of the covariance.
        feature_dtype: dtype of the features from which the covariance was computed, if known.

    Raises:
        UserError: a dtype is not a real floating dtype.

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
    """Return numerator / denominator, and inf if the denominator is 0 (also for 0 / 0)."""
    return torch.where(denominator == 0, torch.inf, numerator / denominator)


def measures(
    eigenvalues: Tensor, rank_tol: float, eps: float = 0.0, common_rank: int | None = None
) -> dict[str, Tensor]:
    """Return the measured fields of ``Conditioning`` for many spectra at once.

    Args:
        eigenvalues: (..., d), in any order.
        rank_tol: the result of ``rank_tolerance``.
        eps: added to the eigenvalues for ``kappa_eps``.
        common_rank: r of ``kappa_common``, from 1 to d; without it the field is NaN.

    Returns:
        A dict from field name to values (...) in float64. For a spectrum with NaN or Inf the
        counts are 0 and all other fields are NaN. For an all-zero spectrum the condition numbers
        are inf and the ranks are 0.

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
    nan = torch.full_like(largest, torch.nan)
    common = l.topk(common_rank).values[..., -1].abs() if common_rank else nan  # |l_r|
    values = {
        "kappa": _ratio(l.abs().amax(-1), l.abs().amin(-1)),
        "negative": (l < 0).sum(-1).double(),
        "kappa_eps": _ratio(shifted.amax(-1), shifted.amin(-1)),
        "rank": support.sum(-1).double(),
        "kappa_support": torch.where(support.any(-1), largest / smallest, torch.inf),
        "effective_rank": torch.where(total > 0, entropy.exp(), 0),
        "stable_rank": total / torch.where(largest > 0, largest, 1),
        "lambda_max": largest,
        "kappa_common": _ratio(largest, common),
    }
    return {
        name: torch.where(finite, value, 0 if name in COUNTS else torch.nan)
        for name, value in values.items()
    }


def as_record(
    values: dict[str, float],
    rank_tol: float,
    structural: int | None,
    dimension: int,
    common: int | None = None,
) -> Conditioning:
    """Return a Conditioning from its measured fields, with the counts converted to int."""
    others: dict[str, Any] = {name: int(values[name]) for name in COUNTS}
    if common is None:
        others["kappa_common"] = None
    return Conditioning(**{**values, **others}, rank_tol=rank_tol, structural_rank=structural,
                        common_rank=common, dimension=dimension)  # fmt: skip


def _as_tensor(given: Tensor | np.ndarray) -> Tensor:
    """Return a user's covariance or eigenvalues (a tensor or a NumPy array) as a floating tensor.

    Raises:
        UserError: another type, or not of a real floating dtype.
    """
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
    # torch supports no dtype wider than float64, no foreign byte order and no negative strides.
    native = np.dtype(np.float64) if given.dtype.itemsize > 8 else given.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(given, dtype=native, order="C"))


def _symmetric(P: Tensor) -> Tensor:
    """Return P (d, d) in float64, or raise a UserError if it isn't symmetric (Note [Symmetry])."""
    A = P.double()
    apart = float((A - A.mT).abs().amax())
    largest = float(A.abs().amax())
    if apart > torch.finfo(P.dtype).eps ** 0.5 * largest:  # always False if P holds NaN or Inf
        raise UserError(
            f"expected a symmetric covariance, but P - P.mT has entries up to {apart:.3g} and P up "
            f"to {largest:.3g}: for features, compute their covariance first (torch.cov); if the "
            "difference is rounding, pass (P + P.mT) / 2"
        )
    return A


def conditioning(
    P_or_eigenvalues: Tensor | np.ndarray,
    eps: float = 0.0,
    feature_dtype: torch.dtype | None = None,
    structural_rank: int | None = None,
    common_rank: int | None = None,
) -> Conditioning:
    """Return the conditioning record of a covariance: condition numbers and ranks.

    kappa = max |l| / min |l| is the condition number of an SVD. ``Conditioning`` describes the
    other fields.

    The record can't be more precise than P. Accumulate P in float64, as ``ConditioningProbe``
    does: a float32 covariance has a noise floor at 1e-7 of its largest eigenvalue.

    Args:
        P_or_eigenvalues: a symmetric matrix (d, d), or its eigenvalues (d,) in any order: a tensor
            or a NumPy array of a real floating dtype.
        eps: value that a layer adds to the diagonal of P, for ``kappa_eps``.
        feature_dtype: dtype of the features from which P was computed. A coarser dtype gives a
            larger ``rank_tol``.
        structural_rank: result of the function ``structural_rank``, copied into the record.
        common_rank: r of ``kappa_common``, from 1 to d; the smallest rank of layers to compare.

    Returns:
        A Conditioning. If P holds NaN or Inf, the counts are 0 and the other measured fields are
        NaN. For P = 0 the condition numbers are inf and the ranks are 0.

    Raises:
        UserError: the input is neither a square matrix nor a vector, is empty, is less symmetric
            than the rounding of its dtype explains, or is not of a real floating dtype; or
            ``common_rank`` is not a whole number from 1 to d.

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
    d = given.shape[0]
    if common_rank is not None:
        require_whole(common_rank, "common_rank", most=d)
    tolerance = rank_tolerance(d, given.dtype, feature_dtype)
    l = covariance_eigenvalues(_symmetric(given)) if square else given
    values = {k: v.item() for k, v in measures(l, tolerance, eps, common_rank).items()}
    return as_record(values, tolerance, structural_rank, d, common_rank)
