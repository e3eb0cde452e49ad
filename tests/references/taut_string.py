"""The taut string: exact 1-D TV denoising with a weight per edge, in O(n)."""

import numpy as np

Point = tuple[int, float]


def taut_string(y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """argmin 1/2 |x - y|^2 + sum_i w_i |x_{i+1} - x_i| as (knots, heights of the segments).

    X = cumsum x is the shortest path from (0, 0) to (n, Y_n) through the gates Y_i -+ w_i,
    Y = cumsum y. Segment k is y[knots[k] : knots[k + 1]].
    [1] Davies, Kovac. Local extremes, runs, strings and multiresolution. Ann. Stat., 2001.
    """
    n, total = len(y), np.concatenate([[0.0], np.cumsum(y)])
    radius = np.concatenate([[0.0], w, [0.0]])
    path: list[Point] = [(0, 0.0)]
    upper: list[Point] = [(0, 0.0)]  # the taut path along the upper gates from the last knot
    lower: list[Point] = [(0, 0.0)]  # and along the lower ones
    for i in range(1, n + 1):
        _extend(upper, lower, path, (i, total[i] + radius[i]), 1)
        _extend(lower, upper, path, (i, total[i] - radius[i]), -1)
    path.append((n, total[n]))
    knots = [path[0]]
    for point in path[1:]:
        if point[0] > knots[-1][0]:
            knots.append(point)
    heights = [_slope(p, q) for p, q in zip(knots, knots[1:], strict=False)]
    return np.array([i for i, _ in knots]), np.array(heights)


def _slope(p: Point, q: Point) -> float:
    return (q[1] - p[1]) / (q[0] - p[0])


def _extend(chain: list[Point], other: list[Point], path: list[Point], p: Point, side: int):
    """Pull the chain tight to p; where it meets the other chain, the path bends."""
    chain.append(p)
    while len(chain) > 2 and side * (_slope(chain[-2], p) - _slope(chain[-3], chain[-2])) <= 0:
        del chain[-2]
    while len(chain) == 2 and len(other) > 1:
        if side * (_slope(chain[0], p) - _slope(other[0], other[1])) >= 0 or other[1][0] == p[0]:
            break
        del other[0]
        path.append(other[0])
        chain[0] = other[0]
