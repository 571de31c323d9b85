"""``make gpu-measure OUT=folder``: what a GPU should be asked, the most valuable first.

The steps run one after the other, each as a command of its own, until the time is over:

1. the environment,
2. ``make gpu-check``,
3. Table 6 at the size of the paper (ResNet-50, 32 pixels, 128 images; float32 and bfloat16),
4. the benchmarks of solvers, layers and treatments,
5. a training step with global covariance pooling (ResNet-18, 224 pixels, 256 images),
6. as many runs of the preset ``cifar10-few`` as there is time for, several at once.

A step whose result is in the folder already is not repeated, and a run continues where it was
stopped, so the command can be started again with more time. ``--rehearse`` takes the same steps at
sizes for a CPU: it shows that they work, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from orthocond.training.environment import describe

ROOT = Path(__file__).resolve().parents[1]
MEASURE = (sys.executable, "-m", "orthocond_cli", "measure", "time")
SLOWEST = 240.0  # seconds that one step may take
SAVING = 20.0  # seconds that a process needs to save its run
AT_ONCE = 12  # runs


@dataclass(frozen=True)
class Step:
    """A command, and the file or folder in OUT that shows that it has finished."""

    name: str
    command: tuple[str, ...]
    result: str
    folder: Path = ROOT
    environment: dict[str, str] = field(default_factory=dict)


def _check(rehearse: bool) -> Step:
    few = ("test_layers.py",) if rehearse else ()
    paths = os.pathsep.join(["helpers", os.environ.get("PYTHONPATH", "")])
    return Step(
        "gpu-check",
        (sys.executable, "-m", "gpu", *few),
        "gpu-check.txt",
        ROOT / "tests",
        {"PYTHONPATH": paths} | ({"GPU_TESTS_ON": "cpu"} if rehearse else {}),
    )


def _timing(out: Path, name: str, *arguments: str) -> Step:
    command = (*MEASURE, *arguments, "--out", str(out / "timing"))
    return Step(name, command, f"{name}.txt")


def _benchmark(out: Path, name: str, *arguments: str) -> Step:
    script = str(ROOT / "benchmarks" / f"{name}.py")
    folder = ("--out", str(out / "benchmarks"))
    return Step(name, (sys.executable, script, *folder, *arguments), f"benchmarks/{name}.json")


def steps(out: Path, rehearse: bool) -> list[Step]:
    """Return the steps in the order of their worth."""
    paper = ("--model", "resnet50", "--set", "data.classes=100")
    pooling = ("--task", "gcp", "--model", "resnet18", "--batch-size", "256")
    pooled = ("svd", "ns", "nog", "ow", "nog+ow+olr")
    if rehearse:
        small = ("--model", "small", "--batch-size", "8", "--set", "data.size=16")
        paper, pooling = small, ("--task", "gcp", *small)
    methods = [f"--method={name}" for name in pooled]
    rounds = ("--rounds", "2") if rehearse else ()
    minutes = ("--minutes", "0.2" if rehearse else "1.5")
    return [
        _check(rehearse),
        _timing(out, "timing-float32", *paper),
        _timing(out, "timing-bfloat16", *paper, "--set", "precision=bfloat16"),
        _benchmark(out, "solvers", *minutes),
        *(_benchmark(out, name, *rounds) for name in ("dbn", "polar", "treatments", "gcp")),
        _timing(out, "timing-pooling", *pooling, *methods),
    ]


def take(step: Step, out: Path, seconds: float) -> str:
    """Run a step, keep what it prints, and return how it ended."""
    if (out / step.result).exists():
        return "was there"
    log = out / "logs" / f"{step.name}.txt"
    started = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            step.command,
            cwd=step.folder,
            env=os.environ | step.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # to end the step's own processes with it
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # what is left would disturb the next step
            process.wait()
            return f"stopped after {seconds:.0f} s"
    if code == 0 and step.result.endswith(".txt"):  # its result is what it prints
        (out / step.result).write_text(log.read_text())
    return f"{'done' if code == 0 else f'exit code {code}'} in {time.monotonic() - started:.0f} s"


def train(out: Path, data: str | None, rehearse: bool, seconds: float) -> str:
    """Train runs in processes that share one study, stop them in time, and return their number."""
    study = out / "runs" / "cifar10-few"
    command = [sys.executable, "-m", "orthocond_cli", "train", "--preset", "cifar10-few"]
    command += ["--set", "precision=bfloat16", "--out", str(study)]
    command += ["--data", data] if data else []
    if rehearse:
        few = ("data.name=leaves", "data.train_images=128", "data.test_images=64", "epochs=2")
        command += ["--seeds", "0", *(f"--set={setting}" for setting in few)]
        command += ["--set", "lr_milestones=[1.0]", "--method", "svd", "--method", "nog"]
    processes = []
    for i in range(2 if rehearse else max(1, min(AT_ONCE, (os.cpu_count() or 1) - 2))):
        with (out / "logs" / f"runs-{i}.txt").open("w") as log:
            one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
            started = subprocess.Popen(command, env=one_thread, stdout=log, stderr=log, cwd=ROOT)
            processes.append(started)
    end = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()  # the run is saved, and is resumed next time
    for process in processes:
        process.wait()
    complete = sum(1 for _ in study.glob("*/summary.json"))
    return f"{complete} runs complete"


def main() -> int:
    """Take the steps; return 1 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for all results")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all steps")
    parser.add_argument("--data", help="CIFAR-10 as files, folder:PATH; else it is downloaded")
    parser.add_argument("--rehearse", action="store_true", help="small sizes, on a CPU too")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.rehearse:
        print("gpu-measure: there is no CUDA device here; --rehearse takes the steps on a CPU")
        return 1
    end = time.monotonic() + 60 * arguments.minutes
    out = arguments.out.resolve()
    (out / "logs").mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    environment = describe(device, "float32", 1) | {"cuda": torch.version.cuda}
    (out / "environment.json").write_text(json.dumps(environment, indent=1) + "\n")
    for step in steps(out, arguments.rehearse):
        left = end - time.monotonic()
        ended = take(step, out, min(left, SLOWEST)) if left > 0 else "no time left"
        print(f"{step.name:16s} {ended}", flush=True)
    left = end - time.monotonic() - SAVING
    if left > 0:
        ended = train(out, arguments.data, arguments.rehearse, left)
        print(f"{'runs':16s} {ended}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
