"""``make gpu-check``: the tests that need a GPU, and a table of how each of them ended.

``python -m gpu [FILE ...]``, in the folder ``tests``; exits with 1 where one failed.
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


def main(files: list[str]) -> int:
    """Run the tests in these files, or all of them, in several processes; return the exit code."""
    if not torch.cuda.is_available() and "GPU_TESTS_ON" not in os.environ:
        print("gpu-check: there is no CUDA device here, nothing was run")
        return 0
    outcomes = Outcomes()
    folder = Path(__file__).parent
    paths = [str(folder / file) for file in files] or [str(folder)]
    code = pytest.main(["-m", "gpu", "-n", "auto", "--maxprocesses=8", *paths], plugins=[outcomes])
    print(tabulate(outcomes.rows, headers="keys", floatfmt=".1f"))
    count = torch.cuda.device_count()
    print(f"{count} CUDA devices" + (f": {torch.cuda.get_device_name()}" if count else ""))
    return int(code != pytest.ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
