"""A fixed number of a solver's steps as a network, and the family of LISTA built on it."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from bilevel.layers import ALISTA, LISTA, CoupledLISTA, HyperLISTA, analytic_weight

pytestmark = pytest.mark.usefixtures("float64")

Y = torch.randn(3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
K = torch.randn(8, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
K /= K.norm(dim=0)
X0 = torch.zeros(3, 12, dtype=torch.float64)


def lasso(weight=0.2, y=Y):
    return bl.LeastSquares(y) @ bl.Matrix(K) + weight * bl.L1()


def curved():
    return lasso() + 0.5 * bl.LeastSquares()  # linear convergence


CASES = {
    "ISTA": (bl.ForwardBackward(), curved, ["step_size"], None),
    "FISTA": (bl.ForwardBackward(), curved, ["step_size"], bl.Nesterov()),
    "primal-dual": (
        bl.PrimalDual(),
        lambda: bl.LeastSquares(Y) + 0.3 * bl.L1() @ bl.Gradient(dims=1),
        ["step_size", "dual_step_size"],
        bl.OverRelaxation(1.5),
    ),
    "preconditioned": (
        bl.PrimalDual(preconditioned=True),
        lambda: bl.LeastSquares(Y) + 0.3 * bl.L1() @ bl.Gradient(dims=1),
        ["step_size", "dual_step_size"],
        None,
    ),
    "Douglas-Rachford": (
        bl.DouglasRachford(),
        lambda: bl.LeastSquares(Y) + 0.3 * bl.L1(),
        ["step_size"],
        bl.OverRelaxation(1.5),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_starts_as_the_solver(name):
    solver, energy, learn, acceleration = CASES[name]
    x0 = X0 if name in ("ISTA", "FISTA") else None
    net = bl.unrolled(solver, 400, learn=learn, acceleration=acceleration)
    answer = bl.solve(energy(), x0=x0, solver=solver, tol=1e-10).x
    with torch.no_grad():
        assert torch.allclose(net(energy(), x0), answer, atol=1e-6)  # what 400 steps leave
        assert torch.equal(net.trajectory(energy(), x0)[-1], net(energy(), x0))


@pytest.mark.parametrize("name", CASES)
def test_the_constants_of_each_step_are_learned(name):
    solver, energy, learn, acceleration = CASES[name]
    net = bl.unrolled(solver, 3, learn=learn, acceleration=acceleration)
    x0 = X0 if name in ("ISTA", "FISTA") else None

    def solution(*logs):
        held = dict(zip([f"log_factors.{one}" for one in learn], logs, strict=True))
        return torch.func.functional_call(net, held, (energy(), x0))

    testing.gradients_agree(solution, [torch.tensor([0.1, -0.2, 0.05]) for _ in learn])


def test_a_step_is_what_the_formula_says():
    net = bl.unrolled(bl.ForwardBackward(step_size=0.1), 2, learn=["step_size"])
    with torch.no_grad():
        net.log_factors["step_size"].copy_(torch.tensor([2.0, 3.0]).log())
    x = X0
    for tau in (0.2, 0.3):
        x = bl.L1().prox(x - tau * (x @ K.T - Y) @ K, 0.2 * tau)
    assert torch.allclose(net(lasso(), X0), x, atol=1e-14)
    net(lasso(), X0).sum().backward()
    assert net.log_factors["step_size"].grad.abs().min() > 0


def test_each_step_may_have_an_energy_of_its_own():
    weights, seen = torch.tensor([0.5, 0.1, 0.3]).requires_grad_(), []

    def energy(path):
        seen.append(len(path))
        return bl.LeastSquares(Y) + weights[len(path) - 1] * bl.L1()

    net = bl.unrolled(bl.ForwardBackward(step_size=1.0), 3)
    x = net(energy, torch.zeros(3, 8))
    assert torch.equal(x, bl.L1().prox(Y, 0.3)) and seen == [1, 2, 3]
    assert torch.autograd.grad(x.sum(), weights)[0][:2].eq(0).all()  # T of step 1 forgets x


def test_the_start_and_the_data_have_gradients():
    net = bl.unrolled(bl.ForwardBackward(), 4)
    testing.gradients_agree(lambda x0, y: net(lasso(y=y), x0), [torch.randn(3, 12), Y])


def test_constants_have_the_precision_of_x():
    """A net in float32 on data in float64, recorded and, by compiled steps, not recorded."""
    net = bl.unrolled(bl.PrimalDual(), 30, learn=["step_size", "dual_step_size"]).float()
    energy = bl.LeastSquares(torch.rand(2, 1, 9, 8)) + 0.1 * bl.TotalVariation()
    recorded = net(energy)
    with torch.no_grad():
        assert torch.allclose(net(energy), recorded, atol=1e-12)


def test_samples_do_not_interact():
    net = bl.unrolled(bl.ForwardBackward(), 20, acceleration=bl.Nesterov())
    alone = torch.cat([net(lasso(y=y[None]), X0[:1]) for y in Y])
    assert torch.allclose(net(lasso(), X0), alone, atol=1e-12)


def test_what_cannot_be_unrolled_is_refused():
    with pytest.raises(TypeError, match="cannot record InteriorPoint"):
        bl.unrolled(bl.InteriorPoint(), 3)
    with pytest.raises(ValueError, match="steps >= 1, got 0"):
        bl.unrolled(bl.ForwardBackward(), 0)
    with pytest.raises(ValueError, match="of ForwardBackward is needed, which has step_size"):
        bl.unrolled(bl.ForwardBackward(), 3, learn=["momentum"])
    with pytest.raises(ValueError, match="a list of constants"):
        bl.unrolled(bl.ForwardBackward(), 3, learn="step_size")
    with pytest.raises(TypeError, match="needs a solver"):
        bl.unrolled(3, 3)
    net = bl.unrolled(bl.ForwardBackward(), 3)
    with pytest.raises(ValueError, match="the first is needed: pass x0"):
        net(lambda path: lasso())
    with pytest.raises(TypeError, match="needs a smooth term f"):
        net(bl.L1() + bl.Box(-1.0, 1.0), X0)
    with pytest.raises(TypeError, match="an energy is a sum of terms"):
        net(lambda path: 3, X0)


# ------------------------------------------------------------------------------ VectorField


def turning(strength):
    turn = strength * torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    return torch.eye(2) + turn


def test_an_equilibrium_has_its_derivative():
    """M x = b with M not symmetric, on the positive orthant: by hand where the face is known."""
    b = torch.tensor([[1.0, 2.0], [-3.0, 1.0]])

    def solution(strength, b):
        field = bl.VectorField(lambda x: x @ turning(strength).T - b)
        return bl.argmin(
            field + bl.NonNegative(), x0=torch.zeros(2, 2), tol=1e-12,
            solver=bl.ForwardBackward(step_size=0.4),
        )  # fmt: skip

    strength = torch.tensor(0.4)
    x = solution(strength, b)
    inside = torch.linalg.solve(turning(strength), b[0])
    assert (inside > 0).all() and torch.allclose(x[0], inside, atol=1e-10)
    assert torch.allclose(x[1], torch.tensor([0.0, 1.0]), atol=1e-10)
    testing.gradients_agree(solution, [strength, b])


def test_the_default_strategy_bears_a_jacobian_that_is_not_symmetric():
    M = torch.eye(300) + 0.4 * (torch.eye(300).roll(1, 0) - torch.eye(300).roll(-1, 0))
    b = torch.randn(1, 300, requires_grad=True)
    field = bl.VectorField(lambda x: x @ M.T - b)
    x = bl.argmin(
        field, x0=torch.zeros(1, 300), solver=bl.ForwardBackward(step_size=0.4), tol=1e-11
    )
    w = torch.randn(1, 300)
    (found,) = torch.autograd.grad((w * x).sum(), b)
    assert torch.allclose(found, torch.linalg.solve(M.T, w.T).T, atol=1e-8)


def test_fields_without_a_function_are_refused_where_one_is_needed():
    field, x0 = bl.VectorField(lambda x: x - 1), torch.zeros(2, 3)
    with pytest.raises(TypeError, match="behind a VectorField stands none"):
        bl.minimum(field, x0=x0)
    with pytest.raises(ValueError, match=r"gives \(2, 2\) for an x of shape \(2, 3\)"):
        bl.argmin(bl.VectorField(lambda x: x[:, 1:]), x0=x0)
    with pytest.raises(TypeError, match="needs a map"):
        bl.VectorField(3)
    with pytest.raises(TypeError, match="no weight"):
        0.5 * field
    assert bl.solve(field, x0=x0).value.isnan().all()


# ------------------------------------------------------------------------------ sparse codes


def test_the_prox_of_trimmed_l1_by_hand_and_in_the_count():
    v = torch.tensor([[3.0, -2.0, 1.0, 0.2]])
    for count, answer in {0: [2.5, -1.5, 0.5, 0], 1: [3, -1.5, 0.5, 0], 4: [3, -2, 1, 0.2]}.items():
        assert torch.equal(bl.TrimmedL1(count).prox(v, 0.5), torch.tensor([answer]))
    testing.gradients_agree(lambda count: bl.TrimmedL1(count).prox(v, 0.5), [torch.tensor([[1.4]])])
    assert bl.TrimmedL1(1.5).value(v) == 1 + 1 + 0.2
    with pytest.raises(ValueError, match=r"count has shape \(4,\): the entries are ranked"):
        bl.solve(bl.LeastSquares(v) + bl.TrimmedL1(torch.ones(4)))
    with pytest.raises(ValueError, match="weight has shape"):
        bl.solve(bl.LeastSquares(v) + torch.ones(4) * bl.TrimmedL1(1))
    with pytest.raises(ValueError, match="count must be >= 0"):
        bl.solve(bl.LeastSquares(v) + bl.TrimmedL1(-1))


def test_the_analytic_weight_is_the_minimiser():
    W = analytic_weight(K)
    assert torch.allclose((W * K).sum(0), torch.ones(12))
    for i in (0, 7):  # the problem of one column, by the library
        energy = bl.LeastSquares() @ bl.Matrix(K.T) + bl.Hyperplane(K[:, i], 1.0)
        answer = bl.solve(energy, x0=torch.zeros(1, 8), tol=1e-10).x[0]
        assert torch.allclose(W[:, i], answer, atol=1e-6)


NETS = [
    LISTA,
    CoupledLISTA,
    lambda A, n: CoupledLISTA(A, n, spare=0.1),
    ALISTA,
    lambda A, n: HyperLISTA(A, n, start=(0.3, 0.01, 3.0)),  # far from the best
]


@pytest.mark.parametrize(
    "make",
    NETS,
    ids=["LISTA", "LISTA-CP", "LISTA-CPSS", "ALISTA", "HyperLISTA"],
)
def test_a_net_learns_sparse_codes(make):
    net = make(K, 4)
    x = torch.randn(64, 12) * (torch.rand(64, 12) < 0.1)
    y = x @ K.T
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = (net(y) - x).square().sum() / x.square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert torch.allclose(net(y[:3]), net(y)[:3], atol=1e-12)
    assert torch.equal(net.trajectory(y)[-1], net(y)) and len(net.trajectory(y)) == 5
    assert net(y[:0]).shape == (0, 12)
    with pytest.raises(ValueError, match=r"needs data \(B, 8\), got \(8,\)"):
        net(y[0])


def test_lista_starts_as_ista():
    L = torch.linalg.matrix_norm(K, 2) ** 2
    ista = bl.unrolled(bl.ForwardBackward(step_size=float(1 / L)), 6)
    assert torch.allclose(LISTA(K, 6, threshold=float(0.2 / L))(Y), ista(lasso(), X0), atol=1e-12)


def test_coupled_steps_are_what_the_paper_says():
    net = CoupledLISTA(K, 3, threshold=0.3, spare=1 / 12, most=2 / 12)
    x, W = X0, analytic_weight(K)
    for spared in (1, 2, 2):
        v = x - (x @ K.T - Y) @ W
        largest = v.abs().topk(spared, dim=1).indices
        x = (v - v.clamp(-0.3, 0.3)).scatter(1, largest, v.gather(1, largest))
    assert torch.allclose(net(Y), x, atol=1e-12)


def test_a_code_needs_a_matrix():
    for coder, start in ((LISTA, {"threshold": -0.1}), (HyperLISTA, {"start": (0.0, 1.0, 1.0)})):
        with pytest.raises(ValueError, match="LISTA needs a positive, finite"):
            coder(K, **start)
    with pytest.raises(ValueError, match=r"HyperLISTA needs a matrix \(m, n\), got \(8,\)"):
        HyperLISTA(K[:, 0], 3)
    for bad in (K.long(), K.half(), K * torch.nan):
        with pytest.raises(ValueError, match="LISTA needs a matrix of finite float32 or float64"):
            LISTA(bad, 3)
    for flat in (0 * K, K.mT):
        with pytest.raises(ValueError, match="needs a matrix .* of rank m, .* got .* of rank"):
            CoupledLISTA(flat, 3)
    with pytest.raises(ValueError, match="float32, where the matrix is of torch.float64"):
        LISTA(K, 3)(torch.zeros(1, len(K), dtype=torch.float32))
