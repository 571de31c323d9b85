"""Numbers that break arithmetic: a defined outcome each, finite weights after, nothing silent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator
from faults.counting import Count
from torch import Tensor

from orthocond.artifacts.run_reader import Run
from orthocond.config.sources import resolve
from orthocond.training.session import Session

STEPS, AT = 3, 1  # of a run, and the one that is spoiled
SETTINGS = (
    *("epochs=1", "batch_size=8", "lr=0.02", "recalibration_batches=1", "probe_every=1"),
    *("data.classes=4", f"data.train_images={8 * STEPS}", "data.test_images=8"),
)
TASKS = {"dbn": ("data.size=16",), "gcp": ("task=gcp", "data.size=64")}
METHODS = {"dbn": ("svd", "ns", "bn", "nog+olr"), "gcp": ("svd", "ns", "gap", "nog+olr")}
LAPACK = ("svd", "nog+olr")  # methods that call it in each step
SOLVERS = (*LAPACK, "ns")  # and those that solve at all: bn and gap have nothing to count


@dataclass(frozen=True)
class Outcome:
    """How a run ended: one of these is expected of each fault."""

    status: str  # complete or diverged; nothing is learnt from the step of a run that diverged
    failed: bool = False  # decompositions that did not simply succeed are counted
    unrecovered: bool = False  # and of these, some that no retry could save


TRAINED, DIVERGED = Outcome("complete"), Outcome("diverged")
COUNTED = Outcome("diverged", True, True)
RETRIED, LOST = Outcome("complete", failed=True), Outcome("complete", True, True)


@dataclass(frozen=True)
class Fault:
    """What is done to one step of training, and how the run may end then."""

    what: str
    expected: tuple[Outcome, ...]
    spared: Outcome | None = None  # of a method whose solver, if it has one, never meets the fault
    images: Callable[[Tensor], Tensor] = lambda images: images
    refused: tuple[str, ...] = ()  # functions of torch.linalg that do not converge
    refusals: int = 10**9  # how often, in that step
    poison: bool = False  # a NaN in the gradient


def _pixel(value: float) -> Callable[[Tensor], Tensor]:
    def spoil(images: Tensor) -> Tensor:
        images = images.clone()
        images[0, 0, 0, 0] = value
        return images

    return spoil


def _times(*factors: float) -> Callable[[Tensor], Tensor]:
    return lambda images: images * torch.tensor(factors).view(1, 3, 1, 1)


EIGH, SVD = ("eigh", "eigvalsh"), ("svd",)
FAULTS = (
    Fault("a NaN pixel", (COUNTED,), DIVERGED, _pixel(math.nan)),
    Fault("an infinite pixel", (COUNTED,), DIVERGED, _pixel(math.inf)),
    Fault("a NaN in the gradient", (DIVERGED,), poison=True),
    Fault("a batch of zeros", (TRAINED,), images=torch.zeros_like),
    Fault("a constant channel", (TRAINED,), images=_times(1, 0, 1)),
    Fault("images of one colour", (TRAINED,), images=lambda x: x.mean((2, 3), True).expand_as(x)),
    Fault("one image throughout", (TRAINED,), images=lambda x: x[:1].expand_as(x)),
    Fault("variances of 1e-30", (TRAINED,), images=_times(1e-15, 1e-15, 1e-15)),
    Fault("variances of 1e30", (TRAINED, DIVERGED), images=_times(1e15, 1e15, 1e15)),
    Fault("variances from 1e-30 to 1e30", (TRAINED, DIVERGED), images=_times(1e-15, 1, 1e15)),
    Fault("LAPACK refuses a batch once", (TRAINED,), refused=EIGH, refusals=1),
    Fault("LAPACK's eigensolver refuses", (RETRIED,), TRAINED, refused=EIGH),
    Fault("LAPACK refuses altogether", (COUNTED, LOST), TRAINED, refused=EIGH + SVD),
)


class Spoiled:
    """Image data during one step of which a fault acts."""

    def __init__(self, data: Any, fault: Fault) -> None:
        self.data, self.fault = data, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def train_batches(self, *arguments: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for i, (images, labels) in enumerate(self.data.train_batches(*arguments, **options)):
            if i == AT:
                with _acting(self.fault):
                    yield self.fault.images(images), labels
            else:
                yield images, labels


@contextmanager
def _acting(fault: Fault) -> Iterator[None]:
    refusals = iter(range(fault.refusals))

    def refusing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(refusals, None) is not None:
                raise torch.linalg.LinAlgError("did not converge")
            return real(*arguments, **options)

        return call

    backward = Accelerator.backward

    def poisoned(accelerator: Accelerator, loss: Tensor, **options: Any) -> None:
        backward(accelerator, loss, **options)
        gradients = [p.grad for m in accelerator._models for p in m.parameters()]
        gradients[-1].view(-1)[0] = math.nan

    with ExitStack() as stack:
        for name in fault.refused:
            real = getattr(torch.linalg, name)
            stack.enter_context(mock.patch.object(torch.linalg, name, refusing(real)))
        if fault.poison:
            stack.enter_context(mock.patch.object(Accelerator, "backward", poisoned))
        yield


def spoiled_steps(folder: Path, stride: int = 1) -> Iterator[Count]:
    """Train each method with each fault in one step; every ``stride``-th of a fault's runs.

    Yields:
        A count for each fault.
    """
    cases = [(task, method) for task in TASKS for method in METHODS[task]]
    for i, fault in enumerate(FAULTS):
        count = Count(f"{fault.what}: a defined outcome, finite weights after")
        for task, method in cases[i % stride :: stride]:
            what = f"{task}, {method}"
            try:
                run = _train(folder / fault.what, task, method, fault)
            except Exception as error:  # whatever it is, it is not the outcome that was promised
                count.add(what, repr(error)[:300])
                continue
            outcome = _outcome(run)
            count.note(_named(outcome))
            count.add(what, _wrong(run, outcome, fault, method))
        yield count


def _train(study: Path, task: str, method: str, fault: Fault) -> Run:
    grid = resolve(flags={"methods": (method,)}, settings=[*SETTINGS, *TASKS[task]])
    session = Session(grid, study)
    session.data = Spoiled(session.data, fault)  # type: ignore[assignment]
    (result,) = session.train(lambda *about: None)
    return Run(study / result.name)


def _outcome(run: Run) -> Outcome:
    summary = run.summary
    failed, lost = summary["failures"] > 0, summary["unrecovered"] > 0
    return Outcome(summary["status"], failed, lost)


def _named(outcome: Outcome) -> str:
    if outcome == TRAINED:
        return "trained on"
    ended = "trained on"
    if outcome.status == "diverged":
        ended = "stopped before the step, and called diverged"
    counted = ", failures counted" if outcome.failed else ""
    return ended + counted + (", some beyond retry" if outcome.unrecovered else "")


def _wrong(run: Run, outcome: Outcome, fault: Fault, method: str) -> str | None:
    met = fault.spared is None or method in (LAPACK if fault.refused else SOLVERS)
    if outcome not in (fault.expected if met else (fault.spared,)):
        return f"it ended as {outcome}"
    diverged = outcome.status == "diverged"
    steps = AT if diverged else STEPS
    if run.summary["steps"] != steps:
        return f"it took {run.summary['steps']} steps, not {steps}"
    numbers = run.metrics[["train_loss", "eval_loss", "sv_max"]].to_numpy()
    if not diverged and not (len(numbers) == 1 and torch.tensor(numbers).isfinite().all()):
        return f"metrics.csv has {numbers.tolist()}"
    checkpoint = run.checkpoint()
    assert checkpoint is not None
    bad = [name for name, t in checkpoint.tensors.items() if not t.isfinite().all()]
    return f"not finite: {', '.join(bad)}"[:300] if bad else None
