"""Table 4: validation errors of all methods of decorrelated BN, the paper's and ours."""

from __future__ import annotations

import pandas as pd

from orthocond.report.error_table import error_table
from orthocond.report.study import Study


def build(study: Study) -> pd.DataFrame:
    """The paper's errors beside those of the study."""
    return error_table(4, study, others=True)
