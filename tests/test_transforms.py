"""Radon and wavelet transforms against scikit-image and PyWavelets; both in energies."""

import builtins
import warnings

import numpy as np
import pytest
import pywt
import torch
from skimage.transform import radon

import bilevel as bl
from bilevel import testing

pytestmark = pytest.mark.usefixtures("float64")


def discs(n):
    """Two discs inside the circle of the image."""
    rows, columns = np.mgrid[:n, :n] - n // 2
    large = (columns - n // 12) ** 2 + (rows + n // 7) ** 2 < (n / 5) ** 2
    return large + 0.5 * ((columns + n // 8) ** 2 + (rows - n // 20) ** 2 < (n / 9) ** 2)


@pytest.mark.parametrize("n", [64, 65])
def test_radon_is_near_that_of_scikit_image(n):
    """Both interpolate, in other ways: 0.5 % apart on a picture of this size."""
    image, degrees = discs(n), np.arange(0, 180, 7.0)
    expected = radon(image, degrees, circle=True).T
    got = bl.Radon(torch.deg2rad(torch.tensor(degrees)))(torch.tensor(image)[None, None])[0, 0]
    assert np.linalg.norm(got.numpy() - expected) < 0.01 * np.linalg.norm(expected)


def test_radon_along_the_axes_sums_columns_and_rows():
    image = torch.randn(2, 1, 7, 7)
    sums = bl.Radon(torch.tensor([0.0, torch.pi / 2, torch.pi]))(image)
    torch.testing.assert_close(sums[..., 0, :], image.sum(-2))
    torch.testing.assert_close(sums[..., 1, :], image.sum(-1).flip(-1))
    torch.testing.assert_close(sums[..., 2, :], image.sum(-2).flip(-1))


def test_radon_is_the_same_in_pieces(monkeypatch):
    operator, image = bl.Radon(torch.linspace(0, 3, 7)), torch.randn(2, 1, 6, 6)
    sinogram = operator(image)
    back = operator.adjoint(sinogram)
    monkeypatch.setattr("bilevel.operators.radon._NUMBERS", 150)
    torch.testing.assert_close(operator(image), sinogram)
    torch.testing.assert_close(operator.adjoint(sinogram), back)


def test_the_gradient_of_radon_is_in_its_angles_too():
    angles = torch.tensor([0.3, 1.1, 2.0], requires_grad=True)
    x = torch.randn(1, 5, 5, requires_grad=True)
    y = torch.randn(1, 3, 5, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, x: bl.Radon(a)(x), (angles, x))
    assert torch.autograd.gradcheck(lambda a, y: bl.Radon(a).adjoint(y), (angles, y))


def test_tomography_from_few_angles_with_total_variation():
    image = torch.tensor(discs(16))[None, None]
    R = bl.Radon(torch.arange(8) * torch.pi / 8)
    energy = bl.LeastSquares(R(image)) @ R + 0.05 * bl.TotalVariation(isotropic=False)
    x = bl.solve(energy, tol=1e-4).x
    assert (x - image).norm() < 0.1 * image.norm()


WAVELETS = ["haar", "db2", "db5", "sym4", "coif2"]


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("shape", [(16,), (16, 24), (8, 4, 12)], ids=str)
@pytest.mark.parametrize("name", WAVELETS)
def test_wavelet_coefficients_are_those_of_pywavelets(name, shape, levels):
    x, W = torch.randn(2, *shape), bl.Wavelet(name, levels, dims=len(shape))
    got = W(x)
    for image, coefficients in zip(x, got, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a filter longer than the image wraps
            found = pywt.wavedecn(image.numpy(), name, mode="periodization", level=levels)
        expected = pywt.coeffs_to_array(found)[0]
        np.testing.assert_allclose(coefficients.numpy(), expected, atol=1e-12)
    torch.testing.assert_close(W.adjoint(got), x, atol=1e-9, rtol=0)  # filters have ten digits
    torch.testing.assert_close(W(W.adjoint(x)), x, atol=1e-9, rtol=0)


def test_every_wavelet_offered_is_orthonormal():
    with pytest.raises(ValueError, match="name of an orthogonal wavelet, got 'bior2.2'") as error:
        bl.Wavelet("bior2.2")
    names = str(error.value).split("There are: ")[1].rstrip(".").split(", ")
    assert len(names) > 50 and "dmey" not in names
    x = torch.randn(3, 32)
    for name in names:
        W = bl.Wavelet(name, dims=1)
        torch.testing.assert_close(W(x).norm(dim=1), x.norm(dim=1), rtol=1e-9, atol=0)


def test_soft_thresholding_of_wavelets_is_in_closed_form():
    """An orthonormal W: argmin 1/2 |x - y|^2 + w |Wx|_1 = W* soft(Wy), and its gradient."""
    y, W = torch.randn(2, 1, 8, 8), bl.Wavelet("db2", 2)

    def closed(y, weight):
        return W.adjoint(torch.nn.functional.softshrink(W(y), float(weight)))

    def solution(y, weight):
        return bl.argmin(bl.LeastSquares(y) + weight * bl.L1() @ W, tol=1e-12)

    torch.testing.assert_close(solution(y, 0.4), closed(y, 0.4), atol=1e-6, rtol=0)
    testing.gradients_agree(solution, [y, torch.tensor(0.4)])


@pytest.mark.parametrize("operator, shape", [
    (bl.Wavelet("db3", 2), (2, 1, 8, 12)),
    (bl.Radon(torch.tensor([0.1, 1.0])), (2, 1, 8, 8)),
    (bl.Downsample(2), (2, 1, 4, 8)),
    (bl.Hessian(), (2, 1, 4, 8)),
], ids=lambda v: type(v).__name__)  # fmt: skip
def test_float32_strides_and_empty_batches(operator, shape):
    x = torch.randn(shape)
    y = operator(x)
    torch.testing.assert_close(operator(x.mT.contiguous().mT), y)
    torch.testing.assert_close(operator.adjoint(y.mT.contiguous().mT), operator.adjoint(y))
    single = operator(x.float())
    assert single.dtype == operator.adjoint(single).dtype == torch.float32
    torch.testing.assert_close(single.double(), y, atol=1e-4, rtol=1e-4)
    assert operator.adjoint(operator(x[:0])).shape == (0, *shape[1:])


def test_misuse_says_what_to_do(monkeypatch):
    with pytest.raises(
        ValueError, match=r"multiples of 4, got \(6, 8\). Crop or pad, or take fewer"
    ):
        bl.Wavelet(levels=2)(torch.randn(1, 1, 6, 8))
    with pytest.raises(ValueError, match=r"For one image pass x\[None\]"):
        bl.Wavelet()(torch.randn(6, 8))
    with pytest.raises(ValueError, match="needs levels >= 1, got 0"):
        bl.Wavelet(levels=0)
    with pytest.raises(ValueError, match=r"up to 179. Degrees become radians by torch.deg2rad"):
        bl.Radon(torch.arange(180.0))
    with pytest.raises(ValueError, match=r"angles \(angles,\) in radians, floats, got torch.int64"):
        bl.Radon(torch.arange(3))
    with pytest.raises(ValueError, match="got some up to nan"):
        bl.Radon(torch.tensor([torch.nan]))
    R = bl.Radon(torch.linspace(0, 3, 5))
    with pytest.raises(ValueError, match=r"square, got \(1, 1, 6, 8\). Pad it"):
        R(torch.randn(1, 1, 6, 8))
    with pytest.raises(ValueError, match=r"sinograms .* got \(1, 6, 5\). scikit-image's are y.mT"):
        R.adjoint(torch.randn(1, 6, 5))

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "pywt":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'bilevel\[operators\]'"):
        bl.Wavelet()
