"""Forward mode: whether tensors carry tangents, and how to keep a computation free of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad


def carried() -> bool:
    """Whether tensors may carry tangents here: inside forward_ad.dual_level()."""
    return forward_ad._current_level >= 0 and torch._C._is_fwd_grad_enabled()  # type: ignore[attr-defined]


def differentiates() -> bool:
    """Whether a derivative, of either mode, can be asked for here."""
    return torch.is_grad_enabled() or carried()


def traced() -> bool:
    """Whether operations are seen by torch.func or torch.compile: a tensor may have no numbers."""
    func = torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
    return func or torch.compiler.is_compiling()


def depends(parts: Iterable[Tensor]) -> bool:
    """Whether a part has a derivative: it requires a gradient, or carries a tangent."""
    if carried():
        parts = tuple(parts)
        if any(forward_ad.unpack_dual(part).tangent is not None for part in parts):
            return True
    return any(part.requires_grad for part in parts)


def detached(x: Tensor) -> Tensor:
    """x without its graph, its tangent kept, which Tensor.detach() drops."""
    tangent = forward_ad.unpack_dual(x).tangent if carried() else None
    return x.detach() if tangent is None else forward_ad.make_dual(x.detach(), tangent.detach())


class constant:
    """torch.no_grad(), of which forward mode takes no notice, for both modes."""

    forward: ClassVar[bool] = False

    def __enter__(self) -> None:
        self.before = torch.is_grad_enabled(), torch._C._is_fwd_grad_enabled()  # type: ignore[attr-defined]
        torch._C._set_grad_enabled(False)  # type: ignore[attr-defined]
        torch._C._set_fwd_grad_enabled(self.forward)  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        torch._C._set_grad_enabled(self.before[0])  # type: ignore[attr-defined]
        torch._C._set_fwd_grad_enabled(self.before[1])  # type: ignore[attr-defined]


class pushing(constant):
    """Tangents of our own inside `constant`, nothing recorded."""

    forward = True
