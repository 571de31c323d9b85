"""Milliseconds of a training step of each method, for Table 6.

Note [Interleaved]
    All methods run in one process and take turns: each takes one step per round, in an order that
    rotates. A temporary slowdown of the machine affects all methods, so the ratios to plain batch
    norm within a round vary less than the milliseconds. The median ratio is reported as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from orthocond.config.methods import Method
from orthocond.config.schema import Config, checked
from orthocond.config.tasks import TASKS
from orthocond.errors import UserError, images_taken
from orthocond.training.allocator import keep_memory
from orthocond.training.treated_network import build_network

PHASES = ("forward", "backward", "update", "step")
TIMED = ("float32", "bfloat16")  # precisions
MIN_ROUNDS = 20
WARMUP = 3
CLASSES = 10

Report = Callable[[int, int], None]


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return the median, the smallest value and the quartiles.

    Example:
        >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
        {'median': 3.0, 'min': 1.0, 'q1': 2.0, 'q3': 4.0}
    """
    data = sorted(values)
    q1, median, q3 = statistics.quantiles(data, n=4, method="inclusive")
    return {"median": median, "min": data[0], "q1": q1, "q3": q3}


class TrainingStep:
    """Network of one method, ready to take the timed steps.

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
        """Return the seconds of a clock, after the device has finished its work."""
        if self.images.device.type == "cuda":
            torch.cuda.synchronize(self.images.device)
        return time.perf_counter()

    def run(self) -> dict[str, float]:
        """Take one step and return the milliseconds of each phase."""
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
    """Return the measurements of each step in each round, after a warm-up.

    The order of the steps rotates from round to round.
    """
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
    """Return the name of a case, which is also the name of its stored timing.

    Example:
        >>> case_name(Config(method="nog"))
        'dbn-small-svd+nog-float32-b128-x32'
    """
    names = (config.task, config.model, config.method, config.precision)
    return "-".join([*names, f"b{config.batch_size}", f"x{_image_size(config)}"])


def _image_size(config: Config) -> int:
    return config.data.size or TASKS[config.task].image_size


def timed_cases(config: Config, methods: Iterable[str]) -> list[Config]:
    """Return one configuration per method, first the one without a spectral layer.

    Args:
        config: all settings except the method.
        methods: names of methods, in any spelling.

    Raises:
        UserError: a method is unknown or does not exist for the task, or the precision is not
            timed.

    Example:
        >>> [case.method for case in timed_cases(Config(), ["nog", "bn"])]
        ['bn', 'svd+nog']
    """
    if config.precision not in TIMED:
        raise UserError(
            f"precision {config.precision!r} is not timed: allowed are {', '.join(TIMED)}"
        )
    names = dict.fromkeys(str(Method.parse(m)) for m in (TASKS[config.task].baseline, *methods))
    return [checked(Config, config.model_dump() | {"method": name}) for name in names]


def time_cases(
    cases: list[Config],
    device: torch.device,
    rounds: int = MIN_ROUNDS,
    report: Report = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Measure the milliseconds of a training step of each case; the cases take turns.

    ``forward`` covers the network and the loss. ``backward`` covers everything after that, as in
    Table 6 of the paper: the gradients, and the optimizer's step with its treatments. ``update`` is
    the optimizer's step alone. The images are noise, because the times do not depend on them.

    Args:
        cases: configurations from ``timed_cases``.
        device: where to run.
        rounds: timed steps of each case, at least 20.
        report: called after each round with the number of rounds done and the number of all rounds.

    Returns:
        One row per case: its settings; ``forward_ms``, ``backward_ms``, ``update_ms`` and
        ``step_ms`` (each median, min, q1, q3); and ``ratio``: phase -> median over the rounds of
        the ratio to the first case.

    Raises:
        UserError: there are too few rounds, or the network does not accept the images.
    """
    if rounds < MIN_ROUNDS:
        raise UserError(f"repeats is {rounds}: a median of less than {MIN_ROUNDS} is not reported")
    keep_memory()  # so that memory is managed as in training
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
    """Return random images (B, 3, H, W) and labels (B,) of the configured sizes."""
    size = _image_size(config)
    draw = torch.Generator().manual_seed(config.seed)
    images = torch.randn(config.batch_size, 3, size, size, generator=draw)
    if config.channels_last:
        images = images.to(memory_format=torch.channels_last)
    classes = config.data.classes or CLASSES
    return images, torch.randint(classes, (config.batch_size,), generator=draw)
