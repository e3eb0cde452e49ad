"""The solution maps in the words of other libraries: one function each, imported when asked for.

A library is a function `library()` that returns {map name: gradient}, where gradient(theta, g,
accuracy) is the gradient of <g, x(theta)> by name; the accuracy is what its solvers call tolerance.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import bilevel as bl
from bilevel.testing import solution_maps

Theta = dict[str, Tensor]
Gradient = Callable[[Theta, Tensor, float], Theta]


def by_autograd(solution: Callable[[Theta, float], Tensor]) -> Gradient:
    """The gradient of a solution that torch differentiates; solution(theta, accuracy) -> x."""

    def gradient(theta: Theta, g: Tensor, accuracy: float) -> Theta:
        leaves = {name: part.clone().requires_grad_() for name, part in theta.items()}
        x = solution(leaves, accuracy)
        found = torch.autograd.grad((g * x.reshape(g.shape)).sum(), list(leaves.values()))
        return dict(zip(leaves, found, strict=True))

    return gradient


def ours(**options: object) -> Callable[[], dict[str, Gradient]]:
    limits = {"max_iter": 1000, "on_fail": "ignore"}

    def library() -> dict[str, Gradient]:
        def solution(map: solution_maps.SolutionMap) -> Gradient:
            shape = map.solution(map.draw(0)).shape
            x0 = torch.full((1, *shape), 1 / shape[0], dtype=torch.float64)

            def solve(theta: Theta, accuracy: float) -> Tensor:
                energy = map.energy(theta)
                return bl.argmin(energy, x0=x0, tol=accuracy, **limits, **options)

            return by_autograd(solve)

        return {map.name: solution(map) for map in solution_maps.MAPS}

    return library


def cvxpylayers() -> dict[str, Gradient]:
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    def programs() -> dict[str, tuple]:
        A, b, low, high = cp.Parameter((6, 4)), cp.Parameter(6), cp.Parameter(4), cp.Parameter(4)
        w, r = cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
        y, five = cp.Parameter(4), cp.Parameter(5)
        Y, u, v, X = cp.Parameter((4, 3)), cp.Variable(4), cp.Variable(5), cp.Variable((4, 3))
        misfit, near = cp.sum_squares(A @ u - b) / 2, cp.sum_squares(u - y) / 2
        along = cp.sum_squares(v - five) / 2
        rises = [cp.diff(v) >= 0]
        return {
            "ridge": (misfit + w * cp.sum_squares(u) / 2, [], [A, b, w], u),
            "lasso": (misfit + w * cp.norm1(u), [], [A, b, w], u),
            "box quadratic program": (misfit, [u >= low, u <= high], [A, b, low, high], u),
            "soft threshold": (near + w * cp.norm1(u), [], [y, w], u),
            "group threshold": (near + w * cp.norm(u), [], [y, w], u),
            "ball": (near, [cp.norm(u) <= r], [y, r], u),
            "simplex": (along, [v >= 0, cp.sum(v) == r], [five, r], v),
            "total variation in 1-D": (along + w * cp.norm1(cp.diff(v)), [], [five, w], v),
            "isotonic regression": (along, rises, [five], v),
            "low rank": (cp.sum_squares(X - Y) / 2 + w * cp.normNuc(X), [], [Y, w], X),
        }  # fmt: skip

    def solution(energy, constraints, parameters, x) -> Gradient:
        layer = CvxpyLayer(cp.Problem(cp.Minimize(energy), constraints), parameters, [x])

        def solve(theta: Theta, accuracy: float) -> Tensor:
            args = {"solve_method": "SCS", "eps": accuracy, "max_iters": 100_000}
            return layer(*theta.values(), solver_args=args)[0]

        return by_autograd(solve)

    return {name: solution(*program) for name, program in programs().items()}


def qpth() -> dict[str, Gradient]:
    from qpth.qp import QPFunction

    def program(Q, q, G, h, E, e, accuracy):
        solver = QPFunction(verbose=-1, eps=accuracy, maxIter=60, check_Q_spd=False)
        return solver(Q, q, G, h, E, e)

    eye, none = torch.eye, torch.empty(0, dtype=torch.float64)
    double = torch.float64

    def box(t: Theta, accuracy: float) -> Tensor:
        A, G = t["A"], torch.cat([eye(4, dtype=double), -eye(4, dtype=double)])
        h = torch.cat([t["upper"], -t["lower"]])
        return program(A.mT @ A, -A.mT @ t["b"], G, h, none, none, accuracy)

    def simplex(t: Theta, accuracy: float) -> Tensor:
        E, zero = torch.ones(1, 5, dtype=double), torch.zeros(5, dtype=double)
        Q = eye(5, dtype=double)
        return program(Q, -t["y"], -Q, zero, E, t["total"].reshape(1), accuracy)

    def isotonic(t: Theta, accuracy: float) -> Tensor:
        Q = eye(5, dtype=double)
        G = Q[:-1] - Q[1:]
        return program(Q, -t["y"], G, torch.zeros(4, dtype=double), none, none, accuracy)

    maps = {"box quadratic program": box, "simplex": simplex, "isotonic regression": isotonic}
    return {name: by_autograd(solve) for name, solve in maps.items()}


def jaxopt() -> dict[str, Gradient]:
    import jax
    import jax.numpy as jnp
    import jaxopt as jo

    jax.config.update("jax_enable_x64", True)

    def misfit(x, t):
        return ((t["A"] @ x - t["b"]) ** 2).sum() / 2

    def near(x, t):
        return ((x - t["y"]) ** 2).sum() / 2

    options = {"maxiter": 100_000, "implicit_diff": True}

    def ridge(t, tol):
        def energy(x, t):
            return misfit(x, t) + t["w"] * (x**2).sum() / 2

        return jo.GradientDescent(energy, tol=tol, **options).run(jnp.zeros(4), t).params

    def sparse(energy):
        def solve(t, tol):
            solver = jo.ProximalGradient(energy, jo.prox.prox_lasso, tol=tol, **options)
            return solver.run(jnp.zeros(4), t["w"], t).params

        return solve

    def box(t, tol):
        solver = jo.ProjectedGradient(misfit, jo.projection.projection_box, tol=tol, **options)
        return solver.run(jnp.zeros(4), (t["lower"], t["upper"]), t).params

    def simplex(t, tol):
        solver = jo.ProjectedGradient(near, jo.projection.projection_simplex, tol=tol, **options)
        return solver.run(jnp.full(5, 0.2), t["total"], t).params

    def gradient(solve) -> Gradient:
        compiled = jax.jit(jax.grad(lambda t, g, tol: (g * solve(t, tol)).sum()))

        def run(theta: Theta, g: Tensor, accuracy: float) -> Theta:
            found = compiled({n: p.numpy() for n, p in theta.items()}, g.numpy(), accuracy)
            return {name: torch.tensor(np.asarray(found[name])) for name in theta}

        return run

    maps = {
        "ridge": ridge, "lasso": sparse(misfit), "soft threshold": sparse(near),
        "box quadratic program": box, "simplex": simplex,
    }  # fmt: skip
    return {name: gradient(solve) for name, solve in maps.items()}


def torchdeq() -> dict[str, Gradient]:
    """Implicit differentiation of proximal gradient steps, forward and backward by Anderson's."""
    import torchdeq as td

    def step_size(t: Theta) -> float:
        return 0.95 / float(torch.linalg.matrix_norm(t["A"].detach(), 2) ** 2)

    def soft(x: Tensor, w: Tensor) -> Tensor:
        return x.sign() * (x.abs() - w).relu()

    def descent(t: Theta, x: Tensor, tau: float) -> Tensor:
        return x - tau * (x @ t["A"].mT - t["b"]) @ t["A"]

    def ridge(t: Theta) -> Callable:
        tau = 0.95 / float(torch.linalg.matrix_norm(t["A"].detach(), 2) ** 2 + t["w"].detach())
        return lambda x: descent(t, x, tau) - tau * t["w"] * x

    def lasso(t: Theta) -> Callable:
        tau = step_size(t)
        return lambda x: soft(descent(t, x, tau), tau * t["w"])

    def box(t: Theta) -> Callable:
        tau = step_size(t)
        return lambda x: descent(t, x, tau).clamp(t["lower"], t["upper"])

    def solution(step: Callable) -> Gradient:
        def solve(t: Theta, accuracy: float) -> Tensor:
            options = {"f_max_iter": 300, "b_max_iter": 300}
            deq = td.get_deq(
                ift=True, f_solver="anderson", b_solver="anderson",
                f_tol=accuracy, b_tol=accuracy, **options,
            )  # fmt: skip
            deq.train()
            return deq(step(t), torch.zeros(1, 4, dtype=torch.float64))[0][-1]

        return by_autograd(solve)

    maps = {"ridge": ridge, "lasso": lasso, "box quadratic program": box}
    return {name: solution(step) for name, step in maps.items()}


def sparho() -> dict[str, Gradient]:
    """Coordinate descent by scikit-learn, then CG on the support: the gradient in w alone."""
    import sparho as sp
    from sparho.adapters.sklearn import SklearnLasso

    def gradient(theta: Theta, g: Tensor, accuracy: float) -> Theta:
        b = theta["b"] if "b" in theta else theta["y"]
        A, rows = theta.get("A", torch.eye(len(b), dtype=b.dtype)), len(b)
        problem = sp.Problem(
            sp.SquaredLoss(), sp.L1(), A.numpy(), b.numpy()
        )  # of a mean of squares
        alpha = float(theta["w"]) / rows
        found = SklearnLasso(tol=accuracy, max_iter=100_000)(problem, alpha)
        slope = sp.implicit_forward(problem, alpha, found, g.numpy(), tol=accuracy)
        return {"w": torch.tensor(slope / rows, dtype=torch.float64)}

    return {"lasso": gradient, "soft threshold": gradient}


def deepinv() -> dict[str, Gradient]:
    """Proximal gradient steps as a deep equilibrium, forward and backward iterated."""
    from deepinv.optim import PGD, DEQConfig
    from deepinv.optim.data_fidelity import L2
    from deepinv.optim.prior import L1Prior, Tikhonov
    from deepinv.physics import LinearPhysics

    def solution(prior: type) -> Gradient:
        def solve(t: Theta, accuracy: float) -> Tensor:
            b = t["b"] if "b" in t else t["y"]
            A = t.get("A", torch.eye(len(b), dtype=b.dtype))
            physics = LinearPhysics(A=lambda x: x @ A.mT, A_adjoint=lambda y: y @ A)
            model = PGD(
                L2(), prior(), lambda_reg=[t["w"]], trainable_params=[],
                stepsize=0.95 / float(torch.linalg.matrix_norm(A.detach(), 2) ** 2),
                max_iter=100_000, thres_conv=accuracy, early_stop=True,
                DEQ=DEQConfig(max_iter_backward=100_000),
            )  # fmt: skip
            return model(b[None], physics)

        return by_autograd(solve)

    priors = {"ridge": Tikhonov, "lasso": L1Prior, "soft threshold": L1Prior}
    return {name: solution(prior) for name, prior in priors.items()}


LIBRARIES: dict[str, Callable[[], dict[str, Gradient]]] = {
    "bilevel": ours(),
    "bilevel, Implicit": ours(diff=bl.Implicit()),
    "bilevel, Unroll": ours(diff=bl.Unroll()),
    "bilevel, Truncated(30)": ours(diff=bl.Truncated(30)),
    "jaxopt": jaxopt,
    "cvxpylayers": cvxpylayers,
    "qpth": qpth,
    "torchdeq": torchdeq,
    "sparho": sparho,
    "deepinv": deepinv,
}
