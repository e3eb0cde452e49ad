"""ALSET, SOBA and SABA beside the full-batch implicit gradient, on the problems of benchopt's
bilevel benchmark (Dagréou, Ablin, Vaiter, Moreau, NeurIPS 2022).

python benchmarks/stochastic_bilevel.py    results in benchmarks/results/stochastic_bilevel.md; with
                                           names, "sparse", these alone, the other rows kept

quadratic   sample i is <z, H_i z> / 2 + <θ, G_i θ> / 2 + <θ, C_i z> + <c_i, z> + <d_i, θ>, on both
            levels, with random matrices of rank one; of their means H has the spectrum [0.1, 1], G
            that and a 0, C singular values 0.1. z has 100 dims, θ 10; 2048 samples below, 1024
            above.
logistic    below log(1 + exp(-b_i <a_i, z>)) + sum_j exp(θ_j) z_j^2 / 2, above the loss alone. In
            the place of ijcnn1, which cannot be had here, a synthetic set of its kind: 22 features,
            about a tenth of the labels positive; 16384 samples below, 8192 above.
sparse      the same with sum_j exp(θ_j) |z_j| + 0.01 |z|^2 / 2 below: a prox, which no solver of
            that benchmark takes.

A pass: as many gradients, or products with a Hessian, as the lower level has samples. The value is
h(θ) = f(θ, z(θ)), solved exactly at some of the steps. The outer step size is the one of three with
the least h after a quarter of the passes. Batches of 64. The full-batch method, gradient descent on
h, may make 20 times as many passes: it has hardly begun where the others are done.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from measure import former, store
from torch import Tensor, nn
from torch.nn.functional import softplus

import bilevel as bl
from bilevel.learning.batches import Batch, stack
from bilevel.learning.stochastic import StochasticMethod

NOTES = (
    "value: h at the end; the curves are in the .json. The outer step size is mostly the largest "
    "of the three. sparse: where a coefficient is 0 the gradient in its weight is 0, so ends "
    "differ. One thread, float64, one seed. Seconds of the processor, with the looks, on a machine "
    "in use: a pass in batches of 64 costs far more of them than one of the whole."
)
BATCH, RIDGE, DIMS, OUTER_DIMS, FEATURES = 64, 0.01, 100, 10, 22
Data = list[dict[str, Tensor]]


class Quadratic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(OUTER_DIMS))

    def energy(self, batch: Batch) -> bl.Term:
        return bl.Potential(lambda x: self.loss(x, batch)[None])

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        z, theta = x[0], self.theta
        curved = (batch["h"] @ z).square() / 2 + (batch["g"] @ theta).square() / 2
        crossed = (batch["left"] @ theta) * (batch["right"] @ z)
        return (curved + crossed + batch["c"] @ z + batch["d"] @ theta).mean()


class Logistic(nn.Module):
    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.sparse, self.theta = sparse, nn.Parameter(torch.full((FEATURES,), -3.0))

    def energy(self, batch: Batch) -> bl.Term | bl.Problem:
        fit, zero = bl.Potential(lambda x: self.loss(x, batch)[None]), torch.zeros(())
        if self.sparse:
            return fit + bl.LeastSquares(zero, weight=RIDGE) + bl.L1(weight=self.theta.exp())
        return fit + bl.LeastSquares(zero, weight=self.theta.exp())

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        return softplus(-batch["b"] * (batch["a"] @ x[0])).mean()


@dataclass(frozen=True)
class Bilevel:
    """A problem, and what its methods may spend."""

    name: str
    model: Callable[[], nn.Module]
    lower: Data
    upper: Data
    dims: int  # of z
    passes: int
    step_size: float
    outer_step_sizes: tuple[float, ...]

    def start(self) -> Tensor:
        return torch.zeros(1, self.dims)


def samples(n: int, generator: torch.Generator) -> Data:
    """Of the quadratic problem: the vectors whose products its matrices are."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def rotation(dims: int) -> Tensor:
        return torch.linalg.qr(normal(dims, dims)).Q

    def correlated(dims: int, spectrum: Tensor) -> Tensor:  # E x x^T has the spectrum
        return normal(n, dims) * spectrum.sqrt() @ rotation(dims)

    shared, decades = normal(n, DIMS), torch.logspace(-1, 0, DIMS)
    outer = torch.cat([torch.zeros(1), torch.logspace(-1, 0, OUTER_DIMS - 1)])
    parts = {
        "h": correlated(DIMS, decades),
        "g": correlated(OUTER_DIMS, outer),
        "left": 0.1 * shared[:, :OUTER_DIMS] @ rotation(OUTER_DIMS),
        "right": shared @ rotation(DIMS),
        "c": normal(n, DIMS),
        "d": normal(n, OUTER_DIMS),
    }
    return rows(parts)


def labelled(n: int, generator: torch.Generator) -> Data:
    """Correlated features in [-1, 1], a third of them in use; a tenth of the labels positive."""
    mixing = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(3))
    a = (torch.randn(n, FEATURES, generator=generator) @ mixing / FEATURES**0.5).tanh()
    truth = torch.linspace(-4, 4, FEATURES) * (torch.arange(FEATURES) % 3 == 0)
    scores = a @ truth - 3 + torch.randn(n, generator=generator)
    return rows({"a": a, "b": torch.where(scores > 0, 1.0, -1.0)})


def rows(parts: dict[str, Tensor]) -> Data:
    values = zip(*parts.values(), strict=True)
    return [dict(zip(parts, value, strict=True)) for value in values]


def problems() -> list[Bilevel]:
    generator = torch.Generator().manual_seed(0)
    quadratic = samples(2048, generator), samples(1024, generator)
    logistic = labelled(16384, generator), labelled(8192, generator)
    steps = 20, 0.5, (1.0, 10.0, 100.0)
    return [
        Bilevel("quadratic", Quadratic, *quadratic, DIMS, 80, 0.1, (0.01, 0.1, 1.0)),
        Bilevel("logistic", partial(Logistic, False), *logistic, FEATURES, *steps),
        Bilevel("sparse", partial(Logistic, True), *logistic, FEATURES, *steps),
    ]


def whole(data: Data) -> Batch:
    return stack(data, torch.arange(len(data)))


class Exact:
    """h(θ) and its gradient, from the start of the last answer."""

    def __init__(self, problem: Bilevel, tol: float) -> None:
        self.lower, self.upper = whole(problem.lower), whole(problem.upper)
        self.x, self.tol, self.passes = problem.start(), tol, 0

    def __call__(self, model: nn.Module) -> tuple[float, Tensor]:
        report = bl.Certificate()
        x = bl.argmin(
            model.energy(self.lower), x0=self.x, tol=self.tol, diff=bl.Implicit(), report=report
        )
        value = model.loss(x, self.upper)
        (gradient,) = torch.autograd.grad(value, model.theta)
        self.x = x.detach()
        self.passes += int(report.iterations) + int(report.adjoint_iterations)
        return float(value.detach()), gradient


@dataclass(frozen=True)
class Method:
    """run(problem, outer_step_size, passes, look): look(passes made, model)."""

    name: str
    run: Callable[[Bilevel, float, float, Callable[[float, nn.Module], None]], None]
    patience: int = 1  # how many times the passes of the others it may make


def stochastic(make: Callable[[float, float], StochasticMethod], per_step: int) -> Method:
    """A method that takes so many gradients and products of a batch in each step."""

    def run(problem, outer_step_size, passes, look) -> None:
        model, share = problem.model(), per_step * BATCH / len(problem.lower)
        steps = max(int(passes / share), 1)
        moments = {int(steps ** (j / 12)) for j in range(4, 13)} | {steps}
        bl.learn_stochastic(
            model, problem.lower, problem.upper, type(model).energy, type(model).loss,
            problem.start(), method=make(problem.step_size, outer_step_size), steps=steps,
            batch_size=BATCH, on_step=lambda k, x: look(k * share, model) if k in moments else None,
        )  # fmt: skip

    return Method(make(1.0, 1.0).__class__.__name__, run)


def descent(problem, outer_step_size, passes, look) -> None:
    """Gradient descent on h, each lower level solved to 1e-5 by a solver with its own step size."""
    model, gradient_of = problem.model(), Exact(problem, 1e-5)
    while gradient_of.passes < passes:
        _, gradient = gradient_of(model)
        with torch.no_grad():
            model.theta -= outer_step_size * gradient
        look(gradient_of.passes, model)


INNER, TERMS = 10, 30
METHODS = [
    stochastic(bl.SOBA, 2),
    stochastic(bl.SABA, 2),
    stochastic(lambda a, b: bl.ALSET(a, b, INNER, TERMS), INNER + 2 * (TERMS + 1)),
    Method("full batch, implicit", descent, patience=20),
]


def followed(problem: Bilevel, method: Method, size: float, passes: float) -> list:
    """[(passes, h, |grad h|)]"""
    curve, exact = [], Exact(problem, 1e-9)

    def look(spent: float, model: nn.Module) -> None:
        value, gradient = exact(model)
        curve.append((spent, value, float(gradient.norm())))

    try:
        method.run(problem, size, passes, look)
    except bl.NotConverged:  # too large a step
        curve.append((passes, math.inf, math.inf))
    return curve


def tuned(problem: Bilevel, method: Method) -> dict:
    passes = problem.passes * method.patience
    ends = {
        size: followed(problem, method, size, passes / 4)[-1][1]
        for size in problem.outer_step_sizes
    }
    best, start = min(ends, key=ends.__getitem__), time.process_time()
    curve = followed(problem, method, best, passes)
    passes, value, slope = curve[-1]
    row = {
        "problem": problem.name,
        "method": method.name,
        "outer step size": best,
        "passes": passes,
        "value": value,
        "gradient norm": slope,
        "seconds": time.process_time() - start,
    }
    print(row, flush=True)
    return {**row, "curve": curve}


def main() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    asked = sys.argv[1:]
    rows = former("stochastic_bilevel") if asked else []
    for problem in problems():
        if not asked or problem.name in asked:
            fresh = [tuned(problem, method) for method in METHODS]
            rows = [row for row in rows if row["problem"] != problem.name] + fresh
            columns = [name for name in rows[0] if name != "curve"]
            store("stochastic_bilevel", "Stochastic bilevel methods", rows, columns, NOTES)


if __name__ == "__main__":
    main()
