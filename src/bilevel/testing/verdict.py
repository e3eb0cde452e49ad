"""How a law says that it is broken."""

from __future__ import annotations

import torch
from torch import Tensor


def holds(law: str, who: object, excess: Tensor, allowed: Tensor | float) -> None:
    """AssertionError unless excess <= allowed everywhere; NaN is a breach."""
    broken = ~(excess <= allowed)
    if not bool(broken.any()):
        return
    allowed = torch.as_tensor(allowed).to(excess).expand_as(excess)
    worst = torch.where(broken, (excess - allowed).nan_to_num(torch.inf), -torch.inf).argmax()
    raise AssertionError(
        f"{type(who).__name__}: {law} is broken in {int(broken.sum())} of {excess.numel()} cases, "
        f"in the worst by {float(excess.flatten()[worst]):.3e} where rounding allows "
        f"{float(allowed.flatten()[worst]):.1e}."
    )


def same_shape(law: str, who: object, got: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(got.shape) != tuple(expected):
        raise AssertionError(
            f"{type(who).__name__}: {law} needs shape {tuple(expected)}, got {tuple(got.shape)}."
        )
