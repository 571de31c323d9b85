"""Milliseconds of a training step of each method, for Table 6.

The steps are those of ``orthocond.training.stepper``, and the methods take turns (Note
[Interleaved] of ``measure/timer.py``). The ratios to plain batch norm within a round vary less than
the milliseconds, so their median is reported as well.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from orthocond.config.methods import Method
from orthocond.config.schema import Config, checked
from orthocond.config.tasks import TASKS
from orthocond.errors import UserError, images_taken
from orthocond.measure.timer import Report, Stopwatch, interleaved
from orthocond.training.allocator import keep_memory
from orthocond.training.signals import StopSignal
from orthocond.training.stepper import Diverged, Stepper

SPANS = ("forward", "backward", "update", "step")
TIMED = ("float32", "bfloat16")  # precisions
MIN_ROUNDS = 20
CLASSES = 10


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
    """Network of one method, ready to take timed steps as ``orthocond train`` takes them.

    Args:
        config: settings of the network, the treatments and the optimizer.
        images: (B, 3, H, W).
        labels: (B,).
        accelerator: where to run.

    Raises:
        UserError: the network does not accept the images, or the batch can't be divided into
            micro-batches.
    """

    def __init__(
        self, config: Config, images: Tensor, labels: Tensor, accelerator: Accelerator
    ) -> None:
        self.images, self.labels = images, labels
        self.watch = Stopwatch()
        classes = config.data.classes or CLASSES
        self.stepper = Stepper(config, classes, 1, accelerator, StopSignal(), self.watch.mark)
        # A trial, so that no other error of a step is taken for one about the size of the images.
        with images_taken(images.shape), torch.no_grad():
            for x, _ in self.stepper.micro_batches(images, labels, config.accumulate):
                self.stepper.network(x)

    def run(self) -> dict[str, float]:
        """Take one step and return the milliseconds of each span.

        Raises:
            UserError: the loss, the gradient or the features are not finite.
        """
        self.watch.start()
        try:
            self.stepper.take_step(self.images, self.labels)
        except Diverged:
            raise UserError(
                f"{self.stepper.config.method} diverged while it was timed: lower lr (--set)"
            ) from None
        self.watch.mark("bookkeeping")
        seconds, step = self.watch.seconds, sum(self.watch.seconds.values())
        forward, update = seconds["forward"], seconds["update"]
        spans = dict(zip(SPANS, (forward, step - forward, update, step), strict=True))
        return {span: 1e3 * value for span, value in spans.items()}


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
    accelerator: Accelerator,
    rounds: int = MIN_ROUNDS,
    report: Report = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Measure the milliseconds of a training step of each case; the cases take turns.

    ``forward`` covers the network and the loss. ``backward`` covers everything after that, as in
    Table 6 of the paper: the gradients, the check that they are finite, the optimizer's step with
    its treatments, and the sums for the metrics. ``update`` is the optimizer's step alone, and
    ``step`` the whole. The images are noise, because the times do not depend on them.

    Args:
        cases: configurations from ``timed_cases``.
        accelerator: where to run, in the precision of the cases (``make_accelerator``).
        rounds: timed steps of each case, at least 20.
        report: called after each round with the number of rounds done and the number of all rounds.

    Returns:
        One row per case: its settings; ``forward_ms``, ``backward_ms``, ``update_ms`` and
        ``step_ms`` (each median, min, q1, q3); and ``ratio``: span -> median over the rounds of
        the ratio to the first case.

    Raises:
        UserError: there are too few rounds, the network does not accept the images, or a method
            diverges.
    """
    if rounds < MIN_ROUNDS:
        raise UserError(f"repeats is {rounds}: a median of less than {MIN_ROUNDS} is not reported")
    keep_memory()  # so that memory is managed as in training
    images, labels = _noise(cases[0])
    images, labels = images.to(accelerator.device), labels.to(accelerator.device)
    steps = {case_name(c): TrainingStep(c, images, labels, accelerator).run for c in cases}
    found = interleaved(steps, rounds, report=report)
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
            **{f"{s}_ms": spread(m[s] for m in found[case_name(case)]) for s in SPANS},
            "ratio": {
                s: statistics.median(
                    m[s] / b[s] for m, b in zip(found[case_name(case)], plain, strict=True)
                )
                for s in SPANS
            },
        }
        for case in cases
    ]


def _noise(config: Config) -> tuple[Tensor, Tensor]:
    """Return random images (B, 3, H, W) and labels (B,) of the configured sizes."""
    size = _image_size(config)
    draw = torch.Generator().manual_seed(config.seed)
    images = torch.randn(config.batch_size, 3, size, size, generator=draw)
    classes = config.data.classes or CLASSES
    return images, torch.randint(classes, (config.batch_size,), generator=draw)
