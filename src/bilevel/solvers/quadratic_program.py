"""Which problems are quadratic programs, and what their matrices are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch

import torch
from torch import Tensor

from ..operators.base import Operator
from ..operators.matrix import Matrix
from ..problem import Problem
from ..terms.affine import Affine, HalfSpace, Hyperplane
from ..terms.base import Term
from ..terms.hyperplane_box import HyperplaneBox
from ..terms.sets import Box, NonNegative, Simplex
from .hessian import dense_hessian
from .saddle import Program


@dataclass(frozen=True, eq=False)
class Rows:
    """lower <= E u <= upper; equations where the two are the same number."""

    matrix: Tensor | None  # E: (m, n), (B, m, n), or None: the identity
    lower: Tensor | float  # broadcasts against E u; may be -inf
    upper: Tensor | float  # ... inf

    def image(self, u: Tensor) -> Tensor:  # E u
        return u if self.matrix is None else Matrix(self.matrix)(u)

    def pull(self, multiplier: Tensor) -> Tensor:  # E* multiplier
        return multiplier if self.matrix is None else Matrix(self.matrix).adjoint(multiplier)


@singledispatch
def polyhedron(term: Term, u: Tensor) -> tuple[Rows, ...] | None:
    """The term as a set of linear inequalities on u (B, *event); None if it is no such set.

    A set of your own joins by `polyhedron.register`.
    """
    return None


@polyhedron.register
def _(term: Box, u: Tensor) -> tuple[Rows, ...]:
    return (Rows(None, term.lower, term.upper),)


@polyhedron.register
def _(term: NonNegative, u: Tensor) -> tuple[Rows, ...]:
    return (Rows(None, 0.0, torch.inf),)


@polyhedron.register
def _(term: Simplex, u: Tensor) -> tuple[Rows, ...]:
    return Rows(None, 0.0, torch.inf), _plane(u.new_ones(u.shape[1:]), term.total, term.total, u)


@polyhedron.register
def _(term: Hyperplane, u: Tensor) -> tuple[Rows, ...]:
    return (_plane(term.normal, term.offset, term.offset, u),)


@polyhedron.register
def _(term: HalfSpace, u: Tensor) -> tuple[Rows, ...]:
    return (_plane(term.normal, -torch.inf, term.offset, u),)


@polyhedron.register
def _(term: HyperplaneBox, u: Tensor) -> tuple[Rows, ...]:
    plane = _plane(term.normal, term.offset, term.offset, u)
    return Rows(None, term.lower, term.upper), plane


@polyhedron.register
def _(term: Affine, u: Tensor) -> tuple[Rows, ...]:
    _check_vectors(u)
    return (Rows(term.matrix, term.target, term.target),)


def _plane(normal: Tensor, lower: Tensor | float, upper: Tensor | float, u: Tensor) -> Rows:
    _check_vectors(u)
    return Rows(normal[..., None, :], lower, upper)


def _check_vectors(u: Tensor) -> None:
    if u.ndim != 2:
        raise ValueError(
            f"InteriorPoint needs sets of vectors (B, n), got one in {tuple(u.shape)}. Use "
            "PrimalDual()."
        )


def is_quadratic_program(problem: Problem) -> bool:
    """Whether this is a quadratic f on a polyhedron, and nothing else."""
    sets = [problem.g] if problem.g is not None else []
    sets += [h.outer for h in problem.h]
    known = all(polyhedron.dispatch(type(s)) is not polyhedron.dispatch(object) for s in sets)
    return bool(sets) and known and problem.f is not None and problem.f.quadratic


@dataclass(frozen=True, eq=False)
class Constraint:
    """lower <= E K x <= upper, flat, of the set `owner` of a problem: 0 for g, i for h_i."""

    owner: int
    operator: Operator | None  # K; None: the identity
    rows: Rows
    shape: torch.Size  # of E K x

    def image(self, x: Tensor) -> Tensor:  # (B, n) -> (B, m)
        return self.rows.image(x if self.operator is None else self.operator(x)).flatten(1)

    def dual(self, multiplier: Tensor) -> Tensor:  # (B, m) -> the shape of K x
        return self.rows.pull(multiplier.reshape(self.shape))

    def pull(self, multiplier: Tensor) -> Tensor:  # (B, m) -> (B, n)
        y = self.dual(multiplier)
        return y if self.operator is None else self.operator.adjoint(y)

    def dense(self, x: Tensor) -> Tensor:  # -> (m, n) or (B, m, n)
        k, e = _written_out(self.operator, x), self.rows.matrix
        return k if e is None else e.detach() @ k

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor]:  # (B, m) each
        """(lower, upper)."""
        values = (self.rows.lower, self.rows.upper)
        lower, upper = (torch.as_tensor(v, dtype=like.dtype, device=like.device) for v in values)
        return lower.expand(self.shape).flatten(1), upper.expand(self.shape).flatten(1)


def constraints(problem: Problem, x: Tensor) -> tuple[Constraint, list[Constraint]]:
    """(the bounds on x itself that g sets, all other inequalities)."""
    bounds, others = Constraint(0, None, Rows(None, -torch.inf, torch.inf), x.shape), []
    if problem.g is not None:
        for rows in polyhedron(problem.g, x) or ():
            c = Constraint(0, None, rows, rows.image(x).shape)
            if rows.matrix is None:
                bounds = c
            else:
                others.append(c)
    for i, h in enumerate(problem.h, 1):
        u = h.operator(x)
        for rows in polyhedron(h.outer, u) or ():
            others.append(Constraint(i, h.operator, rows, rows.image(u).shape))
    return bounds, others


def rows_of(problem: Problem, x: Tensor) -> float:
    """How many inequalities there are besides the bounds on x; inf where a set is not of
    vectors."""
    if any(h.operator(x).ndim != 2 for h in problem.h):
        return torch.inf
    return sum(c.shape[1:].numel() for c in constraints(problem, x)[1])


def _written_out(operator: Operator | None, x: Tensor) -> Tensor:
    """The matrix of K: by its products with the unit vectors where it does not tell it."""
    if isinstance(operator, Matrix) and operator.matrix.layout == torch.strided:
        return operator.matrix.detach()
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    if operator is None:
        return eye
    if operator.shared:
        return operator(eye).flatten(1).mT
    return torch.stack([operator(e.expand_as(x)).flatten(1) for e in eye], -1)


def program(problem: Problem, x: Tensor) -> Program:
    """The matrices of a quadratic program, in float64."""
    assert problem.f is not None
    _, others = constraints(problem, x)
    Q = dense_hessian(problem.f, x).double()
    parts = [c.dense(x).double() for c in others]
    parts = [part if part.ndim == 3 else part[None] for part in parts]
    batch = max([len(part) for part in parts], default=1)
    empty = Q.new_zeros(batch, 0, x.shape[1])
    return Program(Q, torch.cat([empty, *(p.expand(batch, *p.shape[1:]) for p in parts)], 1))
