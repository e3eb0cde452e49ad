"""Operators of other libraries as ours, and ours as theirs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Operator

Map = Callable[[Tensor], Tensor]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FromPyLops(Operator):
    """A pylops.LinearOperator (or SciPy's) on each sample: (B, ..., *dims) -> (B, ..., *dimsd).

    Runs in NumPy on the CPU, sample by sample. Differentiable in x, to every order, as its
    derivative is the adjoint; what the operator was built from has no gradient.

    [1] Ravasi, Vasconcelos. PyLops. SoftwareX, 2020.
    """

    operator: Any

    def __post_init__(self) -> None:
        for name in ("shape", "matvec", "rmatvec"):
            if not hasattr(self.operator, name):
                raise TypeError(
                    f"FromPyLops needs a linear operator with matvec and rmatvec, got "
                    f"{type(self.operator).__name__}, which has no {name}. Wrap a matrix as "
                    "Matrix(A)."
                )

    @property
    def _domain(self) -> Shape:
        return tuple(getattr(self.operator, "dims", self.operator.shape[1:]))

    @property
    def _range(self) -> Shape:
        return tuple(getattr(self.operator, "dimsd", self.operator.shape[:1]))

    def __call__(self, x: Tensor) -> Tensor:
        maps = self.operator.matvec, self.operator.rmatvec
        return self._apply(x, "x", self._domain, self._range, *maps)

    def adjoint(self, y: Tensor) -> Tensor:
        maps = self.operator.rmatvec, self.operator.matvec
        return self._apply(y, "y", self._range, self._domain, *maps)

    def _apply(self, x: Tensor, name: str, here: Shape, there: Shape, *maps: Callable) -> Tensor:
        if x.ndim <= len(here) or tuple(x.shape[-len(here) :]) != here:
            raise ValueError(
                f"FromPyLops({type(self.operator).__name__}) needs {name} of shape (B, ..., "
                f"{', '.join(map(str, here))}), got {tuple(x.shape)}."
            )
        flat = linear(x.flatten(-len(here)), *map(_sample_by_sample, maps))
        return flat.unflatten(-1, there)


def _sample_by_sample(function: Callable) -> Map:
    def apply(x: Tensor) -> Tensor:  # (..., n) -> (..., m)
        rows = x.detach().resolve_conj().cpu().numpy().reshape(-1, x.shape[-1])
        if not len(rows):
            rows = np.zeros((1, x.shape[-1]), rows.dtype)
        images = torch.from_numpy(np.stack([function(row) for row in rows]))
        dtype = x.real.dtype.to_complex() if images.is_complex() else x.real.dtype
        images = images[: x[..., 0].numel()].reshape(*x.shape[:-1], images.shape[-1])
        return images.to(x.device, dtype)

    return apply


class _Linear(torch.autograd.Function):
    """forth(x), a linear map that autograd cannot look into, with back, its adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forth: Map, back: Map) -> Tensor:
        ctx.maps = back, forth
        return forth(x)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Any:  # type: ignore[override]
        return _Linear.apply(tangent, *reversed(ctx.maps))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        back: Any = _Linear.apply(gradients[0], *ctx.maps)
        return back, None, None


def linear(x: Tensor, forth: Map, back: Map) -> Tensor:
    """forth(x), a linear map that autograd cannot look into, whose adjoint is `back`."""
    return _Linear.apply(x, forth, back)  # type: ignore[return-value]


def to_pylops(operator: Operator, x: Tensor) -> Any:
    """The operator as a pylops.LinearOperator on arrays of the shape of x, the batch included."""
    try:
        import pylops
    except ImportError as error:
        raise ImportError("to_pylops needs PyLops: pip install 'bilevel[operators]'.") from error

    @torch.no_grad()
    def run(function: Map, shape: torch.Size, dtype: torch.dtype, array: np.ndarray) -> np.ndarray:
        tensor = torch.as_tensor(np.ascontiguousarray(array), device=x.device)
        return function(tensor.to(dtype).reshape(shape)).resolve_conj().cpu().numpy().ravel()

    with torch.no_grad():
        image = operator(x)
    dtype = torch.empty(0, dtype=torch.promote_types(x.dtype, image.dtype)).numpy().dtype

    class FromBilevel(pylops.LinearOperator):
        def _matvec(self, v: np.ndarray) -> np.ndarray:
            return run(operator, x.shape, x.dtype, v)

        def _rmatvec(self, v: np.ndarray) -> np.ndarray:
            return run(operator.adjoint, image.shape, image.dtype, v)

    return FromBilevel(
        dtype=dtype, dims=tuple(x.shape), dimsd=tuple(image.shape), clinear=x.is_complex()
    )


@dataclass(frozen=True, eq=False)
class FromDeepinv(Operator):
    """A linear physics of deepinv: an object with A(x) and A_adjoint(y) on batches of torch
    tensors. Differentiable in all it was built from, if these two are."""

    physics: Any

    def __post_init__(self) -> None:
        for name in ("A", "A_adjoint"):
            if not callable(getattr(self.physics, name, None)):
                raise TypeError(
                    f"FromDeepinv needs a linear physics, got {type(self.physics).__name__}, which "
                    f"has no {name}. A physics that is not linear goes into a Potential."
                )

    def __call__(self, x: Tensor) -> Tensor:
        return self.physics.A(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.physics.A_adjoint(y)


@dataclass(frozen=True, eq=False)
class Physics:
    """An operator under the names that deepinv calls: A, A_adjoint, and a call without noise."""

    operator: Operator

    def A(self, x: Tensor, **_: object) -> Tensor:
        return self.operator(x)

    def A_adjoint(self, y: Tensor, **_: object) -> Tensor:
        return self.operator.adjoint(y)

    __call__ = A


def to_deepinv(operator: Operator) -> Physics:
    """The operator with deepinv's methods; for deepinv's own class pass them on,
    deepinv.physics.LinearPhysics(A=p.A, A_adjoint=p.A_adjoint)."""
    return Physics(operator)
