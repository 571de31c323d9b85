"""Milliseconds of a training step, method beside method: Table 6.

Note [Interleaved]
    All methods live in one process and take turns: one step each in every round, in an order that
    rotates. What slows the machine for a while slows all of them, so a round's ratios to plain
    batch norm are steadier than its milliseconds, and their median is reported beside them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from orthocond.allocator import keep_memory
from orthocond.config import Config, checked
from orthocond.errors import UserError, images_taken
from orthocond.methods import Method
from orthocond.network import build_network

PLAIN = {"dbn": "bn", "gcp": "gap"}
"""Task: the method without a spectral layer, which the others are compared with."""
PHASES = ("forward", "backward", "update", "step")
TIMED = ("float32", "bfloat16")  # precisions
MIN_ROUNDS = 20
WARMUP = 3
SIZES = {"dbn": 32, "gcp": 64}  # pixels, where the configuration names none
CLASSES = 10

Report = Callable[[int, int], None]


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest value and quartiles.

    Example:
        >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
        {'median': 3.0, 'min': 1.0, 'q1': 2.0, 'q3': 4.0}
    """
    data = sorted(values)
    q1, median, q3 = statistics.quantiles(data, n=4, method="inclusive")
    return {"median": median, "min": data[0], "q1": q1, "q3": q3}


class TrainingStep:
    """One method's network, ready to take the steps that are timed.

    Args:
        config: settings of the network, the treatments and the optimizer.
        images: (B, 3, H, W).
        labels: (B,).
    """

    def __init__(self, config: Config, images: Tensor, labels: Tensor) -> None:
        self.model, self.treated, self.optimizer = build_network(
            config, config.data.classes or CLASSES
        )
        self.model.to(images.device)
        self.treated.bind(self.optimizer)
        self.images, self.labels = images, labels
        self.autocast = config.precision == "bfloat16"

    def _now(self) -> float:
        if self.images.device.type == "cuda":
            torch.cuda.synchronize(self.images.device)
        return time.perf_counter()

    def run(self) -> dict[str, float]:
        """Take a step; the milliseconds of its phases."""
        start = self._now()
        device = self.images.device.type
        with (
            images_taken(self.images.shape),
            torch.autocast(device, torch.bfloat16, enabled=self.autocast),
        ):
            logits = self.model(self.images)
        loss = cross_entropy(logits.float(), self.labels) + self.treated.penalty()
        forward = self._now()
        loss.backward()
        gradient = self._now()
        self.optimizer.step()
        end = self._now()
        self.optimizer.zero_grad()
        seconds = {
            "forward": forward - start,
            "backward": end - forward,
            "update": end - gradient,
            "step": end - start,
        }
        return {phase: 1e3 * value for phase, value in seconds.items()}


def interleaved(
    steps: dict[str, Callable[[], dict[str, float]]], rounds: int, report: Report
) -> dict[str, list[dict[str, float]]]:
    """What each step measures in each round, after a warm-up; the order rotates by the round."""
    names = list(steps)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for r in range(-WARMUP, rounds):
        first = r % len(names)
        for name in names[first:] + names[:first]:
            measured = steps[name]()
            if r >= 0:
                found[name].append(measured)
        report(r + 1 + WARMUP, rounds + WARMUP)
    return found


def case_name(config: Config) -> str:
    """The name of a case, and of its artifact.

    Example:
        >>> case_name(Config(method="nog"))
        'dbn-small-svd+nog-float32-b128-x32'
    """
    names = (config.task, config.model, config.method, config.precision)
    return "-".join([*names, f"b{config.batch_size}", f"x{config.data.size or SIZES[config.task]}"])


def timed_cases(config: Config, methods: Iterable[str]) -> list[Config]:
    """A configuration with each method, the network without a spectral layer first.

    Args:
        config: everything but the method.
        methods: in any spelling.

    Raises:
        UserError: an unknown method, one that the task does not have, or a precision that is not
            timed.

    Example:
        >>> [case.method for case in timed_cases(Config(), ["nog", "bn"])]
        ['bn', 'svd+nog']
    """
    if config.precision not in TIMED:
        raise UserError(
            f"precision {config.precision!r} is not timed: allowed are {', '.join(TIMED)}"
        )
    names = dict.fromkeys(str(Method.parse(m)) for m in (PLAIN[config.task], *methods))
    return [checked(Config, config.model_dump() | {"method": name}) for name in names]


def time_cases(
    cases: list[Config],
    device: torch.device,
    rounds: int = MIN_ROUNDS,
    report: Report = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Milliseconds of a training step of each case, all of them in turns.

    ``forward`` is the network and the loss, ``backward`` all that follows, as in the paper's Table
    6: the gradients and the optimizer's step with its treatments. ``update`` is that step alone.
    The images are noise: no time depends on them.

    Args:
        cases: from ``timed_cases``.
        device: where to run.
        rounds: steps of each case that count, 20 at least.
        report: called after each round with the rounds done and all of them.

    Returns:
        A row a case: what was timed, ``forward_ms``, ``backward_ms``, ``update_ms`` and ``step_ms``
        (each median, min, q1, q3), and ``ratio``: phase -> the median over the rounds of the ratio
        to the first case.

    Raises:
        UserError: too few rounds, or images that the network does not take.
    """
    if rounds < MIN_ROUNDS:
        raise UserError(f"repeats is {rounds}: a median of less than {MIN_ROUNDS} is not reported")
    keep_memory()  # as training does
    images, labels = _noise(cases[0])
    steps = {
        case_name(case): TrainingStep(case, images.to(device), labels.to(device)).run
        for case in cases
    }
    found = interleaved(steps, rounds, report)
    plain = found[case_name(cases[0])]
    return [
        {
            "case": case_name(case),
            "task": case.task,
            "model": case.model,
            "method": case.method,
            "batch_size": case.batch_size,
            "image_size": images.shape[-1],
            "classes": case.data.classes or CLASSES,
            "precision": case.precision,
            "channels_last": case.channels_last,
            "rounds": rounds,
            **{f"{p}_ms": spread(m[p] for m in found[case_name(case)]) for p in PHASES},
            "ratio": {
                p: statistics.median(
                    m[p] / b[p] for m, b in zip(found[case_name(case)], plain, strict=True)
                )
                for p in PHASES
            },
        }
        for case in cases
    ]


def _noise(config: Config) -> tuple[Tensor, Tensor]:
    size = config.data.size or SIZES[config.task]
    draw = torch.Generator().manual_seed(config.seed)
    images = torch.randn(config.batch_size, 3, size, size, generator=draw)
    if config.channels_last:
        images = images.to(memory_format=torch.channels_last)
    classes = config.data.classes or CLASSES
    return images, torch.randint(classes, (config.batch_size,), generator=draw)
