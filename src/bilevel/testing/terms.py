"""Laws of terms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, inner, norm_event, sum_event
from ..terms.base import Dualizable, Proximable, Smooth, Term, Weighted
from .verdict import holds, same_shape

_ROUNDING = 64  # how many eps of the numbers involved a law may be off


def _size(x: Tensor) -> Tensor:  # (B,): the scale against which rounding is measured
    return 1 + sum_event(x.square())


def _finite(y: Tensor) -> Tensor:
    return torch.where(y.isfinite(), y, 0.0)


def _bend(term: Term, d: Tensor) -> Tensor:  # (B,)
    """mu |d|^2, also for mu = -inf."""
    square = sum_event(d.square())
    return torch.where(square > 0, term.strong_convexity(d) * square, 0.0)


def _nearby(term: Proximable, p: Tensor, x: Tensor, step: Scalar, seed: int) -> list[Tensor]:
    """Points near p and far, with and without the prox that makes them feasible."""
    generator = torch.Generator().manual_seed(seed)
    points = [x, p.flip(0)]
    for distance in (1.0, 0.1, 1e-2, 1e-3):
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
        points += [p + distance * noise, term.prox(p + distance * noise, step)]
    return points


def prox_minimises(term: Proximable, x: Tensor, step: Scalar = 1.0, seed: int = 0) -> None:
    """p = prox(x, step) has step value(p) + 1/2 |p - x|^2 <= step value(u) + 1/2 |u - x|^2.

    For u random at distances 1 to 1e-3 from p, feasible or not, and u = x. Convex or not.
    """

    def objective(u: Tensor) -> Tensor:
        return step * term.value(u) + sum_event((u - x).square()) / 2

    p = term.prox(x, step)
    same_shape("prox_minimises", term, p, tuple(x.shape))
    least = objective(p)
    holds("prox_minimises (a finite value at prox)", term, (~least.isfinite()).to(x), 0.0)
    allowed = _ROUNDING * eps(x) * (_size(x) + least.abs())
    for u in _nearby(term, p, x, step, seed):
        holds("prox_minimises", term, least - objective(u), allowed)


def prox_gives_subgradient(term: Proximable, x: Tensor, step: Scalar = 1.0, seed: int = 0) -> None:
    """s = (x - p) / step, p = prox(x, step), is a subgradient: value(u) >= value(p) + <s, u - p> +
    mu/2 |u - p|^2, mu = strong_convexity, negative for weakly convex terms.

    It says more than `prox_minimises`: an error of p counts to first order. Nothing where mu is
    -inf.
    """
    p = term.prox(x, step)
    s = (x - p) / expand(step, x)
    value = term.value(p)
    for u in _nearby(term, p, x, step, seed):
        allowed = _ROUNDING * eps(x) * (_size(x) + _size(s) + _size(u) + value.abs())
        bend = _bend(term, u - p) / 2
        lower = value + inner(s, u - p) + bend
        holds("prox_gives_subgradient", term, lower - term.value(u), allowed)


def prox_firmly_nonexpansive(
    term: Proximable, x: Tensor, y: Tensor, step: Scalar = 1.0
) -> None:  # fmt: skip
    """(1 + step mu) |p - q|^2 <= <p - q, x - y> for p = prox(x, step), q = prox(y, step), mu =
    strong_convexity: firmly so for convex terms, less for weakly convex ones."""
    moved = term.prox(x, step) - term.prox(y, step)
    excess = sum_event(moved.square()) + step * _bend(term, moved) - inner(moved, x - y)
    holds("prox_firmly_nonexpansive", term, excess, _ROUNDING * eps(x) * (_size(x) + _size(y)))


def moreau(term: Proximable, x: Tensor, step: Scalar = 1.0) -> None:
    """x = prox(x, step) + step prox_conjugate(x / step, 1 / step), each its own formula or not."""
    s = expand(step, x)
    again = term.prox(x, step) + s * term.prox_conjugate(x / s, 1 / step)
    scale = norm_event(x) + norm_event(term.prox(x, step)) + 1
    holds("moreau", term, norm_event(x - again), _ROUNDING * eps(x) * scale)


def conjugate_inequality(term: Any, x: Tensor, y: Tensor, step: Scalar = 1.0) -> None:
    """Fenchel and Young: value(x) + conjugate(y) >= <x, y>, with equality at y = grad(x), and at
    p = prox(x, step) with y = (x - p) / step = prox_conjugate(x / step, 1 / step).

    For a term that is Dualizable, and Smooth or Proximable.
    """
    assert isinstance(term, Dualizable), f"{type(term).__name__} has no conjugate."
    s = expand(step, x)

    def excess(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        value, conjugate = term.value(u), term.conjugate(v)
        scale = _size(u) + _size(v) + _finite(value).abs() + _finite(conjugate).abs()
        return inner(u, v) - value - conjugate, _ROUNDING * eps(x) * (scale + _size(x / s))

    same_shape("conjugate_inequality", term, term.conjugate(y), (len(y),))
    holds("conjugate_inequality", term, *excess(x, y))
    pairs = []
    if isinstance(term, Smooth):
        pairs.append((x, term.grad(x)))
    if isinstance(term, Proximable):
        pairs.append((term.prox(x, step), term.prox_conjugate(x / s, 1 / step)))
    assert pairs, f"{type(term).__name__} has neither grad nor prox to test its conjugate with."
    for u, v in pairs:
        gap, allowed = excess(u, v)
        holds("conjugate_inequality (equality at the optimal pair)", term, gap.abs(), allowed)


def dual_scale_fits(term: Any, y: Tensor) -> None:
    """s = dual_scale(y) is in [0, 1] and conjugate(s y) is finite; 1 where conjugate(y) is."""
    assert isinstance(term, Dualizable), f"{type(term).__name__} has no conjugate."
    s = term.dual_scale(y)
    same_shape("dual_scale_fits", term, s, (len(y),))
    holds("dual_scale_fits (at most 1)", term, s, 1.0)
    holds("dual_scale_fits (at least 0)", term, -s, 0.0)
    inside = term.conjugate(y).isfinite()
    holds("dual_scale_fits (1 inside)", term, torch.where(inside, 1 - s, 0.0), 64 * eps(y))
    outside = ~term.conjugate(expand(s, y) * y).isfinite()  # type: ignore[operator]
    holds("dual_scale_fits (inside after scaling)", term, outside.to(y), 0.0)


def grad_is_autograd(term: Smooth, x: Tensor) -> None:
    """grad(x) is the derivative of value, and its derivative is value's second; value_and_grad is
    both."""
    point = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (expected,) = torch.autograd.grad(term.value(point).sum(), point, create_graph=True)
        got = term.grad(point)
        same_shape("grad_is_autograd", term, got, tuple(x.shape))
        scale = norm_event(x) + norm_event(expected) + 1
        allowed = _ROUNDING * eps(x) * scale
        holds("grad_is_autograd", term, norm_event(got - expected), allowed)
        value, together = term.value_and_grad(point)
        holds("grad_is_autograd (value_and_grad)", term, norm_event(together - got), allowed)
        size = allowed * (1 + value.abs())
        holds("grad_is_autograd (value_and_grad)", term, (value - term.value(point)).abs(), size)
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        second = [_pull(g, point, direction) for g in (got, expected)]
    size = allowed * (1 + norm_event(second[1])) * (1 + norm_event(direction))
    holds("grad_is_autograd (second order)", term, norm_event(second[0] - second[1]), size)


def _pull(g: Tensor, x: Tensor, direction: Tensor) -> Tensor:
    if not g.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(g, x, direction, retain_graph=True, materialize_grads=True)[0]


def constants_hold(term: Smooth, x: Tensor, y: Tensor) -> None:
    """mu |x - y|^2 <= <grad(x) - grad(y), x - y> and |grad(x) - grad(y)| <= L |x - y|, with mu =
    strong_convexity, L = lipschitz; grad is affine where the term calls itself quadratic;
    |grad(x) - grad(y) - hessian(y) (x - y)| <= L_2 / 2 |x - y|^2, with L_2 = hessian_lipschitz."""
    change, d = term.grad(x) - term.grad(y), x - y
    slack = _ROUNDING * eps(x) * (_size(x) + _size(y) + _size(change))
    mu, L = term.strong_convexity(x), term.lipschitz(x)
    holds("constants_hold (mu)", term, mu * sum_event(d.square()) - inner(change, d), slack)
    if L is not None:
        holds("constants_hold (L)", term, norm_event(change) - L * norm_event(d), slack)
    if term.quadratic:
        bend = term.grad(x) + term.grad(y) - 2 * term.grad((x + y) / 2)
        holds("constants_hold (quadratic)", term, norm_event(bend), slack)
    second = term.hessian_lipschitz(x)
    if second is not None:
        turned: Tensor = torch.autograd.functional.jvp(term.grad, y, d)[1]  # type: ignore[assignment]
        rest = norm_event(change - turned) - second / 2 * sum_event(d.square())
        holds("constants_hold (L of the Hessian)", term, rest, slack)


def values_are_per_sample(term: Term, x: Tensor) -> None:
    """value(x) has shape (B,), x's dtype, and value(x)[i] reads x[i] only."""
    value = term.value(x)
    same_shape("values_are_per_sample", term, value, (len(x),))
    assert value.dtype == x.dtype, f"{type(term).__name__}: {value.dtype} for x of {x.dtype}."
    for i in range(len(x)):
        others = x.flip(-1) + 1
        others[i] = x[i]
        moved = (term.value(others)[i] - value[i]).abs()
        moved = torch.where(term.value(others)[i] == value[i], 0.0, moved)  # inf - inf
        allowed = _ROUNDING * eps(x) * (1 + _finite(value[i]).abs())
        holds(f"values_are_per_sample (sample {i} reads another)", term, moved, allowed)


def take_is_indexing(term: Any, x: Tensor, index: Tensor, step: Tensor | None = None) -> None:
    """take(index, x) does on x[index] what the term does on x: value, grad, prox, conjugates.

    step (B,). A term that cannot be indexed says so with None; that is a breach here.
    """
    taken = term.take(index, x)
    if taken is None:
        raise AssertionError(f"{type(term).__name__}: take_is_indexing is broken: take gave None.")
    step = x.new_ones(len(x)) if step is None else step
    pairs = [(taken.value(x[index]), term.value(x)[index])]
    if isinstance(term, Smooth):
        pairs.append((taken.grad(x[index]), term.grad(x)[index]))
    if isinstance(term, Proximable):
        pairs.append((taken.prox(x[index], step[index]), term.prox(x, step)[index]))
        conjugate = taken.prox_conjugate(x[index], step[index])
        pairs.append((conjugate, term.prox_conjugate(x, step)[index]))
    if isinstance(term, Dualizable):
        pairs.append((taken.conjugate(x[index]), term.conjugate(x)[index]))
        pairs.append((taken.dual_scale(x[index]), term.dual_scale(x)[index]))
    _alike("take_is_indexing", term, pairs)


def weight_multiplies(term: Any, x: Tensor, factor: float, step: Scalar = 1.0) -> None:
    """(factor * term).value = factor value, its gradient likewise, its prox that of factor step."""
    assert isinstance(term, Weighted), f"{type(term).__name__} has no weight."
    scaled: Any = factor * term
    pairs = [(scaled.value(x), factor * term.value(x))]
    if isinstance(term, Smooth):
        pairs.append((scaled.grad(x), factor * term.grad(x)))
    if isinstance(term, Proximable):
        pairs.append((scaled.prox(x, step), term.prox(x, factor * step)))
    _alike("weight_multiplies", term, pairs)


def _alike(name: str, term: Any, pairs: list[tuple[Tensor, Tensor]]) -> None:  # (got, expected)
    for got, expected in pairs:
        same_shape(name, term, got, tuple(expected.shape))
        off = torch.where(got == expected, 0.0, (got - expected).abs())  # equal infs are equal
        holds(name, term, off, _ROUNDING * eps(got) * (1 + _finite(expected).abs()))


def manifold_is_that_of_prox(term: Proximable, x: Tensor) -> None:
    """D prox(x) = (1 + H)^-1 P for the projection P and the second derivative H of the manifold at
    p = prox(x) with the dual x - p; P and H are symmetric, P P = P, P H = H; a basis spans P, and
    `contract` is D prox.

    For an x off the kinks; D prox by one backward pass a coordinate.
    """
    name, n = "manifold_is_that_of_prox", x.shape[1:].numel()
    p = term.prox(x, 1.0).detach()
    manifold = term.manifold(p, x - p)
    units = torch.eye(n, dtype=x.dtype, device=x.device).reshape(n, *x.shape[1:])
    projected = [manifold.project(unit.expand_as(x)) for unit in units]
    P = torch.stack([v.flatten(1) for v in projected], 2)
    H = torch.stack([manifold.hessian(v).flatten(1) for v in projected], 2)
    C = torch.stack([manifold.contract(unit.expand_as(x)).flatten(1) for unit in units], 2)
    D, basis, one = _jacobian(term, x), manifold.basis(), torch.eye(n).to(x)
    allowed = 1e8 * eps(x) * (1 + H.abs().amax())
    pairs = (
        (P, P.mT),
        (P @ P, P),
        (H, H.mT),
        (P @ H, H),
        (basis @ basis.mT, P),
        ((one + H) @ D, P),
        ((one + H) @ C, P),
    )
    for got, expected in pairs:
        same_shape(name, term, got, tuple(expected.shape))
        holds(name, term, (got - expected).abs(), allowed)
    same_shape(name + " (margin)", term, manifold.margin, (len(x),))
    holds(name + " (margin >= 0, or nan)", term, -manifold.margin.nan_to_num(0.0), 0.0)


def _jacobian(term: Proximable, x: Tensor) -> Tensor:  # (B, n, n)
    at = x.detach().requires_grad_()
    p = term.prox(at, 1.0).flatten(1)
    rows = [
        torch.autograd.grad(p[:, i].sum(), at, retain_graph=True)[0].flatten(1)
        for i in range(p.shape[1] if p.requires_grad else 0)
    ]
    return torch.stack(rows, 1) if rows else x.new_zeros(len(x), p.shape[1], p.shape[1])
