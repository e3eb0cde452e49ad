"""Equilibrium layers, and the rules that find equilibria."""

import pytest
import torch
from torch import nn

import bilevel as bl
from bilevel import testing
from bilevel.differentiation.certificate import certificates
from bilevel.layers import Equilibrium, MonotoneEquilibrium, jacobian_penalty

pytestmark = pytest.mark.usefixtures("float64")

N = 6
RULES = [bl.Plain(), bl.AndersonMixing(), bl.Broyden()]


class Sigma(nn.Module):
    """x -> tanh(W x + U y + b)"""

    def __init__(self, norm=0.9):
        super().__init__()
        W = torch.randn(N, N)
        self.W = nn.Parameter(norm * W / torch.linalg.matrix_norm(W, 2))
        self.U = nn.Linear(N, N)

    def forward(self, x, y):
        return torch.tanh(x @ self.W.T + self.U(y))


@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
def test_the_answer_is_the_equilibrium_with_its_derivative(rule):
    f, y = Sigma(), torch.randn(4, N)
    layer = Equilibrium(f, acceleration=rule, tol=1e-12)
    x = layer(y)
    assert (x - f(x, y)).abs().max() < 1e-11

    def unrolled(W, y):
        x = torch.zeros(4, N)
        for _ in range(400):
            x = torch.tanh(x @ W.T + f.U(y))
        return x

    def equilibrium(W, y):
        return torch.func.functional_call(layer, {"f.W": W}, (y,))

    W, v = f.W.detach().requires_grad_(), torch.randn(4, N)
    y.requires_grad_()
    ours, theirs = (
        torch.autograd.grad((v * g(W, y)).sum(), (W, y)) for g in (equilibrium, unrolled)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    testing.gradients_agree(equilibrium, [W.detach(), y.detach()])


@pytest.mark.parametrize("rule", RULES[1:], ids=lambda r: type(r).__name__)
def test_they_find_what_does_not_contract(rule):
    """The Jacobian at the equilibrium has an eigenvalue below -1: plain iteration moves away."""
    M = torch.tensor([[-1.6, 0.3], [-0.2, 0.5]])
    layer = Equilibrium(lambda x, b: torch.sin(x) @ M.T + b, acceleration=rule, tol=1e-10)
    b = torch.tensor([[0.3, 0.1], [-0.4, 0.2]])
    x = layer(b)
    assert (x - (torch.sin(x) @ M.T + b)).abs().max() < 1e-9
    with pytest.raises(bl.NotConverged):
        Equilibrium(layer.f, acceleration=bl.Plain(), max_iter=300)(b)


@pytest.mark.parametrize("rule", RULES[1:], ids=lambda r: type(r).__name__)
def test_fewer_steps_than_plain_iteration(rule):
    M = torch.diag(torch.linspace(-0.98, 0.98, N))
    energy = bl.VectorField(lambda x: x - torch.tanh(x @ M.T + 0.1))
    options = {"x0": torch.zeros(3, N), "solver": bl.ForwardBackward(step_size=1.0), "tol": 1e-5}
    plain, ours = (
        bl.solve(energy, acceleration=a, **options).iterations.max() for a in (bl.Plain(), rule)
    )
    assert 2 * ours < plain


@pytest.mark.parametrize("rule", RULES[1:], ids=lambda r: type(r).__name__)
def test_they_take_every_solver(rule):
    """A linear problem of several variables: conjugate-gradient-like speed."""
    y = torch.randn(2, 12)
    energy = bl.LeastSquares(y) + 0.2 * bl.L1() @ bl.Gradient(dims=1)
    reference = bl.solve(energy, tol=1e-10).x
    found = bl.solve(energy, solver=bl.PrimalDual(), acceleration=rule, tol=1e-10)
    assert torch.allclose(found.x, reference, atol=1e-8)


@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
def test_samples_stop_by_themselves_and_do_not_interact(rule):
    f = Sigma(0.99)
    y = torch.cat([torch.randn(3, N), torch.zeros(1, N)])
    layer = Equilibrium(f, acceleration=rule, tol=1e-9)
    together = layer(y)
    assert torch.allclose(together, torch.cat([layer(one[None]) for one in y]), atol=1e-8)
    x0 = together.detach().clone()
    x0[0] = 5.0
    energy = bl.VectorField(lambda x: x - f(x, y))
    report = bl.solve(
        energy, x0=x0, solver=bl.ForwardBackward(step_size=1.0), acceleration=rule, tol=1e-9
    )
    assert report.iterations[0] > report.iterations[1:].max()


def test_a_warm_start_saves_steps():
    f, y, calls = Sigma(0.99), torch.randn(4, N), []

    def counted(x, y):
        calls.append(1)
        return f(x, y)

    layer = Equilibrium(counted, tol=1e-8)
    with torch.no_grad():
        x = layer(y)
        cold = len(calls)
        calls.clear()
        layer(y, x0=x)
    assert len(calls) < cold / 2


def test_phantom_gradients_are_the_damped_series():
    f, y = Sigma(), torch.randn(2, N)
    layer = Equilibrium(f, diff=bl.Truncated(5, damping=0.8), tol=1e-12)
    v = torch.randn(2, N)
    (found,) = torch.autograd.grad((v * layer(y)).sum(), f.W)
    x = layer(y).detach()
    for _ in range(5):  # unrolled phantom steps from the solution: the same to first order
        x = x + 0.8 * (f(x, y) - x)
    (expected,) = torch.autograd.grad((v * x).sum(), f.W)
    assert torch.allclose(found, expected, atol=1e-10)
    exact = torch.autograd.grad((v * Equilibrium(f, tol=1e-12)(y)).sum(), f.W)[0]
    far = Equilibrium(f, diff=bl.Truncated(200, damping=0.8), tol=1e-12)
    assert torch.allclose(torch.autograd.grad((v * far(y)).sum(), f.W)[0], exact, atol=1e-9)
    assert not torch.allclose(found, exact, atol=1e-3)
    for make in (lambda: bl.Truncated(5, damping=0.0), lambda: bl.Neumann(damping=1.5)):
        with pytest.raises(ValueError, match=r"damping in \(0, 1\]"):
            make()


def test_the_jacobian_penalty_has_the_gradient_of_its_differences():
    """Through the equilibrium, too: that is where implementations go wrong."""
    f, y = Sigma(), torch.randn(3, N)
    layer = Equilibrium(f, tol=1e-13)

    def penalty(W):
        torch.manual_seed(3)  # the same v each time
        held = {"f.W": W}
        x = torch.func.functional_call(layer, held, (y,))
        return jacobian_penalty(lambda x: torch.func.functional_call(f, {"W": W}, (x, y)), x)

    testing.gradients_agree(penalty, [f.W.detach()])
    draws = torch.stack([jacobian_penalty(lambda x: x @ f.W.T, y) for _ in range(4000)]).mean()
    assert abs(draws / (f.W.square().sum() / N) - 1) < 0.05  # E |W^T v|^2 = |W|_F^2


def test_a_monotone_equilibrium_is_unique_whatever_the_parameters():
    layer = MonotoneEquilibrium(3, N, margin=0.5, tol=1e-11)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(std=2.0)
    y = torch.randn(4, 3)
    x = layer(y)
    again = layer(y, x0=10 * torch.randn(4, N))
    assert torch.allclose(x, again, atol=1e-8)
    W = torch.eye(N) - layer.field
    assert torch.allclose(x, torch.relu(x @ W.T + layer.encode(y)), atol=1e-8)
    symmetric = (layer.field + layer.field.T) / 2
    assert torch.linalg.eigvalsh(symmetric).min() >= 0.5 - 1e-10
    held = dict(layer.named_parameters())
    for name in held:
        testing.gradients_agree(
            lambda p, name=name: torch.func.functional_call(layer, {name: p}, (y,)),
            [held[name].detach()],
        )


def test_float32_and_images():
    f = nn.Conv2d(2, 2, 3, padding=1).float()
    with torch.no_grad():
        f.weight.mul_(0.3)
    y = torch.randn(3, 2, 5, 4, dtype=torch.float32)
    for rule in RULES:
        layer = Equilibrium(lambda x, y: torch.tanh(f(x) + y), acceleration=rule)
        x = layer(y)
        assert x.dtype == torch.float32 and x.shape == y.shape
        assert (x - torch.tanh(f(x) + y)).norm() < 3e-5 * x.norm()  # default tol 1e-5
        x.sum().backward()
        assert layer(y[:0]).shape == (0, 2, 5, 4)


def test_a_monotone_equilibrium_in_autocast():
    """The input may be rounded, the equilibrium is none of it."""
    layer = MonotoneEquilibrium(3, 4, tol=1e-6).float()
    y = torch.randn(5, 3, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x, pull = layer(y), layer.encode(y).float()
    moved = x - x @ layer.field.mT + pull
    assert x.dtype == torch.float32 and torch.allclose(x, moved.relu(), atol=1e-4)
    x.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_what_goes_wrong_is_said():
    with pytest.raises(ValueError, match="to know the shape of x"):
        Equilibrium(torch.tanh)()
    with pytest.raises(bl.NotConverged, match="Evaluation with Plain"):
        Equilibrium(lambda x: 2 * x + 1, acceleration=bl.Plain(), max_iter=50)(x0=torch.ones(1, 2))
    y = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).abs()
    with pytest.raises(bl.NotConverged, match="the iteration diverged"):  # its Newton steps, too
        Equilibrium(lambda x, y: torch.exp(x) + y)(y)
    with pytest.raises(ValueError, match=r"gives \(1, 1\) for an x of shape \(1, 2\)"):
        Equilibrium(lambda x: x[:, :1])(x0=torch.ones(1, 2))
    for f, got in [(torch.Tensor.float, "torch.float32"), (lambda x: (x,), "a tuple")]:
        with pytest.raises(TypeError, match=f"gives {got} for an x of torch.float64"):
            Equilibrium(f)(x0=torch.ones(1, 2))
    with pytest.raises(ValueError, match="memory of at least 1 change, got 0"):
        bl.AndersonMixing(0)
    with pytest.raises(ValueError, match="margin > 0"):
        MonotoneEquilibrium(2, 2, margin=0.0)


def test_f_is_evaluated_little_more_than_once_a_step():
    """Beside the steps: recorded for the derivative's two orders, and for its system; a hundred
    samples end apart."""
    f, calls = Sigma(0.8), []
    layer = Equilibrium(f, acceleration=bl.Plain(), tol=1e-5)
    f.register_forward_hook(lambda *_: calls.append(1))
    x = layer(torch.randn(100, N))
    (told,) = certificates(x.sum())
    assert told.iterations.max() > told.iterations.min()
    assert len(calls) <= int(told.iterations.max()) + 3
    assert 0 < told.contraction.nan_to_num(0.5).min() < 1  # worked out now
    assert len(calls) <= int(told.iterations.max()) + 5


def test_plain_steps_can_be_recorded():
    a = torch.tensor(0.5, requires_grad=True)
    layer = Equilibrium(lambda x, y: a * x + y, acceleration=bl.Plain(), diff=bl.Unroll(), tol=1e-9)
    x = layer(torch.ones(1, 2))
    assert torch.allclose(x, torch.full((1, 2), 2.0))
    assert torch.allclose(torch.autograd.grad(x[0, 0], a)[0], torch.tensor(4.0))


@pytest.mark.parametrize(("rate", "products"), [(0.4, 22), (0.8, 86)])
def test_the_adjoint_of_a_contraction_of_many_unknowns_is_summed(rate, products):
    """No Krylov basis where dT/dx = rate Q, Q orthogonal: 0.4^20 and 0.8^83 are 1e-8."""
    n = 200
    W = (rate * torch.linalg.qr(torch.randn(n, n)).Q).requires_grad_()
    x = Equilibrium(lambda x, b: x @ W.T + b, acceleration=bl.Plain(), tol=1e-7)(torch.ones(1, n))
    (gradient,) = torch.autograd.grad(x.sum(), W)
    (told,) = certificates(x.sum())
    w = torch.linalg.solve(torch.eye(n) - W.detach().T, torch.ones(n))
    assert torch.allclose(gradient, w[:, None] * x.detach(), rtol=1e-6, atol=1e-7)
    assert told.adjoint_iterations <= products


def test_a_map_of_the_input_alone_and_its_adjoint_written_out():
    y = torch.randn(2, 3, requires_grad=True)
    x = Equilibrium(lambda x, y: y**2, diff=bl.FixedPoint(bl.Dense()), tol=1e-10)(y)
    assert torch.allclose(torch.autograd.grad(x.sum(), y)[0], 2 * y)


def test_an_answer_that_is_its_start_has_memory_of_its_own():
    x0 = torch.ones(2, 3)
    Equilibrium(lambda x: x)(x0=x0).zero_()
    assert (x0 == 1).all()


def test_what_is_kept_for_the_gradient_does_not_grow_with_the_steps():
    """Bytes that autograd keeps, of distinct memory."""
    f, y = Sigma(), torch.randn(4, N)

    def kept(**options):
        sizes = {}

        def pack(part):
            memory = part.untyped_storage()
            sizes[memory.data_ptr()] = memory.nbytes()
            return part

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda part: part):
            x = Equilibrium(f, acceleration=bl.Plain(), **options)(y)
        return sum(sizes.values()), x

    few, many = kept(tol=1e-2), kept(tol=1e-10)
    steps = [int(certificates(x.sum())[0].iterations.max()) for _, x in (few, many)]
    assert steps[1] > 5 * steps[0] and many[0] <= 1.01 * few[0]
    assert kept(diff=bl.Unroll(), tol=1e-10)[0] > 5 * many[0]
