"""Where θ comes from, what becomes of it, and what a gradient costs."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

import bilevel as bl
from bilevel import testing
from problems import BY_NAME, EXAMPLES

every = pytest.mark.parametrize("example", EXAMPLES, ids=str)
exact = pytest.mark.parametrize(
    "diff", [bl.FixedPoint(), bl.Implicit(), bl.PartlySmooth()], ids=str
)


def double(seed=0):
    return torch.Generator().manual_seed(seed)


def lasso():
    theta, answers = BY_NAME["lasso"].theta()
    return theta, answers[0]


@exact
def test_theta_may_come_from_a_network(diff):
    """The weights of a lasso are a small network's output: its parameters get the reference's
    gradient, pulled back."""
    theta, answer = lasso()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    features = torch.randn(12, 3, dtype=torch.float64)
    weight = theta["w"] * (1 + 1e-4 * network(features)[:, 0]).square()[None]  # near the instance
    x = bl.argmin(BY_NAME["lasso"].energy({**theta, "w": weight}), diff=diff, tol=1e-12)
    g = torch.randn(x.shape, dtype=x.dtype)
    found = torch.autograd.grad((g * x).sum(), list(network.parameters()), retain_graph=True)

    from references import REFERENCES

    plain = {k: v[0].numpy() for k, v in theta.items()} | {"w": weight[0].detach().numpy()}
    pulled = torch.from_numpy(REFERENCES["lasso"].solve(plain).vjp(g[0].numpy())["w"])[None]
    expected = torch.autograd.grad((weight * pulled).sum(), list(network.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-14)


@exact
def test_theta_may_hide_in_a_closure(diff):
    """Ridge with its penalty written as a closure has the reference's gradient in the weight."""
    theta, answers = BY_NAME["ridge"].theta()
    w = theta["w"].clone().requires_grad_()
    penalty = bl.Potential(lambda x: (w[:, None] * x.square() / 2).sum(1))
    data = bl.LeastSquares(theta["b"]) @ bl.Matrix(theta["A"])
    x = bl.argmin(data + penalty, diff=diff, tol=1e-12)
    g = torch.randn(x.shape, dtype=x.dtype)
    (found,) = torch.autograd.grad((g * x).sum(), w)
    expected = answers[0].vjp(g[0].numpy())["w"]
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-9)


class Convex(nn.Module):
    """A small convex potential: sum over hidden units of softplus(a x + b), plus a quadratic."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(6, 4, dtype=torch.float64, generator=double(1)))
        self.b = nn.Parameter(torch.randn(6, dtype=torch.float64, generator=double(2)))

    def forward(self, x, a=None, b=None):
        a, b = (self.a, self.b) if a is None else (a, b)
        return nn.functional.softplus(x @ a.mT + b).sum(1) + 0.1 * x.square().sum(1)


@pytest.mark.parametrize("constrained", [False, True])
def test_a_network_as_energy(constrained):
    network = Convex()
    y = torch.randn(2, 4, dtype=torch.float64, generator=double())

    def solution(y, a, b):
        energy = bl.LeastSquares(y) + 0.5 * bl.Potential(lambda x: network(x, a, b))
        if constrained:
            energy = energy + bl.Box(-0.3, 0.3)
        return bl.argmin(energy, tol=1e-11)

    testing.gradients_agree(solution, (y, network.a, network.b), rtol=1e-7)
    x = bl.argmin(bl.LeastSquares(y) + 0.5 * bl.Potential(network))
    x.square().sum().backward()
    assert network.a.grad.abs().max() > 0 and network.b.grad.abs().max() > 0


def test_everything_at_once_is_a_parameter():
    """Data, weights, kernel, matrix, bounds: central differences of the solution."""
    y = 2 * torch.randn(1, 1, 5, dtype=torch.float64, generator=double(3))
    kernel = torch.randn(2, 1, 2, dtype=torch.float64, generator=double(4))
    weight, upper = torch.tensor([0.1]).double(), torch.tensor(0.5).double()

    def solution(y, kernel, weight, upper):
        energy = (
            bl.LeastSquares(y)
            + weight[:, None, None] * bl.L1() @ bl.Convolution(kernel)
            + bl.Box(-1.0, upper)
        )
        return bl.argmin(energy, tol=1e-9)

    testing.gradients_agree(solution, (y, kernel, weight, upper), rtol=1e-5, h=1e-4)


def test_one_tensor_in_two_places():
    y = torch.tensor([[2.0, -1.5, 0.1]], dtype=torch.float64, requires_grad=True)
    x = bl.argmin(bl.LeastSquares(y) + y.abs().mean() * bl.L1())
    (gradient,) = torch.autograd.grad(x[0, 0], y)  # x_0 = y_0 - mean |y|
    expected = torch.tensor([[1 - 1 / 3, 1 / 3, -1 / 3]], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected)


def test_a_solution_inside_a_solution():
    """The answer of one problem is the data of the next."""
    y = torch.randn(2, 5, dtype=torch.float64, generator=double(5))
    weight = torch.tensor(0.2, dtype=torch.float64)

    def solution(y, weight):
        x = bl.argmin(bl.LeastSquares(y) + weight * bl.L1(), tol=1e-12)
        return bl.argmin(bl.LeastSquares(x) + weight * bl.TotalVariation(dims=1), tol=1e-12)

    testing.gradients_agree(solution, (y, weight), rtol=1e-7, h=1e-6)
    testing.gradgradcheck(solution, (y, weight), fast_mode=True)


def test_no_gradient_is_recorded_where_none_is_asked_for():
    theta, _ = lasso()
    assert not bl.argmin(BY_NAME["lasso"].energy(theta)).requires_grad
    leaves = {k: v.clone().requires_grad_() for k, v in theta.items()}
    with torch.no_grad():
        assert not bl.argmin(BY_NAME["lasso"].energy(leaves)).requires_grad
    assert not bl.solve(BY_NAME["lasso"].energy(leaves)).x.requires_grad
    with torch.inference_mode():
        assert not bl.argmin(BY_NAME["lasso"].energy(theta)).requires_grad


CHANGED = ["A", "b", "w"]


@pytest.mark.parametrize("name", CHANGED)
@exact
def test_a_change_of_theta_after_the_solve_is_never_silent(name, diff):
    """Either autograd raises, or the gradient never needed what was changed and is right."""
    theta, _ = lasso()

    def gradients(change):
        leaves = {k: v.clone().requires_grad_() for k, v in theta.items()}
        x = bl.argmin(BY_NAME["lasso"].energy(leaves), diff=diff, tol=1e-10)
        if change:
            with torch.no_grad():
                leaves[name].add_(1.0)
        return torch.autograd.grad(x.square().sum(), list(leaves.values()))

    expected = gradients(False)
    try:
        found = gradients(True)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    else:
        assert name != "A"  # the matrix is in the adjoint system: no way around it
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_change_of_a_matrix_raises():
    theta, _ = lasso()
    A = theta["A"].clone().requires_grad_()
    x = bl.argmin(BY_NAME["lasso"].energy({**theta, "A": A}))
    with torch.no_grad():
        A.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


@pytest.mark.parametrize("name", ["lasso", "tv2d_anisotropic", "logistic"])
@pytest.mark.parametrize("diff", [bl.FixedPoint(), bl.Implicit(), bl.OneStep()], ids=str)
def test_the_graph_dies_without_the_garbage_collector(name, diff):
    """No reference cycles: what the energy was built from is freed with the last name for it."""
    theta, _ = BY_NAME[name].theta()
    gc.collect()
    gc.disable()
    try:
        for order in (1, 2):
            leaves = {
                k: v.clone().requires_grad_(k not in BY_NAME[name].fixed) for k, v in theta.items()
            }
            used = [v for v in leaves.values() if v.requires_grad]
            energy = BY_NAME[name].energy(leaves)
            watched = [weakref.ref(energy), *(weakref.ref(t) for t in energy.terms)]
            x = bl.argmin(energy, diff=diff)
            watched += [weakref.ref(x), weakref.ref(x.grad_fn)]
            loss = x.square().sum()
            grads = torch.autograd.grad(loss, used, create_graph=order == 2, allow_unused=True)
            if order == 2 and not isinstance(diff, bl.OneStep):
                torch.autograd.grad(grads[0].sum(), used, allow_unused=True)
            del energy, x, loss, grads, leaves, used
            assert [ref() for ref in watched] == [None] * len(watched)
    finally:
        gc.enable()


class Kept:
    """A tensor that autograd keeps for backward, as long as it keeps it."""

    def __init__(self, tensor):
        self.tensor = tensor


def saved_bytes(run):
    """What autograd keeps for backward once the run is over."""
    kept = weakref.WeakSet()

    def pack(tensor):
        kept.add(one := Kept(tensor.detach()))  # a node's own output would make a cycle
        return one

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one.tensor):
        x = run()
    assert x.requires_grad
    storages = [one.tensor.untyped_storage() for one in kept]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


@every
def test_memory_does_not_grow_with_the_iterations(example):
    theta, _ = example.theta(batch=2)
    leaves = {k: v.clone().requires_grad_(k not in example.fixed) for k, v in theta.items()}

    def used(diff, max_iter):
        energy = example.energy(leaves)
        options = {"tol": 1e-15, "max_iter": max_iter, "on_fail": "ignore"}
        return saved_bytes(lambda: bl.argmin(energy, diff=diff, **options))

    for diff in (bl.FixedPoint(), bl.Implicit(), bl.Truncated(50)):
        assert used(diff, 20) == used(diff, 300)


def test_memory_of_unrolling_grows():
    """The measure above sees it."""
    theta, _ = BY_NAME["tv2d_isotropic"].theta()
    leaves = {k: v.clone().requires_grad_() for k, v in theta.items()}

    def used(diff, max_iter=200):
        energy = BY_NAME["tv2d_isotropic"].energy(leaves)
        options = {"tol": 1e-15, "max_iter": max_iter, "on_fail": "ignore"}
        return saved_bytes(lambda: bl.argmin(energy, diff=diff, **options))

    assert used(bl.Unroll(), 80) > 3 * used(bl.Unroll(), 20)
    assert used(bl.Unroll(segment=20)) < used(bl.Unroll()) / 5
    assert used(bl.Unroll(last=100, segment=20)) < used(bl.Unroll(last=100)) / 5


def test_backward_twice_and_accumulation():
    theta, _ = lasso()
    w = theta["w"].clone().requires_grad_()
    x = bl.argmin(BY_NAME["lasso"].energy({**theta, "w": w}))
    x.square().sum().backward(retain_graph=True)
    once = w.grad.clone()
    x.square().sum().backward()
    torch.testing.assert_close(w.grad, 2 * once)


def test_a_part_of_the_batch_in_the_loss():
    """A cotangent that is zero for some samples leaves their gradients at exactly zero."""
    theta, answers = BY_NAME["tv2d_anisotropic"].theta(batch=3)
    y = theta["y"].clone().requires_grad_()
    x = bl.argmin(BY_NAME["tv2d_anisotropic"].energy({**theta, "y": y}), tol=1e-11)
    (gradient,) = torch.autograd.grad(x[1, 0, 0], y)
    assert gradient[0].abs().max() == gradient[2].abs().max() == 0
    g = np.zeros(x.shape[1:])
    g[0, 0] = 1
    np.testing.assert_allclose(gradient[1].numpy(), answers[1].vjp(g)["y"], atol=1e-9)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_the_loss_plays_no_part(scale):
    theta, _ = lasso()
    w = theta["w"].clone().requires_grad_()
    x = bl.argmin(BY_NAME["lasso"].energy({**theta, "w": w}), tol=1e-10)
    loss = (x - 0.1).pow(3).sum()
    (a,) = torch.autograd.grad(loss, w, create_graph=True)
    (b,) = torch.autograd.grad(scale * loss, w, create_graph=True)
    torch.testing.assert_close(b / scale, a, rtol=1e-9, atol=0)
    second = [torch.autograd.grad(v.sum(), w, retain_graph=True)[0] for v in (a, b)]
    torch.testing.assert_close(second[1] / scale, second[0], rtol=1e-9, atol=0)
