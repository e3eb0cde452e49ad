"""The adapters on deepinv's own physics; skipped where deepinv, or its torchvision, is not."""

import pytest
import torch

import bilevel as bl
from bilevel import testing

try:
    import deepinv
except (ImportError, RuntimeError) as absent:  # RuntimeError: a torchvision for another torch
    pytest.skip(f"needs deepinv: {absent}", allow_module_level=True)

SHAPE = (1, 8, 9)  # channels, height, width


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


KERNEL = draw(1, 1, 3, 3).abs()
MASK = (draw(1, *SHAPE) > 0).double()
p = deepinv.physics

PHYSICS = {
    "denoising": lambda: p.Denoising(p.GaussianNoise(0.1)),
    "inpainting": lambda: p.Inpainting(SHAPE, mask=MASK),
    "blur, periodic": lambda: p.Blur(KERNEL, padding="circular"),
    "blur, valid": lambda: p.Blur(KERNEL, padding="valid"),
    "blur, by FFT": lambda: p.BlurFFT(SHAPE, filter=KERNEL),
    "downsampling": lambda: p.Downsampling((1, 8, 8), filter="bilinear", factor=2),
    "compressed sensing": lambda: p.CompressedSensing(20, SHAPE, dtype=torch.float64),
    "tomography": lambda: p.Tomography(12, 8, circle=False, dtype=torch.float64, normalize=False),
    "MRI": lambda: p.MRI(mask=MASK[:, :, :8, :8], img_size=(2, 8, 8)),
    "single pixel": lambda: p.SinglePixelCamera(30, (1, 8, 8), fast=True),
}


def image(name):
    sides = (8, 9) if name not in ("downsampling", "tomography", "MRI", "single pixel") else (8, 8)
    return draw(2, 2 if name == "MRI" else 1, *sides, seed=1)


@pytest.mark.parametrize("name", PHYSICS)
def test_the_dot_test_of_a_physics(name):
    operator = bl.FromDeepinv(PHYSICS[name]().double())
    testing.adjoint_dot_test(operator, image(name))
    testing.is_linear(operator, image(name), image(name).flip(0))


def test_blur_and_mask_are_ours():
    x = image("inpainting")
    pairs = [
        (PHYSICS["blur, periodic"](), bl.Blur(KERNEL[0, 0], bl.Periodic())),
        (PHYSICS["inpainting"](), bl.Mask(MASK[0])),
    ]
    for physics, ours in pairs:
        torch.testing.assert_close(bl.FromDeepinv(physics.double())(x), ours(x))


def test_a_solution_behind_a_physics_and_its_gradient():
    physics = PHYSICS["inpainting"]().double()
    data = physics.A(image("inpainting"))

    def solution(weight):
        energy = bl.LeastSquares(data) @ bl.FromDeepinv(physics)
        return bl.argmin(energy + weight * bl.LeastSquares(), tol=1e-12)

    torch.testing.assert_close(solution(0.2), data / 1.2, rtol=1e-9, atol=1e-9)
    testing.gradients_agree(solution, [torch.tensor(0.2, dtype=torch.float64)])


def test_ours_as_their_linear_physics():
    K, x = bl.Blur(KERNEL[0, 0], bl.Periodic()), image("blur, periodic")
    ours = bl.to_deepinv(K)
    physics = p.LinearPhysics(A=ours.A, A_adjoint=ours.A_adjoint)
    assert float(physics.adjointness_test(x).abs()) < 1e-10
    y = physics.A(x)
    ridge = bl.LeastSquares(y) @ K + 0.5 * bl.LeastSquares()
    theirs = physics.prox_l2(torch.zeros_like(x), y, gamma=2.0, tol=1e-10, max_iter=200)
    torch.testing.assert_close(theirs, bl.argmin(ridge, tol=1e-12), rtol=0, atol=1e-5)
