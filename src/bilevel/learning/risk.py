"""sure, gsure: the error of an estimate of clean data, told without them."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, inner
from ..argmin import argmin
from ..operators.base import Identity, Operator
from ..terms.smooth import LeastSquares

Model = Callable[[Tensor], Tensor]


def sure(
    model: Model,
    y: Tensor,  # (B, *event): clean + sigma N(0, I)
    sigma: Scalar,  # > 0: a number, or (B,)
    probes: int = 1,
    generator: torch.Generator | None = None,
    *,
    step: float | None = None,
) -> Tensor:  # (B,)
    """|model(y) - y|^2 / n - sigma^2 + 2 sigma^2 / n div model(y): Stein's estimate of the mean
    squared error |model(y) - clean|^2 / n, differentiable in the model's parameters.

    The divergence is <v, J v> for random signs v, averaged over `probes`, with J v the difference
    (model(y + step v) - model(y)) / step; step = 2 sigma / n^0.3 [3], at most 0.3 sigma, unless
    named. step=0 takes the derivative itself: without bias, but for learning only where that
    derivative moves with the parameters. It does not for total variation and thresholds, whose
    divergence is a number of segments or nonzeros: constant, with jumps that its gradient leaves
    out.

    Needs Gaussian noise of known sigma, independent from pixel to pixel, and a model that is
    continuous in y. For a loss that is the same at every call pass
    torch.Generator().manual_seed(seed) anew each time.

    [1] Stein. Estimation of the mean of a multivariate normal distribution. Ann. Statist., 1981.
    [2] Ramani, Blu, Unser. Monte-Carlo SURE. IEEE TIP, 2008.
    [3] Deledalle, Vaiter, Fadili, Peyre. Stein Unbiased GrAdient estimator of the Risk. SIIMS 2014.

    >>> import torch, bilevel as bl
    >>> y = torch.tensor([[3.0, 0.5, -2.0]], dtype=torch.float64)
    >>> soft = lambda y: bl.argmin(bl.LeastSquares(y) + 1.0 * bl.L1())
    >>> bl.sure(soft, y, sigma=1.0)  # (1 + 1/4 + 1) / 3 - 1 + 2/3 * 2 nonzeros
    tensor([1.0833], dtype=torch.float64)
    """
    return gsure(model, y, sigma, Identity(), probes, generator, step=step)


def gsure(
    model: Model,
    y: Tensor,  # (B, *range): operator(clean) + sigma N(0, I)
    sigma: Scalar,  # > 0: a number, or (B,)
    operator: Operator,
    probes: int = 1,
    generator: torch.Generator | None = None,
    *,
    step: float | None = None,
) -> Tensor:  # (B,)
    """|A^+ (A x - y)|^2 / n + sigma^2 / n (2 tr(A^+* dx/dy) - tr(A^+ A^+*)), x = model(y): the
    generalised estimate (GSURE) of |A^+ A (x - clean)|^2 / n, the mean squared error in what the
    operator A sees. Differentiable in the model's parameters; with A = 1 it is `sure`.

    Both traces by the same random signs v: 2 <A^+ v, J v> - |A^+ v|^2, J v as in `sure`. A^+ is a
    least-squares problem by `argmin`, probes + 1 of them beside the model's probes + 1 runs; its
    tolerance that of the surrounding `accuracy`, and NotConverged where it ends early.

    Singular values s of A near 0 blow the variance up, by 1 / s^4. For a blur estimate the error
    of A x instead, the *prediction risk*: `sure(lambda y: A(model(y)), y, sigma)`, the same where
    A A* = 1. Errors in the kernel of A are seen by neither.

    [1] Eldar. Generalized SURE for exponential families. IEEE TSP, 2009.
    [2] Vaiter, Deledalle, Peyre, Dossal, Fadili. Local behavior of sparse analysis regularization:
        applications to risk estimation. ACHA, 2013.

    >>> import torch, bilevel as bl
    >>> y, seen = torch.tensor([[3.0, 0.0, -2.0]]), bl.Mask(torch.tensor([1.0, 0.0, 1.0]))
    >>> soft = lambda y: bl.argmin(bl.LeastSquares(y) @ seen + 1.0 * bl.L1())
    >>> bl.gsure(soft, y, 1.0, seen)  # (1 + 1) / 3 + (2 * 2 nonzeros - 2 seen) / 3
    tensor([1.3333])
    """
    sigma = _checked(y, sigma, probes, step)
    narrow = min(0.3, 2 / y.shape[1:].numel() ** 0.3)
    width = narrow * sigma if step is None else torch.full_like(sigma, step)
    x, along = _linearised(model, y, width)
    off = _shortest(operator, _image(operator, x, y) - y, x)
    traces = []
    for v in (_signs(y, generator) for _ in range(probes)):
        u = _shortest(operator, v, x)
        traces.append(2 * along(u, v) - inner(u, u))
    noise = sigma**2 * torch.stack(traces).mean(0)
    return (inner(off, off) + noise) / x.shape[1:].numel()


def _shortest(operator: Operator, r: Tensor, x: Tensor) -> Tensor:
    """A^+ r, of the shape of x: of all that A takes nearest to r the shortest."""
    if isinstance(operator, Identity):
        return r
    return argmin(LeastSquares(r) @ operator, x0=torch.zeros_like(x))


def _linearised(
    model: Model, y: Tensor, width: Tensor
) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
    """x = model(y), and (u, v) -> <u, J v>, by differences or by the derivative."""
    if bool((width > 0).all()):
        x = _answer(model, y)
        h = expand(width, y)
        return x, lambda u, v: inner(u, (model(y + h * v) - x) / h)
    record = torch.is_grad_enabled()
    with torch.enable_grad():
        point = y if y.requires_grad else y.detach().requires_grad_()
        x = _answer(model, point)
    if not x.requires_grad:
        raise ValueError(
            "step=0 needs a model that autograd can follow, but its answer does not depend on y "
            "there. Leave step out, or call the model outside torch.no_grad()."
        )

    def along(u: Tensor, v: Tensor) -> Tensor:
        pulled = torch.autograd.grad(x, point, u, retain_graph=True, create_graph=record)[0]
        return inner(pulled, v)

    return x if record else x.detach(), along


def _answer(model: Model, y: Tensor) -> Tensor:
    x = model(y)
    if not isinstance(x, Tensor):
        raise TypeError(f"the model must give a tensor, got {type(x).__name__}.")
    return x


def _image(operator: Operator, x: Tensor, y: Tensor) -> Tensor:
    """A x, or an error where the noise does not lie on it."""
    image = operator(x)
    if image.shape != y.shape:
        raise ValueError(
            "sure needs a model that gives a tensor of the shape of y, gsure one that the operator "
            f"takes to that shape, {tuple(y.shape)}, got {tuple(image.shape)}: the noise must lie "
            "on what is measured."
        )
    return image


def _signs(y: Tensor, generator: torch.Generator | None) -> Tensor:
    device = y.device if generator is None else generator.device
    return torch.randint(0, 2, y.shape, generator=generator, device=device).to(y) * 2 - 1


def _checked(y: Any, sigma: Any, probes: Any, step: Any) -> Tensor:
    """sigma as a tensor (B,) or (), or an error that says what to do."""
    if not isinstance(y, Tensor) or y.ndim < 2 or not y.is_floating_point():
        got = f"{tuple(y.shape)}, {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"sure needs real noisy data y of shape (B, *event), got {got}.")
    if not y.shape[1:].numel():
        raise ValueError(f"y has shape {tuple(y.shape)}: each sample is empty, without an error.")
    if not isinstance(sigma, Tensor | Real):
        raise TypeError(f"sigma must be a number or a tensor, got {type(sigma).__name__}.")
    level = torch.as_tensor(sigma, dtype=y.dtype, device=y.device)
    if level.shape not in ((), y.shape[:1]) or not bool(((level > 0) & level.isfinite()).all()):
        raise ValueError(
            "sigma, the noise's standard deviation, must be positive and finite, one number or "
            f"one a sample, ({len(y)},), got {sigma}."
        )
    if not isinstance(probes, Integral) or probes < 1:
        raise ValueError(f"probes must be a whole number, at least 1, got {probes!r}.")
    if step is not None and not (isinstance(step, Real) and 0 <= float(step) < float("inf")):
        raise ValueError(
            f"step must be a number > 0, the width of the differences, or 0 for the derivative, "
            f"got {step!r}. Leave it out to have it set from sigma."
        )
    return level
