"""How good an image is, per sample: scikit-image's PSNR and SSIM on batches of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW = 11  # pixels, of SSIM


def psnr(image: Tensor, clean: Tensor, data_range: float = 1.0) -> Tensor:  # (B, C, H, W) -> (B,)
    """10 log10(data_range^2 / mean squared error), in dB; inf where both agree."""
    _same_shape(image, clean)
    error = (image.detach() - clean).square().flatten(1).mean(1)
    return 10 * torch.log10(data_range**2 / error)


def ssim(image: Tensor, clean: Tensor, data_range: float = 1.0) -> Tensor:  # (B, C, H, W) -> (B,)
    """Structural similarity with the Gaussian window of Wang et al. (2004), by scikit-image."""
    from skimage.metrics import structural_similarity  # half a second: only when asked for

    _same_shape(image, clean)
    if min(image.shape[-2:]) < WINDOW:
        raise ValueError(
            f"The images are {image.shape[-2]} x {image.shape[-1]}, and the window of SSIM "
            f"{WINDOW} x {WINDOW}: leave out smaller ones."
        )
    pairs = zip(image.detach().cpu().numpy(), clean.cpu().numpy(), strict=True)
    values = [
        structural_similarity(
            a,
            b,
            data_range=data_range,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in pairs
    ]
    return torch.tensor(values, dtype=image.dtype)


def _same_shape(image: Tensor, clean: Tensor) -> None:
    if image.shape != clean.shape or image.dim() != 4:
        raise ValueError(
            f"The images have shapes {tuple(image.shape)} and {tuple(clean.shape)}: both must be "
            "(B, C, H, W). For one gray image pass image[None, None]."
        )
