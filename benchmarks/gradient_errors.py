"""How near the library's gradients come to exact ones, problem by problem.

Every problem is drawn away from kinks, solved to rounding and differentiated by dense linear
algebra that shares no code with the library (tests/references); `bl.argmin` then solves the same
problem and differentiates <g, x> for a random g, once with the tightest tolerance, once with the
default. The error is |gradient - exact| / |exact|, for each parameter. `self`: the references' own
error, against central differences of solving again.

    python benchmarks/gradient_errors.py                 # all; writes benchmarks/results/
    python benchmarks/gradient_errors.py lasso tv1d      # prints only
"""

import argparse
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import bilevel as bl

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from gradient_errors_report import show, write  # noqa: E402  beside this file

from references import REFERENCES, central_difference  # noqa: E402  found by the line above


def ridge(A: Tensor, b: Tensor, w: Tensor):
    return bl.LeastSquares(b[None]) @ bl.Matrix(A) + w * bl.LeastSquares()


def logistic(A: Tensor, labels: Tensor, w: Tensor):
    return bl.Logistic(labels[None]) @ bl.Matrix(A) + w * bl.LeastSquares()


def lasso(A: Tensor, b: Tensor, w: Tensor):
    return bl.LeastSquares(b[None]) @ bl.Matrix(A) + w * bl.L1()


def elastic_net(A: Tensor, b: Tensor, l1: Tensor, l2: Tensor):
    return bl.LeastSquares(b[None]) @ bl.Matrix(A) + (l1 + l2) * bl.ElasticNet(l1 / (l1 + l2))


@dataclass(frozen=True, eq=False)
class GroupedMatrix(bl.Operator):
    """x (B, groups, size) -> A x (B, rows)."""

    matrix: Tensor  # (rows, groups, size)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.einsum("mgs,bgs->bm", self.matrix, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.einsum("mgs,bm->bgs", self.matrix, y)


def group_lasso(A: Tensor, b: Tensor, w: Tensor):
    return bl.LeastSquares(b[None]) @ GroupedMatrix(A) + w[..., None] * bl.L21()


def simplex_least_squares(A: Tensor, b: Tensor, radius: Tensor):
    return bl.LeastSquares(b[None]) @ bl.Matrix(A) + bl.Simplex(radius)


def box_least_squares(A: Tensor, b: Tensor, lower: Tensor, upper: Tensor):
    return bl.LeastSquares(b[None]) @ bl.Matrix(A) + bl.Box(lower, upper)


def l2_ball_projection(y: Tensor, radius: Tensor):
    return bl.LeastSquares(y[None]) + bl.L2Ball(radius)


def l2_ball_least_squares(A: Tensor, b: Tensor, radius: Tensor):
    return bl.LeastSquares(b[None]) @ bl.Matrix(A) + bl.L2Ball(radius)


def l1_analysis_box(K: Tensor, y: Tensor, eta: Tensor):
    return bl.L1() @ bl.Matrix(K) + bl.Box((y - eta)[None], (y + eta)[None])


def tv1d(y: Tensor, w: Tensor):
    """By its differences, iterated: TotalVariation(dims=1) has an exact prox."""
    return bl.LeastSquares(y[None]) + w * bl.L1() @ bl.Gradient(1)


def tv2d_anisotropic(y: Tensor, w: Tensor):
    return bl.LeastSquares(y[None]) + w * bl.TotalVariation(isotropic=False)


def tv2d_isotropic(y: Tensor, w: Tensor):
    return bl.LeastSquares(y[None]) + w * bl.TotalVariation()


ENERGIES = {
    energy.__name__: energy
    for energy in (
        ridge,
        logistic,
        lasso,
        elastic_net,
        group_lasso,
        simplex_least_squares,
        box_least_squares,
        l2_ball_projection,
        l2_ball_least_squares,
        l1_analysis_box,
        tv1d,
        tv2d_anisotropic,
        tv2d_isotropic,
    )
}

# the default basis of 200 restarts here; one that needs no restart reaches rounding
LARGER_BASIS = {"diff": bl.FixedPoint(bl.GMRES(basis=1600, max_iter=1600))}

# (problem, label, how it is drawn, what argmin is told)
CASES = [
    ("ridge", "120 x 60", {}, {}),
    ("ridge", "120 x 60, per feature", {"weight_shape": (60,)}, {}),
    ("logistic", "500 x 200", {}, {}),
    ("logistic", "500 x 200, per feature", {"weight_shape": (200,)}, {}),
    ("lasso", "500 x 2000", {}, {}),
    ("lasso", "500 x 2000, per feature", {"weight_shape": (2000,)}, {}),
    ("elastic_net", "50 x 60", {}, {}),
    ("group_lasso", "50 x 20 x 4", {}, {}),
    ("group_lasso", "50 x 20 x 4, per group", {"weight_shape": (20,)}, {}),
    ("simplex_least_squares", "40 x 30", {}, {}),
    ("box_least_squares", "40 x 30", {}, {}),
    ("l2_ball_projection", "30", {}, {}),
    ("l2_ball_least_squares", "40 x 30", {}, {}),
    ("l1_analysis_box", "n = 40", {}, {}),
    ("tv1d", "n = 1000", {}, {}),
    ("tv1d", "n = 1000, per edge", {"weight_shape": (1000,)}, {}),
    ("tv2d_anisotropic", "32 x 32", {}, {}),
    ("tv2d_anisotropic", "32 x 32, per pixel", {"weight_shape": (32, 32)}, {}),
    ("tv2d_isotropic", "12 x 12", {}, {"solver": bl.PrimalDual()}),
    (
        "tv2d_isotropic",
        "12 x 12, per pixel",
        {"weight_shape": (12, 12)},
        {"solver": bl.PrimalDual()},
    ),
    # no draw of this size is 1e-3 from a kink; 1e-5 is a hard instance, as photographs are
    ("tv2d_isotropic", "32 x 32", {"shape": (32, 32), "margin": 1e-5}, {}),
    ("tv2d_isotropic", "32 x 32, larger basis", {"shape": (32, 32), "margin": 1e-5}, LARGER_BASIS),
]


def measure(name: str, label: str, size: dict, options: dict, seed: int, args) -> dict:
    theta, exact = REFERENCES[name].instance(seed, **size)
    g = np.random.default_rng([seed, 1]).standard_normal(exact.x.shape)
    tight = {"tol": args.tol, "max_iter": args.max_iter, "max_time": args.max_time}
    return {
        "problem": name,
        "case": label,
        "seed": seed,
        "margin": exact.margin,
        "self": {} if args.no_self else self_errors(name, theta, exact, g),
        "tight": differentiate(name, theta, exact, g, tight | options),
        "default": differentiate(name, theta, exact, g, options),
    }


def differentiate(name: str, theta: dict, exact, g: np.ndarray, options: dict) -> dict:
    """The library's answer and gradient against the exact ones, and what it says of them."""
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in theta.items()}
    report = bl.Certificate()
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x = bl.argmin(ENERGIES[name](**tensors), on_fail="warn", report=report, **options)
        found = torch.autograd.grad((x * torch.tensor(g)).sum(), list(tensors.values()))
    seconds = time.perf_counter() - start
    gradients = exact.vjp(g)
    return {
        "x": error(x[0].detach().numpy(), exact.x),
        "gradient": {
            k: error(f.numpy(), gradients[k]) for k, f in zip(tensors, found, strict=True)
        },
        "certificate": report.as_dict(),
        "warnings": sorted({str(w.message).split(". ")[0] for w in caught}),
        "seconds": seconds,
    }


def error(found: np.ndarray, exact: np.ndarray) -> float:
    """Relative; absolute where the exact value is 0."""
    return float(np.linalg.norm(found - exact) / (np.linalg.norm(exact) or 1.0))


def self_errors(name: str, theta: dict, exact, g: np.ndarray) -> dict[str, float]:
    """Of the reference: |<gradient, d> - central difference| / |gradient|, d random."""
    rng, errors = np.random.default_rng(2), {}
    h = min(1e-5, 1e-2 * exact.margin)  # of no use nearer to the kink than that
    for key, gradient in exact.vjp(g).items():
        d = rng.standard_normal(gradient.shape)
        d /= np.linalg.norm(d)
        moved = central_difference(REFERENCES[name].solve, theta, {key: d}, h)
        difference = abs(np.sum(gradient * d) - np.sum(g * moved))
        errors[key] = float(difference / np.linalg.norm(gradient))
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problems", nargs="*", help=f"of {', '.join(ENERGIES)}; default all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tol", type=float, default=1e-14)
    parser.add_argument("--max-iter", type=int, default=200_000)
    parser.add_argument("--max-time", type=float, default=60.0, help="seconds, of a tight solve")
    parser.add_argument("--no-self", action="store_true", help="skip the references' own check")
    args = parser.parse_args()
    if unknown := set(args.problems) - set(ENERGIES):
        parser.error(f"unknown problems {sorted(unknown)}: choose from {', '.join(ENERGIES)}")
    torch.set_default_dtype(torch.float64)
    rows = []
    for name, label, size, options in CASES:
        if not args.problems or name in args.problems:
            for seed in range(args.seeds):
                rows.append(measure(name, label, size, options, seed, args))
                show(rows[-1])
    if not args.problems:
        write(rows, vars(args))


if __name__ == "__main__":
    main()
