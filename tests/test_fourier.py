"""FFT and DCT against SciPy; complex data of real images, end to end."""

import numpy as np
import pytest
import scipy.fft
import torch

import bilevel as bl
from bilevel import testing

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("size", [(1,), (2,), (7,), (6, 5), (1, 4), (3, 4, 5)], ids=str)
def test_the_transforms_are_those_of_scipy_and_invert(size):
    x, dims = torch.randn(2, 3, *size), len(size)
    axes = tuple(range(-dims, 0))
    for operator, forward in ((bl.DCT(dims), scipy.fft.dctn), (bl.FFT(dims), scipy.fft.fftn)):
        expected = forward(x.numpy(), axes=axes, norm="ortho")
        np.testing.assert_allclose(operator(x).numpy(), expected, atol=1e-13)
        torch.testing.assert_close(operator.adjoint(operator(x)), x)


def test_the_dct_diagonalises_the_laplacian():
    eigenvalues = [2 - 2 * torch.cos(torch.pi * torch.arange(n) / n) for n in (6, 5)]
    symbol = -(eigenvalues[0][:, None] + eigenvalues[1])
    x = torch.randn(2, 1, 6, 5)
    diagonal = bl.DCT().adjoint(symbol * bl.DCT()(x))
    torch.testing.assert_close(bl.Laplacian()(x), diagonal)


@pytest.mark.parametrize("operator", [bl.DCT(), bl.FFT()], ids=repr)
def test_float32_strides_and_empty_batches(operator):
    x = torch.randn(2, 1, 5, 6)
    torch.testing.assert_close(operator(x.mT.contiguous().mT), operator(x))
    single = operator(x.float())
    assert single.real.dtype == torch.float32
    torch.testing.assert_close(single.to(operator(x)), operator(x), atol=1e-6, rtol=1e-5)
    assert operator.adjoint(operator(x[:0])).shape == (0, 1, 5, 6)


@pytest.fixture
def scan():
    """A picture of 8 x 8 and some of its frequencies, with noise."""
    image = torch.zeros(2, 1, 8, 8)
    image[0, :, 2:6, 3:7], image[1, :, 1:4, 1:7] = 1, 0.7
    mask = (torch.rand(8, 8) < 0.7).double()
    mask[0, 0] = 1
    K = bl.Mask(mask) @ bl.FFT()
    return image, K, K(image + 0.05 * torch.randn_like(image))


def test_mri_restores_better_than_the_inverse_transform(scan):
    image, K, data = scan
    x = bl.solve(bl.LeastSquares(data) @ K + 0.05 * bl.TotalVariation(isotropic=False)).x
    assert x.dtype == torch.float64
    assert (x - image).norm() < 0.5 * (K.adjoint(data) - image).norm()


def test_the_gradient_of_mri_in_its_data_weight_and_mask(scan):
    _, _, data = scan
    mask = torch.rand(8, 8) + 0.2

    def solution(weight, pairs, mask):
        K = bl.Mask(mask) @ bl.FFT()
        energy = bl.LeastSquares(torch.view_as_complex(pairs)) @ K
        return bl.argmin(energy + weight * bl.TotalVariation(isotropic=False), tol=1e-11)

    testing.gradients_agree(solution, [torch.tensor(0.05), torch.view_as_real(data), mask])


def test_complex_data_are_pairs_of_reals(scan):
    """The same solution, value and gap, whether the terms see complex numbers or their parts."""
    _, K, data = scan
    one = bl.solve(bl.LeastSquares(data) @ K + 0.02 * bl.L1(), tol=1e-10)
    pairs = bl.LeastSquares(torch.view_as_real(data)) @ bl.AsReal() @ K
    two = bl.solve(pairs + 0.02 * bl.L1(), tol=1e-10)
    torch.testing.assert_close(one.x, two.x, atol=1e-7, rtol=0)
    torch.testing.assert_close(one.value, two.value)
    assert one.gap is not None and (one.gap <= 1e-10).all()


def test_the_prox_of_the_moduli_of_frequencies(scan):
    """L21() @ AsReal() @ FFT() shrinks every frequency; known in closed form."""
    image, _, _ = scan
    energy = bl.LeastSquares(image) + 0.1 * bl.L21() @ bl.AsReal() @ bl.FFT()
    y = bl.FFT()(image)
    shrunk = y * (1 - 0.1 / y.abs().clamp_min(1e-300)).clamp_min(0)
    torch.testing.assert_close(
        bl.solve(energy, tol=1e-12).x, bl.FFT().adjoint(shrunk), atol=1e-6, rtol=0
    )


def test_a_complex_unknown_is_solved_for_as_pairs():
    """Ridge with a complex diagonal: conj(m) d / (|m|^2 + w), frequency by frequency."""
    mask, data = (torch.randn(2, 1, 4, 5, dtype=torch.complex128) for _ in range(2))
    K = bl.Mask(mask) @ bl.FFT(real=False) @ bl.AsComplex()
    x = bl.solve(bl.LeastSquares(data) @ K + 0.3 * bl.LeastSquares(), tol=1e-12).x
    expected = torch.fft.ifft2(mask.conj() * data / (mask.abs() ** 2 + 0.3), norm="ortho")
    torch.testing.assert_close(torch.view_as_complex(x), expected)


IMAGE, DATA = torch.ones(1, 1, 4, 4, dtype=torch.float64), torch.ones(1, 1, 4, 4) * (1 + 1j)
DATA = DATA.to(torch.complex128)


@pytest.mark.parametrize("energy, error, message", [
    (lambda: bl.LeastSquares(DATA), TypeError, r"x would be complex .* LeastSquares\(data\) @ FFT"),
    (lambda: bl.L1() @ bl.FFT() + bl.LeastSquares(IMAGE),
     TypeError, r"L1 takes real numbers, .* range of FFT. .* @ AsReal\(\) @ operator"),
    (lambda: bl.LeastSquares(DATA) + bl.LeastSquares(IMAGE),
     TypeError, "x would be complex"),
    (lambda: bl.LeastSquares(IMAGE) + bl.LeastSquares(DATA),
     TypeError, "the target is complex where x, or the operator's range, is real"),
    (lambda: bl.LeastSquares(IMAGE) + bl.LeastSquares(DATA) @ bl.Mask(DATA),
     TypeError, r"Mask.adjoint gives complex numbers.*operator @ AsComplex\(\)"),
    (lambda: bl.LeastSquares(IMAGE) + bl.LeastSquares(DATA) @ bl.FFT(real=False),
     TypeError, r"FFT\(real=False\) needs a complex x, got torch.float64"),
    (lambda: bl.LeastSquares(IMAGE) + bl.L1() @ bl.AsReal(), TypeError, "AsReal needs complex"),
    (lambda: bl.LeastSquares(IMAGE) + bl.L1() @ bl.AsComplex(),
     ValueError, r"AsComplex needs real and imaginary parts in the last dim"),
    (lambda: bl.LeastSquares(IMAGE) + DATA * bl.LeastSquares(), TypeError, "weight is complex"),
    (lambda: bl.LeastSquares(IMAGE.float()) + bl.LeastSquares(DATA) @ bl.FFT(),
     TypeError, r"dtype torch.complex128, .* torch.float32. .*target.to\(torch.complex64"),
    (lambda: bl.LeastSquares(DATA) @ bl.Mask(IMAGE.float()) @ bl.FFT(),
     TypeError, r"mask.to\(torch.float64\)"),
    (lambda: bl.LeastSquares(IMAGE) + bl.LeastSquares(DATA) @ bl.DCT() @ bl.FFT(),
     TypeError, r"DCT is for real numbers, .*two channels"),
    (lambda: bl.LeastSquares(IMAGE) + bl.LeastSquares(DATA) @ bl.Blur(IMAGE[0, 0]) @ bl.FFT(),
     TypeError, "Blur is for real numbers"),
    (lambda: bl.LeastSquares(IMAGE) + bl.LeastSquares(DATA) @ bl.Wavelet() @ bl.FFT(),
     TypeError, "Wavelet is for real numbers"),
    (lambda: bl.Blur(DATA[0, 0]), TypeError, "Blur's kernel is for real numbers"),
    (lambda: bl.LeastSquares(DATA * torch.nan) @ bl.FFT(), ValueError, "NaN or inf in 16 of 16"),
], ids=lambda v: v[:30] if isinstance(v, str) else "")  # fmt: skip
def test_misuse_of_complex_numbers_says_what_to_do(energy, error, message):
    with pytest.raises(error, match=message):
        bl.solve(energy())
