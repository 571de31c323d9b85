"""Errors, memory and times of methods; what a method raises is its result."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from orthocond.measure.timer import interleaved, now

from .method import Method
from .problems import SIDE

Row = dict[str, Any]  # numbers by name, and "outcome": ok, or what went wrong
OK = "ok"


def arranged(X: Tensor, layout: str) -> Tensor:
    """Return features (..., d, n) in the layout of a method, contiguous, as a leaf."""
    if layout == "rows":
        X = X.mT
    elif layout == "map":
        d, n = X.shape
        X = X.view(d, n // SIDE**2, SIDE, SIDE).transpose(0, 1)
    return X.detach().contiguous().clone().requires_grad_()


def as_columns(x: Tensor, layout: str) -> Tensor:
    """Return a result of a method as (..., d, n) again."""
    if layout == "rows":
        return x.mT
    return x.transpose(0, 1).flatten(1) if layout == "map" else x


def failure(error: Exception) -> str:
    """Return one line that says what a method raised."""
    if isinstance(error, ModuleNotFoundError):
        return "not installed"
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:100]


def relative(result: Tensor, exact: Tensor) -> float:
    return float(torch.dist(result.double(), exact) / exact.norm())


def errors(method: Method, X: Tensor, G: Tensor, exact: tuple[Tensor, Tensor]) -> Row:
    """Return the relative Frobenius errors of value and gradient, None where not finite.

    Args:
        method: the method.
        X: features (..., d, n).
        G: gradient of the loss with respect to the result, arranged as the result in columns.
        exact: value and gradient of the reference.
    """
    row: Row = {"value": None, "gradient": None, "outcome": OK}
    try:
        x = arranged(X, method.layout)
        y = method.run(x)
        value = as_columns(y.detach(), method.layout)
        if not value.isfinite().all():
            return row | {"outcome": "value not finite"}
        row["value"] = relative(value, exact[0])
        y.backward(arranged(G, method.layout).detach())
        assert x.grad is not None
        if not x.grad.isfinite().all():
            return row | {"outcome": "gradient not finite"}
        row["gradient"] = relative(as_columns(x.grad, method.layout), exact[1])
    except Exception as error:  # it is the result
        return row | {"outcome": failure(error)}
    return row


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what C++ code writes to the standard error: a line at each start of the profiler."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def peak_bytes(run: Callable[[], object]) -> int:
    """Return the largest size of the tensors that a function holds at a time, beyond the present.

    On a CPU the profiler reports each allocation; the process's own peak would hold what earlier
    cases left in the allocator.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with silenced(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run()
    recorded = found.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(e.start_ns(), e.nbytes()) for e in recorded if e.name() == "[memory]"]
    held = peak = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        held += size
        peak = max(peak, held)
    return peak


def prepared(method: Method, X: Tensor, G: Tensor | None) -> Callable[[], dict[str, float]]:
    """Return a function that runs a method, and returns the seconds of forward and backward.

    Without G only the value is computed, for methods that are not differentiable.
    """
    if G is None:
        x, g = X, None
    else:
        x, g = arranged(X, method.layout), arranged(G, method.layout).detach()

    def run() -> dict[str, float]:
        x.grad = None
        start = now()
        y = method.run(x)
        middle = now()
        if g is None:
            return {"forward": middle - start}
        y.backward(g)
        return {"forward": middle - start, "backward": now() - middle}

    return run


def rounds_within(
    cases: Mapping[str, Callable[[], dict[str, float]]], seconds: float, most: int = 30
) -> tuple[dict[str, list[dict[str, float]]], int]:
    """Return what each case returned in 2 to ``most`` rounds, as many as fit, and their number."""
    start = now()
    interleaved(cases, 1, warmup=0)  # also warms up
    once = now() - start
    start = now()
    interleaved(cases, 1, warmup=0)
    once = min(once, now() - start)
    rounds = max(2, min(most, int(seconds / once) - 2))
    return interleaved(cases, rounds, warmup=0), rounds
