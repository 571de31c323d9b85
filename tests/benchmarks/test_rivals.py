"""The comparison with rivals: its references against mpmath, and what it does with failures."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import mpmath
import pytest
import rivals
import torch
from rival_methods import papers
from rival_methods.measure import errors, peak_bytes
from rival_methods.method import DISTRIBUTIONS, Method
from rival_methods.polar import muon, polar_methods
from rival_methods.problems import (
    SPECIAL,
    Spectrum,
    eigenvalues,
    features,
    gradient,
    pooled,
    whitened,
)
from rival_methods.roots import pooling_methods, whitening_methods
from rival_methods.weights import CONVOLUTIONS, DECAY, LINEAR, MOMENTUM, Training
from torch import Tensor

ROOT = Path(__file__).parents[2]
DIGITS = 60


def power_of(P: mpmath.matrix, power: float) -> mpmath.matrix:
    l, U = mpmath.eigsy(P)
    return U * mpmath.diag([x**power for x in l]) * U.T


def plainly(X: mpmath.matrix, power: float, eps: float) -> mpmath.matrix:
    """Whitened features, or the root of their covariance, from the definition."""
    n = X.cols
    Y = X - X * mpmath.ones(n, n) / n
    P = Y * Y.T / n + eps * mpmath.eye(X.rows)
    return power_of(P, power) * Y if power < 0 else power_of(P, power)


@pytest.mark.parametrize(("power", "eps"), [(-0.5, 0.0), (-0.5, 1e-5), (0.5, 0.0)])
@pytest.mark.parametrize("condition", [1.0, 1e4, 1e12])
def test_references_agree_with_mpmath(power: float, eps: float, condition: float) -> None:
    torch.manual_seed(0)
    X = features(3, 8, Spectrum(condition, eps=eps))
    G = torch.randn(3, 8) if power < 0 else torch.randn(3, 3)
    value, dX = whitened(X, G, eps) if power < 0 else pooled(X, G)
    E = torch.randn(3, 8, dtype=torch.float64) * X.abs().amax(1, keepdim=True)
    with mpmath.workdps(DIGITS):
        exact = plainly(mpmath.matrix(X.tolist()), power, eps)
        found = torch.tensor(exact.tolist(), dtype=torch.float64)

        def loss(step: mpmath.mpf) -> mpmath.mpf:
            moved = mpmath.matrix(X.tolist()) + step * mpmath.matrix(E.tolist())
            result = plainly(moved, power, eps)
            pairs = zip(mpmath.matrix(G.tolist()), result, strict=True)
            return mpmath.fsum(g * y for g, y in pairs)

        h = mpmath.mpf(10) ** -20
        slope = float((loss(h) - loss(-h)) / (2 * h))
    torch.testing.assert_close(value, found, rtol=1e-9, atol=1e-9)
    assert float((dX * E).sum()) == pytest.approx(slope, rel=1e-8)


def test_features_have_the_spectrum() -> None:
    for spectrum in (Spectrum(1e4), *SPECIAL.values()):
        X = features(16, 64, spectrum).double()
        l = torch.linalg.eigvalsh(X.cov(correction=0)).flip(0)
        torch.testing.assert_close(l, eigenvalues(16, spectrum), rtol=1e-4, atol=1e-7)
    exact = features(16, 64, SPECIAL["exactly tied"])
    P = exact @ exact.mT / 64
    assert torch.equal(P, P.diagonal().diag())
    assert P.diagonal().unique().tolist() == [1 / 64, 1]


def test_formulas_of_papers_approach_the_exact_roots() -> None:
    A = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    P = A @ A.mT / 20 + torch.eye(5, dtype=torch.float64)
    l, U = torch.linalg.eigh(P)
    root, inverse = (U * l.sqrt()) @ U.mT, (U * l.rsqrt()) @ U.mT
    torch.testing.assert_close(papers.iternorm(P, 20), inverse)
    torch.testing.assert_close(papers.isqrt(P, 20), root)
    torch.testing.assert_close(papers.MpaLyaRoot.apply(P), root, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(papers.MpaLyaInverse.apply(P), inverse, rtol=1e-3, atol=1e-3)
    # IterNorm is one of the two sequences of the coupled iteration of iSQRT-COV.
    torch.testing.assert_close(papers.iternorm(P, 4) @ P, papers.isqrt(P, 4))


@pytest.mark.parametrize("function", [papers.MpaLyaRoot, papers.MpaLyaInverse])
def test_lyapunov_backward_is_the_derivative(function: type[torch.autograd.Function]) -> None:
    A = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    P = A @ A.mT / 40 + torch.eye(4, dtype=torch.float64)
    g = torch.ones(4, 4, dtype=torch.float64).triu()
    found, expected = P.clone().requires_grad_(), P.clone().requires_grad_()
    function.apply(found).backward(g)
    l, U = torch.linalg.eigh(expected)
    power = 0.5 if function is papers.MpaLyaRoot else -0.5
    ((U * l.pow(power)) @ U.mT).backward((g + g.mT) / 2)
    assert found.grad is not None and expected.grad is not None
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-4)


def test_pade_approximant_is_of_the_square_root() -> None:
    p, q = papers.pade_coefficients()
    z = 0.5
    quotient = sum(c * z**k for k, c in enumerate(p)) / sum(c * z**k for k, c in enumerate(q))
    assert len(p) == len(q) == 6 and quotient == pytest.approx(0.5**0.5, rel=1e-8)


def test_each_cubic_of_cans_has_three_equal_errors() -> None:
    l, u = 1e-2, 1.0
    for a, b in papers.cans_cubics(1e-2):
        x = torch.linspace(l, u, 10_001, dtype=torch.float64)
        y = a * x - b * x**3
        error = float((y - 1).abs().max())
        assert float(1 - y[0]) == pytest.approx(error, rel=1e-6)
        assert float(1 - y[-1]) == pytest.approx(error, rel=1e-6)
        assert float(y.max() - 1) == pytest.approx(error, rel=1e-6)
        l, u = 1 - error, 1 + error
    assert error < 1e-6


def test_muon_and_cans_orthogonalise() -> None:
    G = gradient(8, 16, 10.0)
    assert float(torch.linalg.svdvals(muon(G.value)).sub(1).abs().max()) < 0.4
    torch.testing.assert_close(papers.cans(G.value.double(), 1e-2), G.factor, rtol=0, atol=1e-6)


def test_methods_without_a_package_run() -> None:
    torch.manual_seed(0)
    X, G = features(4, 256, Spectrum(10.0)), torch.randn(4, 256)
    exact = whitened(X, G, 0.0)
    own = {"orthocond", "torch"}
    for method in whitening_methods(0.0):
        if method.source in own:
            row = errors(method, X, G, exact)
            assert row["outcome"] == "ok" and max(row["value"], row["gradient"]) < 1e-4, method.name
    X, G = X[None, :, :16], torch.randn(1, 4, 4)
    exact = tuple(t[None] for t in pooled(X[0], G[0]))
    for method in pooling_methods():
        if method.source in own:
            row = errors(method, X, G, exact)
            assert row["outcome"] == "ok" and max(row["value"], row["gradient"]) < 1e-4, method.name
    for methods in (whitening_methods(0.0), pooling_methods(), polar_methods()):
        assert len({method.name for method in methods}) == len(methods)


def raising(x: Tensor) -> Tensor:
    raise RuntimeError("it did not converge\nat step 3")


@pytest.mark.parametrize(
    ("run", "outcome", "has_value"),
    [
        (raising, "RuntimeError: it did not converge", False),
        (lambda x: x * torch.nan, "value not finite", False),
        (lambda x: (x - x).sqrt() + x, "gradient not finite", True),
        (lambda x: rivals.root_errors.missing, "AttributeError", False),
    ],
)
def test_what_a_method_raises_is_its_result(run: object, outcome: str, has_value: bool) -> None:
    X = torch.ones(2, 3)
    row = errors(Method("rival", "paper", run), X, X, (X.double(), X.double()))  # type: ignore[arg-type]
    assert row["outcome"].startswith(outcome) and row["gradient"] is None
    assert (row["value"] is not None) == has_value


def test_a_missing_package_is_named_as_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    kornia = next(m for m in whitening_methods(0.0) if m.name == "kornia")
    X = features(2, 256, Spectrum())
    assert errors(kornia, X, X, (X.double(), X.double()))["outcome"] == "not installed"


def test_peak_memory_counts_what_is_held_at_once() -> None:
    def run() -> None:
        a = torch.ones(1 << 18)  # 1 MiB
        b = a + 1
        del a
        b + 1

    assert peak_bytes(run) == pytest.approx(2 << 20, abs=4096)


@pytest.mark.parametrize("layer", [LINEAR[0], CONVOLUTIONS[0]], ids=lambda layer: layer.name)
def test_training_keeps_our_weights_orthogonal(layer: object) -> None:
    found = Training(layer, 4).train(3)  # type: ignore[arg-type]
    assert found["distance"] < 1e-5 and found["loss"] < 1


def test_the_command_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [("polar, 4, 1e+00", lambda: rivals.polar_errors(4, 8, 1.0))]
    times = [("polar, 4, 8", lambda seconds: rivals.time_polar(4, 8, "cpu", seconds))]
    monkeypatch.setattr(rivals, "begin", lambda threads: "cpu")
    monkeypatch.setattr(rivals, "error_cases", lambda quick: cases)
    monkeypatch.setattr(rivals, "time_cases", lambda quick, device: times)
    command = ["rivals.py", "--minutes", "0", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    rivals.main()
    assert capsys.readouterr().out.count("polar, 4") == 2
    first = json.loads((tmp_path / "rivals.json").read_text())
    assert first["cases"]["polar, 4, 1e+00"]["orthocond"]["value"] < 1e-6
    assert first["torch"] == torch.__version__ and set(first["versions"]) == set(DISTRIBUTIONS)
    rivals.main()
    assert not capsys.readouterr().out  # nothing left to measure
    (tmp_path / "rivals.json").write_text(json.dumps(first | {"torch": "1.0"}))
    rivals.main()
    assert capsys.readouterr().out.count("rivals: ") == 1  # of another version: measured again


def test_quick_takes_every_task() -> None:
    tasks = {name.partition(",")[0] for name, _ in rivals.error_cases(quick=True)}
    assert tasks == {"whitening", "pooling", "polar", "linear", "convolution"}
    assert tasks == {name.partition(",")[0] for name, _ in rivals.time_cases(True, "cpu")}


def test_the_extra_declares_the_rivals_of_a_registry() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(DISTRIBUTIONS.values()) <= set(project["optional-dependencies"]["rivals"])


def test_the_page_states_the_settings() -> None:
    page = " ".join((ROOT / "book/rivals.md").read_text().split())
    linear, convolution = rivals.STEPS, rivals.CONVOLUTION_STEPS
    stated = f"for {linear} steps of SGD, and each convolution for {convolution}, with momentum"
    assert f"{stated} {MOMENTUM} and weight decay $5\\cdot10^{{-4}}$" in page and DECAY == 5e-4
