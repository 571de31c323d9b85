from __future__ import annotations

import math

import pandas as pd

from orthocond.measure.phase_summary import by_phase
from orthocond.spectral.conditioning import MEASURED


def test_infinite_and_unknown_values_are_kept():
    row = {f"{name}{end}": math.inf for name in MEASURED for end in ("", "_min", "_max")}
    row |= {"phase": "eval", "rank_tol": 1e-13, "structural_rank": None, "common_rank": None}
    told = by_phase(pd.DataFrame([row] * 2))["eval"]
    assert told["kappa"] == {"median": math.inf, "min": math.inf, "max": math.inf}
    assert told["structural_rank"] is None and told["rank_tol"] == 1e-13
    assert "kappa_common" not in told and told["common_rank"] is None
    told = by_phase(pd.DataFrame([row | {"common_rank": 27}] * 2))["eval"]
    assert told["kappa_common"]["median"] == math.inf and told["common_rank"] == 27
