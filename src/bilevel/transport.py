"""Optimal transport: Sinkhorn's fixed point, differentiated as every other; exact by POT."""

from __future__ import annotations

import torch
from torch import Tensor

from .acceleration import Acceleration
from .differentiation import Strategy
from .errors import OnFail
from .layers.equilibrium import Equilibrium


def sinkhorn(
    cost: Tensor,  # (B, n, m)
    a: Tensor,  # (B, n), or (n,) for all: masses > 0, sum 1
    b: Tensor,  # (B, m), or (m,)
    *,
    blur: float,  # > 0, in the units of the cost
    acceleration: Acceleration | None = None,
    diff: Strategy | None = None,
    tol: float | None = None,
    max_iter: int = 10_000,
    on_fail: OnFail = "raise",
) -> Tensor:  # (B, n, m)
    """The plan P of entropic transport, argmin of <P, cost> + blur KL(P | a b^T), P 1 = a,
    P^T 1 = b; differentiable in cost, a and b.

    P_ij = a_i b_j exp((f_i + g_j - cost_ij) / blur), where the potential g, without a mean, is the
    fixed point of Sinkhorn's iteration in the logarithm, so that nothing overflows. It is found
    with AndersonMixing() by default, differentiated implicitly, and starts from where it ended in a
    context of warm starts. tol: of g, relative. <P, cost> and its gradient are those of transport
    up to O(blur). Slow where the blur is a thousandth of the cost and less.

    [1] Cuturi. Sinkhorn distances. NeurIPS, 2013.

    >>> import torch, bilevel as bl
    >>> cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    >>> half = torch.tensor([0.5, 0.5])
    >>> bl.sinkhorn(cost, half, half, blur=0.2)
    tensor([[[0.4967, 0.0033],
             [0.0033, 0.4967]]])
    """
    a, b = _checked(cost, a, b)
    cost = cost - cost.detach().amin((1, 2), keepdim=True)  # the plan's digits, not a constant's
    if isinstance(blur, Tensor) and blur.ndim or not blur > 0:
        raise ValueError(
            f"sinkhorn needs blur > 0, one number, got {blur}. Without it use wasserstein2."
        )
    log_a, log_b = a.log(), b.log()

    def dual(g: Tensor) -> Tensor:  # (B, m) -> (B, n)
        return -blur * torch.logsumexp((g[:, None] - cost) / blur + log_b[:, None], 2)

    def sweep(g: Tensor) -> Tensor:
        f = dual(g)
        g = -blur * torch.logsumexp((f[:, :, None] - cost) / blur + log_a[:, :, None], 1)
        return g - g.mean(1, keepdim=True)  # a constant moves between f and g: M would be singular

    layer = Equilibrium(
        sweep, acceleration=acceleration, diff=diff, tol=tol, max_iter=max_iter, on_fail=on_fail
    )
    g = layer(x0=torch.zeros_like(b))
    total = dual(g)[:, :, None] + g[:, None] - cost
    return (total / blur + log_a[:, :, None] + log_b[:, None]).exp()


def wasserstein2(
    x: Tensor,  # (B, n, d)
    y: Tensor,  # (B, m, d)
    a: Tensor | None = None,  # (B, n) or (n,); default 1 / n
    b: Tensor | None = None,
) -> Tensor:  # (B,)
    """W_2^2, the least sum P_ij |x_i - y_j|^2 over plans P with marginals a, b: exact, by the
    network simplex of POT, for up to some thousand points.

    The gradient is by the envelope theorem: in the points that of the sum at the optimal plan, in
    the masses the dual potentials (up to a constant: masses keep their sum). First order.
    """
    shapes = [tuple(getattr(part, "shape", ())) for part in (x, y)]
    if any(len(shape) != 3 for shape in shapes) or shapes[0][::2] != shapes[1][::2]:
        raise ValueError(
            f"wasserstein2 needs points (B, n, d) and (B, m, d), got {shapes[0]} and {shapes[1]}. "
            "For one pair of clouds pass x[None], y[None]."
        )
    cost = (x[:, :, None] - y[:, None]).square().sum(3)
    ones_a, ones_b = cost.new_ones(cost.shape[:2]), cost.new_ones(cost.shape[::2])
    a, b = _checked(
        cost,
        ones_a / ones_a.shape[1] if a is None else a,
        ones_b / ones_b.shape[1] if b is None else b,
    )
    plan, u, v = torch.empty_like(cost), cost.new_empty(a.shape), cost.new_empty(b.shape)
    for k in range(len(cost)):
        plan[k], u[k], v[k] = _exact(cost[k].detach(), a[k].detach(), b[k].detach())
    value = (plan * cost).sum((1, 2))
    return value + ((a - a.detach()) * u).sum(1) + ((b - b.detach()) * v).sum(1)


def _exact(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(the plan, the potentials) of one sample."""
    try:
        from ot import emd
    except ImportError as error:
        raise ImportError(
            "wasserstein2 needs POT, which is not installed: pip install 'bilevel[transport]'. "
            "sinkhorn() does without."
        ) from error
    from_, to = ((w.double() / w.double().sum()).cpu().numpy() for w in (a, b))
    plan, log = emd(from_, to, cost.double().cpu().numpy(), log=True, numItermax=1_000_000)
    if log["warning"]:
        raise RuntimeError(f"wasserstein2: the network simplex ended early, {log['warning']}.")
    return (torch.as_tensor(plan).to(cost), *(torch.as_tensor(log[k]).to(cost) for k in "uv"))  # type: ignore[return-value]


def _checked(cost: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    for name, part in (("the cost", cost), ("a", a), ("b", b)):
        if not isinstance(part, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(part).__name__}.")
    if cost.ndim != 3:
        raise ValueError(
            f"a cost (B, n, m) is needed, got {tuple(cost.shape)}. For one problem pass cost[None]."
        )
    if not bool(cost.isfinite().all()):
        raise ValueError("the cost is NaN or inf somewhere. A large number forbids a pair.")
    batch, n, m = cost.shape
    for name, mass, size in (("a", a, n), ("b", b, m)):
        if mass.shape not in ((size,), (batch, size)):
            raise ValueError(
                f"{name} has shape {tuple(mass.shape)}: masses ({size},), or ({batch}, {size}), "
                f"are needed for a cost {tuple(cost.shape)}."
            )
        least, sums = mass.detach().amin(-1), mass.detach().sum(-1)
        if not bool(((least > 0) & ((sums - 1).abs() < 1e-4)).all()):
            raise ValueError(
                f"{name} must be positive and sum to 1, got a least entry {least.min():.3g} and "
                f"sums up to {sums.max():.6g}. Leave out points without a mass, divide by the sum."
            )
    return a.to(cost.dtype).expand(batch, n), b.to(cost.dtype).expand(batch, m)
