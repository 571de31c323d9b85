"""Run folders with made-up numbers, written as training writes them: what report and CLI read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from orthocond.artifacts.run_search import run_name
from orthocond.artifacts.run_writer import RunWriter
from orthocond.config.schema import Config
from orthocond.training.summary import summarize

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SUPPORT = {"svd": 6.2, "ns": 5.1, "bn": 4.0, "gap": 4.2, "svd+nog": 5.3, "svd+ow": 3.4}
NOISE = {"dbn": 15.5, "gcp": 16.0}  # log10 of a singular covariance's kappa
SKEW = 3.5  # and of one that the wider receptive field of OW makes regular
EPOCHS, EPOCH_STEPS = 4, 30


def conditioning(task: str, method: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Probed steps: training every second step, evaluation after each epoch."""
    level = SUPPORT.get(method, 4.6)
    rows = []
    for epoch in range(EPOCHS):
        steps = range(epoch * EPOCH_STEPS, (epoch + 1) * EPOCH_STEPS, 2)
        for step in [*steps, *[(epoch + 1) * EPOCH_STEPS] * 3]:
            evaluating = step == (epoch + 1) * EPOCH_STEPS
            ramp = 1 - math.exp(-step / 20)
            support = 2 + (level - 2) * ramp + 0.15 * rng.normal() + 0.5 * evaluating
            regular = task == "dbn" and "ow" in method.split("+")
            kappa = support if regular else NOISE[task] + 0.4 * rng.normal()
            values = {
                "kappa": 10**kappa,
                "negative": 0 if regular else 18,
                "kappa_eps": 10 ** (support - 1),
                "rank": 64 if regular else 27 if task == "dbn" else 63,
                "kappa_support": 10**support,
                "effective_rank": 9.0,
                "stable_rank": 3.0,
                "lambda_max": 2.0,
                "kappa_common": 10 ** (support - 0.5),
            }
            row: dict[str, Any] = {
                "phase": "eval" if evaluating else "train",
                "epoch": epoch + 1,
                "step": step,
                "samples": 128,
            }
            for field, value in values.items():
                row |= {field: value, f"{field}_min": value / 2, f"{field}_max": value * 2}
            structural = None if regular else 27 if task == "dbn" else 63
            common = 27 if task == "dbn" else 63
            row |= {"rank_tol": 5.7e-14, "structural_rank": structural, "common_rank": common}
            rows.append(row)
    return rows


def metrics(task: str, method: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    """An epoch a row, with accuracies that rise."""
    gain = {"svd+nog": 2.0, "svd+nog+ow+olr": 4.0, "ns": 1.0}.get(method, 0.0)
    rows = []
    for epoch in range(1, EPOCHS + 1):
        top1 = 60 + gain + 2 * epoch + 0.4 * rng.normal()
        again = {} if task == "gcp" else {
            "recalibrated_loss": 1.1, "recalibrated_top1": top1 + 2, "recalibrated_top5": 97.5,
        }  # fmt: skip
        row = {
            "epoch": epoch,
            "step": epoch * EPOCH_STEPS,
            "lr": 0.1,
            "train_loss": 2.0 / epoch,
            "train_penalty": 0.0,
            "train_top1": top1 - 3,
            "eval_loss": 1.2,
            "eval_top1": top1,
            "eval_top5": 96.0 + gain / 4,
            **again,
            "failures": int(rng.integers(0, 3)) if method == "svd" else 0,
            "unrecovered": 0,
            "eta": None,
            "eta_used": None,
            "sv_min": 0.5,
            "sv_max": 2.0,
        }
        rows.append(row)
    return rows


def write_run(
    study: Path,
    task: str,
    method: str,
    seed: int,
    data: str | dict[str, Any] = "cifar10-jpeg",
    status: str = "complete",
    holdout: float = 0.0,
    **settings: Any,
) -> Path:
    """One complete run; its numbers depend on method and seed only."""
    config = Config.model_validate({"task": task, "method": method, "seed": seed, **settings})
    stored = config.model_dump(mode="json")
    more = {"name": data} if isinstance(data, str) else {"name": "cifar10-jpeg", **data}
    data = more["name"]
    stored["data"] |= {"size": 32, "holdout": holdout, "fingerprint": "f" * 64, **more}
    rng = np.random.default_rng([seed, *method.encode()])
    tables = {
        "metrics": metrics(task, method, rng),
        "timings": [
            {
                "epoch": epoch + 1,
                "seconds": 3.0,
                "images_per_second": 1280.0,
                "eval_seconds": 0.5,
                "peak_memory_mb": 700.0,
            }
            for epoch in range(EPOCHS)
        ],
        "conditioning": conditioning(task, method, rng),
    }
    model = "small" if config.stem_kernel == 3 else f"small-stem{config.stem_kernel}"
    folder = study / run_name(task, data, model, method, seed)
    environment = {"commit": COMMIT, "device": "cpu", "packages": {}, "dtype": config.precision}
    with RunWriter(folder) as writer:
        writer.begin(stored, environment)
        writer.finish(summarize(stored, tables, status, EPOCHS * EPOCH_STEPS, 1234), tables)
    return folder


def write_study(
    folder: Path,
    methods: tuple[str, ...] = ("svd", "svd+nog", "svd+ow", "ns", "bn"),
    task: str = "dbn",
    seeds: int = 2,
    **settings: Any,
) -> Path:
    """Every method with every seed."""
    for method in methods:
        for seed in range(seeds):
            write_run(folder, task, method, seed, **settings)
    return folder
