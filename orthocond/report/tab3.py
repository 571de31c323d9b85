"""Table 3: validation errors of the optimal learning rate and hybrids."""

from __future__ import annotations

import pandas as pd

from orthocond.report.error_table import error_table
from orthocond.report.study import Study


def build(study: Study) -> pd.DataFrame:
    """The paper's errors beside those of the study."""
    return error_table(3, study)
