"""Every script in examples/ runs, and prints what its page in the book shows."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
DISTRIBUTED = "ddp_torchrun"
LINES = {
    "plain_loop": r"epoch 3: loss [\d.]+\ntest accuracy: \d+%\nstep 0: rank 16, .* number \d+",
    "with_accelerate": r"epoch 3: loss [\d.]+, optimal learning rate -?[\d.]+ \((not )?used\)",
    "with_lightning": r"loss after 20 steps: [\d.]+\nlargest singular value .*: [\d.]+",
    "timm_model": r"step 0: rank \d+, condition number \d+",
    "export_onnx": r"changed the outputs by [\de-]+\n(.*\n)*.* less than 1e-4: True",
    "checkpointing_bfloat16": r"epoch 2: loss [\d.]+\n.* covariance: torch.float32",
    DISTRIBUTED: r"epoch 3: loss [\d.]+\n",
}
NEEDED = {
    "with_lightning": ["lightning"],
    "timm_model": ["timm"],
    "export_onnx": ["onnxruntime", "onnxscript"],
}


def test_all_scripts_are_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(LINES)


@pytest.mark.filterwarnings("ignore")  # of the packages that they show
@pytest.mark.parametrize("name", sorted(set(LINES) - {DISTRIBUTED}))
def test_a_script_prints_its_result(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for package in NEEDED.get(name, []):
        pytest.importorskip(package)
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    assert re.search(LINES[name], capsys.readouterr().out)


def test_the_distributed_script_prints_its_result() -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = str(FOLDER / f"{DISTRIBUTED}.py")
    done = subprocess.run([*launcher, script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert re.search(LINES[DISTRIBUTED], done.stdout)
