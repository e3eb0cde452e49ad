"""Denoisers take every kind of image, and refuse what is none."""

import warnings

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel.layers import TVDenoise, TVDenoiser

nan = float("nan")
image = torch.linspace(0, 1, 64, dtype=torch.float64).reshape(1, 1, 8, 8)


@pytest.mark.parametrize(
    "image",
    [
        np.linspace(0, 1, 30).reshape(5, 6).astype(">f8"),  # as TIFF files often are
        np.linspace(0, 1, 30).reshape(5, 6).astype(np.longdouble),
        np.linspace(0, 1, 30).reshape(5, 6).astype(np.float16),
        np.linspace(0, 1, 30).reshape(5, 6)[::-1, ::-1],
        np.broadcast_to(np.linspace(0, 1, 6), (5, 6)),
        np.arange(30, dtype=np.uint8).reshape(5, 6),
        np.linspace(0, 1, 30).reshape(5, 6).tolist(),
        torch.linspace(0, 1, 30).reshape(5, 6).half(),
        torch.linspace(0, 1, 30).reshape(5, 6).bfloat16(),
    ],
    ids=[
        "big endian",
        "long",
        "half",
        "reversed",
        "read-only",
        "bytes",
        "list",
        "half tensor",
        "bf",
    ],
)
def test_denoise_tv_takes_every_image(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = bl.denoise_tv(image, weight=0.05)
    if isinstance(image, torch.Tensor):
        x, image = x.double().numpy(), image.double().numpy()
    image = np.asarray(image)
    image = image / 255 if image.dtype == np.uint8 else image.astype(np.float64)
    expected = bl.denoise_tv(np.array(image), weight=0.05)
    assert x.dtype in (np.float32, np.float64) and np.abs(x - expected).max() < 1e-3


DENOISERS = [
    (lambda: bl.denoise_tv(np.ones((4, 4), bool)),
     TypeError, "integer or floating-point image, got dtype bool"),
    (lambda: bl.denoise_tv(torch.ones(4, 4, dtype=torch.bool)), TypeError, "got dtype torch.bool"),
    (lambda: bl.denoise_tv(np.ones((4, 4), complex)), TypeError, "got dtype complex128"),
    (lambda: bl.denoise_tv(np.ones((2, 2, 2, 2))),
     ValueError, r"1, 2 or 3 image dims, got shape \(2, 2, 2, 2\)"),
    (lambda: bl.denoise_tv(np.ones((4, 4)), channel_axis=5),
     ValueError, "channel_axis=5. For a colour"),
    (lambda: bl.denoise_tv(np.full((4, 4), nan)), ValueError, "is NaN or inf in 16 of 16 values"),
    (lambda: bl.denoise_tv(np.ones((4, 4)), weight=-1),
     ValueError, "TotalVariation.weight = -1: a weight"),
    (lambda: bl.denoise_tv(np.ones((4, 4)), weight=None), TypeError, "a number .* got NoneType"),
    (lambda: bl.denoise_tv(np.eye(4), max_num_iter=1, eps=1e-9),
     bl.NotConverged, "did not converge to tol"),
    (lambda: TVDenoise(-1.0), ValueError, "TVDenoise needs a positive, finite weight .* got -1"),
    (lambda: TVDenoise()(image[0, 0].numpy()), ValueError, "needs a tensor .* got ndarray"),
    (lambda: TVDenoise()(image[0, 0]),
     ValueError, r"got \(8, 8\). For one image pass image\[None, None\]"),
    (lambda: TVDenoise(torch.full((2, 1, 1), 0.1))(image),
     ValueError, r"TotalVariation.weight has shape \(1, 2, 1, 1\)"),
    (lambda: TVDenoiser()(image, torch.ones(3)),
     ValueError, r"a tensor of shape \(1,\), got tensor\(\[1., 1., 1.\]\)"),
    (lambda: TVDenoiser()(image, 0.1), ValueError, r"got 0.1. .* pass torch.full\(\(1,\), level\)"),
    (lambda: TVDenoiser()(image, torch.tensor([-1.0])), ValueError, "one noise level > 0 a sample"),
]  # fmt: skip


@pytest.mark.parametrize("make, error, message", DENOISERS, ids=[m[:40] for *_, m in DENOISERS])
def test_denoisers_refuse_what_is_no_image(make, error, message):
    with pytest.raises(error, match=message):
        make()
