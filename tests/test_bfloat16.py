"""Products in bfloat16 on the way to answers of full precision; units for them or not."""

import pytest
import torch
from torch import nn

import bilevel as bl
from bilevel import _bfloat16
from bilevel._bfloat16 import Rough, RoughChanges, RoughProducts
from bilevel.differentiation.certificate import certificates
from bilevel.layers import Equilibrium, jacobian_penalty

N = 24


@pytest.fixture
def units(monkeypatch):
    """As on a machine with matrix units, to which no product is too small."""
    monkeypatch.setattr(_bfloat16, "_has_units", lambda: True)
    monkeypatch.setattr(_bfloat16, "_LEAST", 1)
    monkeypatch.setattr(_bfloat16, "_EACH", 0)


class Sigma(nn.Module):
    """x -> tanh(W x + y), the products counted by their precision."""

    def __init__(self, norm=0.9, dtype=torch.float32):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        W = torch.randn(N, N, generator=generator, dtype=torch.float64)
        self.W = nn.Parameter((norm * W / torch.linalg.matrix_norm(W, 2)).to(dtype))
        self.full = self.rough = 0

    def forward(self, x, y):
        mode = torch.utils._python_dispatch._get_current_dispatch_mode()
        self.rough += isinstance(mode, Rough)
        self.full += not isinstance(mode, Rough)
        return torch.tanh(x @ self.W.T + y)


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, N, generator=generator)


PRODUCTS = {
    "mm": (torch.mm, (6, 7), (7, 4)),
    "bmm": (torch.bmm, (2, 6, 7), (2, 7, 4)),
    "linear": (nn.functional.linear, (3, 6, 7), (4, 7), (4,)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_are_rounded_with_their_derivatives_and_keep_their_dtype(units, name):
    function, *shapes = PRODUCTS[name]
    parts = [torch.randn(shape, requires_grad=True) for shape in shapes]

    def values():
        y = function(*parts)
        first = torch.autograd.grad(y.square().sum(), parts, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), parts)
        return y, *first, *second

    expected = values()
    with RoughProducts() as rough:
        found = values()
    assert rough.rounded
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert 0 < (a - b).norm() < 2e-2 * b.norm()


def test_what_is_no_large_product_of_float32_is_left_alone(units, monkeypatch):
    x = torch.randn(6, 6)
    with RoughProducts() as rough:
        assert torch.equal(x.double() @ x.double(), x.double().mm(x.double()))
        kept = torch.tanh(x) + x.sum(1) * torch.addmm(x, x, x, beta=0.5)
        assert torch.equal(x.to_sparse() @ x, torch.sparse.mm(x.to_sparse(), x))
    assert not rough.rounded
    assert torch.equal(kept, torch.tanh(x) + x.sum(1) * torch.addmm(x, x, x, beta=0.5))
    monkeypatch.setattr(_bfloat16, "_LEAST", 2**24)
    with RoughProducts() as rough:
        assert torch.equal(x @ x, torch.mm(x, x)) and not rough.rounded
        torch.empty(256, 256) @ torch.empty(256, 256)
        assert rough.rounded == 1
        monkeypatch.setattr(_bfloat16, "_EACH", 40)
        torch.empty(2**16, 16) @ torch.empty(16, 16)  # as many, of more numbers
        assert rough.rounded == 1


def test_a_parameter_is_cast_once_and_anew_when_it_has_changed(units):
    W, x = nn.Parameter(torch.ones(4, 4)), torch.ones(3, 4)
    with RoughProducts() as rough, torch.no_grad():
        assert torch.equal(x @ W.T, torch.full((3, 4), 4.0))
        assert torch.equal(x @ W.T, torch.full((3, 4), 4.0)) and len(rough._known) == 1
        W.mul_(2)
        assert torch.equal(x @ W.T, torch.full((3, 4), 8.0))
        x @ torch.ones(4, 4)  # no parameter: another one may take its place
        assert len(rough._known) == 2


@pytest.mark.parametrize("rule", [bl.Plain(), bl.AndersonMixing(), bl.Broyden()], ids=repr)
def test_the_answer_and_its_gradient_are_those_of_full_precision(units, rule):
    y, target = data()

    def solved(f, y, target, **options):
        x = Equilibrium(f, acceleration=rule, **options)(y)
        loss = (x - target).square().sum() + jacobian_penalty(lambda x: f(x, y), x).sum() * 0
        (told,) = certificates((x - target).square().sum())
        return x, torch.autograd.grad(loss, f.W)[0], told

    f = Sigma()
    x, gradient, told = solved(f, y, target)
    exact = Sigma(dtype=torch.float64)
    right, slope, _ = solved(exact, y.double(), target.double(), tol=1e-12)
    assert f.rough > 3 and not exact.rough
    assert bool(told.converged.all()) and told.residual.max() <= 1e-5
    assert told.adjoint_residual.max() <= 1e-3  # as asked of float32
    assert (x - right).norm() < 3e-5 * right.norm()
    assert (gradient - slope).norm() < 2e-4 * slope.norm()


def test_most_evaluations_and_products_are_rough(units, monkeypatch):
    y, target = data()
    f, counts = Sigma(), []
    for able in (True, False):
        monkeypatch.setattr(_bfloat16, "_has_units", lambda able=able: able)
        f.full = 0
        x = Equilibrium(f, acceleration=bl.Plain(), diff=bl.FixedPoint(order=1))(y)
        (x - target).square().sum().backward()
        (told,) = certificates(x.sum())
        counts.append((f.full, told.adjoint_iterations))
    assert counts[0][0] < 0.75 * counts[1][0]
    assert counts[0][1] <= 3 < counts[1][1]


@pytest.mark.parametrize("norm", [0.2, 0.9, 1.2])
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-5])
def test_rough_steps_leave_little_to_do_and_are_not_many_more_than_plain_ones(units, norm, tol):
    y, _ = data()
    f, x, plain = Sigma(norm), torch.zeros(5, N), 1
    while (f(x, y) - x).norm() > tol * x.norm():
        x, plain = f(x, y), plain + 1
    f.full = f.rough = 0
    with torch.no_grad():
        x = Equilibrium(f, acceleration=bl.Plain(), tol=tol)(y)
    assert ((f(x, y) - x).norm(dim=1) <= tol * x.norm(dim=1)).all()
    assert f.full <= 8 and f.rough <= plain + 6


def test_second_derivatives_are_right(units):
    """Of the penalty, too, whose products are recorded in full precision."""
    y, target = data()

    def hessian_product(f, y, target):
        torch.manual_seed(0)
        x = Equilibrium(f, acceleration=bl.Plain())(y)
        loss = (x - target).square().sum() + x.pow(3).sum()
        (first,) = torch.autograd.grad(loss, f.W, create_graph=True)
        return torch.autograd.grad((first * f.W).sum(), f.W)[0]

    found = hessian_product(Sigma(), y, target)
    expected = hessian_product(Sigma(dtype=torch.float64), y.double(), target.double())
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_a_warm_start_is_not_made_worse(units):
    y, _ = data()
    f = Sigma()
    layer = Equilibrium(f, acceleration=bl.Plain())
    with torch.no_grad():
        x = layer(y)
        f.full = f.rough = 0
        layer(y, x0=x)
    assert f.full <= 2 and not f.rough


def test_a_map_that_does_not_contract_starts_where_it_was_told(units):
    """Its eigenvalue is below -1 at the equilibrium: plain steps, rough or not, move away."""
    M = torch.tensor([[-1.6, 0.3], [-0.2, 0.5]])
    b = torch.tensor([[0.3, 0.1], [-0.4, 0.2]])
    x = Equilibrium(lambda x, b: torch.sin(x) @ M.T + b, acceleration=bl.Broyden())(b)
    assert (x - (torch.sin(x) @ M.T + b)).norm() < 3e-5 * x.norm()
    grows = Equilibrium(lambda x: (2 * x) @ torch.eye(2) + 1, acceleration=bl.Broyden())
    assert torch.allclose(grows(x0=torch.zeros(1, 2)), torch.full((1, 2), -1.0))


def test_a_recorded_run_has_all_its_steps(units):
    y, _ = data()
    f = Sigma()
    options = {"acceleration": bl.Plain(), "max_iter": 3, "on_fail": "ignore"}
    x = Equilibrium(f, diff=bl.Unroll(), **options)(y)
    unrolled = torch.zeros_like(y)
    for _ in range(4):
        unrolled = f(unrolled, y)
    assert not f.rough and torch.allclose(x, unrolled)


@pytest.mark.parametrize("rate", [0.99, 1.5])
def test_an_adjoint_that_no_series_sums_is_solved_all_the_same(units, rate):
    """dT/dx = rate Q, Q orthogonal: the series creeps, or grows."""
    n = 200
    W = rate * torch.linalg.qr(torch.randn(n, n)).Q
    y = torch.randn(2, n, requires_grad=True)
    M = torch.eye(n, dtype=torch.float64) - W.double()
    x0 = torch.linalg.solve(M, y.detach().double().T).T.float()
    x = Equilibrium(lambda x, y: x @ W.T + y, tol=1e-3)(y, x0=x0)
    (gradient,) = torch.autograd.grad(x.sum(), y)
    right = torch.linalg.solve(M.T, torch.ones(n, dtype=torch.float64))
    assert (gradient - right).norm() < 2e-2 * gradient.norm()
    (told,) = certificates(x.sum())
    assert told.adjoint_residual.max() <= 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nothing_is_rounded_in_float64_or_without_units(units, monkeypatch, dtype):
    if dtype == torch.float32:
        monkeypatch.setattr(_bfloat16, "_has_units", lambda: False)
    f = Sigma(dtype=dtype)
    Equilibrium(f)(data()[0].to(dtype)).sum().backward()
    assert not f.rough


def test_inference_mode_hides_its_products_and_costs_no_evaluation_more(units, monkeypatch):
    f, counts = Sigma(), []
    for able in (True, False):
        monkeypatch.setattr(_bfloat16, "_has_units", lambda able=able: able)
        f.full = 0
        with torch.inference_mode():
            Equilibrium(f)(data()[0])
        counts.append(f.full)
    assert counts[0] == counts[1] and not f.rough


def test_small_problems_cost_no_evaluation_more(monkeypatch):
    monkeypatch.setattr(_bfloat16, "_has_units", lambda: True)
    f = Sigma()
    y = torch.randn(1000, N)  # enough numbers to try, products that are not worth it
    x = Equilibrium(f, acceleration=bl.Plain(), diff=bl.FixedPoint(order=1))(y)
    (told,) = certificates(x.sum())
    assert f.full + f.rough <= int(told.iterations.max()) + 3


def _changed(x):
    return x + 1e-3 * torch.randn_like(x)


@pytest.mark.parametrize("moves", ["left", "right"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_changes_have_two_digits_of_the_change(units, name, moves):
    function, *shapes = PRODUCTS[name]
    parts = [torch.randn(shape) for shape in shapes]
    with RoughChanges() as rough:
        first = function(*parts)
    assert not rough.rounded and torch.allclose(first, function(*parts))
    for _ in range(3):
        i = 0 if moves == "left" else 1
        parts[i] = _changed(parts[i])
        before = first
        with rough:
            first = function(*parts)
        right = function(*parts)
        assert 0 < (first - right).norm() < 3e-2 * (right - before).norm()
    assert rough.rounded == 3


def test_products_that_are_no_change_of_the_last_ones_are_made_in_full(units):
    a, b = torch.randn(6, 7), torch.randn(7, 4)
    rough = RoughChanges()

    def product(a, b):
        with rough:
            return a @ b

    assert torch.equal(product(a, b), a @ b)
    a, b = a + 1, b + 1
    assert torch.equal(product(a, b), a @ b)  # both factors are others
    b.mul_(2)
    assert torch.equal(product(a, b), a @ b)  # another factor at the same place
    assert torch.equal(product(a[:3], b), a[:3] @ b)  # other shapes
    found = product(a, b)
    found.add_(1)  # by the map, where the product was kept
    assert torch.equal(product(a, b), a @ b)
    with rough:
        assert torch.equal(b.T @ a.T, (a @ b).T)  # another map
    assert not rough.rounded


def test_matrices_of_inference_mode_are_left_alone(units):
    with torch.inference_mode():
        W = 0.4 * torch.randn(N, N) / N**0.5
    y, _ = data()
    x = Equilibrium(lambda x, y: torch.tanh(x @ W + y), acceleration=bl.Plain())(y)
    assert (x - torch.tanh(x @ W + y)).norm() < 3e-5 * x.norm()


def test_a_layer_of_several_products_ends_with_those_of_changes(units):
    """One of them of x by x, of which both factors change; in-place work between them."""
    generator = torch.Generator().manual_seed(2)
    first, second = (0.4 * torch.randn(N, N, generator=generator) / N**0.5 for _ in range(2))
    full = 0

    def f(x, y):
        nonlocal full
        full += torch.utils._python_dispatch._get_current_dispatch_mode() is None
        hidden = (x @ first + y).relu_()
        return torch.tanh(hidden @ second) + (x @ x.T / 50) @ y

    y, _ = data()
    x = Equilibrium(f, acceleration=bl.Plain(), diff=bl.FixedPoint(order=1))(y)
    assert full <= 6
    assert (x - f(x, y)).norm() < 1e-5 * x.norm()
