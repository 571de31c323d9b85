from __future__ import annotations

import math

import pandas as pd

from orthocond.measure.phase_summary import by_phase
from orthocond.spectral.conditioning import MEASURED


def test_infinite_and_unknown_values_are_kept():
    row = {f"{name}{end}": math.inf for name in MEASURED for end in ("", "_min", "_max")}
    rows = pd.DataFrame([row | {"phase": "eval", "rank_tol": 1e-13, "structural_rank": None}] * 2)
    told = by_phase(rows)["eval"]
    assert told["kappa"] == {"median": math.inf, "min": math.inf, "max": math.inf}
    assert told["structural_rank"] is None and told["rank_tol"] == 1e-13
