"""Functions that torch.compile leaves as they are: no loop is traced."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def eager(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function, which runs eagerly inside torch.compile, too."""

    @wraps(function)
    def called(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*args, **kwargs)  # type: ignore[call-arg]
        return function(*args, **kwargs)

    return called
