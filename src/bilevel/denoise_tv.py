"""denoise_tv: for people who use scikit-image."""

from __future__ import annotations

from numbers import Real
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .argmin import solve
from .terms import LeastSquares, TotalVariation

Image = TypeVar("Image", np.ndarray, Tensor)


def denoise_tv(
    image: Image,
    weight: float = 0.1,
    *,
    isotropic: bool = True,
    eps: float = 1e-5,
    max_num_iter: int = 20_000,
    channel_axis: int | None = None,
) -> Image:
    """argmin over x of 1/2 |x - image|^2 + weight TV(x), on an array or tensor of 1, 2 or 3 image
    dims.

    As skimage.restoration.denoise_tv_chambolle: integer images are first scaled to [0, 1] (signed
    ones to [-1, 1]), the result is floating point, channels are denoised one by one, and the
    weights mean the same. Other than there, `eps` is a relative duality gap, a promise on the
    result. Not differentiable: use argmin or layers.TVDenoise for that.

    >>> import numpy as np, bilevel as bl
    >>> bl.denoise_tv(np.array([0.0, 0.1, 1.0, 1.1]), weight=0.1, eps=1e-10).round(4)
    array([0.1, 0.1, 1. , 1. ])
    """
    if isinstance(image, Tensor):
        return _denoise(image.detach(), weight, isotropic, eps, max_num_iter, channel_axis)  # type: ignore[return-value]
    array = np.asarray(image)
    if array.dtype.kind not in "iuf":
        raise _refused(array.dtype)
    if array.dtype.kind in "iu":
        array = array / np.iinfo(array.dtype).max
    dtype = np.float32 if array.dtype.itemsize <= 4 else np.float64
    tensor = torch.from_numpy(np.array(array, dtype=dtype))  # a copy, in native byte order
    return _denoise(tensor, weight, isotropic, eps, max_num_iter, channel_axis).numpy()  # type: ignore[return-value]


def _refused(dtype: object) -> TypeError:
    return TypeError(
        f"denoise_tv needs an integer or floating-point image, got dtype {dtype}. Convert it "
        "first, image.astype(float) or its real part."
    )


def _denoise(
    image: Tensor,
    weight: float,
    isotropic: bool,
    eps: float,
    max_iter: int,
    channel_axis: int | None,
) -> Tensor:
    if image.is_complex() or image.dtype == torch.bool:
        raise _refused(image.dtype)
    if not isinstance(weight, Real | Tensor):
        raise TypeError(f"denoise_tv needs a number as its weight, got {type(weight).__name__}.")
    if not image.is_floating_point():
        image = image.double() / torch.iinfo(image.dtype).max
    elif image.dtype != torch.float64:
        image = image.float()
    dims = image.ndim - (channel_axis is not None)
    axis = 0 if channel_axis is None else channel_axis
    if not 1 <= dims <= 3 or not isinstance(axis, int) or not -image.ndim <= axis < image.ndim:
        raise ValueError(
            f"denoise_tv needs 1, 2 or 3 image dims, got shape {tuple(image.shape)} with "
            f"channel_axis={channel_axis}. For a colour image pass channel_axis=-1."
        )
    if not image.numel():
        return image.clone()
    batch = image[None] if channel_axis is None else image.movedim(channel_axis, 0)
    energy = LeastSquares(batch) + float(weight) * TotalVariation(dims=dims, isotropic=isotropic)
    x = solve(energy, tol=eps, max_iter=max_iter).x
    return x[0] if channel_axis is None else x.movedim(0, channel_axis)
