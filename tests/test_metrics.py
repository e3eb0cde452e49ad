"""PSNR and SSIM of batches are scikit-image's of each image."""

import numpy as np
import pytest
import torch

from bilevel.learning import psnr, ssim

metrics = pytest.importorskip("skimage.metrics")


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 16, 18, generator=generator, dtype=torch.float64)
    return clean + 0.1 * torch.randn(clean.shape, generator=generator), clean


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_psnr(pair, data_range):
    image, clean = pair
    for a, b, value in zip(image, clean, psnr(image, clean, data_range), strict=True):
        reference = metrics.peak_signal_noise_ratio(b.numpy(), a.numpy(), data_range=data_range)
        assert value.item() == pytest.approx(reference, rel=1e-12)


def test_psnr_of_equal_images_is_infinite(pair):
    assert psnr(pair[1], pair[1]).tolist() == [np.inf, np.inf]


def test_ssim(pair):
    image, clean = pair
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0)
    values = ssim(image.requires_grad_(), clean)
    assert values.shape == (2,) and values.dtype == torch.float64
    for a, b, value in zip(image, clean, values, strict=True):
        channels = zip(a.detach().numpy(), b.numpy(), strict=True)
        mean = np.mean([metrics.structural_similarity(p, q, **options) for p, q in channels])
        assert value.item() == pytest.approx(mean, rel=1e-12)
    assert ssim(clean, clean).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_shapes_are_checked(metric, pair):
    image, clean = pair
    with pytest.raises(
        ValueError, match=r"shapes \(3, 16, 18\) and .*: both must be \(B, C, H, W\)"
    ):
        metric(image[0], clean[0])
    with pytest.raises(ValueError, match="both must be"):
        metric(image[:1], clean)


def test_images_smaller_than_the_window():
    assert ssim(torch.ones(1, 1, 11, 11), torch.ones(1, 1, 11, 11)) == 1
    with pytest.raises(ValueError, match="are 10 x 40, and the window of SSIM 11 x 11"):
        ssim(torch.ones(1, 1, 10, 40), torch.ones(1, 1, 10, 40))
