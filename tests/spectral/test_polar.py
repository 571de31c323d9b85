"""The polar factor against torch.linalg.svd, on matrices drawn by condition number."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import orthocond as oc
from orthocond.spectral.eigh import DecompositionError
from orthocond.spectral.polar import rank_tolerance


def drawn(m: int, n: int, kappa: float, seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n)
    U = torch.linalg.qr(torch.randn(m, k, dtype=torch.float64, generator=generator)).Q
    V = torch.linalg.qr(torch.randn(n, k, dtype=torch.float64, generator=generator)).Q
    s = torch.logspace(0, -torch.tensor(kappa).log10().item(), k, dtype=torch.float64)
    return scale * (U * s) @ V.mT


def reference(G: torch.Tensor) -> torch.Tensor:
    U, _, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    return U @ Vh


def orthogonality_error(R: torch.Tensor) -> float:
    R = R.double()
    gram = R @ R.mT if R.shape[-2] <= R.shape[-1] else R.mT @ R
    return float((gram - torch.eye(gram.shape[-1], dtype=gram.dtype)).abs().max())


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from([1.0, 1e2, 1e5]),
    st.sampled_from([1e-12, 1.0, 1e12]),
    st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_it_is_u_v_transposed(m, n, kappa, scale, seed):
    G = drawn(m, n, kappa, seed, scale)
    R = oc.polar_factor(G)
    # float64 Gram side: the perturbation of U V^T is bounded by eps kappa^2 before the repair step.
    assert torch.dist(R, reference(G)) < 1e-14 * max(m, n) * kappa**2 + 1e-12
    assert orthogonality_error(R) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fraction", [0.01, 0.5, 2.0])
@pytest.mark.parametrize("shape", [(64, 27), (64, 576), (128, 128), (3, 4)])
def test_it_is_orthogonal_down_to_the_rank_tolerance_and_a_partial_isometry_below(
    shape, fraction, dtype
):
    """The smallest singular value is above (fraction < 1) or below the rank tolerance."""
    G = drawn(*shape, 10.0, 0).to(dtype)
    U, s, Vh = torch.linalg.svd(G.double(), full_matrices=False)
    s[-1] = s[0] * rank_tolerance(G) / fraction
    R = oc.polar_factor(((U * s) @ Vh).to(dtype)).double()
    if fraction < 1:
        assert orthogonality_error(R) < (1e-6 if dtype == torch.float32 else 1e-12)
    else:
        torch.testing.assert_close(R, U[:, :-1] @ Vh[:-1], rtol=0, atol=1e-5)
        torch.testing.assert_close(R @ R.mT @ R, R, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["gram", "svd"])
def test_half_precision_has_an_answer_too(method, dtype):
    G = drawn(64, 576, 10.0, 0).to(dtype)
    R = oc.polar_factor(G, method)
    assert R.dtype == dtype
    torch.testing.assert_close(R.double(), reference(G), rtol=0, atol=1e-3)


def refuse(*_, **__):
    raise torch.linalg.LinAlgError("injected")


def spoil(P):
    return torch.full_like(P[..., 0], float("nan")), torch.full_like(P, float("nan"))


def mislead(P):
    """Factors that are finite and wrong."""
    return torch.ones_like(P[..., 0]), torch.eye(P.shape[-1], dtype=P.dtype).expand_as(P)


@pytest.mark.parametrize("fault", [refuse, spoil, mislead])
def test_a_failed_or_wrong_eigendecomposition_is_replaced_by_the_svd(fault, monkeypatch):
    G = drawn(5, 8, 10.0, 0)
    monkeypatch.setattr(torch.linalg, "eigh", fault)
    assert torch.allclose(oc.polar_factor(G), reference(G))
    monkeypatch.setattr(torch.linalg, "svd", refuse)
    with pytest.raises(DecompositionError, match="did not converge: injected"):
        oc.polar_factor(G)


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_methods_agree_and_take_batches(shape, method):
    G = torch.stack([drawn(*shape, 50.0, seed) for seed in range(6)]).reshape(2, 3, *shape)
    assert torch.allclose(oc.polar_factor(G, method), reference(G))


@pytest.mark.parametrize(("dtype", "kappa"), [(torch.float32, 1e5), (torch.float64, 5e5)])
def test_the_method_gram_takes_the_condition_numbers_that_it_states(dtype, kappa):
    G = drawn(5, 7, kappa, 0).to(dtype)
    R = oc.polar_factor(G, "gram").double()
    # eps kappa^2 in float64 as above, and the rounding of the answer
    assert torch.dist(R, reference(G)) < 1e-14 * 7 * kappa**2 + 8 * torch.finfo(dtype).eps


def test_each_matrix_of_a_batch_has_its_own_scale():
    G = torch.stack([drawn(3, 5, 10.0, seed) for seed in range(3)])
    scaled = G * torch.tensor([1e-200, 1.0, 1e200], dtype=G.dtype).view(3, 1, 1)
    assert torch.allclose(oc.polar_factor(scaled, "gram"), reference(G))


def test_the_rank_tolerance_is_that_of_torch():
    G = torch.zeros(50, 2, 3)
    assert rank_tolerance(G) == rank_tolerance(G.mT) == 3 * 2**-23 == rank_tolerance(G.half())
    assert rank_tolerance(G.double()) == 3 * 2**-52


def test_the_method_svd_needs_no_eigendecomposition(monkeypatch):
    G = drawn(4, 6, 10.0, 0)
    monkeypatch.setattr(torch.linalg, "eigh", pytest.fail)
    assert torch.allclose(oc.polar_factor(G, "svd"), reference(G))


def test_a_rank_deficient_matrix_gives_a_partial_isometry():
    U, s, Vh = torch.linalg.svd(drawn(8, 6, 10.0, 0), full_matrices=False)
    G = (U[:, :4] * s[:4]) @ Vh[:4]
    R = oc.polar_factor(G)
    assert torch.dist(R, U[:, :4] @ Vh[:4]) < 1e-10
    assert torch.dist(R @ R.mT @ R, R) < 1e-10


def test_no_orthogonal_matrix_is_nearer():
    G = drawn(5, 5, 20.0, 1)
    best = torch.dist(G, oc.polar_factor(G))
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        Q = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=generator)).Q
        assert torch.dist(G, Q) >= best


def test_zero_and_empty_and_tiny():
    assert oc.polar_factor(torch.zeros(3, 4)).eq(0).all()
    assert oc.polar_factor(torch.zeros(0, 3, 4)).shape == (0, 3, 4)
    assert torch.allclose(oc.polar_factor(1e-30 * torch.eye(3)), torch.eye(3))
    assert torch.allclose(oc.polar_factor(1e30 * torch.eye(3)), torch.eye(3))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"unknown method 'qr'.*auto, gram, svd"):
        oc.polar_factor(torch.eye(2), "qr")
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        oc.polar_factor(torch.zeros(3))
    with pytest.raises(DecompositionError, match=r"^the matrix holds NaN or Inf and has no polar"):
        oc.polar_factor(torch.full((2, 2), float("nan")))
    with pytest.raises(
        DecompositionError,
        match=r"^method 'gram' needs full rank and a condition number up to about 1e6: "
        r"use 'svd' or 'auto'$",
    ):
        oc.polar_factor(torch.diag(torch.tensor([1.0, 0.0])), "gram")


def with_values(m: int, n: int, values: list[float], seed: int = 0) -> torch.Tensor:
    U, _, Vh = torch.linalg.svd(drawn(m, n, 2.0, seed), full_matrices=False)
    return (U * torch.tensor(values, dtype=torch.float64)) @ Vh


@pytest.mark.parametrize(
    ("shape", "method"), [((3, 3), "auto"), ((3, 4), "svd"), ((4, 3), "auto")], ids=str
)
@pytest.mark.parametrize("values", [[3, 2, 1], [2, 2, 1], [1, 1, 1], [1 + 1e-9, 1, 0.5]], ids=str)
def test_derivatives_at_simple_equal_and_near_singular_values(values, shape, method):
    G = with_values(*shape, values).requires_grad_()

    def f(G):
        return oc.polar_factor(G, method)

    assert gradcheck(f, G, check_forward_ad=True)
    assert gradgradcheck(f, G, check_fwd_over_rev=True, fast_mode=True)


@pytest.mark.parametrize(("method", "tolerance"), [("svd", 1e-9), ("auto", 1e-4)])
def test_the_derivative_of_an_ill_conditioned_matrix_is_that_of_its_svd(method, tolerance):
    """Autograd through torch's SVD is a reference where singular values are far apart.

    The error is of the order of eps kappa, and eps kappa^2 for the Gram matrix.
    """
    G = with_values(4, 6, [1.0, 1e-2, 1e-4, 1e-6]).requires_grad_()
    W = drawn(4, 6, 3.0, 5)
    (ours,) = torch.autograd.grad((oc.polar_factor(G, method) * W).sum(), G)
    (theirs,) = torch.autograd.grad((reference(G) * W).sum(), G)
    assert torch.dist(ours, theirs) < tolerance * theirs.norm()


def test_torch_func():
    G = torch.stack([with_values(3, 4, [s, 1.0, 1.0], seed) for seed, s in enumerate([1.0, 2.0])])
    W = drawn(3, 4, 3.0, 5)

    def f(G):
        return (oc.polar_factor(G) * W).sum()

    vmap, grad = torch.func.vmap, torch.func.grad
    expected = torch.stack([torch.autograd.grad(f(g.requires_grad_()), g)[0] for g in G.clone()])
    torch.testing.assert_close(vmap(oc.polar_factor)(G), oc.polar_factor(G))
    torch.testing.assert_close(vmap(grad(f))(G), expected)
    hessian = torch.autograd.functional.hessian(f, G[0])
    torch.testing.assert_close(torch.func.hessian(f)(G[0]), hessian)
    with torch.no_grad(), forward_ad.dual_level():  # forward mode does not ask for grad mode
        slope = forward_ad.unpack_dual(f(forward_ad.make_dual(G[0], W))).tangent
    torch.testing.assert_close(slope, (expected[0] * W).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_has_the_dtype_of_the_matrix(dtype):
    G = with_values(3, 4, [3.0, 2.0, 2.0]).to(dtype).requires_grad_()
    W = drawn(3, 4, 3.0, 5)
    (ours,) = torch.autograd.grad((oc.polar_factor(G) * W).sum(), G)
    same = G.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad((oc.polar_factor(same) * W).sum(), same)
    assert ours.dtype == dtype
    assert torch.dist(ours.double(), exact) < 10 * torch.finfo(dtype).eps * exact.norm()


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_below_full_rank_the_backward_is_refused(shape):
    G = torch.zeros(2, *shape)
    G[0, :2, :2] = torch.eye(2)
    G[1, 0, 0] = 1.0
    R = oc.polar_factor(G.requires_grad_())
    line = "no derivative at a rank-deficient matrix, where the factor jumps: differentiate"
    with pytest.raises(oc.UserError, match=line):
        R.sum().backward()
    with pytest.raises(oc.UserError, match=line):
        torch.func.jvp(oc.polar_factor, (G.detach(),), (G.detach(),))
    assert not oc.polar_factor(G.detach()).requires_grad
