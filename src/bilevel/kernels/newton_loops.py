"""Newton's method for logistic regression, compiled: a sample is solved in one pass.

E(x) = sum_i weight_i log(1 + exp(-label_i <a_i, x>)) + sum_j (bend_j x_j / 2 - pull_j) x_j
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import compiled

_exact = compiled()
_fast = compiled(fastmath={"contract", "nsz", "reassoc"})  # sums in any order; NaN and inf stay
_FAR, _ROUGH = 0.03, 6  # steps longer than that, relatively, the first so many: Hessians in float32


@_fast
def logistic(
    begin, end, rows, strides, labels, weights, bends, pulls, tol, most, x, factors, steps
):
    """Samples begin to end: x (B, n), the start, becomes the minimiser, factors (B, n, n) the lower
    Cholesky factor of the last Hessian. Steps are made until one moves x by no more than tol,
    relatively; steps (B,), -1 where `most` do not do, E does not fall, or a Hessian is not safely
    positive definite. Long steps take their Hessian in float32, where that is safe.

    rows: (B, m, n) in memory, with its strides; labels and weights (B or 1, m), bends and pulls
    (B or 1, n).
    """
    m, n = labels.shape[1], x.shape[1]
    A, block = np.empty((n, m)), np.empty((4, m))
    A_rough, block_rough = A.astype(np.float32), block.astype(np.float32)
    slopes, curvatures, image = np.empty(m), np.empty(m), np.empty(m)
    gradient, d, new, inverse = np.empty((4, n))
    for b in range(begin, end):
        if b == begin or strides[0]:
            _transposed(rows[b * strides[0] :], strides[1], strides[2], A)
            A_rough[:] = A
        label, weight = labels[b % len(labels)], weights[b % len(weights)]
        bend, pull = bends[b % len(bends)], pulls[b % len(pulls)]
        point, L, steps[b] = x[b], factors[b], -1
        value = _evaluate(A, label, weight, bend, pull, point, image, slopes, curvatures, gradient)
        far = True
        for k in range(most):
            rough = far and k < _ROUGH
            if rough:
                _hessian(A_rough, curvatures.astype(np.float32), bend, block_rough, L)
                rough = _factored(L, inverse)
            if not rough:
                _hessian(A, curvatures, bend, block, L)
                if not _factored(L, inverse):
                    break
            _solved(L, inverse, gradient, d)
            slope = -_inner(gradient, d)
            rounding = 4 * np.finfo(np.float64).eps * abs(value)
            t, fresh, falls = 1.0, value, False
            for _ in range(41):  # Armijo's rule: the next t is the minimum of a parabola
                for j in range(n):
                    new[j] = point[j] - t * d[j]
                fresh = _evaluate(
                    A, label, weight, bend, pull, new, image, slopes, curvatures, gradient
                )
                falls = fresh <= value + rounding + 1e-4 * t * slope
                if falls:
                    break
                best = 0.0
                if math.isfinite(fresh):
                    best = -slope * t * t / max(2 * (fresh - value - slope * t), 1e-300)
                t *= min(max(best / t, 0.1), 0.5)
            moved, size = t * t * _inner(d, d), _inner(new, new)
            point[:], value = new, fresh
            far = moved > _FAR**2 * size
            if not falls:
                break
            if moved <= tol * tol * size and not rough:
                steps[b] = k + 1
                break


@_exact
def _transposed(rows, down, along, A):
    for i in range(A.shape[1]):
        for j in range(A.shape[0]):
            A[j, i] = rows[i * down + j * along]


@_fast
def _evaluate(A, label, weight, bend, pull, x, image, slopes, curvatures, gradient):
    """E(x), its gradient, and of each row the second derivative."""
    n, m = A.shape
    image[:] = 0.0
    for j in range(n):
        a, by = A[j], x[j]
        if by != 0:
            for i in range(m):
                image[i] += by * a[i]
    value = 0.0
    for i in range(m):
        margin = label[i] * image[i]
        e = math.exp(-abs(margin))
        value += weight[i] * (math.log1p(e) - min(margin, 0.0))
        chance = (e if margin > 0 else 1.0) / (1.0 + e)  # of the other label
        slopes[i] = -weight[i] * label[i] * chance
        curvatures[i] = weight[i] * chance * (1.0 - chance)
    for j in range(n):
        gradient[j] = _inner(A[j], slopes) + bend[j] * x[j] - pull[j]
        value += (bend[j] * x[j] / 2 - pull[j]) * x[j]
    return value


@_fast
def _inner(a, b):
    total = 0.0
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@_fast
def _hessian(A, curvatures, bend, block, H):
    """The lower triangle of A diag(curvatures) A* + diag(bend), sixteen numbers at a time, in the
    precision of A."""
    n, m = A.shape
    zero = A.dtype.type(0)
    p0, p1, p2, p3 = block[0], block[1], block[2], block[3]
    for j in range(0, n, 4):
        j1, j2, j3 = min(j + 1, n - 1), min(j + 2, n - 1), min(j + 3, n - 1)
        a0, a1, a2, a3 = A[j], A[j1], A[j2], A[j3]
        for i in range(m):
            p0[i], p1[i] = curvatures[i] * a0[i], curvatures[i] * a1[i]
            p2[i], p3[i] = curvatures[i] * a2[i], curvatures[i] * a3[i]
        for k in range(0, j + 1, 4):
            k1, k2, k3 = min(k + 1, n - 1), min(k + 2, n - 1), min(k + 3, n - 1)
            q0, q1, q2, q3 = A[k], A[k1], A[k2], A[k3]
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = zero
            s20 = s21 = s22 = s23 = s30 = s31 = s32 = s33 = zero
            for i in range(m):
                s00 += p0[i] * q0[i]
                s01 += p0[i] * q1[i]
                s02 += p0[i] * q2[i]
                s03 += p0[i] * q3[i]
                s10 += p1[i] * q0[i]
                s11 += p1[i] * q1[i]
                s12 += p1[i] * q2[i]
                s13 += p1[i] * q3[i]
                s20 += p2[i] * q0[i]
                s21 += p2[i] * q1[i]
                s22 += p2[i] * q2[i]
                s23 += p2[i] * q3[i]
                s30 += p3[i] * q0[i]
                s31 += p3[i] * q1[i]
                s32 += p3[i] * q2[i]
                s33 += p3[i] * q3[i]
            H[j, k], H[j, k1], H[j, k2], H[j, k3] = s00, s01, s02, s03
            H[j1, k], H[j1, k1], H[j1, k2], H[j1, k3] = s10, s11, s12, s13
            H[j2, k], H[j2, k1], H[j2, k2], H[j2, k3] = s20, s21, s22, s23
            H[j3, k], H[j3, k1], H[j3, k2], H[j3, k3] = s30, s31, s32, s33
    for j in range(n):
        H[j, j] += bend[j]


@_exact
def _factored(H, inverse):
    """H, of which the lower triangle is given, becomes its Cholesky factor, `inverse` one over its
    diagonal; whether its condition number is 1e10 at most."""
    n, least, most = len(H), np.inf, 0.0
    for j in range(n):
        for k in range(j):
            entry = H[j, k]
            for i in range(k):
                entry -= H[j, i] * H[k, i]
            H[j, k] = entry * inverse[k]
        square = H[j, j]
        for i in range(j):
            square -= H[j, i] * H[j, i]
        if not square > 0:
            return False
        H[j, j] = math.sqrt(square)
        inverse[j] = 1 / H[j, j]
        least, most = min(least, H[j, j]), max(most, H[j, j])
        for k in range(j + 1, n):
            H[j, k] = 0.0
    return least > 1e-5 * most


@_exact
def _solved(L, inverse, b, x):
    """x = (L L*)^-1 b."""
    n = len(L)
    for j in range(n):
        entry = b[j]
        for k in range(j):
            entry -= L[j, k] * x[k]
        x[j] = entry * inverse[j]
    for j in range(n - 1, -1, -1):
        x[j] *= inverse[j]
        for k in range(j):
            x[k] -= x[j] * L[j, k]
