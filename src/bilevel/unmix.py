"""unmix: how much of each material is in each pixel of a hyperspectral image."""

from __future__ import annotations

import math

import numpy as np
import torch

from .argmin import solve
from .solvers.lawson_hanson import LawsonHanson
from .terms import NonNegative, Quadratic, Simplex


def unmix(
    cube: np.ndarray,  # (..., bands)
    endmembers: np.ndarray,  # (bands, materials): their spectra
    *,
    weight: float = 0.0,
    normalise: bool = False,
    tol: float = 1e-6,
) -> np.ndarray:  # (..., materials)
    """The abundances a of each pixel b: argmin 1/2 |E a - b|^2 with a >= 0 and sum a = 1.

    normalise: without the sum, 1/2 |E a - b|^2 + weight |a|_1 with a >= 0, then a divided by its
    sum: a pixel may be brighter or darker than the spectra, which is often the better model of real
    light. All pixels are solved as one batch, also with hundreds of spectra, more than bands, of
    which a pixel uses a few; a pixel without signal has no abundances: 0.

    [1] Heinz, Chang. Fully constrained least squares linear spectral mixture analysis. TGRS, 2001.

    >>> import numpy as np, bilevel as bl
    >>> E = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> bl.unmix(np.array([0.25, 0.75, 1.0]), E).round(6)
    array([0.25, 0.75])
    """
    if np.iscomplexobj(endmembers) or np.iscomplexobj(cube):
        raise ValueError("unmix got complex numbers: spectra are real. Pass their absolute values.")
    E, b = (torch.from_numpy(np.ascontiguousarray(a, dtype=float)) for a in (endmembers, cube))
    if E.ndim != 2 or b.ndim < 1 or b.shape[-1] != len(E):
        raise ValueError(
            f"unmix needs a cube (..., bands) and endmembers (bands, materials), got "
            f"{tuple(b.shape)} and {tuple(E.shape)}. Transpose one of them?"
        )
    if not bool(E.isfinite().all() and b.isfinite().all()):
        raise ValueError("unmix got NaN or inf: set such pixels to 0, or leave such bands out.")
    if not 0 <= weight < math.inf or (weight and not normalise):
        raise ValueError(
            f"the weight of |a|_1 must be >= 0 and finite, and needs normalise=True, got {weight}: "
            "where the sum is 1, it is the same for all a."
        )
    pixels = b.reshape(-1, len(E))
    energy = Quadratic(E.mT @ E, weight - pixels @ E) + (NonNegative() if normalise else Simplex())
    start = torch.full((len(pixels), E.shape[1]), 1 / E.shape[1], dtype=E.dtype)
    a = solve(energy, x0=start, solver=LawsonHanson(), tol=tol).x.clamp_min(0)  # from rounding
    if normalise:
        dark = (pixels @ E <= weight).all(1, keepdim=True)  # there 0 is the solution
        a = torch.where(dark, 0.0, a / a.sum(1, keepdim=True))
    return a.reshape(*b.shape[:-1], E.shape[1]).numpy()
