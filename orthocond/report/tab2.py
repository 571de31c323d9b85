"""Table 2: validation errors of gradient and weight treatments."""

from __future__ import annotations

import pandas as pd

from orthocond.report.error_table import error_table
from orthocond.report.study import Study


def build(study: Study) -> pd.DataFrame:
    """The paper's errors beside those of the study."""
    return error_table(2, study)
