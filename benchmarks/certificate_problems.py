"""Random problems with a gradient known otherwise, for `certificates.py`: each returns one row.

Rows: the gradient's true relative error, the estimates with and without the probe, for the bound's
classes the bound; of a degenerate problem, that has no gradient, whether anybody was told.
"""

import math
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import bilevel as bl

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from gradient_errors import ENERGIES  # noqa: E402  beside this file

from problems import Flatten  # noqa: E402
from references import REFERENCES  # noqa: E402
from registry import TERMS, Case, Draw  # noqa: E402
from test_bounds import ITERATED, exact_gradient, smooth_energy  # noqa: E402

Row = dict[str, float | bool]


def smooth(kind: str, rng: np.random.Generator, seed: int, tol: float) -> Row:
    """Ridge and logistic regression, condition to 1e6: the error in the logarithm of the weight."""
    n, m = (int(2 * 250 ** rng.uniform()) for _ in range(2))
    energy, A, b = smooth_energy(kind, seed, n, m, 10 ** rng.uniform(0, 6))
    log_weight = torch.tensor(rng.uniform(-6, 1)).requires_grad_()
    target = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    x = bl.argmin(energy(log_weight), x0=torch.zeros(1, n), tol=tol, **ITERATED)
    known = bl.Lipschitz(loss=1.0, mixed=float(log_weight.detach().exp()))
    exact = [exact_gradient(kind, A, b, log_weight.detach(), target)]
    return judged((x[0] - target).square().sum() / 2, [log_weight], exact, known)


SIZES = {
    "lasso": lambda k: {"rows": k, "columns": 2 * k},
    "elastic_net": lambda k: {"rows": k, "columns": k + 5},
    "simplex_least_squares": lambda k: {"rows": k + 5, "columns": k},
    "box_least_squares": lambda k: {"rows": k + 5, "columns": k},
    "l2_ball_least_squares": lambda k: {"rows": k + 5, "columns": k},
    "l2_ball_projection": lambda k: {"columns": k},
    "tv1d": lambda k: {"n": 2 * k},
}


def non_smooth(name: str, rng: np.random.Generator, seed: int, tol: float) -> Row:
    """Against the dense references of the tests, in all parameters."""
    size = int(8 * 30 ** rng.uniform())
    theta, exact = REFERENCES[name].instance(seed, margin=1e-4, **SIZES[name](size))
    target = rng.standard_normal(exact.x.shape)
    leaves = {k: torch.tensor(v).requires_grad_() for k, v in theta.items()}
    solver = bl.PrimalDual() if name == "tv1d" else bl.ForwardBackward()
    x = bl.argmin(ENERGIES[name](**leaves), tol=tol, solver=solver, on_fail="ignore")
    right = exact.vjp(exact.x - target)
    row = judged(
        (x[0] - torch.tensor(target)).square().sum() / 2,
        list(leaves.values()),
        [torch.tensor(right[k]) for k in leaves],
    )
    alike = bool((x[0].detach().numpy() != 0).sum() == (exact.x != 0).sum())
    sparse = name in ("lasso", "elastic_net", "simplex_least_squares")
    return row | ({"support found": alike} if sparse else {})


def is_convex(case: Case) -> bool:
    draw = Draw(1, case.event)
    convex = torch.as_tensor(case.make(draw).strong_convexity(draw.x()) >= 0).all()
    return case.convex and case.valued and bool(convex)


CONVEX = [case for case in TERMS if is_convex(case)]


def any_term(rng: np.random.Generator, seed: int, tol: float) -> Row:
    """min 1/2 |A x - b|^2 + g(x) for the terms of the registry in turn, in b: against the active
    set's derivative (PartlySmooth) of the solution to rounding, checked by the tests."""
    case = CONVEX[seed // len(CLASSES) % len(CONVEX)]
    draw = Draw(1, larger(case, 2 * 250 ** rng.uniform()), seed=seed)
    term, n = case.make(draw), math.prod(draw.event)
    first, last = (torch.linalg.qr(draw.normal(n, n)).Q for _ in range(2))
    A = first * torch.logspace(0, -rng.uniform(0, 3), n) @ last
    b, target = 2 * draw.x().flatten(1), draw.x()

    def gradient(of: Tensor, **options) -> Tensor:
        data = bl.LeastSquares(of) @ bl.Matrix(A) @ Flatten(*draw.event)
        x = bl.argmin(data + term, **options)
        return (x - target).square().sum() / 2  # type: ignore[operator]

    at = [b.clone().requires_grad_() for _ in range(2)]
    tight = gradient(at[0], tol=1e-13, max_time=3.0, on_fail="raise", diff=bl.PartlySmooth())
    exact = torch.autograd.grad(tight, at[0])
    solver = bl.PrimalDual() if isinstance(term, bl.Composed) else bl.ForwardBackward()
    return judged(gradient(at[1], tol=tol, solver=solver, on_fail="ignore"), [at[1]], exact)


def larger(case: Case, size: float) -> tuple[int, ...]:
    """The case's event grown in all dims to about `size` numbers, where it may."""
    if case.kept or case.square:
        return case.event
    factor = (size / math.prod(case.event)) ** (1 / len(case.event))
    return tuple(max(2, round(factor * k)) if k > 1 else k for k in case.event)


def degenerate(rng: np.random.Generator, seed: int, tol: float) -> Row:
    """A lasso at a kink (a coefficient of 0 whose dual is on the boundary), or with two equal
    columns and a loss that reads one of them: told by KinkWarning or NotUnique?"""
    n = int(4 * 60 ** rng.uniform())
    draw = Draw(1, (n,), seed=seed)
    A = torch.linalg.qr(draw.normal(n + 5, n)).Q
    x = torch.where(torch.arange(n) < max(1, n // 3), 1 + draw.x().abs(), 0.0)
    dual = torch.where(x > 0, 1.0, 0.5 * (2 * draw.positive(1, n) - 1))
    kink = bool(rng.integers(2))
    if kink:
        dual[0, -1] = 1.0
    else:
        A = torch.cat([A, A[:, :1]], 1)
    b = x @ A[:, :n].mT + dual @ A[:, :n].mT  # A^T (b - A x) = dual, as A^T A = 1
    weight = torch.tensor(1.0).requires_grad_()
    energy = bl.LeastSquares(b) @ bl.Matrix(A) + weight * bl.L1()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = bl.argmin(energy, tol=min(tol, 1e-6))
            bl.hypergradient(found[0, -1] if kink else found[0, 0], [weight], probe=True)
        except bl.NotUnique:
            return {"told": True}
    return {"told": any(issubclass(w.category, bl.KinkWarning) for w in caught)}


def judged(
    loss: Tensor,
    parameters: Sequence[Tensor],
    exact: Sequence[Tensor],
    known: bl.Lipschitz | None = None,
) -> Row:
    """The true error of the loss's gradient, and what the certificate says of it."""
    plain = bl.hypergradient(loss, parameters, create_graph=True)[1].estimate
    found, told = bl.hypergradient(loss, parameters, lipschitz=known, probe=True)
    pairs = list(zip(found, exact, strict=True))
    off, size = (math.hypot(*(float(p.norm()) for p in ps)) for ps in
                 ([f - e for f, e in pairs], [e for _, e in pairs]))  # fmt: skip
    assert plain is not None and told.estimate is not None and told.influence is not None
    row: Row = {
        "error": off / size if size else off,
        "newton": float(plain.max()),
        "estimate": float(told.estimate.max()),
        "influence": told.influence,
    }
    return row if told.bound is None else row | {"bound": told.bound}


Problem = Callable[[np.random.Generator, int, float], Row]
CLASSES: dict[str, Problem] = {
    **{kind: lambda *a, kind=kind: smooth(kind, *a) for kind in ("ridge", "logistic")},
    **{name: lambda *a, name=name: non_smooth(name, *a) for name in SIZES},
    "any term of the registry": any_term,
    "degenerate": degenerate,
}
