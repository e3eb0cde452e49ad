"""What the outer methods here share: θ as one vector, and the loss with its gradient there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# the loss at the parameters, a number or a tensor; leaves its gradient in their .grad
Closure = Callable[[], Any]


class Descent(torch.optim.Optimizer):
    """A torch optimizer that compares losses, on one group of parameters."""

    def __init__(self, params: Iterable[Tensor], options: dict[str, Any]) -> None:
        super().__init__(params, options)
        if len(self.param_groups) != 1:
            raise ValueError(
                f"{type(self).__name__} takes one group of parameters, as L-BFGS does, got "
                f"{len(self.param_groups)}: pass model.parameters()."
            )

    @property
    def options(self) -> dict[str, Any]:
        return self.param_groups[0]

    @property
    def memory(self) -> dict[str, Any]:
        """What the next step depends on: kept in checkpoints."""
        return self.state[self.options["params"][0]]

    @property
    def theta(self) -> Tensor:  # (n,); a copy
        return _vector([p.detach() for p in self.options["params"]])

    @torch.no_grad()
    def place(self, theta: Tensor) -> None:
        """Set the parameters."""
        for parameter in self.options["params"]:
            real = torch.view_as_real(parameter) if parameter.is_complex() else parameter
            value, theta = theta[: real.numel()], theta[real.numel() :]
            real.copy_(value.reshape(real.shape))

    def evaluate(self, closure: Closure) -> tuple[float, Tensor]:
        """The loss and its gradient (n,) where the parameters are."""
        with torch.enable_grad():
            loss = closure()
        pairs = ((p, p.grad) for p in self.options["params"])
        loss = float(loss.detach() if isinstance(loss, Tensor) else loss)
        return loss, _vector([torch.zeros_like(p) if g is None else g for p, g in pairs])


def _vector(tensors: list[Tensor]) -> Tensor:
    reals = (torch.view_as_real(t) if t.is_complex() else t for t in tensors)
    return torch.cat([t.detach().flatten() for t in reals])
