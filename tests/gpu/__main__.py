"""``make gpu-check``: the tests that need a GPU, and a table of how each of them ended.

``python -m gpu``, in the folder ``tests``; exits with 1 where one failed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from tabulate import tabulate


class Outcomes:
    """A plugin of pytest that keeps how each test ended."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called for setup, test and teardown, each; what passed there is not a row of its own."""
        if report.when == "call" or not report.passed:
            skipped = report.longrepr[-1] if report.skipped else ""  # 'Skipped: reason'
            self.rows.append(
                {
                    "test": report.nodeid.partition("gpu/")[2],
                    "outcome": skipped or report.outcome,
                    "seconds": report.duration,
                }
            )


def main() -> int:
    """Run them; returns the exit code."""
    if not torch.cuda.is_available() and "GPU_TESTS_ON" not in os.environ:
        print("gpu-check: there is no CUDA device here, nothing was run")
        return 0
    outcomes = Outcomes()
    code = pytest.main(["-m", "gpu", str(Path(__file__).parent)], plugins=[outcomes])
    print(tabulate(outcomes.rows, headers="keys", floatfmt=".1f"))
    count = torch.cuda.device_count()
    print(f"{count} CUDA devices" + (f": {torch.cuda.get_device_name()}" if count else ""))
    return int(code != pytest.ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
