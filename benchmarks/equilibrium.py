"""An equilibrium layer, forward and backward, against torchdeq.

python benchmarks/equilibrium.py          results in benchmarks/results/equilibrium.md

x = tanh(W x + U y + b), 512 features, batch 256, float32, tol 1e-5 (relative), W scaled to the
spectral norm 0.9 (x contracts at about 0.45 a step) or 1.8. The loss is |x - t|^2 / 2, the gradient
that in W; its error is against a dense solve of every sample in float64. One thread; seconds of the
processor, the least of alternated rounds. Where the processor has units for bfloat16 ours uses
them on the way, and one row does not. torchdeq is measured where it is installed, and is no
dependency of this library: its rows of a former run are kept otherwise.
"""

import time
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import torch
from measure import former, store
from torch import Tensor

import bilevel as bl
from bilevel import _bfloat16
from bilevel.layers import Equilibrium

D, BATCH, TOL = 512, 256, 1e-5
SERIES = bl.FixedPoint(bl.Neumann(terms=500, tol=TOL), order=1)
DEFAULT = bl.FixedPoint(order=1)

OURS = {
    "Plain, Neumann": {"acceleration": bl.Plain(), "diff": SERIES},
    "Plain, default adjoint": {"acceleration": bl.Plain(), "diff": DEFAULT},
    "AndersonMixing, Neumann": {"acceleration": bl.AndersonMixing(), "diff": SERIES},
    "Broyden, Neumann": {"acceleration": bl.Broyden(), "diff": SERIES},
    "Plain, phantom 5": {"acceleration": bl.Plain(), "diff": bl.Truncated(5, damping=0.8)},
}
_IMPLICIT = {"f_max_iter": 200, "b_max_iter": 200, "f_tol": TOL, "b_tol": TOL, "ift": True}
_RELATIVE = {"f_stop_mode": "rel", "b_stop_mode": "rel"}
THEIRS = {
    f"torchdeq {name}": {"f_solver": name, "b_solver": name, **_IMPLICIT, **_RELATIVE}
    for name in ("fixed_point_iter", "anderson", "broyden")
}
THEIRS["torchdeq fixed_point_iter, phantom 5"] = {
    "f_solver": "fixed_point_iter", "f_max_iter": 200, "f_tol": TOL, "f_stop_mode": "rel",
    "grad": 5, "tau": 0.8,
}  # fmt: skip


def setting(norm: float) -> tuple[Tensor, Tensor, Tensor]:
    """(W, U y + b, t), float64"""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    W, U, b = normal(D, D), normal(D, D) / D**0.5, 0.1 * normal(D)
    y, target = 0.3 * normal(BATCH, D), normal(BATCH, D)
    return norm * W / torch.linalg.matrix_norm(W, 2), y @ U.T + b, target


def exact(W: Tensor, pull: Tensor, target: Tensor) -> Tensor:
    x = torch.zeros_like(pull)
    for _ in range(500):
        x = torch.tanh(x @ W.T + pull)
    slope = 1 - x.square()
    M = torch.eye(D, dtype=torch.float64) - slope[:, :, None] * W
    w = torch.linalg.solve(M.mT, (x - target) / BATCH)
    return (w * slope).T @ x


def gradient(layer: Callable, W: Tensor, pull: Tensor, target: Tensor) -> Tensor:
    w = W.clone().requires_grad_()
    x = layer(lambda x: torch.tanh(torch.addmm(pull, x, w.T)), torch.zeros_like(pull))
    return torch.autograd.grad((x - target).square().sum() / (2 * BATCH), w)[0]


def ours(options: dict) -> Callable:
    return lambda f, x0: Equilibrium(f, tol=TOL, **options)(x0=x0)


def tight(f: Callable, x0: Tensor) -> Tensor:
    with bl.accuracy(TOL, adjoint_tol=TOL):
        return Equilibrium(f, acceleration=bl.Plain(), diff=DEFAULT)(x0=x0)


def theirs(options: dict) -> Callable | None:
    try:
        from torchdeq import get_deq
    except ImportError:
        return None
    deq = get_deq(**options)
    return lambda f, x0: deq(f, x0)[0][-1]


def in_float32(*setup: Tensor) -> Tensor:
    """The default adjoint, no product rounded."""
    with patch.object(_bfloat16, "_has_units", return_value=False):
        return gradient(ours(OURS["Plain, default adjoint"]), *setup)


def measured(norm: float) -> list[dict]:
    setup = setting(norm)
    right, single = exact(*setup), [part.float() for part in setup]
    layers = {name: ours(options) for name, options in OURS.items()}
    layers["Plain, default adjoint to 1e-5"] = tight
    layers |= {n: layer for n, o in THEIRS.items() if (layer := theirs(o)) is not None}
    methods = {name: partial(gradient, layer) for name, layer in layers.items()}
    if _bfloat16._has_units():
        methods["Plain, default adjoint, float32 alone"] = in_float32
    best = dict.fromkeys(methods, float("inf"))
    for _ in range(9):
        for name, method in methods.items():
            start = time.process_time()
            method(*single)
            best[name] = min(best[name], time.process_time() - start)
    rows = []
    for name, method in methods.items():
        error = float((method(*single).double() - right).norm() / right.norm())
        row = {"norm of W": norm, "method": name, "ms": 1e3 * best[name], "gradient error": error}
        rows.append(row)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    rows = measured(0.9) + measured(1.8)
    if not any(row["method"] in THEIRS for row in rows):
        rows += [row for row in former("equilibrium") if row["method"] in THEIRS]
    notes = (
        "ms: forward and backward, of the processor, the least of nine alternated rounds; the "
        "machine was shared, so ratios are to be trusted more than times. gradient error: "
        f"relative. Matrix units for bfloat16: {'yes' if _bfloat16._has_units() else 'no'}."
    )
    columns = ["norm of W", "method", "ms", "gradient error"]
    store("equilibrium", "An equilibrium layer", rows, columns, notes)


if __name__ == "__main__":
    main()
