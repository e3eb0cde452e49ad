"""A saddle point system with sparse blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .local_maps import Sparse

Pair = tuple[np.ndarray, np.ndarray]
_GROUND = 1e-7  # beside the mean of G, where nothing bends
_SOFT = 1e-10  # beside what the rows see of G^-1
_ROUNDS, _ROUNDING = 4, 1e-14  # of refinement


@dataclass(frozen=True, eq=False)
class Rows:
    """L z - J s = e, and Q z = d with a multiplier each."""

    L: Sparse  # (1 - J) K
    J: Sparse
    K: Sparse
    Q: np.ndarray  # (few, n)

    def pull(self, s: np.ndarray) -> np.ndarray:
        """K* s + Q* t, for both multipliers in one vector."""
        at = self.L.shape[0]
        return self.K.T @ s[:at] + s[at:] @ self.Q


class Saddle:
    """(z, s) for  G z + K* s + Q* t = r,  L z - J s = e,  Q z = d,  G (n, n) sparse: regular, or as
    good as, up to rows of L that depend on each other where J is 0.

    One LU factor, of -J - S in the place of -J, S so small that it is undone by refinement: two or
    three solves to rounding. About n^1.5 operations on n pixels.
    [1] Vanderbei. Symmetric quasidefinite matrices. SIOPT, 1995.
    """

    def __init__(self, G: Sparse, rows: Rows) -> None:
        from scipy.sparse import block_array, diags_array  # not with `import bilevel`
        from scipy.sparse.linalg import splu

        curvature = np.abs(G.diagonal())
        mean = curvature.mean() or 1.0
        bent = G + diags_array(np.full(len(curvature), _GROUND * mean))
        soft = _SOFT * (abs(rows.K) @ (1 / (curvature + 1e-3 * mean)) + 1e-3 / mean)
        self.rows, self.cut = rows, rows.L.shape[0]
        self.whole = block_array([[bent, rows.K.T], [rows.L, -rows.J]], format="csr")
        softened = -rows.J - diags_array(soft)
        self.factor = splu(block_array([[bent, rows.K.T], [rows.L, softened]], format="csc"))
        answers = [self._sparse(q, np.zeros(self.cut)) for q in rows.Q]
        self.z = np.array([z for z, _ in answers]).reshape(rows.Q.shape)
        self.s = np.array([s for _, s in answers]).reshape(len(rows.Q), self.cut)

    def __call__(self, r: np.ndarray, e: np.ndarray) -> Pair:
        """For (e, d) in one vector, and (s, t)."""
        z, s = self._sparse(r, e[: self.cut])
        Q = self.rows.Q
        t = np.linalg.solve(Q @ self.z.T, Q @ z - e[self.cut :])
        return z - t @ self.z, np.concatenate([s - t @ self.s, t])

    def _sparse(self, r: np.ndarray, e: np.ndarray) -> Pair:
        """The answer without Q."""
        b = np.concatenate([r, e])
        x, off = self.factor.solve(b), np.inf
        for _ in range(_ROUNDS):
            left = b - self.whole @ x
            before, off = off, np.linalg.norm(left)
            if not _ROUNDING * np.linalg.norm(b) < off < 0.5 * before:
                break
            x = x + self.factor.solve(left)
        return x[: len(r)], x[len(r) :]
