"""Summary of conditioning records: the median and the range of each field in each phase."""

from __future__ import annotations

from typing import Any

import pandas as pd

from orthocond.spectral.conditioning import CONSTANTS, MEASURED


def by_phase(rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the median and the range of every field in each phase.

    The median is over the records, and each record is a median over its samples. The range is over
    all samples of all records.

    Args:
        rows: rows in the format of conditioning.csv.

    Returns:
        Phase -> ``records`` (number of records), each field (``median``, ``min``, ``max``),
        ``rank_tol``, ``structural_rank`` and ``common_rank`` (None where unknown). Without a common
        rank there is no field ``kappa_common``.
    """
    result: dict[str, dict[str, Any]] = {}
    for phase, part in rows.groupby("phase", sort=False):
        fields = {
            name: {
                "median": float(part[name].median(skipna=False)),
                "min": float(part[f"{name}_min"].min(skipna=False)),
                "max": float(part[f"{name}_max"].max(skipna=False)),
            }
            for name in MEASURED
            if name != "kappa_common" or part["common_rank"].notna().any()
        }
        # Each constant has one value in a phase: the tolerance depends on the layer and its dtype,
        # the structural rank on the kernel, which is larger in evaluation for an orthogonal
        # convolution.
        constants = {
            name: None if part[name].isna().iloc[0] else float(part[name].iloc[0])
            for name in CONSTANTS
        }
        result[str(phase)] = {"records": len(part), **fields, **constants}
    return result
