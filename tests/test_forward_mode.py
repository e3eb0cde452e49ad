"""Tangents through argmin: against backward, and against differences of solutions."""

import pytest
import torch
from torch.autograd import forward_ad

import bilevel as bl
from problems import EXAMPLES
from registry import TERMS, Draw
from test_minimum import IMAGE, W, draw

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated"  # torch's own, of forward mode
)

STRATEGIES = [
    bl.FixedPoint(),
    bl.Implicit(),
    bl.Implicit(recompute=True),
    bl.PartlySmooth(),
    bl.Truncated(4),
    bl.OneStep(),
    bl.Unroll(last=5),
    bl.Unroll(),
]


def lasso(w, A, b):
    return bl.LeastSquares(b) @ bl.Matrix(A) + w * bl.L1()


LASSO = (W, draw(8, 5), draw(2, 8, seed=1))


def tv(w, y):
    return bl.LeastSquares(y) + w * bl.TotalVariation()


def pushed(energy, theta, directions, **options):
    """(x, dx/dθ directions)."""
    with forward_ad.dual_level():
        duals = (forward_ad.make_dual(p, d) for p, d in zip(theta, directions, strict=True))
        return forward_ad.unpack_dual(bl.argmin(energy(*duals), **options))


def agrees_with_backward(energy, theta, **options):
    directions = [draw(*p.shape, seed=20 + i) for i, p in enumerate(theta)]
    x, tangent = pushed(energy, theta, directions, **options)
    leaves = [p.clone().requires_grad_() for p in theta]
    again = bl.argmin(energy(*leaves), **options)
    torch.testing.assert_close(x, again.detach(), rtol=1e-9, atol=1e-9)
    g = draw(*x.shape, seed=30)
    gradients = torch.autograd.grad((g * again).sum(), leaves, allow_unused=True)
    pulled = [(a * d).sum() for a, d in zip(gradients, directions, strict=True) if a is not None]
    scale = float(sum(p.abs() for p in pulled)) + 1e-3
    assert float((g * tangent).sum()) == pytest.approx(float(sum(pulled)), abs=1e-6 * scale)


@pytest.mark.parametrize("diff", STRATEGIES, ids=repr)
@pytest.mark.parametrize("energy, theta", [(lasso, LASSO), (tv, (W, IMAGE))], ids=["lasso", "tv"])
def test_every_strategy_pushes_what_it_pulls(energy, theta, diff):
    agrees_with_backward(energy, theta, diff=diff, tol=1e-9)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_every_problem_class(example):
    theta, _ = example.theta(batch=2)
    names = [name for name in theta if name not in example.fixed]

    def energy(*parameters):
        return example.energy({**theta, **dict(zip(names, parameters, strict=True))})

    shape = bl.argmin(example.energy(theta), x0=start(example, theta)).shape
    x0 = torch.zeros(shape, dtype=torch.float64)
    agrees_with_backward(energy, [theta[name] for name in names], x0=x0, tol=1e-9)


def start(example, theta):
    problem = example.energy(theta)
    problem = problem if isinstance(problem, bl.Problem) else bl.Problem((problem,))
    return theta["y"] if problem.guess() is None else None


def test_against_differences():
    energy, theta = tv, (W, IMAGE)
    directions = [draw(*p.shape, seed=20 + i) for i, p in enumerate(theta)]
    _, tangent = pushed(energy, theta, directions, tol=1e-11)
    h = 1e-5
    ends = [
        bl.solve(energy(*(p + t * d for p, d in zip(theta, directions, strict=True))), tol=1e-12).x
        for t in (h, -h)
    ]
    torch.testing.assert_close(tangent, (ends[0] - ends[1]) / (2 * h), rtol=1e-4, atol=1e-5)


def test_without_a_graph():
    """Under no_grad, too: Unroll then keeps nothing of the iterations."""
    directions = [torch.ones_like(W), torch.zeros_like(IMAGE)]
    for diff in (bl.FixedPoint(), bl.Unroll()):
        with torch.no_grad():
            x, tangent = pushed(tv, (W, IMAGE), directions, diff=diff)
        assert not x.requires_grad and not tangent.requires_grad
        expected = pushed(tv, (W, IMAGE), directions, diff=diff)[1]
        torch.testing.assert_close(tangent, expected)


def test_parameters_without_a_tangent_are_constants():
    with forward_ad.dual_level():
        x = bl.argmin(tv(W, IMAGE))
        assert forward_ad.unpack_dual(x).tangent is None
        assert bl.solve(tv(forward_ad.make_dual(W, W), IMAGE)).converged.all()


def test_a_start_with_a_tangent_has_none():
    with forward_ad.dual_level():
        x0 = forward_ad.make_dual(torch.zeros(2, 5).double(), torch.ones(2, 5).double())
        x = bl.argmin(lasso(*LASSO), x0=x0, diff=bl.Unroll())
        assert forward_ad.unpack_dual(x).tangent is None


def hessian_product():
    """(a loss of a solution, a point b, a direction d, the Hessian times d by backward alone)."""
    d = draw(*LASSO[2].shape, seed=4)

    def loss(b):
        return bl.argmin(lasso(W, LASSO[1], b), tol=1e-10).pow(3).sum()

    b = LASSO[2].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(b), b, create_graph=True)
    (expected,) = torch.autograd.grad((gradient * d).sum(), b)
    return loss, b, d, expected


def test_forward_over_backward_is_the_hessian():
    loss, b, d, expected = hessian_product()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(b, d)
        (gradient,) = torch.autograd.grad(loss(dual), dual, create_graph=True)
        got = forward_ad.unpack_dual(gradient).tangent
    torch.testing.assert_close(got, expected)


def test_backward_over_forward_is_the_hessian():
    loss, b, d, expected = hessian_product()
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(loss(forward_ad.make_dual(b, d))).tangent
    torch.testing.assert_close(torch.autograd.grad(tangent, b)[0], expected)


def test_what_is_not_determined_is_refused():
    """Two equal columns: x is not unique and has no tangent in the column."""
    A = torch.cat([draw(6, 1), draw(6, 1)], 1)
    with pytest.raises(bl.NotUnique):
        pushed(
            lambda A: bl.LeastSquares(draw(1, 6, seed=1)) @ bl.Matrix(A) + 0.1 * bl.L1(),
            (A,),
            (torch.tensor([[1.0, -1.0]]).double().expand(6, 2).clone(),),
        )


def test_gradcheck_in_forward_mode():
    f = lambda w: bl.argmin(tv(w, IMAGE), tol=1e-11)  # noqa: E731
    w = W.clone().requires_grad_()
    assert torch.autograd.gradcheck(f, w, atol=1e-4, check_forward_ad=True, fast_mode=True)


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("case", TERMS, ids=str)
def test_every_term_pushes_what_it_pulls(case, recorded):
    draws = Draw(batch=3, event=case.event, dtype=case.dtype)
    term, x, d = case.make(draws), draws.x(), draws.x()
    maps = [lambda x: term.prox(x, 0.3)] if isinstance(term, bl.Proximable) else []
    maps += [term.grad] if isinstance(term, bl.Smooth) else []
    for f in maps:
        with torch.set_grad_enabled(recorded), forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, d))).tangent
        leaf = x.clone().requires_grad_()
        out = f(leaf)
        g = draws.x()
        if not out.requires_grad:  # a constant
            assert tangent is None
            continue
        (gradient,) = torch.autograd.grad(out, leaf, g)
        pushed_, pulled = (g * tangent).sum(), (gradient * d).sum()
        torch.testing.assert_close(pushed_, pulled, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("diff", [None, *STRATEGIES], ids=repr)
def test_a_gradient_that_is_autograd_s(diff):
    """Of a Potential, which differentiates its function at a detached x."""
    y = draw(2, 5, seed=1)

    def energy(w):
        function = lambda x: (w * x.cosh()).flatten(1).sum(1)  # noqa: E731
        return bl.LeastSquares(y) + bl.Potential(function) + 0.2 * bl.L1()

    agrees_with_backward(energy, (torch.tensor(0.7, dtype=torch.float64),), diff=diff, tol=1e-9)
