"""Second differences on polynomials; total generalised variation written with operators."""

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel import testing

pytestmark = pytest.mark.usefixtures("float64")
AXES = (torch.arange(n, dtype=torch.float64) for n in (6, 7))
ROWS, COLUMNS = torch.meshgrid(*AXES, indexing="ij")


def test_affine_images_have_no_second_differences():
    image = (3 + 2 * ROWS - 0.5 * COLUMNS)[None, None]
    assert bl.Hessian()(image).abs().max() < 1e-14
    volume = torch.arange(60.0).reshape(1, 3, 4, 5)  # affine, as strides are
    assert bl.Hessian(3)(volume).abs().max() < 1e-13


def test_second_differences_of_a_quadratic():
    """rows^2 + 3 rows columns: inside 2, 0 and sqrt(2) 3."""
    image = (ROWS**2 + 3 * ROWS * COLUMNS)[None]
    inside = bl.Hessian()(image)[0, :, 1:-1, 1:-1]
    expected = torch.tensor([2.0, 0.0, 3 * 2**0.5])[:, None, None].expand_as(inside)
    torch.testing.assert_close(inside, expected)


def test_the_laplacian_is_the_five_point_stencil():
    image = torch.randn(2, 1, 6, 7)
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(bl.Laplacian()(image), bl.Blur(kernel, bl.Symmetric())(image))


def tgv(noisy, weight):
    """1/2 |u - noisy|^2 + weight |Du - w|_21 + 2 weight |Ew|_21, noisy (B, H, W), x = (u, w)."""
    u, w = bl.Part(0, of=3), bl.Part(slice(1, 3), of=3)
    return (
        bl.LeastSquares(noisy) @ u
        + weight * bl.L21(dim=1) @ (bl.Gradient() @ u - w)
        + 2 * weight * bl.L21(dim=1) @ bl.SymmetrizedGradient() @ w
    )


def test_tgv_keeps_a_ramp_that_tv_turns_into_stairs():
    """The ramp is in the kernel of TGV, so clean data come back unchanged, with their slopes. From
    noisy ones TGV makes a ramp again, and TV makes stairs."""
    ramp = (0.1 * COLUMNS + 0.05 * ROWS)[None]
    x = bl.solve(tgv(ramp, 0.2)).x
    torch.testing.assert_close(x[:, 0], ramp, atol=1e-5, rtol=0)
    slopes = bl.Gradient()(ramp)
    torch.testing.assert_close(x[:, 1:], slopes, atol=1e-5, rtol=0)
    noisy = ramp + 0.05 * torch.randn_like(ramp)
    u = bl.solve(tgv(noisy, 0.2), tol=1e-4).x[:, 0]
    stairs = bl.solve(bl.LeastSquares(noisy) + 0.2 * bl.TotalVariation(), tol=1e-7).x
    assert (u - ramp).norm() < 0.5 * (stairs - ramp).norm()
    assert bl.Hessian()(u).norm() < 0.1 * bl.Hessian()(stairs).norm()


def test_the_gradient_of_tgv_in_its_data_and_weight():
    """One row: D and E are bidiagonal, and the solution has jumps and slopes."""
    noisy = torch.tensor([[0.67, 1.08, 1.24, 1.86, 2.2, 2.69, 2.57, 2.62]])

    def solution(noisy, weight):
        u, w = bl.Part(0, of=2), bl.Part(slice(1, 2), of=2)
        energy = (
            bl.LeastSquares(noisy) @ u
            + weight * bl.L1() @ (bl.Gradient(1) @ u - w)
            + 2 * weight * bl.L1() @ bl.SymmetrizedGradient(1) @ w
        )
        return bl.argmin(energy, tol=1e-11)[:, 0]

    testing.gradients_agree(solution, [noisy, torch.tensor(0.03)])


def test_operators_add_up_as_matrices_do():
    a, b, x = torch.randn(3, 5), torch.randn(3, 5), torch.randn(2, 5)
    A, B = bl.Matrix(a), bl.Matrix(b)
    torch.testing.assert_close((A + B)(x), bl.Matrix(a + b)(x))
    torch.testing.assert_close((A - 2 * B)(x), bl.Matrix(a - 2 * b)(x))
    torch.testing.assert_close((-A)(x), -A(x))
    torch.testing.assert_close((A * 2)(x), (np.float64(2) * A)(x))
    factor = torch.tensor(0.7, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: (f * A)(x), factor)
    assert not (factor * A).norm(x).requires_grad


def test_misuse_says_what_to_do():
    x = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match=r"ranges of one shape, got \[\(2, 4\), \(2, 1, 4\)\]"):
        (bl.Part(0, of=3) + bl.Part(slice(0, 1), of=3))(x)
    with pytest.raises(ValueError, match=r"Pixel by pixel is Mask\(factor\) @ operator"):
        torch.ones(4) * bl.Identity()
    with pytest.raises(ValueError, match="an index between 0 and 2, or a slice"):
        bl.Part(3, of=3)
    with pytest.raises(ValueError, match="or a slice of them without steps, got slice"):
        bl.Part(slice(0, 3, 2), of=3)
    with pytest.raises(ValueError, match="needs of, the size of x along dim"):
        bl.Part(0, of=0)
    with pytest.raises(ValueError, match=r"needs x of size 4 along dim 1, .*got \(2, 3, 4\)"):
        bl.Part(0, of=4)(x)
    with pytest.raises(ValueError, match="needs x of size 2 along dim 0, which is no batch"):
        bl.Part(0, of=2, dim=0)(x)
    with pytest.raises(ValueError, match=r"Part\(of=2, dim=7\) needs x"):
        bl.Part(0, of=2, dim=7)(x)
    with pytest.raises(ValueError, match=r"a vector field \(B, ..., 2, \*image\)"):
        bl.SymmetrizedGradient()(torch.randn(1, 3, 4, 4))
    with pytest.raises(TypeError, match="unsupported operand"):
        bl.Identity() + 1
    with pytest.raises(ValueError, match="H and W multiples of 2, got"):
        bl.Downsample(2)(torch.randn(1, 1, 4, 5))
    with pytest.raises(ValueError, match="a whole number >= 1, got 1.5"):
        bl.Downsample(1.5)


def test_downsampling_takes_every_other_pixel_or_the_mean_of_the_block():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert bl.Downsample(2)(x).flatten().tolist() == [0, 2, 8, 10]
    assert bl.Downsample(2, average=True)(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    box = bl.Blur(torch.full((2, 2), 0.25))  # even kernels are centred at their later half
    torch.testing.assert_close((bl.Downsample(2) @ box)(x), bl.Downsample(2, average=True)(x))
