"""Layers whose output is an equilibrium: x = f(x, ...)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._autocast import full_precision
from .._bfloat16 import ROUGH, Rough, RoughChanges, rough_products
from .._remembered import Remembered
from ..acceleration import Acceleration, AndersonMixing
from ..argmin import argmin
from ..differentiation import Strategy
from ..errors import OnFail
from ..problem import Problem, relative_change
from ..solvers import ForwardBackward, Solver
from ..solvers.base import Z
from ..terms import NonNegative, Proximable, VectorField


@dataclass(frozen=True, eq=False)
class Evaluation(Solver):
    """T(x) = f(x), as it stands."""

    f: Callable[[Tensor], Tensor]

    stride = 1  # f is what costs: a look is cheap beside it

    def check(self, problem: Problem) -> None:
        pass

    def prepare(self, problem: Problem, x0: Tensor) -> Evaluation:
        return self

    def step(self, problem: Problem, z: Z) -> Z:
        return (self.f(z[0]),)

    def draft(self, problem: Problem, z: Z, tol: float) -> Z:
        """By plain steps, their products rough at first, then of what x changes by."""
        rough = rough_products(z[0])
        if rough is None:
            return z
        x = _contracted(self.f, rough, z[0], self.f(z[0]), ROUGH)
        if rough.rounded and x is not z[0]:
            rough = RoughChanges()
            with rough:
                image = self.f(x)
            least = max(tol, ROUGH * _largest_change(x, image))
            x = _contracted(self.f, rough, x, image, least)
        return (x,)

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return AndersonMixing()


def _contracted(
    f: Callable[[Tensor], Tensor], rough: Rough, x: Tensor, image: Tensor, least: float
) -> Tensor:
    """x after rough plain steps, the first one to its image, until one more would change no more
    than this, while they contract; x itself where they do not. Changes are looked at when due."""
    start, change, rate = x, _largest_change(x, image), 0.0
    while rate < 0.9 and least < change * (rate or 1):
        known = math.log(least / change) / math.log(rate) if rate else 2
        due = min(max(math.ceil(known) - 1, 1), 10)
        for _ in range(due):
            x = image
            with rough:
                image = f(x)
        if not rough.rounded:
            return x
        before, change = change, _largest_change(x, image)
        rate = (change / before) ** (1 / due)
    return image if rate < 1 else start


def _largest_change(x: Tensor, image: Tensor) -> float:
    return float(relative_change((x,), (image,)).max())


class Equilibrium(nn.Module):
    """layer(*inputs) = x with x = f(x, *inputs), by iteration, differentiated at x: memory does not
    depend on the number of iterations.

    f: any module, of x (B, *event) to the same shape; samples must not interact. acceleration:
    AndersonMixing() by default, Broyden() where f does not contract, Plain() where it contracts
    strongly. diff: FixedPoint(), the derivative of the equilibrium; Truncated(k, damping=0.8) is
    the phantom gradient, biased and cheap. Each sample stops when its own residual is below tol.
    Nothing promises that there is an equilibrium, or one only: see MonotoneEquilibrium.

    On processors with units for bfloat16 (AMX) a float32 layer takes most of its steps, while plain
    ones contract, and most of the adjoint's with large products rounded to it; the last step, all
    residuals and so the tolerances are in float32. Those first steps are not counted.

    [1] Bai, Kolter, Koltun. Deep equilibrium models. NeurIPS, 2019.
    [2] Geng, Zhang, Bai, Wang, Lin. On training implicit models. NeurIPS, 2021 (phantoms).
    """

    def __init__(
        self,
        f: Callable[..., Tensor],
        *,
        acceleration: Acceleration | None = None,
        diff: Strategy | None = None,
        tol: float | None = None,
        max_iter: int = 1000,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__()
        self.f = f
        self.acceleration = acceleration
        self.diff, self.tol, self.max_iter = diff, tol, max_iter
        self.on_fail: OnFail = on_fail

    def forward(self, *inputs: Tensor, x0: Tensor | None = None) -> Tensor:  # -> (B, *event)
        """x0: the start, without a gradient, the last answer say; default 0 of the first input's
        shape."""
        if x0 is None and not inputs:
            raise ValueError("Equilibrium needs an input, or x0, to know the shape of x.")
        f = Remembered(lambda x: self.f(x, *inputs))  # a look at x, and the next step from there
        return argmin(
            VectorField(lambda x: _difference(x, f(x))),
            x0=torch.zeros_like(inputs[0]) if x0 is None else x0,
            solver=Evaluation(f),
            acceleration=self.acceleration,
            diff=self.diff,
            tol=self.tol,
            max_iter=self.max_iter,
            on_fail=self.on_fail,
        )


def _difference(x: Tensor, image: Tensor) -> Tensor:
    if not isinstance(image, Tensor) or image.dtype != x.dtype:
        got = image.dtype if isinstance(image, Tensor) else f"a {type(image).__name__}"
        raise TypeError(f"Equilibrium.f gives {got} for an x of {x.dtype}. The same is needed.")
    if image.shape != x.shape:
        raise ValueError(
            f"Equilibrium.f gives {tuple(image.shape)} for an x of shape {tuple(x.shape)}. The "
            "same shape is needed; pass x0 where that of the first input is not x's."
        )
    return x - image


def jacobian_penalty(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:  # -> (B,)
    """|df/dx^T v|^2 / n with one random v: an estimate of the mean square of the Jacobian's
    singular values, one a sample, to be added to a loss.

    Differentiable in everything that f and x depend on; for x = layer(...) the gradient includes
    how the equilibrium moves.

    [1] Bai, Koltun, Kolter. Stabilizing equilibrium models by Jacobian regularization. ICML, 2021.
    """
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_()
        image = f(point)
        (product,) = torch.autograd.grad(image, point, torch.randn_like(image), create_graph=True)
    return product.square().flatten(1).mean(1)


class MonotoneEquilibrium(nn.Module):
    """x = relu(W x + U y + b), I - W >= margin I: one equilibrium, whatever the parameters.

    W = (1 - margin) I - A^T A + B - B^T. x solves 0 in F(x) + dg(x), F(x) = (I - W) x - U y - b
    strongly monotone, g the indicator of x >= 0, whose prox is the relu; other g have other
    activations. Forward-backward with the step margin / |I - W|^2, mixed; the solution does not
    depend on it.

    [1] Winston, Kolter. Monotone operator equilibrium networks. NeurIPS, 2020.
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        margin: float = 0.1,
        *,
        activation: Proximable | None = None,  # g; default NonNegative(), its prox the relu
        acceleration: Acceleration | None = None,
        diff: Strategy | None = None,
        tol: float | None = None,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"MonotoneEquilibrium needs margin > 0, got {margin}.")
        self.margin = margin
        self.activation = NonNegative() if activation is None else activation
        self.encode = nn.Linear(inputs, features)  # U, b
        self.A = nn.Parameter(torch.randn(features, features) / features**0.5 / 2)
        self.B = nn.Parameter(torch.randn(features, features) / features**0.5 / 2)
        self.acceleration = AndersonMixing() if acceleration is None else acceleration
        self.diff, self.tol = diff, tol
        self.on_fail: OnFail = on_fail

    @property
    def field(self) -> Tensor:  # I - W
        identity = torch.eye(len(self.A), dtype=self.A.dtype, device=self.A.device)
        return self.margin * identity + self.A.mT @ self.A - self.B + self.B.mT

    def forward(
        self, y: Tensor, x0: Tensor | None = None
    ) -> Tensor:  # (B, inputs) -> (B, features)
        pull = self.encode(y).to(self.A.dtype)  # coarser in autocast
        with full_precision():
            M = self.field
            step = self.margin / torch.linalg.matrix_norm(M.detach(), 2) ** 2
            return argmin(
                VectorField(lambda x: torch.addmm(-pull, x, M.mT)) + self.activation,
                x0=torch.zeros_like(pull) if x0 is None else x0,
                solver=ForwardBackward(step_size=step),
                acceleration=self.acceleration,
                diff=self.diff,
                tol=self.tol,
                on_fail=self.on_fail,
            )
