"""Solutions inside torch.func transforms: a function of tensors, differentiated by plain autograd.

An energy hides its parameters from a transform, whose tensors are wrapped and would have to pass
the solver's loop. So the transform sees one node, the parameters its inputs, and the loop runs
below it, on plain tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._tangents import carried

Function = Callable[..., Tensor | tuple[Tensor, ...]]


def transformable(solution: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """solution(*parameters) -> tensor, made fit for torch.func.grad, vjp, jvp, jacrev, jacfwd,
    hessian and vmap, and their compositions, up to the order of the strategy.

    All parameters that shall be differentiated or mapped are arguments, tensors; what the function
    holds besides is a constant to the transform. Each derivative solves again, and vmap solves one
    by one: for speed torch.autograd.grad, and batches in dim 0 of x.

    >>> import torch, bilevel as bl
    >>> @bl.transformable
    ... def denoised(y, weight):
    ...     return bl.argmin(bl.LeastSquares(y) + weight * bl.L1())
    >>> y = torch.tensor([[2.0, -0.3]], dtype=torch.float64)
    >>> weight = torch.tensor(0.5, dtype=torch.float64)
    >>> torch.func.jacrev(denoised, argnums=1)(y, weight).abs().round(decimals=6)
    tensor([[1., 0.]], dtype=torch.float64)
    """

    @wraps(solution)
    def called(*parameters: Tensor) -> Tensor:
        wrong = [type(p).__name__ for p in parameters if not isinstance(p, Tensor)]
        if wrong:
            raise TypeError(
                f"a transformable solution takes tensors, got {wrong[0]}. Numbers that are no "
                "parameters go into the function by a closure."
            )
        return _Node.apply(solution, *parameters)  # type: ignore[return-value]

    return called


class _Derivative(partial):
    """The vjp or jvp of a function, of its inputs and the cotangents or tangents."""


class _Node(torch.autograd.Function):
    """function(*inputs), whose derivatives are nodes again: of the function's vjp and jvp."""

    @staticmethod
    def forward(function: Function, *inputs: Tensor):
        if isinstance(function, _Derivative):
            with torch.no_grad():
                return function(*(part.detach() for part in inputs))
        with torch.enable_grad():  # as accurate as where a gradient is asked for
            outputs = function(*_leaves(tuple(part.detach() for part in inputs)))
        several = isinstance(outputs, tuple)
        return tuple(part.detach() for part in outputs) if several else outputs.detach()

    @staticmethod
    def setup_context(ctx, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.function, *tensors = inputs
        ctx.several = isinstance(output, tuple)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx, *cotangents: Tensor):
        inputs = ctx.saved_tensors
        pulled = _Node.apply(_Derivative(_vjp, ctx.function, len(inputs)), *inputs, *cotangents)
        return None, *pulled  # type: ignore[misc]

    @staticmethod
    def jvp(ctx, _: None, *tangents: Tensor | None):  # type: ignore[override]
        inputs = ctx.saved_tensors
        pairs = zip(tangents, inputs, strict=True)
        moves = (torch.zeros_like(part) if t is None else t for t, part in pairs)
        return _Node.apply(_Derivative(_jvp, ctx.function, len(inputs)), *inputs, *moves)

    @staticmethod
    def vmap(info, in_dims: tuple[int | None, ...], function: Function, *inputs: Tensor):
        """One call after the other: the samples of a solve end at different steps."""
        dims = in_dims[1:]
        calls = []
        for i in range(info.batch_size):
            pairs = zip(inputs, dims, strict=True)
            calls.append(
                _Node.apply(function, *(p if d is None else p.select(d, i) for p, d in pairs))
            )
        if isinstance(calls[0], tuple):
            stacked = tuple(torch.stack(parts) for parts in zip(*calls, strict=True))
            return stacked, (0,) * len(stacked)
        return torch.stack(calls), 0


def _vjp(function: Function, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The gradient of <cotangents, function(inputs)> in the inputs."""
    record = torch.is_grad_enabled()
    inputs, cotangents = _leaves(tensors[:count]), tensors[count:]
    with torch.enable_grad():
        outputs = function(*inputs)
        grads = torch.autograd.grad(
            outputs, inputs, cotangents, create_graph=record, allow_unused=True
        )
    pairs = zip(inputs, grads, strict=True)
    return tuple(torch.zeros_like(p) if g is None else g for p, g in pairs)


def _jvp(function: Function, count: int, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
    """The derivative of function(inputs) along the tangents."""
    inputs, tangents = tensors[:count], tensors[count:]
    if carried() and any(forward_ad.unpack_dual(p).tangent is not None for p in inputs):
        raise RuntimeError(
            "a solution has no derivative forward over forward (jacfwd of jacfwd, jvp of jvp). Use "
            "torch.func.hessian, forward over reverse, or jacrev of jacfwd."
        )
    level = forward_ad.dual_level() if forward_ad._current_level < 0 else nullcontext()
    with level, forward_ad._set_fwd_grad_enabled(True):
        duals = (forward_ad.make_dual(p, t) for p, t in zip(inputs, tangents, strict=True))
        outputs = function(*duals)
        if isinstance(outputs, tuple):
            return tuple(_tangent(part) for part in outputs)
        return _tangent(outputs)


def _tangent(part: Tensor) -> Tensor:
    primal, tangent = forward_ad.unpack_dual(part)
    return torch.zeros_like(primal) if tangent is None else tangent


def _leaves(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    numbers = (p.is_floating_point() or p.is_complex() for p in tensors)
    return tuple(p.requires_grad_() if n else p for p, n in zip(tensors, numbers, strict=True))
