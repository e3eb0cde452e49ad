"""The linear system of implicit differentiation: M = d residual / dz, by its products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from .._broadcast import difference
from .._tangents import constant
from ..fixpoint import Move
from .linear_solvers import Product

Z = tuple[Tensor, ...]
DENSE = 160  # unknowns a sample up to which M is written out
FEW = 4  # up to which that takes no longer than a few products


class Linearisation:
    """M = d residual / dz at z, kept as a recorded graph: products with M, and with M*. Of z - T(z)
    only T is recorded: the identity's part is a subtraction then, and no two nodes of a graph."""

    def __init__(self, z: Z, equation: Callable[[Z], Z]) -> None:  # z -> residual
        self.equation = equation
        self._map = equation.T if isinstance(equation, Move) else None
        self.z = tuple(part.detach().requires_grad_() for part in z)
        self.shapes = [part.shape for part in z]
        self._jvp: tuple[Tensor, Z] | None = None
        self._matrix: Tensor | None = None

    @cached_property
    def recorded(self) -> Z:
        """The residual, or T(z)."""
        with constant(), torch.enable_grad():
            return (self._map or self.equation)(self.z)

    @property
    def residual(self) -> Z:
        return self.recorded if self._map is None else difference(self.z, self.recorded)

    def forget(self) -> None:
        """Lets go of what is recorded: it will be again where it is needed."""
        self.__dict__.pop("recorded", None)
        self._jvp = None

    def flatten(self, z: Z) -> Tensor:  # -> (B, N)
        return z[0].flatten(1) if len(z) == 1 else torch.cat([part.flatten(1) for part in z], 1)

    def split(self, flat: Tensor) -> Z:
        if len(self.shapes) == 1:
            return (flat.reshape(self.shapes[0]),)
        sizes = [shape[1:].numel() for shape in self.shapes]
        return tuple(p.reshape(s) for p, s in zip(flat.split(sizes, 1), self.shapes, strict=True))

    def product(self, d: Tensor) -> Tensor:
        """M d: the derivative of u -> M* u, which is linear, applied backward."""
        return self._completed(d, self._pushed(d))

    def transposed_product(self, w: Tensor) -> Tensor:
        """M* w, one backward pass through what is recorded."""
        return self._completed(w, self._pulled(w))

    def products(self, transposed: bool) -> Product:
        return self.transposed_product if transposed else self.product

    def steps(self, transposed: bool) -> Product:
        """w -> w - M w, or w - M* w: the derivative of T where the residual is z - T(z)."""
        apply = self._pulled if transposed else self._pushed
        return apply if self._map is not None else lambda w: w - apply(w)

    def _completed(self, w: Tensor, image: Tensor) -> Tensor:
        return image if self._map is None else w - image

    def _pushed(self, d: Tensor) -> Tensor:
        if self._jvp is None:
            with torch.enable_grad():
                u = tuple(torch.zeros_like(part, requires_grad=True) for part in self.recorded)
                v = _vjp(self.recorded, self.z, u, create_graph=True)
            self._jvp = (u, v)  # type: ignore[assignment]
        u, v = self._jvp  # type: ignore[misc]
        return self.flatten(_vjp(v, u, self.split(d.detach())))  # type: ignore[arg-type]

    def _pulled(self, w: Tensor) -> Tensor:
        return self.flatten(_vjp(self.recorded, self.z, self.split(w.detach())))

    def pull(self, point: Z, w: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """-(d residual / d parameters)* w at a point: the gradient that the adjoint w gives."""
        with torch.enable_grad():
            residual = self.equation(point)
        grads = _vjp(residual, tuple(parameters), self.split(-w))
        return torch.cat([g.flatten() for g in grads])

    @property
    def near_identity(self) -> bool:
        """Whether M is I - dT/dz of a map T."""
        return self._map is not None

    def matrix(self) -> Tensor:
        """M written out, (B, N, N)."""
        if self._matrix is None:
            n = sum(shape[1:].numel() for shape in self.shapes)
            eye = torch.eye(n, dtype=self.z[0].dtype, device=self.z[0].device)
            rows = eye[:, None].expand(n, self.shapes[0][0], n)
            self._matrix = self._one_by_one(rows) if n <= FEW else self._at_once(rows)
        return self._matrix

    def _at_once(self, rows: Tensor) -> Tensor:  # (n, B, N) -> (B, n, N)
        try:
            return self._completed(rows.transpose(0, 1), self._rows(rows).transpose(0, 1))
        except RuntimeError:  # some operations, sparse products say, have no batched backward
            return self._one_by_one(rows)

    def _one_by_one(self, rows: Tensor) -> Tensor:  # (n, B, N) -> (B, n, N)
        return torch.stack([self.transposed_product(row) for row in rows], 1)

    def _rows(self, rows: Tensor) -> Tensor:  # (n, B, N) -> (n, B, N)
        """The recorded map's transposed derivative applied to many vectors at once."""
        parts = [torch.stack(p) for p in zip(*(self.split(row) for row in rows), strict=True)]
        linked = [pair for pair in zip(self.recorded, parts, strict=True) if pair[0].requires_grad]
        if not linked:
            return torch.zeros_like(rows)
        outputs, weights = zip(*linked, strict=True)
        grads = torch.autograd.grad(
            outputs,
            self.z,
            weights,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        flat = [
            torch.zeros((len(rows), *z.shape), dtype=z.dtype, device=z.device) if g is None else g
            for g, z in zip(grads, self.z, strict=True)
        ]
        return torch.cat([g.flatten(2) for g in flat], 2)


def _vjp(outputs: Z, inputs: Z, cotangents: Z, create_graph: bool = False) -> Z:
    linked = [(a, b) for a, b in zip(outputs, cotangents, strict=True) if a.requires_grad]
    if not linked:
        return tuple(torch.zeros_like(z) for z in inputs)
    parts, weights = zip(*linked, strict=True)
    return torch.autograd.grad(
        parts, inputs, weights, retain_graph=True, create_graph=create_graph,
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
