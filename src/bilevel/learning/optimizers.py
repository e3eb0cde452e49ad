"""The outer optimizer: one of torch's, made for the run, described, and restored with care."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bilevel.learning.checkpoint import named_tensors, snapshot

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def make_optimizer(
    make: MakeOptimizer | None, parameters: list[nn.Parameter], batch_size: int | None
) -> torch.optim.Optimizer:
    """The optimizer asked for; by default L-BFGS on the whole data, Adam on batches."""
    if make is not None:
        optimizer = make(parameters) if callable(make) else make
        if not callable(make) or not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer must be a function of the parameters, got {type(optimizer).__name__}: "
                "pass, say, lambda parameters: torch.optim.Adam(parameters, lr=0.01)."
            )
        return optimizer
    if batch_size is not None:
        return torch.optim.Adam(parameters, lr=0.01)
    return torch.optim.LBFGS(
        parameters,
        max_iter=1,  # so that a step is one iteration: shown, saved, counted
        max_eval=11,  # a longer line search gets lost in the errors of inexact solves
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-10,  # mean squared errors near 1e-3 have gradients below torch's 1e-7
        tolerance_change=1e-14,
    )


def describe(optimizer: torch.optim.Optimizer) -> str:
    options = ", ".join(f"{k}={v}" for k, v in optimizer.defaults.items() if v is not None)
    return f"{type(optimizer).__name__}({options})"


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the state; refuse where loading casts it to the dtype of the parameters."""
    optimizer.load_state_dict(snapshot(state))  # a copy, for the optimizer takes it over
    loaded = named_tensors(optimizer.state_dict())
    for name, saved in named_tensors(state).items():
        if name not in loaded or saved.dtype != loaded[name].dtype:
            raise ValueError(
                f"{type(optimizer).__name__} does not load {name} as it was saved "
                f"({saved.dtype}), so a resumed run would differ: give all parameters one dtype."
            )
