"""Piggyback's bound: where the terms prove that a step contracts, no error is above it."""

import math

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel.differentiation.contraction import Contraction
from bilevel.terms.manifolds import Clusters, Coordinates, Face

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),  # torch's, forward mode
]


def matrix(rows, columns, condition, rng):
    U, V = (torch.linalg.qr(torch.randn(k, min(rows, columns), generator=rng))[0]
            for k in (rows, columns))  # fmt: skip
    return U * torch.logspace(0, -math.log10(condition) / 2, U.shape[1]) @ V.mT


def _solve(H, slope):
    return torch.linalg.solve(H, slope.mT).mT


def ridge(A, b, w, nu):
    """(energy, exact x, exact dx/dw) of 1/2 |Ax - b|^2 + w/2 |x|^2, x one row a sample."""
    H = A.mT @ A + w.detach() * torch.eye(A.shape[1])
    x = _solve(H, b @ A)
    return bl.LeastSquares(b) @ bl.Matrix(A) + w * bl.LeastSquares(), x, -_solve(H, x)


def on_support(A, b, free, sign, w, nu):
    """x and dx/dw of 1/2 |Ax - b|^2 + nu/2 |x|^2 + w <sign, x> for an x that is 0 off free."""
    rows = []
    for b_k, free_k, sign_k in zip(b, free, sign, strict=True):
        H = A[:, free_k].mT @ A[:, free_k] + nu * torch.eye(int(free_k.sum()))
        x, dx = torch.zeros(A.shape[1]), torch.zeros(A.shape[1])
        x[free_k] = torch.linalg.solve(H, A[:, free_k].mT @ b_k - w * sign_k[free_k])
        dx[free_k] = -torch.linalg.solve(H, sign_k[free_k])
        slope = A.mT @ (A @ x - b_k) + nu * x
        assert (slope[~free_k].abs() <= w).all() or (slope[~free_k] + w >= 0).all()
        rows.append((x, dx))
    return tuple(torch.stack(part) for part in zip(*rows, strict=True))


def elastic_net(A, b, w, nu):
    energy = bl.LeastSquares(b) @ bl.Matrix(A) + nu * bl.LeastSquares() + w * bl.L1()
    x = bl.solve(energy, tol=1e-12).x
    return energy, *on_support(A, b, x != 0, x.sign(), w.detach(), nu)


def non_negative(A, b, w, nu):
    energy = bl.LeastSquares(b) @ bl.Matrix(A) + nu * bl.LeastSquares() + w * bl.Linear(1.0)
    x = bl.solve(energy + bl.NonNegative(), tol=1e-12).x
    exact = on_support(A, b, x != 0, torch.ones_like(x), w.detach(), nu)
    return energy + bl.NonNegative(), *exact


def huber(A, b, w, nu):
    """nu/2 |x - b|^2 + w huber(Ax), the Huber term behind a dual of its own."""
    square = A[: A.shape[1]]
    energy = nu * bl.LeastSquares(b[:, : len(A[0])]) + w * bl.Huber(0.2) @ bl.Matrix(square)
    x = bl.solve(energy, tol=1e-12).x
    inside = (x @ square.mT).abs() <= 0.2
    rows = []
    for x_k, in_k, b_k in zip(x, inside, b[:, : len(A[0])], strict=True):
        rim = square.mT @ ((~in_k) * (square @ x_k).sign())
        H = nu * torch.eye(len(x_k)) + w.detach() / 0.2 * square[in_k].mT @ square[in_k]
        x_k = torch.linalg.solve(H, nu * b_k - w.detach() * rim)
        slope = square.mT @ ((square @ x_k) / 0.2).clamp(-1, 1)
        rows.append((x_k, -torch.linalg.solve(H, slope)))
    x, dx = (torch.stack(part) for part in zip(*rows, strict=True))
    return energy.dualized(), x, dx


def total_variation(A, b, w, nu):
    """nu/2 |x - b|^2 + w TV(x) in 1-D: means over segments."""
    w = 0.3 * w
    energy = nu * bl.LeastSquares(b) + w * bl.TotalVariation(dims=1)
    x = bl.solve(energy, tol=1e-12).x
    rows = []
    for x_k, b_k in zip(x, b, strict=True):
        jump = x_k.diff().abs() > 1e-9
        label = torch.cat([torch.zeros(1), jump.double()]).cumsum(0).long()
        to = torch.nn.functional.one_hot(label).double()  # (n, segments)
        pull = torch.zeros_like(x_k)
        signs = jump * x_k.diff().sign()
        pull[:-1] += signs
        pull[1:] -= signs
        mean = to / to.sum(0) @ to.mT
        rows.append((mean @ (b_k + w.detach() / nu * pull), 0.3 * mean @ pull / nu))
    return energy, *(torch.stack(part) for part in zip(*rows, strict=True))


def simplex(A, b, w, nu):
    """1/2 |Ax - w b|^2 + nu/2 |x|^2 on the simplex."""
    energy = bl.LeastSquares(w * b) @ bl.Matrix(A) + nu * bl.LeastSquares() + bl.Simplex()
    rows = []
    for x_k, b_k in zip(bl.solve(energy, tol=1e-12).x, b, strict=True):
        free = x_k > 0
        k = int(free.sum())
        system = torch.zeros(k + 1, k + 1)
        system[:k, :k] = A[:, free].mT @ A[:, free] + nu * torch.eye(k)
        system[k, :k] = system[:k, k] = 1
        right = torch.zeros(k + 1, 2)
        right[:k, 1] = A[:, free].mT @ b_k
        right[:k, 0], right[k, 0] = w.detach() * right[:k, 1], 1
        solved = torch.zeros(2, len(x_k))
        solved[:, free] = torch.linalg.solve(system, right)[:k].mT
        rows.append(solved)
    x, dx = torch.stack(rows, 1)
    return energy, x, dx


KINDS = [ridge, elastic_net, non_negative, huber, total_variation, simplex]
ROUNDING = 1e-11  # of the exact gradient, at the worst condition drawn


def one_case(kind, seed):
    """(true relative error, bound, estimate); None where the active set is not proven."""
    rng, numbers = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    n = int(numbers.integers(2, 20))
    A = matrix(n + int(numbers.integers(0, 10)), n, 10 ** numbers.uniform(0, 4), rng)
    b = torch.randn(int(numbers.integers(1, 4)), len(A), generator=rng)
    w = (10 ** numbers.uniform(-1.5, -0.2) * (b @ A).abs().max()).requires_grad_()
    energy, x, dx = kind(A, b, w, nu=10 ** numbers.uniform(-1.5, 0.5))
    loss = 3.0 * bl.LeastSquares(torch.randn(x.shape, generator=rng))
    tol = 10 ** numbers.uniform(-9, -2)
    options = dict(
        solver=bl.PrimalDual(), tol=tol, max_iter=800, on_fail="ignore", x0=torch.zeros_like(x)
    )
    found = bl.argmin(energy, diff=bl.Piggyback(loss), **options)
    try:
        (gradient,), certificate = bl.hypergradient(
            loss.value(found).mean(),
            [w],
            lipschitz=bl.Lipschitz(loss=3.0 / len(b), mixed=1.0),
        )
    except ValueError as error:
        assert "is not proven" in str(error)
        return None
    exact = float((loss.grad(x) * dx).sum(1).mean())
    if exact == 0:
        assert gradient == 0
        return None
    error = abs(float(gradient) - exact) / abs(exact)
    return error, certificate.bound, float(certificate.estimate.max())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_bound_is_broken(kind):
    cases = [case for case in (one_case(kind, seed) for seed in range(12)) if case]
    assert len(cases) >= 6
    assert all(error <= bound + ROUNDING for error, bound, _ in cases)
    assert sum(bound < 0.1 for _, bound, _ in cases) > 3  # that some say something


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_step_contracts_as_proven(kind):
    """Between random points, for random and for badly balanced steps."""
    rng = torch.Generator().manual_seed(0)
    for seed in range(20):
        A, b = torch.randn(9, 6, generator=rng), torch.randn(2, 9, generator=rng)
        energy, x, _ = kind(A, b, torch.tensor(0.3), nu=0.5)
        problem = bl.Problem(energy.terms)
        start = torch.randn(x.shape, generator=rng)
        solver = bl.PrimalDual(dual_step_size=(0.01, None, 30.0)[seed % 3])
        solver = solver.prepare(problem, start)
        proven = Contraction.of(problem, solver, start)
        assert (proven.gap > 0).all()
        z, far = solver.start(problem, start), solver.start(problem, torch.zeros_like(x))
        for _ in range(20):
            z = tuple(part + torch.randn(part.shape, generator=rng) for part in z)
            (dx, _, *dy), moved = (
                minus(z, far),
                minus(*(solver.averaged(problem, p) for p in (z, far))),
            )
            before = proven.length(dx, tuple(dy))
            after = proven.length(moved[0], moved[2:])
            assert (after <= (1 - proven.gap) * before * (1 + 1e-12)).all()


def minus(z, far):
    return tuple(a - b for a, b in zip(z, far, strict=True))


def certified(energy, tol=1e-9, diff=None, **options):
    w = torch.tensor(0.3).requires_grad_()
    loss = bl.LeastSquares(torch.ones(1, 6))
    diff = bl.Piggyback(loss) if diff is None else diff
    x = bl.argmin(energy(w), solver=bl.PrimalDual(), diff=diff, tol=tol, **options)
    return bl.hypergradient(loss.value(x).sum(), [w], lipschitz=bl.Lipschitz(loss=1.0, mixed=1.0))


Y = torch.linspace(-1, 1, 6, dtype=torch.float64)[None] + 0.03


def test_the_theorem_is_named_and_explained():
    _, certificate = certified(lambda w: bl.LeastSquares(Y) @ bl.Identity() + w * bl.LeastSquares())
    assert certificate.theorem == "A-posteriori bound of a contraction"
    assert certificate.estimate <= certificate.bound < 1e-6
    energy = bl.LeastSquares(Y) + 0.3 * bl.LeastSquares() + 0.2 * bl.L1()
    told = bl.explain(energy, bl.PrimalDual(), bl.Piggyback(bl.LeastSquares()))
    assert told.theorem.name == "A-posteriori bound of a contraction"
    kink = bl.LeastSquares(Y) + 0.3 * bl.LeastSquares() + Y[0, 2].abs() * bl.L1()
    told = bl.explain(kink, bl.PrimalDual(), bl.Piggyback(bl.LeastSquares()))
    assert told.theorem is None or told.theorem.name != "A-posteriori bound of a contraction"


@pytest.mark.parametrize("energy, message", [
    (lambda w: bl.LeastSquares(Y) @ bl.Matrix(torch.ones(6, 6).double()) + w * bl.L1(),
     "the energy is not strongly convex"),
    (lambda w: bl.LeastSquares(Y) + w * bl.L1() @ bl.Matrix(torch.eye(6).double()),
     "L1 is not smooth, so that its dual is not contracted"),
    (lambda w: bl.Huber(0.1, Y) + w * bl.LeastSquares(),
     "Huber . LeastSquares declares no Lipschitz constant of its Hessian"),
    (lambda w: bl.LeastSquares(Y) + bl.LeastSquares() + w * bl.L21(),
     "the prox of L21 is not known to be piecewise affine"),
    (lambda w: bl.LeastSquares(Y) + bl.LeastSquares() + (w + Y[0, 5] - 0.3) * bl.L1(),
     "the active set of L1 is not proven: its margin is"),
])  # fmt: skip
def test_what_is_not_proven_is_said(energy, message):
    with pytest.raises(ValueError, match=f"the bound of Piggyback: {message}"):
        certified(energy, on_fail="ignore")


def test_the_estimate_says_which_theorem_is_behind_it():
    def energy(w):
        return bl.LeastSquares(Y) @ bl.Identity() + w * bl.LeastSquares()

    w = torch.tensor(0.3).requires_grad_()
    for probe, name in [(False, "Newton-Kantorovich"), (True, "Implicit function theorem along")]:
        x = bl.argmin(energy(w), solver=bl.ForwardBackward(), tol=1e-3)
        _, certificate = bl.hypergradient(x.sum(), [w], probe=probe)
        assert certificate.theorem.startswith(name) and certificate.bound is None
        assert name in str(certificate)
    report = bl.Certificate()
    bl.argmin(energy(w), solver=bl.ForwardBackward(), tol=1e-3, report=report).sum().backward()
    assert report.theorem.startswith("Banach")


FLAT = [
    bl.L1(), bl.Box(-0.5, 0.4), bl.NonNegative(), bl.LinfBall(0.5), bl.Absolute(0.1), 
    bl.Hinge(torch.ones(1, 6).double()),
    bl.Quantile(0.1, 0.3), bl.Huber(0.2, 0.1), bl.ElasticNet(0.5), bl.Simplex(), bl.L1Ball(1.5),
    bl.Linf(), bl.SortedL1(torch.tensor([1.0, 0.9, 0.5, 0.5, 0.3, 0.2]).double()),
    bl.Monotone(), bl.TotalVariation1D(), bl.L1Inf(dim=-1),
]  # fmt: skip


@pytest.mark.parametrize("term", FLAT, ids=lambda term: type(term).__name__)
def test_a_margin_moves_no_faster_than_said(term):
    """On one piece: by as much as u + d on single coordinates, by 2 sqrt(n) times that else."""
    rng = torch.Generator().manual_seed(0)
    w = 1.5 * torch.randn(4000, 6, generator=rng)
    step = torch.randn(w.shape, generator=rng)
    step = step / step.norm(dim=1, keepdim=True) * 10 ** -(4 * torch.rand(4000, 1, generator=rng))
    here, there = (term.manifold(p, v - p) for v in (w, w + step) for p in [term.prox(v, 1.0)])
    same = (here.signature == there.signature).all(1)
    rate = 1.0 if isinstance(here, Coordinates) else 2 * 6**0.5
    assert isinstance(here, Coordinates | Clusters | Face) and same.sum() > 1000
    moved = (here.margin - there.margin).abs()[same]
    assert (moved <= rate * step.norm(dim=1)[same] + 1e-12).all()
    apart = here.margin[~same] / rate  # another piece is no nearer than the margin says
    assert (apart <= step.norm(dim=1)[~same] + 1e-12).all()
