"""Accuracy, time and memory beside the rivals: ``make rivals``.

Four tasks: whitening of features, square roots of covariances for pooling, orthogonalisation of a
gradient, and layers with an orthogonal weight. In each task all methods get the same tensors in one
process. A rival that raises or returns NaN has that as its result. rivals.json holds the errors,
which do not depend on other work of the machine, and rivals-times.json the times and the peak
memory. Both are written after every case, and a case in the file is not repeated. rivals.txt is the
table of five rivals in the README.

python benchmarks/rivals.py [--only errors|times] [--minutes 8] [--fresh] [--quick] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, begin, machine, write
from rival_methods.measure import OK, Row, errors, failure, peak_bytes, prepared, rounds_within
from rival_methods.method import Method, versions
from rival_methods.polar import polar_methods
from rival_methods.problems import (
    SAMPLES,
    SPECIAL,
    Spectrum,
    features,
    gradient,
    pooled,
    whitened,
)
from rival_methods.roots import pooling_methods, whitening_methods
from rival_methods.weights import CHANNELS, CONVOLUTIONS, DECAY, LINEAR, PRECISIONS, Layer, Training

from orthocond.report.demonstrations.rivals import load, readme

Table = dict[str, Row]  # by method

STEPS, CONVOLUTION_STEPS = 200, 20  # of the training of weights
D = 64  # where not the dimension varies
SIZES = [16, 64, 128, 256, 512]
CONDITIONS = [10.0**k for k in range(13)]
# Whitening: (d, images of 16 x 16); the errors are those of 8 images.
WHITENED = [(16, 32), (64, 8), (64, 32), (64, 128), (128, 32), (256, 32), (512, 32)]
# Pooling: (covariances, d) of 2 d samples. Polar: (m, n).
POOLED = [(1, 64), (16, 64), (64, 64), (64, 16), (16, 128), (4, 256), (1, 512)]
ORTHOGONALISED = [(16, 32), (64, 128), (64, 576), (256, 512), (512, 512)]
WEIGHTS, TIMED_WEIGHTS = [64, 16, 128], [16, 64, 256]


def root_problem(task: str, d: int, spectrum: Spectrum) -> tuple[torch.Tensor, ...]:
    """Return features, gradient of the loss, and exact value and gradient of a task."""
    torch.manual_seed(1)
    if task == "whitening":
        X = features(d, 2048, spectrum)
        G = torch.randn(X.shape)
        return X, G, *whitened(X, G, spectrum.eps)
    n = 1 << d.bit_length()  # a power of 2 for exact ties, from d + 1 to 2 d
    n = d // 2 + 1 if spectrum.kind == "rank-deficient" else n
    full = spectrum._replace(kind="spread") if n <= d else spectrum
    k = min(d, n - 1)
    drawn = [features(k, n, full, seed) for seed in range(SAMPLES)]
    if k < d:
        mixed = torch.linalg.qr(torch.randn(SAMPLES, d, k, dtype=torch.float64)).Q
        drawn = [(Q @ X.double()).float() for Q, X in zip(mixed, drawn, strict=True)]
    X = torch.stack(drawn)
    G = torch.randn(SAMPLES, d, d)
    exact = [pooled(x, g) for x, g in zip(X, G, strict=True)]
    return X, G, torch.stack([e[0] for e in exact]), torch.stack([e[1] for e in exact])


def root_errors(task: str, d: int, spectrum: Spectrum) -> Table:
    X, G, *exact = root_problem(task, d, spectrum)
    methods = whitening_methods(spectrum.eps) if task == "whitening" else pooling_methods()
    return {method.name: errors(method, X, G, (exact[0], exact[1])) for method in methods}


def polar_errors(m: int, n: int, condition: float, rank: int | None = None) -> Table:
    """Return the spectral norm of each method's error on the support of the gradient."""
    G = gradient(m, n, condition, rank)
    table = {}
    for method in polar_methods():
        row: Row = {"value": None, "outcome": OK}
        try:
            wrong = (method.run(G.value).double() - G.factor) @ G.support.mT
            finite = bool(wrong.isfinite().all())
            row["value"] = float(torch.linalg.matrix_norm(wrong, 2)) if finite else None
            row["outcome"] = OK if finite else "value not finite"
        except Exception as error:  # it is the result
            row["outcome"] = failure(error)
        table[method.name] = row
    return table


def weight_errors(
    layers: list[Layer], size: int, precision: str, steps: int, decay: float = DECAY
) -> Table:
    """Return how far each layer is from orthogonal after some steps of SGD."""
    table = {}
    for layer in layers:
        row: Row = {"distance": None, "outcome": OK}
        try:
            found = Training(layer, size, precision, decay).train(steps)
            row |= found if isfinite(found["distance"]) else {"outcome": "weight not finite"}
        except Exception as error:  # it is the result
            row["outcome"] = failure(error)
        table[layer.name] = row
    return table


def error_cases(quick: bool) -> Iterator[tuple[str, Callable[[], Table]]]:
    """Yield the name and the function of each case of rivals.json."""
    d, sizes = (16, [16]) if quick else (D, [s for s in SIZES if s != D])
    conditions = [1.0, 1e4] if quick else CONDITIONS
    special = dict(list(SPECIAL.items())[-2:]) if quick else SPECIAL
    for task in ("whitening", "pooling"):
        for condition in conditions:
            yield (
                f"{task}, {d}, {condition:.0e}",
                partial(root_errors, task, d, Spectrum(condition)),
            )
        for name, spectrum in special.items():
            yield f"{task}, {d}, {name}", partial(root_errors, task, d, spectrum)
        for size in sizes:
            yield f"{task}, {size}, {1e4:.0e}", partial(root_errors, task, size, Spectrum())
    for condition in conditions:
        yield f"polar, {d}, {condition:.0e}", partial(polar_errors, d, 2 * d, condition)
    yield f"polar, {d}, rank-deficient", partial(polar_errors, d, 2 * d, 10.0, d // 2)
    for size in sizes:
        yield f"polar, {size}, {1e3:.0e}", partial(polar_errors, size, 2 * size, 1e3)
    steps, widths = (3, [8]) if quick else (STEPS, WEIGHTS)
    channels = 4 if quick else CHANNELS
    for kind in PRECISIONS:
        for size in widths:
            yield f"linear, {size}, {kind}", partial(weight_errors, LINEAR, size, kind, steps)
        fewer = min(steps, CONVOLUTION_STEPS)
        run = partial(weight_errors, CONVOLUTIONS, channels, kind, fewer)
        yield f"convolution, {channels}, {kind}", run
    run = partial(weight_errors, LINEAR, widths[0], "float32", steps, decay=0.0)
    yield f"linear, {widths[0]}, without weight decay", run


def timed(cases: dict[str, Callable[[], Any]], seconds: float) -> Table:
    """Return the median seconds and the peak memory of each case, or what it raised."""
    table: Table = {}
    able = {}
    for name, case in cases.items():
        try:
            table[name] = {"outcome": OK, "peak_mb": peak_bytes(case) / 2**20}
            able[name] = case
        except Exception as error:  # it is the result
            table[name] = {"outcome": failure(error)}
    found, rounds = rounds_within(able, seconds)
    for name, measured in found.items():
        spans = {span: [m[span] for m in measured] for span in measured[0]}
        table[name] |= {span: statistics.median(times) for span, times in spans.items()}
        whole = [sum(m.values()) for m in measured]
        table[name] |= {"seconds": statistics.median(whole), "rounds": rounds}
    return table


def time_methods(
    methods: list[Method], X: torch.Tensor, G: torch.Tensor | None, seconds: float
) -> Table:
    return timed({method.name: prepared(method, X, G) for method in methods}, seconds)


def time_whitening(d: int, images: int, device: str, seconds: float) -> Table:
    X = features(d, 256 * images, Spectrum()).to(device)
    return time_methods(whitening_methods(0.0), X, torch.randn_like(X), seconds)


def time_pooling(batch: int, d: int, device: str, seconds: float) -> Table:
    X = torch.stack([features(d, 2 * d, Spectrum(), seed) for seed in range(batch)]).to(device)
    return time_methods(pooling_methods(), X, torch.randn(batch, d, d, device=device), seconds)


def time_polar(m: int, n: int, device: str, seconds: float) -> Table:
    return time_methods(polar_methods(), gradient(m, n, 1e2).value.to(device), None, seconds)


def time_weights(layers: list[Layer], size: int, device: str, seconds: float) -> Table:
    """Return the times of a training step in float32."""

    def case(layer: Layer) -> Callable[[], dict[str, float]]:
        training: list[Training] = []  # made at the first call, which may raise

        def run() -> dict[str, float]:
            if not training:
                training.append(Training(layer, size, device=device))
            return {"step": training[0].step()}

        return run

    return timed({layer.name: case(layer) for layer in layers}, seconds)


def time_cases(quick: bool, device: str) -> Iterator[tuple[str, Callable[[float], Table]]]:
    """Yield the name and the function of each case of rivals-times.json."""
    for d, images in [(16, 1)] if quick else WHITENED:
        yield f"whitening, {d}, {images}", partial(time_whitening, d, images, device)
    for batch, d in [(2, 16)] if quick else POOLED:
        yield f"pooling, {d}, {batch}", partial(time_pooling, batch, d, device)
    for m, n in [(8, 16)] if quick else ORTHOGONALISED:
        yield f"polar, {m}, {n}", partial(time_polar, m, n, device)
    for size in [8] if quick else TIMED_WEIGHTS:
        yield f"linear, {size}", partial(time_weights, LINEAR, size, device)
    size = 4 if quick else CHANNELS
    yield f"convolution, {size}", partial(time_weights, CONVOLUTIONS, size, device)


def size_of(case: str) -> int:
    return int(case.split(", ")[1])


def setting() -> Row:
    """Return the machine and the packages of the measurements in a file."""
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.processor()
    return machine() | {"processor": name, "versions": versions()}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def present(folder: Path, name: str, fresh: bool) -> dict[str, Table]:
    """Return the cases of a file that this machine and these packages have measured."""
    path = folder / f"{name}.json"
    if fresh or not path.exists():
        return {}
    content = json.loads(path.read_text())
    cases: dict[str, Table] = content["cases"]
    same = setting()
    return cases if {key: content.get(key) for key in same} == same else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["errors", "times"], help="measure only these")
    parser.add_argument("--minutes", type=float, default=8.0, help="for the times")
    parser.add_argument("--fresh", action="store_true", help="measure every case again")
    parser.add_argument("--quick", action="store_true", help="try the command in build/rivals")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of the results")
    arguments = parser.parse_args()
    folder = arguments.out or (Path("build/rivals") if arguments.quick else RESULTS)
    device = begin(arguments.threads)

    def measure(name: str, planned: list[Any], run: Callable[[Any, int], Table]) -> None:
        known = present(folder, name, arguments.fresh)
        cases = {case: known[case] for case, _ in planned if case in known}
        for done, (case, function) in enumerate(planned):
            if case in cases:
                continue
            start = time.monotonic()
            cases[case] = run(function, len(planned) - done)
            write(folder, name, **setting(), cases=cases)
            print(f"{name}: {case} ({time.monotonic() - start:.1f} s)", flush=True)

    if arguments.only != "times":  # on the CPU, so that a GPU's precision has no part in it
        measure("rivals", list(error_cases(arguments.quick)), lambda function, _: function())
    if arguments.only != "errors":
        end = time.monotonic() + 60 * arguments.minutes
        measure(
            "rivals-times",
            # The smallest first: what they leave of their time is for the others.
            sorted(time_cases(arguments.quick, device), key=lambda case: size_of(case[0])),
            lambda function, left: function(max(0.0, end - time.monotonic()) / left),
        )
    measured = load(folder)
    if measured is not None:
        (folder / "rivals.txt").write_text(readme(measured))


if __name__ == "__main__":
    main()
