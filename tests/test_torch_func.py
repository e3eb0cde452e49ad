"""torch.func transforms of a transformable solution are torch.autograd's numbers; torch.compile."""

import functools
import shutil

import pytest
import torch
from torch.autograd.functional import hessian, jacobian

import bilevel as bl

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),  # torch.func's own
]

A = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
WEIGHTS = (0.1, 0.5, 1.0)


def plain(b, weight, **options):
    penalty = weight * bl.L1() + 0.1 * bl.LeastSquares()
    return bl.argmin(bl.LeastSquares(b) @ bl.Matrix(A) + penalty, tol=1e-13, **options)


SOLUTION = bl.transformable(plain)


def loss(solution):
    return lambda b, weight: solution(b, weight).pow(3).sum()


@pytest.fixture
def point():
    return torch.randn(1, 8), torch.tensor(0.5)


same = functools.partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def test_the_value_and_plain_autograd_are_the_same(point):
    same(SOLUTION(*point), plain(*point))
    same(jacobian(SOLUTION, point), jacobian(plain, point))
    same(hessian(loss(SOLUTION), point), hessian(loss(plain), point))


def test_grad_and_vjp(point):
    expected = jacobian(loss(plain), point)
    same(torch.func.grad(loss(SOLUTION), (0, 1))(*point), expected)
    x, pull = torch.func.vjp(loss(SOLUTION), *point)
    same(x, loss(plain)(*point))
    same(pull(torch.ones(())), expected)


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd])
def test_jacobians(point, transform):
    same(transform(SOLUTION, (0, 1))(*point), jacobian(plain, point))


def test_jvp(point):
    tangents = torch.randn(1, 8), torch.tensor(0.3)
    _, moved = torch.func.jvp(SOLUTION, point, tangents)
    in_b, in_w = jacobian(plain, point)
    same(moved, torch.tensordot(in_b, tangents[0], 2) + in_w * tangents[1])


@pytest.mark.parametrize("transform", [
    torch.func.hessian,
    lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
], ids=["forward over reverse", "reverse over reverse", "reverse over forward"])  # fmt: skip
def test_hessians(point, transform):
    same(transform(loss(SOLUTION))(*point), hessian(loss(plain), point)[0][0])


def test_vmap_and_what_is_made_of_it(point):
    b, _ = point
    weights = torch.tensor(WEIGHTS)
    each = [plain(b, weight) for weight in weights]
    same(torch.func.vmap(SOLUTION, (None, 0))(b, weights), torch.stack(each))
    gradients = torch.func.vmap(torch.func.grad(loss(SOLUTION), 1), (None, 0))(b, weights)
    same(gradients, torch.stack([jacobian(loss(plain), (b, w))[1] for w in weights]))
    total = torch.func.grad(lambda w: torch.func.vmap(loss(SOLUTION), (None, 0))(b, w).sum())
    same(total(weights), gradients)
    last = torch.func.vmap(SOLUTION, (2, None), 1)(torch.stack([b, -b], 2), weights[0])
    same(last, torch.stack([plain(b, weights[0]), plain(-b, weights[0])], 1))


@pytest.mark.parametrize("strategy", [bl.Implicit(), bl.Unroll(last=1500)], ids=repr)
def test_other_strategies(point, strategy):
    solution = bl.transformable(functools.partial(plain, diff=strategy))
    found = torch.func.grad(loss(solution), 1)(*point)
    torch.testing.assert_close(found, jacobian(loss(plain), point)[1], rtol=1e-6, atol=1e-8)


def test_what_does_not_work_is_refused(point):
    with pytest.raises(RuntimeError, match=r"derivative 3 of a solution .*order=3"):
        third = functools.reduce(lambda f, _: torch.func.grad(f, 1), range(3), loss(SOLUTION))
        third(*point)
    with pytest.raises(RuntimeError, match="forward over forward .* Use torch.func.hessian"):
        torch.func.jacfwd(torch.func.jacfwd(loss(SOLUTION)))(*point)
    with pytest.raises(TypeError, match="takes tensors, got float"):
        SOLUTION(point[0], 0.5)
    with pytest.raises(RuntimeError, match=r"cannot run inside torch.func .* bl\.transformable"):
        torch.func.grad(loss(plain), 1)(*point)


def test_minimum_and_a_parameter_without_influence(point):
    least = bl.transformable(lambda y, w, _: bl.minimum(bl.LeastSquares(y) + w * bl.L1()).sum())
    y, w = torch.tensor([[2.0, -0.3, 1.0]]), torch.tensor(0.5)
    found = torch.func.grad(least, (0, 1, 2))(y, w, torch.tensor(7.0))
    same(found, (torch.tensor([[0.5, -0.3, 0.5]]), torch.tensor(2.0), torch.tensor(0.0)))


class Model(torch.nn.Module):
    """A layer, a lasso, and what comes after."""

    def __init__(self):
        super().__init__()
        self.before = torch.nn.Linear(6, 6)
        self.log_weight = torch.nn.Parameter(torch.tensor(-1.0))

    def forward(self, y):
        x = bl.argmin(bl.LeastSquares(self.before(y).tanh()) + self.log_weight.exp() * bl.L1())
        return (2 * x).relu().sum(1)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_a_compiled_model_has_the_same_numbers(backend):
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("needs g++")
    model, y = Model(), torch.randn(4, 6)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)

    def gradients(f):
        return torch.autograd.grad(f(y).sum(), list(model.parameters()))

    torch.testing.assert_close(compiled(y), model(y))
    torch.testing.assert_close(gradients(compiled), gradients(model))
    torch._dynamo.reset()


def test_a_transformed_solution_is_as_accurate_as_a_plain_one():
    """A gap of tol alone leaves sqrt(tol) in x: 5e-4 of this gradient."""
    y = torch.randn(1, 1, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.tensor(0.6, dtype=torch.float64)

    def solution(y, weight, **options):
        return bl.argmin(bl.LeastSquares(y) + weight * bl.TotalVariation(), **options)

    def loss(x):
        return x.square().sum()

    transformed = bl.transformable(solution)
    found = torch.func.grad(lambda w: loss(transformed(y, w)))(weight)
    leaf = weight.clone().requires_grad_()
    (plain,) = torch.autograd.grad(loss(solution(y, leaf)), leaf)
    (exact,) = torch.autograd.grad(loss(solution(y, leaf, tol=1e-12)), leaf)
    assert (found - exact).abs() <= 2 * (plain - exact).abs() + 1e-9 * exact.abs()
