"""Blurs and masks: against SciPy and NumPy, in their kernels, at the edges of what makes sense."""

import numpy as np
import pytest
import scipy.ndimage
import torch

import bilevel as bl
from bilevel import testing

pytestmark = pytest.mark.usefixtures("float64")
MODES = {bl.Zero(): "constant", bl.Symmetric(): "reflect", bl.Periodic(): "wrap"}
SIZES = [(1, 1), (3, 3), (2, 4), (5, 2), (6, 7)]
boundaries = pytest.mark.parametrize("boundary", MODES, ids=repr)


@boundaries
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_is_the_convolution_of_scipy(boundary, size):
    x, kernel = torch.randn(2, 3, 6, 7), torch.randn(size)
    got = bl.Blur(kernel, boundary)(x)
    for image, blurred in zip(x.flatten(0, 1), got.flatten(0, 1), strict=True):
        expected = scipy.ndimage.convolve(image.numpy(), kernel.numpy(), mode=MODES[boundary])
        np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-13)


@boundaries
def test_the_centre_of_the_kernel_is_where_it_stands_still(boundary):
    x = torch.randn(1, 1, 6, 7)
    for size in SIZES:
        kernel = torch.zeros(size)
        kernel[size[0] // 2, size[1] // 2] = 1
        torch.testing.assert_close(bl.Blur(kernel, boundary)(x), x)


@boundaries
def test_one_kernel_a_sample_is_each_alone(boundary):
    x, kernels = torch.randn(3, 2, 6, 7), torch.randn(3, 2, 3)
    together = bl.Blur(kernels, boundary)
    for i in range(3):
        alone = bl.Blur(kernels[i], boundary)
        torch.testing.assert_close(together(x)[i], alone(x[i : i + 1])[0])
        norms = together.norm(x)[i], alone.norm(x)
        torch.testing.assert_close(*norms, rtol=1e-3, atol=0)  # Lanczos stops at 1e-4 of |K|^2


@boundaries
def test_the_gradient_in_the_kernel_to_second_order(boundary):
    kernel = torch.randn(2, 3, requires_grad=True)
    x = torch.randn(2, 1, 4, 5, requires_grad=True)
    for function in (
        lambda k, x: bl.Blur(k, boundary)(x),
        lambda k, x: bl.Blur(k, boundary).adjoint(x),
    ):
        assert torch.autograd.gradcheck(function, (kernel, x))
        assert torch.autograd.gradgradcheck(function, (kernel, x))


def test_the_periodic_norm_is_exact():
    for size in SIZES:
        blur = bl.Blur(torch.randn(size), bl.Periodic())
        columns = blur(torch.eye(42).reshape(42, 1, 6, 7)).flatten(1)
        expected = torch.linalg.matrix_norm(columns, 2)
        torch.testing.assert_close(blur.norm(torch.zeros(1, 1, 6, 7)), expected)


def test_the_norm_of_an_average_with_mirrored_edges_is_exact():
    for row in ([1.0], [1.0, 2.0, 1.0], [0.0, 3.0, 1.0, 3.0, 0.0]):
        k = torch.tensor(row)
        blur = bl.Blur(k[:, None] * torch.tensor([2.0, 1.0, 2.0]))
        columns = blur(torch.eye(42).reshape(42, 1, 6, 7)).flatten(1)
        assert torch.linalg.matrix_norm(columns, 2).item() == pytest.approx(5 * k.sum().item())
        assert float(blur.norm(torch.zeros(1, 1, 6, 7))) == pytest.approx(5 * k.sum().item())


@boundaries
def test_float32_and_strides(boundary):
    x, kernel = torch.randn(2, 3, 7, 6), torch.randn(3, 3)
    expected = bl.Blur(kernel, boundary)(x.mT)
    torch.testing.assert_close(
        bl.Blur(kernel.mT.contiguous().mT, boundary)(x.contiguous().mT), expected
    )
    single = bl.Blur(kernel.float(), boundary)(x.mT.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, atol=1e-5, rtol=1e-5)


@boundaries
def test_sizes_with_large_factors_are_filled_up(boundary):
    """An image of 11 x 17, which no FFT likes, with its margins or without."""
    x, kernel = torch.randn(1, 1, 11, 17), torch.randn(3, 5)
    blur = bl.Blur(kernel, boundary)
    columns = blur(torch.eye(187).reshape(187, 1, 11, 17)).flatten(1)
    torch.testing.assert_close(blur(x).flatten(1), x.flatten(1) @ columns)
    torch.testing.assert_close(blur.adjoint(x).flatten(1), x.flatten(1) @ columns.T)
    shift = torch.zeros(3, 5)
    shift[1, 2] = 1
    torch.testing.assert_close(bl.Blur(shift, boundary)(x), x)


def test_a_mirror_with_negative_taps_does_not_tell_absolute_values():
    kernel = torch.tensor([[1.0, -1.0, 0.5]])
    with pytest.raises(TypeError, match="does not tell the absolute values"):
        bl.Blur(kernel).absolute()
    bl.Blur(kernel, bl.Zero()).absolute()


def test_deblurring_learns_its_kernel():
    """The gradient in a kernel through a solution is that of differences."""
    x = torch.rand(2, 1, 6, 7)
    kernel = torch.rand(3, 3)

    def restored(kernel):
        return bl.argmin(bl.LeastSquares(x) @ bl.Blur(kernel) + 0.1 * bl.LeastSquares(), tol=1e-12)

    testing.gradients_agree(restored, [kernel / kernel.sum()])


def test_inpainting_keeps_what_is_seen_and_fills_the_rest():
    """Also at a weight so small that a Newton step from afar lands at 1e8, where every relative
    change is small."""
    image = torch.ones(2, 1, 5, 6) * torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1)
    seen = torch.rand(2, 1, 5, 6) > 0.4
    data = torch.where(seen, image, 0.0)
    energy = bl.LeastSquares(data) @ bl.Mask(seen) + 1e-3 * bl.TotalVariation()
    torch.testing.assert_close(bl.solve(energy, tol=1e-9).x, image, atol=2e-3, rtol=0)


def test_inpainting_with_another_mask_for_each_sample_is_each_alone():
    data, masks = torch.rand(3, 1, 4, 5), torch.rand(3, 1, 4, 5)

    def energy(i):
        data_term = bl.LeastSquares(data[i]) @ bl.Mask(masks[i])
        return data_term + 0.1 * bl.TotalVariation(isotropic=False)

    testing.batch_is_alone(energy, 3, ulp=1e6, tol=1e-8)


def test_misuse_says_what_to_do():
    x, kernel = torch.randn(2, 1, 4, 5), torch.randn(3, 3)
    with pytest.raises(ValueError, match=r"larger than the image \(4, 5\). Crop it"):
        bl.Blur(torch.randn(5, 3))(x)
    with pytest.raises(ValueError, match="has 3 kernels, got x with a batch of 2"):
        bl.Blur(torch.randn(3, 3, 3))(x)
    with pytest.raises(ValueError, match="A filter bank .* is a Convolution"):
        bl.Blur(torch.randn(1, 1, 3, 3))
    with pytest.raises(ValueError, match=r"got \(0, 3\)"):
        bl.Blur(torch.randn(0, 3))
    with pytest.raises(
        TypeError, match=r"a boundary, Symmetric\(\), Periodic\(\) or Zero\(\), got"
    ):
        bl.Blur(kernel, "periodic")
    with pytest.raises(ValueError, match=r"For one image pass x\[None\]"):
        bl.Blur(kernel)(x[0, 0])
    with pytest.raises(ValueError, match="does not broadcast into x of shape"):
        bl.Mask(torch.ones(3, 1, 4, 5))(x)
    with pytest.raises(TypeError, match="Use torch.as_tensor"):
        bl.Mask(np.ones((4, 5)))


def test_a_kernel_changed_in_place_is_seen():
    kernel, x = torch.zeros(3, 3, dtype=torch.float64), torch.rand(1, 5, 6, dtype=torch.float64)
    kernel[1, 1] = 1
    blur = bl.Blur(kernel)
    with torch.no_grad():
        torch.testing.assert_close(blur(x), x)
        kernel.data *= 2
        torch.testing.assert_close(blur(x), 2 * x)
        torch.testing.assert_close(blur(x[..., :4]), 2 * x[..., :4])
