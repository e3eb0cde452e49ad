"""Second and third derivatives of solutions, and the refusal of those beyond."""

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel import testing
from problems import BY_NAME, EXAMPLES
from references import REFERENCES

every = pytest.mark.parametrize("example", EXAMPLES, ids=str)
exact = pytest.mark.parametrize("strategy", [bl.FixedPoint, bl.Implicit, bl.PartlySmooth])


def used_in(example, theta):
    return {k: v for k, v in theta.items() if k not in example.fixed}


def solution_of(example, theta, **options):
    """parameters -> x, with the fixed ones filled in."""
    names = list(used_in(example, theta))

    def solution(*parameters):
        energy = example.energy({**theta, **dict(zip(names, parameters, strict=True))})
        return bl.argmin(energy, **{"tol": 1e-13, **options})

    return solution, tuple(theta[k] for k in names)


@exact
@every
def test_hessian_products_are_differences_of_the_reference_s_gradients(example, strategy):
    """1e-6: the reference's gradients are good to 1e-14, their differences over 1e-5 to 1e-9, the
    truncation is of the same size times third derivatives."""
    theta, answers = example.theta()
    solution, parameters = solution_of(example, theta, diff=strategy())
    leaves = tuple(p.clone().requires_grad_() for p in parameters)
    rng = np.random.default_rng(2)
    g, h = rng.standard_normal(answers[0].x.shape), 1e-5
    names = list(used_in(example, theta))
    d = {k: rng.standard_normal(theta[k].shape[1:]) for k in names}
    d = {k: np.asarray(v / np.linalg.norm(v)) for k, v in d.items()}

    x = solution(*leaves)
    first = torch.autograd.grad((torch.from_numpy(g)[None] * x).sum(), leaves, create_graph=True)
    slope = sum((v * torch.from_numpy(d[k])[None]).sum() for k, v in zip(names, first, strict=True))
    second = torch.autograd.grad(slope, leaves, allow_unused=True)

    plain = {k: v[0].numpy() for k, v in theta.items()}
    reference = REFERENCES[example.reference or example.name].solve
    near = [reference({**plain, **{k: plain[k] + t * d[k] for k in names}}).vjp(g) for t in (h, -h)]
    expected = {k: (near[0][k] - near[1][k]) / (2 * h) for k in names}
    scale = max(np.linalg.norm(v) for v in expected.values())
    scale = max(scale, *(float(v.detach().norm()) for v in first))
    for k, got in zip(names, second, strict=True):
        off = (0 if got is None else got[0].numpy()) - expected[k]
        assert np.linalg.norm(off) <= 1e-6 * scale, k


ASKED = [
    (name, strategy)
    for name in ("ridge", "logistic", "lasso", "simplex_least_squares", "l1_analysis_box")
    for strategy in (bl.FixedPoint, bl.Implicit)
] + [(name, bl.FixedPoint) for name in ("tv1d", "tv2d_anisotropic", "tv2d_isotropic")]


@pytest.mark.parametrize("name, strategy", ASKED)
def test_gradcheck(name, strategy):
    """Along random directions of the inputs and outputs."""
    example = BY_NAME[name]
    theta, _ = example.theta(seed=1, **({"shape": (2, 3)} if example.singular else {}))
    solution, parameters = solution_of(example, theta, diff=strategy())
    testing.gradcheck(solution, parameters, fast_mode=True)
    testing.gradgradcheck(solution, parameters, fast_mode=True)


@exact
@pytest.mark.parametrize("name", ["ridge", "lasso"])
def test_gradcheck_entry_by_entry(name, strategy):
    theta, _ = BY_NAME[name].theta(seed=2)
    kept = [k for k in used_in(BY_NAME[name], theta) if k not in ("A", "K")]

    def solution(*parameters):
        energy = BY_NAME[name].energy({**theta, **dict(zip(kept, parameters, strict=True))})
        return bl.argmin(energy, tol=1e-13, diff=strategy())

    parameters = tuple(theta[k] for k in kept)
    testing.gradcheck(solution, parameters)
    testing.gradgradcheck(solution, parameters)


@pytest.mark.parametrize("name", ["logistic", "lasso", "tv1d"])
def test_the_unrolled_second_derivative(name):
    """Of 400 recorded steps from the solution: another way to the same number."""
    theta, _ = BY_NAME[name].theta()
    products = []
    for diff in (bl.FixedPoint(), bl.Unroll(last=400)):
        solution, parameters = solution_of(BY_NAME[name], theta, diff=diff)
        leaves = tuple(p.clone().requires_grad_() for p in parameters)
        loss = solution(*leaves).square().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        slope = sum(v.sin().sum() for v in first)
        products.append(torch.autograd.grad(slope, leaves))
    for a, b in zip(*products, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def ridge(w, b, order=2, strategy=bl.FixedPoint):
    A = torch.tensor([[1.0, 0.4], [0.2, 2.0], [0.5, -0.3]], dtype=torch.float64)
    energy = bl.LeastSquares(b) @ bl.Matrix(A) + w * bl.LeastSquares()
    return A, bl.argmin(energy, diff=strategy(order=order), tol=1e-13)


def logistic(w, b, order=2, strategy=bl.FixedPoint):
    """Another smooth problem, not quadratic, with the solution by Newton as its own reference."""
    energy = bl.Potential(lambda x: (x.cosh() - b[:, :2] * x).sum(1)) + w * bl.LeastSquares()
    x0 = torch.zeros(1, 2, dtype=torch.float64)
    return bl.argmin(energy, x0=x0, diff=strategy(order=order), tol=1e-13)


def closed_ridge(A, w, b):
    return torch.linalg.solve(A.T @ A + w * torch.eye(2, dtype=A.dtype), A.T @ b[0])[None]


def by_newton(w, b):
    """x where sinh(x) - b + w x = 0: recorded Newton steps double the right derivatives."""
    x = torch.zeros(1, 2, dtype=torch.float64)
    for _ in range(60):
        x = x - (x.sinh() - b[:, :2] + w * x) / (x.cosh() + w)
    return x


def derivatives(x, w, b, n):
    """The first n derivatives of a nonlinear loss, each along w + b."""
    value, found = (x - 0.3).pow(3).sum() + x.sum(), []
    for k in range(n):
        grads = torch.autograd.grad(value, (w, b), create_graph=True, allow_unused=True)
        value = sum(g.sum() for g in grads if g is not None)
        found.append(float(value.detach()))
        if not value.requires_grad and k + 1 < n:
            return found + [0.0] * (n - k - 1)
    return found


def parameters():
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    b = torch.tensor([[1.0, -0.5, 0.3]], dtype=torch.float64, requires_grad=True)
    return w, b


@exact
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_order_n_gives_n_derivatives(strategy, order):
    w, b = parameters()
    A, x = ridge(w, b, order, strategy)
    expected = derivatives(closed_ridge(A, w, b), w, b, order)
    np.testing.assert_allclose(derivatives(x, w, b, order), expected, rtol=1e-7)
    expected = derivatives(by_newton(w, b), w, b, order)
    found = derivatives(logistic(w, b, order, strategy), w, b, order)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


LOSSES = {
    "linear": lambda x: x.sum(),
    "one entry": lambda x: x[0, 0],
    "quadratic": lambda x: x.square().sum(),
    "cubic": lambda x: (x - 0.3).pow(3).sum(),
}
BEYOND = {
    1: "a second derivative of a solution was asked for",
    2: r"derivative 3 of a solution was asked for, .* diff=FixedPoint\(order=3\)",
    3: r"derivative 4 of a solution was asked for, .* diff=FixedPoint\(order=4\)",
}


@exact
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("how", ["grad", "backward"])
def test_the_derivative_beyond_is_refused(strategy, order, loss, how):
    w, b = parameters()
    _, x = ridge(w, b, order, strategy)
    value = LOSSES[loss](x)
    for _ in range(order):  # create_graph alone is legitimate, also for the last one
        (gradient,) = torch.autograd.grad(value, w, create_graph=True)
        value = gradient
    with pytest.raises(RuntimeError, match=BEYOND[order]):
        if how == "grad":
            torch.autograd.grad(value, w)
        else:
            value.backward()


def first_order_only():
    return [
        bl.FixedPoint(order=1),
        bl.Implicit(order=1),
        bl.Truncated(50),
        bl.OneStep(),
    ]


@pytest.mark.parametrize("diff", first_order_only(), ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", ["lasso", "tv2d_anisotropic"])
def test_strategies_of_first_order_refuse_the_second(diff, loss, name):
    theta, _ = BY_NAME[name].theta()
    leaves = {k: v.clone().requires_grad_() for k, v in theta.items()}
    x = bl.argmin(BY_NAME[name].energy(leaves), diff=diff)
    (gradient,) = torch.autograd.grad(
        LOSSES[loss](x.flatten(1)), leaves["w"], create_graph=True, retain_graph=True
    )
    with pytest.raises(RuntimeError, match="a second derivative of a solution was asked for"):
        torch.autograd.grad(gradient.sum(), leaves["w"], retain_graph=True)
    with pytest.raises(RuntimeError, match="Truncated and OneStep have no second"):
        gradient.sum().backward()


def test_refused_in_one_parameter_and_in_the_other():
    """The refusal sits in the graph, whichever parameter is asked for and in whatever order."""
    for first in (0, 1):
        for second in (0, 1):
            pair = parameters()
            _, x = ridge(*pair, order=1)
            (gradient,) = torch.autograd.grad(x.sum(), pair[first], create_graph=True)
            with pytest.raises(RuntimeError, match="a second derivative of a solution was asked"):
                torch.autograd.grad(gradient.sum(), pair[second])


def test_other_uses_of_a_graph_are_no_second_derivative():
    """create_graph=True, a gradient in a gradient-free loss, and two losses of one solution."""
    w, b = parameters()
    _, x = ridge(w, b, order=1)
    (gradient,) = torch.autograd.grad(x.sum(), w, create_graph=True)
    (gradient.detach() * w).backward()
    assert torch.equal(w.grad, gradient.detach())
    again = torch.autograd.grad(x.sum(), w, retain_graph=True)[0]
    assert torch.equal(again, gradient)
    twice = torch.autograd.grad(2 * x.sum(), w)[0]
    torch.testing.assert_close(twice, 2 * gradient.detach())


def test_a_mixed_second_derivative_is_symmetric():
    w, b = parameters()
    _, x = ridge(w, b)
    gw, gb = torch.autograd.grad(x.pow(3).sum(), (w, b), create_graph=True)
    (wb,) = torch.autograd.grad(gw, b, retain_graph=True)
    bw = torch.stack([torch.autograd.grad(g, w, retain_graph=True)[0] for g in gb[0]])
    torch.testing.assert_close(wb[0], bw, rtol=1e-9, atol=1e-12)
