"""The saddle-point systems of quadratic programs, batched, by Cholesky factors."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from .._broadcast import eps

_SLIGHT = 1e-8  # of the mean curvature, where Q is singular


@dataclass(frozen=True, eq=False)
class Program:
    """min 1/2 <x, Q x> + <q, x> with bounds on x and on C x: the matrices."""

    Q: Tensor  # (B or 1, n, n)
    C: Tensor  # (B or 1, m, n)
    _kept: list[Saddle] = field(default_factory=list, init=False, repr=False)

    @cached_property
    def scale(self) -> Tensor:  # (B or 1, 1): the curvature
        curvature = self.Q.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)
        return torch.where(curvature > 0, curvature, 1.0)  # 1 for a linear program

    @cached_property
    def row_scale(self) -> Tensor:  # (B or 1, m): the curvature along each row
        square = self.C.square().sum(2)
        return self.scale / torch.where(square > 0, square, 1.0)

    @cached_property
    def factor(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """(L, Q^-1 C*, C Q^-1 C*) with L L* = Q; None where a Q is singular, or nearly so."""
        L, info = torch.linalg.cholesky_ex(self.Q)
        if not bool(well(L, info).all()):
            return None
        V = substituted(L, self.C.mT)
        return L, V, self.C @ V

    def saddle(self, fixed: Tensor, tied: Tensor) -> Saddle:
        """The system of an active set; the last one is kept, for the steps near a solution."""
        last = self._kept[0] if self._kept else None
        if last is None or not (torch.equal(last.fixed, fixed) and torch.equal(last.tied, tied)):
            with torch.no_grad():
                self._kept[:] = [last := Saddle(self, fixed, tied)]
        return last

    def take(self, index: Tensor) -> Program:
        def one(matrix: Tensor) -> Tensor:
            return matrix[index] if len(matrix) > 1 else matrix

        taken = Program(one(self.Q), one(self.C))
        if "factor" in self.__dict__:  # known already
            factor = None if self.factor is None else tuple(one(part) for part in self.factor)
            taken.__dict__["factor"] = factor
        return taken

    def product(self, x: Tensor) -> Tensor:  # Q x
        return times(self.Q.to(x), x)

    def image(self, x: Tensor) -> Tensor:  # C x
        return times(self.C.to(x), x)

    def pull(self, w: Tensor) -> Tensor:  # C* w
        return times(self.C.mT.to(w), w)


def times(matrix: Tensor, x: Tensor) -> Tensor:
    """(B or 1, m, n) times (B, n), sample by sample."""
    return x @ matrix[0].mT if matrix.shape[0] == 1 else torch.bmm(x[:, None], matrix.mT)[:, 0]


class Saddle:
    """H dx + C* dw = r,  C dx - E dw = e  with H = Q + diag(curvature).

    dx is 0 at the `fixed` coordinates, dw at the rows that are not `tied`. By the Cholesky factors
    of H, on the coordinates that are not fixed, and of its Schur complement; where Q is singular,
    rows with E > 0 go into H, and so does a multiple of the others, which the solution does not
    notice. A slight multiple of the identity is added there, too: z - K^-1 F(z) keeps its fixed
    points, and stays where F(z) = 0 leaves z free.
    """

    def __init__(
        self,
        program: Program,
        fixed: Tensor,  # (B, n) bool
        tied: Tensor,  # (B, m) bool
        curvature: Tensor | None = None,  # (B, n) >= 0
        E: Tensor | None = None,  # (B, m) >= 0
    ) -> None:
        self.program, self.fixed, self.tied = program, fixed, tied
        known = program.factor
        self.rows = bool(tied.any())
        self.free = Free.of(fixed) if bool(fixed.any()) else None
        self.soft = self.weight = None  # rows that went into H, and by which weight
        self.E, hard = E, tied
        if known is None and self.rows:
            alike = bool((tied == tied[:1]).all())
            self.weight = program.row_scale * (tied[:1] if alike else tied)
            if E is not None:
                self.soft = tied & (E > 0)
                self.weight = torch.where(
                    self.soft, 1 / torch.where(self.soft, E, 1.0), self.weight
                )
                hard = tied & ~self.soft
        self.hard, on = hard, hard.to(program.Q.dtype)
        if known is not None and curvature is None and self.free is None:
            self.L, self.V, S = known
        else:
            H = self._H(curvature)
            self.L = cholesky(H if self.free is None else self.free.block(H))
            if self.rows:
                self.V = self._by_H(program.C.mT)
                S = program.C @ self.V
        if self.rows:
            S = S * on[:, :, None] * on[:, None, :]
            diagonal = 1 - on if E is None else torch.where(hard, E, 1.0)
            S.diagonal(dim1=1, dim2=2).add_(diagonal)
            self.S = cholesky(S)

    def _H(self, curvature: Tensor | None) -> Tensor:
        p = self.program
        H = p.Q
        if self.weight is not None:
            H = H + (p.C.mT * self.weight[:, None, :]) @ p.C
        if p.factor is None:
            slight = _SLIGHT * p.scale
            curvature = slight if curvature is None else curvature + slight
        if curvature is None:
            return H
        H = H.expand(max(len(H), len(curvature)), *H.shape[1:]).clone()
        H.diagonal(dim1=1, dim2=2).add_(curvature)
        return H

    def _by_H(self, r: Tensor) -> Tensor:  # (B, n), or columns (B or 1, n, m)
        """H^-1 r on the free coordinates, 0 at the others."""
        if self.free is None:
            return solved(self.L, r)
        return self.free.spread(solved(self.L, self.free.rows(r)))

    def __call__(self, r: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """(dx, dw), solved in float64, in the dtype of r."""
        like, (r, e) = r, (r.double(), e.double())
        if self.weight is not None:
            r = r + self.program.pull(self.weight * e)
        dx, dw = self._by_H(r), torch.zeros_like(e)
        if self.rows:
            short = torch.where(self.hard, self.program.image(dx) - e, 0.0)
            dw = solved(self.S, short)
            dx = dx - times(self.V, dw)
        if self.soft is not None:
            assert self.weight is not None
            dw = torch.where(self.soft, self.weight * (self.program.image(dx) - e), dw)
        return dx.to(like), dw.to(like)


@dataclass(frozen=True, eq=False)
class Free:
    """The coordinates that are not fixed, and as many others as fill up the shorter lists."""

    index: Tensor  # (B, k)
    real: Tensor  # (B, k): 1; 0 for those that fill up
    size: int  # n

    @staticmethod
    def of(fixed: Tensor) -> Free:  # (B, n) bool
        most = max(1, int((~fixed).sum(1).max())) if len(fixed) else 1
        index = fixed.byte().argsort(dim=1, stable=True)[:, :most]
        return Free(index, (~fixed.gather(1, index)).double(), fixed.shape[1])

    def block(self, H: Tensor) -> Tensor:  # (B or 1, n, n) -> (B, k, k)
        """H on them; 1 on the diagonal of those that fill up."""
        places = self.size * self.index[:, :, None] + self.index[:, None, :]
        numbers = H.flatten(1).expand(len(places), -1).gather(1, places.flatten(1))
        chosen = numbers.view(places.shape) * self.real[:, :, None] * self.real[:, None, :]
        chosen.diagonal(dim1=1, dim2=2).add_(1 - self.real)
        return chosen

    def rows(self, v: Tensor) -> Tensor:  # (B, n) or (B or 1, n, m) -> (B, k) or (B, k, m)
        v = v.expand(len(self.index), *v.shape[1:])
        return v.gather(1, self._like(self.index, v)) * self._like(self.real, v)

    def spread(self, v: Tensor) -> Tensor:  # back, 0 at the fixed
        v = v * self._like(self.real, v)
        empty = v.new_zeros(len(v), self.size, *v.shape[2:])
        return empty.scatter(1, self._like(self.index, v), v)

    @staticmethod
    def _like(part: Tensor, v: Tensor) -> Tensor:
        return part if v.ndim == 2 else part[:, :, None].expand(-1, -1, v.shape[2])


def solved(L: Tensor, b: Tensor) -> Tensor:  # (B or 1, n, n), (B, n) or (B or 1, n, m)
    """(L L*)^-1 b."""
    if b.ndim == 3:
        return substituted(L, b)
    return substituted(L[0], b.mT).mT if L.shape[0] == 1 else substituted(L, b[..., None])[..., 0]


def substituted(L: Tensor, columns: Tensor) -> Tensor:
    """(L L*)^-1 columns: a third of the time of cholesky_solve, which copies L."""
    half = torch.linalg.solve_triangular(L, columns, upper=False)
    return torch.linalg.solve_triangular(L.mT, half, upper=True)


def well(L: Tensor, info: Tensor) -> Tensor:  # -> (B,) bool
    """Whether a factor can be solved with: a condition number of about 1e10 at most."""
    least, most = L.diagonal(dim1=1, dim2=2).aminmax(dim=1)
    return (info == 0) & (least > 1e-5 * most)


def sound(L: Tensor) -> bool:
    """Whether a solve with a factor leaves nothing to mend: condition numbers of about 1e6 at most,
    1e2 in float32."""
    if not L.numel():
        return True
    least, most = L.diagonal(dim1=1, dim2=2).aminmax(dim=1)
    return bool((least > (1e-3 if L.dtype == torch.float64 else 0.1) * most).all())


def sturdy(H: Tensor) -> Tensor:
    """The Cholesky factor of H; of H and a slight multiple of the identity where it is singular."""
    L, info = torch.linalg.cholesky_ex(H)
    good = well(L, info)
    if bool(good.all()):
        return L
    slight = _SLIGHT * H.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
    more = torch.where(good, 0.0, slight)[:, None].expand(H.shape[:2])
    return cholesky(H + torch.diag_embed(more))


def cholesky(H: Tensor) -> Tensor:
    """The factor; where H is not positive definite to rounding, of H + a little of its diagonal."""
    L, info = torch.linalg.cholesky_ex(H)
    share = 64 * eps(H)
    for _ in range(6):
        if not bool((info > 0).any()):
            break
        size = H.diagonal(dim1=1, dim2=2).amax(1)
        little = share * torch.where(size > 0, size, 1.0)
        more = torch.where(info > 0, little, 0.0)[:, None].expand(H.shape[:2])
        L, info = torch.linalg.cholesky_ex(H + torch.diag_embed(more))
        share *= 100
    return L
