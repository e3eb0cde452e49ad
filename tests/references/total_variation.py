"""TV denoising: exact in 1-D (taut string), Newton on the flat zones in 2-D.

Forward differences, the last one along each axis zero (and so the gradient in its weight). x has
shape (n,) or (H, W). The density, against which the weight broadcasts, has the shape of x, or if
anisotropic in 2-D (2, H, W): the axis of the difference first. Coupled: x (C, H, W), density
(H, W).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from .base import Answer, Reference, Theta, smallest, sum_to, uniform
from .taut_string import taut_string


def differences(shape: tuple[int, ...]) -> sparse.csr_array:
    """D with one row a difference, in the order (axis, *pixel); the last ones are zero rows."""
    blocks = []
    for axis, n in enumerate(shape):
        one = sparse.lil_array(np.eye(n, k=1) - np.eye(n))
        one[n - 1, n - 1] = 0
        before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
        blocks.append(
            sparse.kron(sparse.eye_array(before), sparse.kron(one, sparse.eye_array(after)))
        )
    D = sparse.csr_array(sparse.vstack(blocks))
    D.eliminate_zeros()
    return D


@dataclass(frozen=True, eq=False)
class Jumps:
    """D with its rows gathered into groups: pairs per pixel (isotropic) or single rows."""

    D: sparse.csr_array
    groups: int  # row i belongs to group i % groups

    @property
    def rows(self) -> int:
        return len(self.D.indptr) - 1

    def norm(self, z: np.ndarray) -> np.ndarray:  # (rows,) -> (groups,)
        return np.linalg.norm(z.reshape(-1, self.groups), axis=0)

    def spread(self, per_group: np.ndarray) -> np.ndarray:  # (groups,) -> (rows,)
        return np.tile(per_group, self.rows // self.groups)

    def dot(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:  # (rows,) x 2 -> (groups,)
        return (a * b).reshape(-1, self.groups).sum(0)

    def blocks(self, a: np.ndarray, b: np.ndarray) -> sparse.csr_array:
        """The matrix whose block of a group is a_g b_g^T."""
        rows = np.arange(self.rows)
        columns = rows.reshape(-1, self.groups)
        pairs = [(i, j) for i in range(len(columns)) for j in range(len(columns))]
        i = np.concatenate([columns[p] for p, _ in pairs])
        j = np.concatenate([columns[q] for _, q in pairs])
        return sparse.csr_array((a[i] * b[j], (i, j)), shape=(len(rows), len(rows)))


def smoothed(jumps: Jumps, y: np.ndarray, w: np.ndarray, eps: float) -> tuple[np.ndarray, ...]:
    """min 1/2 |x - y|^2 + sum_g w_g sqrt(|D_g x|^2 + e^2), e from 1 down to eps: (x, z).

    Primal-dual Newton: the dual of this smoothing tends to the one that is most inside the balls.
    [1] Chan, Golub, Mulet. A nonlinear primal-dual method for TV restoration. SISC, 1999.
    """
    D, spread = jumps.D, jumps.spread
    x, z, e = y.copy(), np.zeros(jumps.rows), 1.0
    while True:
        for _ in range(50):
            d = D @ x
            phi = np.sqrt(jumps.norm(d) ** 2 + e * e)
            middle = sparse.diags_array(spread(w / phi)) - _symmetric(
                jumps.blocks(z / spread(phi), d / spread(phi))
            )
            system = sparse.eye_array(len(x)) + D.T @ middle @ D
            step = spsolve(system.tocsc(), y - x - D.T @ (spread(w / phi) * d))
            slope = spread(jumps.dot(d, D @ step) / phi)
            dz = (spread(w) * (d + D @ step) - z * slope) / spread(phi) - z
            x, z = x + step, z + _inside(jumps, z, dz, w) * dz
            if np.abs(step).max() < 1e-10:
                break
        if e <= eps:
            return x, z
        e = max(e / 5, eps)


def _symmetric(M: sparse.csr_array) -> sparse.csr_array:
    return (M + M.T) / 2


def _inside(jumps: Jumps, z: np.ndarray, dz: np.ndarray, w: np.ndarray) -> float:
    """The largest t <= 1 with |z + t dz| <= w, shortened a little unless t = 1."""
    a, b, c = jumps.dot(dz, dz), jumps.dot(z, dz), jumps.dot(z, z) - w * w
    live = (a > 0) & (jumps.norm(z + dz) > w)
    if not live.any():
        return 1.0
    a, b, c = a[live], b[live], np.minimum(c[live], 0)
    return float(0.999 * ((-b + np.sqrt(b * b - a * c)) / a).min())


def on_flat_zones(
    jumps: Jumps, y: np.ndarray, w: np.ndarray, flat: np.ndarray, x: np.ndarray, z: np.ndarray
) -> tuple[np.ndarray, np.ndarray, sparse.csr_array, np.ndarray, np.ndarray]:
    """Newton from x among the images constant where `flat`: (x, z, T, Hessian on T, flat)."""
    D, spread = jumps.D, jumps.spread
    links = abs(D[spread(flat)])
    _, zone = connected_components(links.T @ links, directed=False)
    T = sparse.csr_array((np.ones(len(y)), (np.arange(len(y)), zone)))
    x = T @ ((T.T @ x) / T.sum(0))
    flat = jumps.norm(D @ x) == 0  # also where the zones close around a pixel
    hessian, n = np.zeros((0, 0)), np.zeros(jumps.rows)
    for _ in range(30):
        d = D @ x
        scale = np.where(flat, 0, 1 / np.where(flat, 1, jumps.norm(d)))
        n = d * spread(scale)
        bend = sparse.diags_array(spread(w * scale)) @ (
            sparse.diags_array(spread((~flat).astype(float))) - jumps.blocks(n, n)
        )
        hessian = (T.T @ (sparse.eye_array(len(y)) + D.T @ bend @ D) @ T).toarray()
        step = T @ np.linalg.solve(hessian, T.T @ (x - y + D.T @ (spread(w) * n)))
        x = x - step
        if np.abs(step).max() < 1e-15 * np.abs(y).max():
            break
    # the dual: fixed by n off the flat groups, and on them moved as little as D^T z = y - x asks
    z = np.where(spread(flat), z, spread(w) * n)
    Df = D[spread(flat)]
    graph = (Df.T @ Df + T @ T.T).toarray()
    for _ in range(2):  # once more for the rounding of the first
        z[spread(flat)] += Df @ np.linalg.solve(graph, y - x - D.T @ z)
    return x, z, T, hessian, flat


def _answer(theta: Theta, jumps: Jumps, flat: np.ndarray, x: np.ndarray, z: np.ndarray) -> Answer:
    D, shape = jumps.D, theta["y"].shape
    y, density = theta["y"].ravel(), _density_shape(jumps, shape)
    w = np.broadcast_to(theta["w"], density).ravel()
    x, z, T, hessian, flat = on_flat_zones(jumps, y, w, flat, x, z)
    d = D @ x
    norm, live = jumps.norm(d), jumps.norm(abs(D) @ np.ones(len(y))) > 0
    n = np.where(jumps.spread(flat), 0, d / jumps.spread(np.where(flat, 1, norm)))
    slack = 1 - jumps.norm(z) / w
    residual = max(
        np.abs(x - y + D.T @ z).max(),
        np.maximum(jumps.norm(z) - w, 0).max(),
        np.abs(w * norm - jumps.dot(z, d)).max(),
    ) / max(np.abs(y).max(), 1e-300)
    margin = smallest(norm[~flat] / np.std(y), slack[flat & live])

    def vjp(g: np.ndarray) -> Theta:
        u = T @ np.linalg.solve(hessian, T.T @ g.ravel())
        for_w = -jumps.dot(n, D @ u).reshape(density)
        return {"y": u.reshape(shape), "w": sum_to(for_w, theta["w"].shape)}

    active = np.sign(n) if jumps.groups == len(n) else flat  # isotropic directions may turn
    dual = z.reshape(-1, *shape[-2:]) if len(shape) > 1 else z
    return Answer(x.reshape(shape), float(residual), margin, active, vjp, dual)


def _density_shape(jumps: Jumps, shape: tuple[int, ...]) -> tuple[int, ...]:
    if jumps.groups == np.prod(shape[1:]):
        return shape[1:]
    return shape if jumps.groups == np.prod(shape) else (len(shape), *shape)


def _jumps(shape: tuple[int, ...], isotropic: bool, coupled: bool = False) -> Jumps:
    if coupled:  # rows (channel, axis, *pixel)
        D = sparse.kron(sparse.eye_array(shape[0]), differences(shape[1:]), format="csr")
        return Jumps(D, int(np.prod(shape[1:])))
    pixels = int(np.prod(shape))
    return Jumps(differences(shape), pixels if isotropic else len(shape) * pixels)


def solve_by_newton(theta: Theta, isotropic: bool, coupled: bool = False) -> Answer:
    y = theta["y"].ravel()
    jumps = _jumps(theta["y"].shape, isotropic, coupled)
    w = np.broadcast_to(theta["w"], _density_shape(jumps, theta["y"].shape)).ravel()
    x, z = smoothed(jumps, y, w, eps=1e-9)  # flat jumps are now about eps, the others are not
    jump = jumps.norm(jumps.D @ x) / np.std(y)
    answers = (_answer(theta, jumps, jump < cut, x, z) for cut in (1e-6, 1e-7, 1e-5))
    best = next(answers)
    while best.residual > 1e-11 and (other := next(answers, None)):
        best = min(best, other, key=lambda answer: answer.residual)
    return best


def _solve_1d(theta: Theta) -> Answer:
    y = theta["y"]
    knots, heights = taut_string(y, np.broadcast_to(theta["w"], y.shape)[:-1])
    flat = np.ones(len(y), bool)
    flat[knots[1:-1] - 1] = False
    x = np.repeat(heights, np.diff(knots))
    return _answer(theta, Jumps(differences(y.shape), len(y)), flat, x, np.zeros(len(y)))


def _draw_1d(rng, n: int = 1000, weight_shape=()) -> Theta:
    """Steps of random height and length, with noise; weight_shape () or (n,)."""
    steps = np.minimum(np.cumsum(rng.uniform(size=n) < 10 / n), n - 1)
    y = rng.standard_normal(n)[steps] + 0.3 * rng.standard_normal(n)
    return {"y": y, "w": uniform(rng, 0.3, 0.6, weight_shape)}


def _draw_2d(rng, shape: tuple[int, int], weight_shape=(), low: float = 0.2) -> Theta:
    """A disk on a ramp, with noise."""
    i, j = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    clean = (i * i + j * j < rng.uniform(0.2, 0.6)) + rng.uniform(0, 0.5) * i
    y = clean + 0.2 * rng.standard_normal(shape)
    return {"y": y, "w": uniform(rng, low, 1.5 * low, weight_shape)}


def _draw_colour(rng, shape: tuple[int, int], weight_shape=()) -> Theta:
    """Two channels: the second a copy of the first, inverted and fainter, with its own noise."""
    first = _draw_2d(rng, shape, weight_shape)
    second = 0.5 - 0.6 * first["y"] + 0.1 * rng.standard_normal(shape)
    return {"y": np.stack([first["y"], second]), "w": first["w"]}


def _energy(theta: Theta, x: np.ndarray, isotropic: bool, coupled: bool = False) -> float:
    """1/2 |x - y|^2 + sum w |Dx|."""
    jumps = _jumps(x.shape, isotropic, coupled)
    density = jumps.norm(jumps.D @ x.ravel()).reshape(_density_shape(jumps, x.shape))
    return 0.5 * np.sum((x - theta["y"]) ** 2) + float(np.sum(theta["w"] * density))


tv1d = Reference("tv1d", _draw_1d, _solve_1d, partial(_energy, isotropic=False))
tv2d_anisotropic = Reference(
    "tv2d_anisotropic",
    partial(_draw_2d, shape=(32, 32)),
    partial(solve_by_newton, isotropic=False),
    partial(_energy, isotropic=False),
)
tv2d_isotropic = Reference(
    "tv2d_isotropic",
    partial(_draw_2d, shape=(12, 12)),
    partial(solve_by_newton, isotropic=True),
    partial(_energy, isotropic=True),
)
tv2d_coupled = Reference(
    "tv2d_coupled",
    partial(_draw_colour, shape=(5, 4)),
    partial(solve_by_newton, isotropic=True, coupled=True),
    partial(_energy, isotropic=True, coupled=True),
)
