"""Sparse linear models, solved by the library celer."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._broadcast import like
from ..acceleration import Acceleration, Plain
from ..operators.base import Operator
from ..operators.matrix import Matrix
from ..operators.sparse_matrix import SparseMatrix
from ..problem import Problem
from ..terms.composition import SmoothComposition
from ..terms.norms import L1, ElasticNet
from ..terms.smooth import LeastSquares, Logistic
from .base import Z, names, refuse
from .external import External, Limits
from .support import Support, row, signs_at

_ROUGH = 1e-5  # the gap at which steps of T take over, which are the faster ones from there
_FIRST = 30  # columns of the first working set: each round that doubles it looks at all columns


@dataclass(frozen=True, eq=False)
class Celer(External):
    """min F(Ax) + g(x), F LeastSquares or Logistic, A a dense Matrix or a SparseMatrix, g L1 or
    ElasticNet with positive weights: found by celer, coordinate descent on growing working sets
    [1], to a relative gap of 1e-5, sample by sample, on the CPU.

    T is Newton's step on the support, its signs held: it takes celer's answer to rounding, and
    dT/dx = 0 at the solution, so that the derivative costs one Cholesky factor of the size of the
    support, or, of more than 1500 columns of a SparseMatrix, conjugate gradients. A dense A stored
    by columns, and a SparseMatrix, are read without a copy.

    [1] Massias, Gramfort, Salmon. Celer: a fast solver for the lasso with dual extrapolation. ICML
        2018.
    """

    support: Support | None = None  # of the solution; set by the run
    seen: list[Support] = field(default_factory=list, repr=False)  # the last one

    newton, proves = True, True

    def check(self, problem: Problem) -> None:
        f, g = problem.f, problem.g
        linear = isinstance(f, SmoothComposition) and _readable(f.operator)
        known = linear and isinstance(f.outer, LeastSquares | Logistic)  # type: ignore[union-attr]
        if not known or problem.h or not isinstance(g, L1 | ElasticNet):
            need = "F(Ax) + g(x), F LeastSquares or Logistic, A a dense Matrix or a SparseMatrix, "
            need += "g L1 or ElasticNet"
            instead = "Use PrimalDual()." if problem.h or f is None else "Use ForwardBackward()."
            raise refuse(self, need, names(problem.terms), instead)
        if isinstance(g, ElasticNet) and isinstance(f.outer, Logistic):  # type: ignore[union-attr]
            raise refuse(self, "L1 beside Logistic", "ElasticNet", "Use ForwardBackward().")

    def prepare(self, problem: Problem, x0: Tensor) -> Celer:
        assert problem.g is not None
        if x0.ndim != 2:
            raise ValueError(
                f"Celer needs x of shape (B, n), got {tuple(x0.shape)}. Use ForwardBackward()."
            )
        for name in ("weight", "ratio"):
            value = like(getattr(problem.g, name, 1.0), x0)
            if not bool((value > 0).all()):
                raise ValueError(
                    f"Celer needs a positive {name} in {type(problem.g).__name__}, got a least of "
                    f"{float(value.min())}. Use ForwardBackward()."
                )
        return replace(self, seen=[])

    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        (x0,) = z0
        zero, needed = torch.zeros_like(x0), ~x0.any(1)
        if not bool(needed.all()):  # celer does not find the way back to 0
            needed = needed | (signs_at(problem, zero) != 0).any(1)
        x, rounds = zero, x0.new_zeros(len(x0), dtype=torch.long)
        for b in needed.nonzero()[:, 0].tolist():
            x[b], rounds[b] = _celer(problem, x0, b)
        return (self._on(problem, x, x.sign()).newton(problem, x),), rounds

    def step(self, problem: Problem, z: Z) -> Z:
        (x,) = z
        return ((self.support or self._near(problem, x)).newton(problem, x),)

    def near(self, problem: Problem, z: Z) -> Celer:
        """With the support of x, where no zero of x wants to join it; else each step looks anew."""
        (x,) = z
        signs = signs_at(problem, x, *self.seen)
        settled = torch.equal(signs, x.sign())
        return replace(self, support=self._on(problem, x, signs) if settled else None)

    @property
    def flat(self) -> bool:
        return self.support is not None and self.support.sound

    def keeps(self, z: Z) -> bool:
        """Whether the step was not cut short by a change of sign."""
        return self.support is not None and self.support.fits(z[0].sign())

    def _near(self, problem: Problem, x: Tensor) -> Support:
        return self._on(problem, x, signs_at(problem, x, *self.seen))

    def _on(self, problem: Problem, x: Tensor, signs: Tensor) -> Support:
        return self._bent(problem, self._known(signs) or Support.of(problem, signs), x)

    def _known(self, signs: Tensor) -> Support | None:
        return next((support for support in self.seen if support.fits(signs)), None)

    def _bent(self, problem: Problem, support: Support, x: Tensor) -> Support:
        """With the Hessian at x, which a quadratic F keeps."""
        if support.hessian is None or not problem.f.quadratic:  # type: ignore[union-attr]
            self.seen[:] = [support := support.bent(problem, x)]
        return support

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return Plain()


def _readable(operator: Operator) -> bool:
    dense = isinstance(operator, Matrix) and operator.matrix.layout == torch.strided
    return dense or isinstance(operator, SparseMatrix)


def _celer(problem: Problem, x0: Tensor, b: int) -> tuple[Tensor, int]:
    """celer's rough solution of sample b, and how many working sets it took.

    celer divides least squares by the number of rows, and weighs all rows alike: others are scaled.
    """
    f, g = problem.f, problem.g
    assert isinstance(f, SmoothComposition) and g is not None
    squares = isinstance(f.outer, LeastSquares)
    A, mean = _array(f.operator, b, x0)
    image = x0.new_empty(1, A.shape[0])
    data = f.outer.target if squares else f.outer.labels  # type: ignore[attr-defined]
    y, row_weight = _sample(data, image, b), _sample(f.outer.weight, image, b)  # type: ignore[attr-defined]
    if not (row_weight == row_weight[0]).all():
        A, y, row_weight = _alike(A, mean, y, row_weight, squares)
    weight = _sample(g.weight, x0, b) / row_weight[0]  # type: ignore[attr-defined]
    # the gap that stops it may stay open for an elastic net: then T takes over sooner
    ratio = float(_sample(getattr(g, "ratio", 1.0), x0, b)[0])
    celer_path, settings = _library()
    with warnings.catch_warnings(), settings(assume_finite=True):  # we have looked for NaN
        warnings.simplefilter("ignore")  # it may stop early: the run looks at its answer
        _, x, _, rounds = celer_path(
            A, y, "lasso" if squares else "logreg",
            alphas=[1.0], weights=weight / len(y) if squares else weight,
            l1_ratio=ratio,
            coef_init=x0[b].numpy(force=True), tol=_ROUGH,
            p0=_FIRST, max_iter=20, max_epochs=50_000 if ratio == 1 else 2000,
            X_offset=mean, X_scale=None if mean is None else np.ones_like(mean),
            return_n_iter=True,
        )  # fmt: skip
    return torch.from_numpy(x[:, 0]).to(x0), int(rounds[0])


def _array(operator: Operator, b: int, x0: Tensor) -> tuple[Any, np.ndarray | None]:
    """The design of sample b, and the mean that is to be taken off its rows."""
    if isinstance(operator, SparseMatrix):
        dtype = np.float64 if x0.dtype == torch.float64 else np.float32  # celer wants one for all
        return operator.matrix.astype(dtype, copy=False), operator.mean
    assert isinstance(operator, Matrix)
    a = operator.matrix.detach()
    return (a if a.ndim == 2 else a[b]).numpy(force=True), None


def _sample(value: Tensor | float, x: Tensor, b: int) -> np.ndarray:
    """A field that broadcasts against x, for sample b."""
    rows = row(value, x).detach()
    return rows[b % len(rows)].contiguous().numpy(force=True)


def _alike(
    A: Any, mean: np.ndarray | None, y: np.ndarray, weight: np.ndarray, squares: bool
) -> tuple[Any, np.ndarray, np.ndarray]:
    """(A, y, weight) of an equal problem whose rows weigh the same.

    Where there is none, for logistic losses and columns that are centred unwritten, of one that is
    near: T goes on from there.
    """
    from scipy.sparse import issparse  # not with `import bilevel`

    used = weight > 0
    A, y, weight = A[used], y[used], weight[used]
    if not squares or mean is not None:
        return A, y, np.full_like(weight, weight.mean())
    root = np.sqrt(weight)
    A = A.multiply(root[:, None]) if issparse(A) else A * root[:, None]
    return A, y * root, np.ones_like(weight)


def _library() -> tuple[Any, Any]:
    """celer's solver, and scikit-learn's settings, which celer's checks follow."""
    try:
        from celer.homotopy import celer_path
        from sklearn import config_context
    except ImportError as error:
        raise ImportError(
            "Celer needs the library celer: pip install 'bilevel[sklearn]'."
        ) from error
    return celer_path, config_context
