"""The references' problems, written with the library: the same theta, batched tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor

import bilevel as bl
from references import REFERENCES

Theta = dict[str, Tensor]  # the reference's parameters, the batch in dim 0


class Flatten(bl.Operator):
    """(B, *event) -> (B, n): an operator of our own."""

    def __init__(self, *event: int) -> None:
        self.event = event

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def adjoint(self, y: Tensor) -> Tensor:
        return y.reshape(len(y), *self.event)

    def norm(self, x: Tensor) -> float:
        return 1.0


def each(weight: Tensor, rank: int) -> Tensor:
    """(B,) -> (B, 1, ..., 1); a weight with more dims broadcasts as it is."""
    return weight.reshape(-1, *[1] * (rank - 1)) if weight.ndim == 1 else weight


def misfit(t: Theta) -> bl.Term:
    return bl.LeastSquares(t["b"]) @ bl.Matrix(t["A"])


def _elastic_net(t: Theta) -> bl.Problem:
    l1, l2 = each(t["l1"], 2), each(t["l2"], 2)
    return misfit(t) + (l1 + l2) * bl.ElasticNet(l1 / (l1 + l2))


def _group_lasso(t: Theta) -> bl.Problem:
    event = t["A"].shape[2:]
    data = bl.LeastSquares(t["b"]) @ bl.Matrix(t["A"].flatten(2)) @ Flatten(*event)
    weight = t["w"][:, None, None] if t["w"].ndim == 1 else t["w"][..., None]
    return data + weight * bl.L21()


def _analysis(t: Theta) -> bl.Problem:
    eta = each(t["eta"], 2)
    return bl.L1() @ bl.Matrix(t["K"]) + bl.Box(t["y"] - eta, t["y"] + eta)


def _tv(t: Theta, **kind) -> bl.Problem:
    return bl.LeastSquares(t["y"]) + each(t["w"], t["y"].ndim) * bl.TotalVariation(**kind)


def _tv_composed(t: Theta) -> bl.Problem:
    return bl.LeastSquares(t["y"]) + each(t["w"], 3) * bl.L1() @ bl.Gradient(1)


def _quadratic(t: Theta) -> bl.Term:
    return each(t["w"], 2) * bl.LeastSquares()


GD, FB, PD = bl.GradientDescent, bl.ForwardBackward, bl.PrimalDual
XG, OG = bl.ExtraGradient, bl.Optimistic
IP, NT, AD, CE = bl.InteriorPoint, bl.Newton, bl.ADMM, bl.Celer
MD, BP = bl.MirrorDescent, bl.BregmanPrimalDual
LP, SP, LH = bl.LinearProgram, bl.SplitPenalties, bl.LawsonHanson


@dataclass(frozen=True)
class Example:
    """One problem class at a small size, with the solvers and parameters that it has."""

    name: str
    energy: Callable[[Theta], bl.Problem]
    solvers: tuple[type[bl.Solver], ...]
    size: dict = field(default_factory=dict)
    fixed: tuple[str, ...] = ()  # no parameters: labels
    singular: bool = False  # I - dT/dz has a kernel: the dual is not unique
    reference: str = ""  # its name there, where it is another

    def __str__(self) -> str:
        return self.name

    def theta(self, seed: int = 0, batch: int = 1, **size) -> tuple[Theta, list]:
        """(theta, answers): a batch of proven instances, seeds seed, seed + 1, ..."""
        return _instances(
            self.reference or self.name, seed, batch, tuple({**self.size, **size}.items())
        )


@cache
def _instances(name: str, seed: int, batch: int, size: tuple) -> tuple[Theta, list]:
    pairs = [REFERENCES[name].instance(seed + i, **dict(size)) for i in range(batch)]
    thetas = [theta for theta, _ in pairs]
    stacked = {k: torch.from_numpy(np.stack([t[k] for t in thetas])) for k in thetas[0]}
    return stacked, [answer for _, answer in pairs]


SMALL = {"rows": 10, "columns": 6}

EXAMPLES = [
    Example("ridge", lambda t: misfit(t) + _quadratic(t), (NT, GD, FB, PD, SP, XG), SMALL),
    Example(
        "logistic",
        lambda t: bl.Logistic(t["labels"]) @ bl.Matrix(t["A"]) + _quadratic(t),
        (NT, GD, FB, PD),
        {"rows": 20, "columns": 5},
        fixed=("labels",),
    ),
    Example(
        "lasso",
        lambda t: misfit(t) + each(t["w"], 2) * bl.L1(),
        (FB, PD, CE),
        {"rows": 8, "columns": 12},
    ),
    Example("elastic_net", _elastic_net, (FB, PD, CE, XG, OG), {"rows": 8, "columns": 12}),
    Example("group_lasso", _group_lasso, (FB, PD), {"rows": 12, "groups": 5, "size": 2}),
    Example(
        "simplex_least_squares",
        lambda t: misfit(t) + bl.Simplex(each(t["radius"], 2)),
        (IP, LH, MD, BP, FB, PD),
        SMALL,
    ),
    Example(
        "box_least_squares",
        lambda t: misfit(t) + bl.Box(t["lower"], t["upper"]),
        (IP, MD, BP, FB, PD),
        SMALL,
    ),
    Example(
        "simplex_below_a_bound",  # that is never reached
        lambda t: misfit(t) + bl.Simplex(each(t["radius"], 2)) + bl.Box(-torch.inf, 5.0),
        (IP, bl.DavisYin, PD),
        SMALL,
        reference="simplex_least_squares",
    ),
    Example(
        "l2_ball_projection",
        lambda t: bl.LeastSquares(t["y"]) + bl.L2Ball(each(t["radius"], 2)),
        (bl.DirectProx, bl.DouglasRachford, FB, PD),
        {"columns": 6},
    ),
    Example(
        "l2_ball_least_squares",
        lambda t: misfit(t) + bl.L2Ball(each(t["radius"], 2)),
        (FB, PD),
        SMALL,
    ),
    Example("l1_analysis_box", _analysis, (LP, BP, PD, AD), {"n": 8}),
    Example("tv1d", lambda t: _tv(t, dims=1), (bl.DirectProx, FB, PD), {"n": 14}),
    Example("tv1d_composed", _tv_composed, (BP, PD, AD), {"n": 14}, reference="tv1d"),
    Example(
        "tv2d_anisotropic",
        lambda t: _tv(t, isotropic=False),
        (BP, PD, AD),
        {"shape": (3, 4)},
        singular=True,
    ),
    Example("tv2d_isotropic", _tv, (PD, AD), {"shape": (3, 4)}, singular=True),
]
BY_NAME = {example.name: example for example in EXAMPLES}
