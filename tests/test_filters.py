"""Denoising by a learned filter bank: the layer, and the model of the command line."""

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel.layers import (
    AbsolutePotential,
    FilterDenoise,
    FirmPotential,
    HuberPotential,
    SplinePotential,
)
from bilevel.layers.filters import dct_filters
from bilevel.tasks import data, evaluation, images, runs
from bilevel.tasks.shipped import ShippedDenoiser, denoisers
from command_line import bilevel, psnr, said

POTENTIALS = {
    "absolute": AbsolutePotential,
    "huber": lambda: HuberPotential(8, 0.05),
    "spline": lambda: SplinePotential(8, 3, 0.05),
    "firm": lambda: FirmPotential(8, 0.05),
}
SIGMA = 0.1
FORMS = [(name, sigma) for name in POTENTIALS for sigma in (None, SIGMA)][:-1]


def model(potential: str = "huber", sigma: float | None = None, **options) -> FilterDenoise:
    torch.manual_seed(1)
    options = {"size": 3, "tol": 1e-11, **options}
    denoiser = FilterDenoise(0.03, potential=POTENTIALS[potential](), sigma=sigma, **options)
    for number in denoiser.parameters():
        number.data += 0.1 * torch.randn_like(number)
    return denoiser.double()


@pytest.fixture
def noisy():
    return torch.rand(2, 1, 12, 10, dtype=torch.float64, generator=torch.manual_seed(0))


def test_the_dct_basis_is_orthonormal_and_has_no_constant():
    basis = dct_filters(7).flatten(1)
    torch.testing.assert_close(basis @ basis.T, torch.eye(48))
    torch.testing.assert_close(basis.sum(1), torch.zeros(48), atol=1e-5, rtol=0)


def test_the_answer_minimises_the_energy(noisy):
    denoiser = model()
    wide = torch.nn.functional.pad(noisy, [2] * 4, mode="reflect")
    energy = denoiser.energy(wide)
    x = bl.solve(energy, solver=bl.GradientDescent(), tol=1e-12).x
    torch.testing.assert_close(denoiser(noisy), x[..., 2:-2, 2:-2], atol=1e-7, rtol=0)


@pytest.mark.parametrize(("potential", "sigma"), FORMS)
def test_its_derivatives_are_those_of_converged_solutions(potential, sigma):
    noisy = torch.rand(1, 1, 5, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    denoiser, pull = model(potential, sigma), torch.randn_like(noisy)
    parameters = list(denoiser.parameters())
    loss = (denoiser(noisy) * pull).sum()
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)  # sigma: of the weight
    ways = [torch.randn_like(p) for p in parameters]
    ends = []
    for step in (1e-5, -2e-5):
        for p, way in zip(parameters, ways, strict=True):
            p.data += step * way
        ends.append((denoiser(noisy) * pull).sum().detach())  # settled, as a gradient may be asked
    slope = sum((s * way).sum() for s, way in zip(slopes, ways, strict=True) if s is not None)
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / 2e-5, rtol=1e-4, atol=1e-7)


def test_with_a_noise_level_it_goes_as_far_as_that_and_no_weight_matters(noisy):
    denoiser = model(sigma=SIGMA)
    wide = torch.nn.functional.pad(noisy, [2] * 4, mode="reflect")
    x = bl.solve(denoiser.energy(wide), x0=wide, tol=1e-8).x
    length = SIGMA * wide[0].numel() ** 0.5
    torch.testing.assert_close((x - wide).flatten(1).norm(dim=1), torch.full((2,), length).double())
    other = denoiser.with_weight(0.3)
    torch.testing.assert_close(other(noisy), denoiser(noisy), atol=1e-5, rtol=0)


def test_a_penalty_that_bends_down_leaves_the_energy_convex():
    denoiser = model("firm")
    x = torch.rand(1, 1, 12, 12, dtype=torch.float64)
    energy = denoiser.energy(x)
    hessian = torch.func.jacrev(energy.f.grad)(x).reshape(144, 144)
    eigenvalues = torch.linalg.eigvalsh((hessian + hessian.mT) / 2)
    assert eigenvalues.min() > 0.04
    penalty = energy.terms[1]
    assert (
        penalty.outer.slopes.min() < 0 and penalty.outer.strong_convexity(penalty.operator(x)) < 0
    )


def test_a_penalty_that_bends_down_is_refused_beside_a_constraint():
    with pytest.raises(ValueError, match="needs a convex potential"):
        model("firm", SIGMA)


def test_another_weight_leaves_the_filters(noisy):
    denoiser = model()
    other = denoiser.with_weight(0.3)
    assert other.weight.item() == pytest.approx(0.3) and denoiser.weight.item() != 0.3
    assert (other.mix == denoiser.mix).all()
    assert other(noisy).var() < denoiser(noisy).var()  # smoother


@pytest.mark.parametrize("shape", [(12, 12), (1, 3, 12, 12), (1, 1, 2, 12)])
def test_it_refuses_what_is_no_gray_image(shape):
    with pytest.raises(ValueError, match="needs images .B, 1, H, W. with sides above 2"):
        model()(torch.zeros(shape, dtype=torch.float64))


def test_it_refuses_numbers_that_are_no_weights():
    with pytest.raises(ValueError, match="got weight=-1, sigma=None, size=7"):
        FilterDenoise(-1.0)


# --------------------------------------------------------------------------- the command line


def test_filters_are_learned_judged_and_shown(here, short_slider):
    words = "learn denoise --images photos --model filters --crop 16 --crops 2 --steps 2 --out f"
    result = bilevel(*words.split())
    assert result.exit_code == 0, result.output
    assert "48 filters" in said(result)
    learned, _ = runs.load(here / "f")
    assert isinstance(learned, FilterDenoise) and (learned.mix != torch.eye(48)).any()
    result = bilevel("evaluate", "f", "--images", "photos")
    assert result.exit_code == 0, result.output
    table = evaluation.means(evaluation.read_rows(here / "f"))
    assert table["filters, learned"][25.0][0] > table["noisy"][25.0][0] + 3
    page = (here / "f" / "report.html").read_text()
    assert "The filters" in page and "learned, the strongest first" in page


def test_filters_for_a_range_of_noise_are_refused(here):
    result = bilevel(*"learn denoise --images photos --model filters --noise 5:50 --out f".split())
    assert result.exit_code == 1 and "is for one noise level, such as 25" in said(result)


def test_a_bank_for_each_of_three_levels_ships():
    assert set(denoisers()) == {15.0, 25.0, 50.0}


@pytest.mark.parametrize(("level", "bank"), [(12, 15), (20, 25), (45, 50)])
def test_denoise_without_a_model_takes_the_filters_of_the_nearest_level(here, level, bank):
    clean = images.read(here / "photos" / "a0.png")
    rng = np.random.default_rng(0)
    seen = clean.with_channels(data.noisy(clean.channels, level, rng))
    images.write(here / "seen.npy", seen)
    result = bilevel("denoise", "seen.npy", "-o", "out.npy", "--noise", level)
    assert result.exit_code == 0, result.output
    assert f"filters learned at {bank}" in said(result)
    assert psnr(here / "out.npy", here / "photos" / "a0.png") > -20 * np.log10(level / 255) + 2


def test_noise_far_from_what_the_filters_have_learned_is_told(here):
    with pytest.warns(UserWarning, match="its noise of 5.0 is far from 15"):
        ShippedDenoiser(5.0)(images.read(here / "photos" / "a0.png"))
    np.save(here / "tiny.npy", np.random.default_rng(0).random((6, 90)))
    with pytest.raises(images.ImageError, match=r"tiny.npy has less than the 7 x 7 pixels of a fi"):
        ShippedDenoiser(25.0)(images.read(here / "tiny.npy"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_flat_images_within_their_noise_are_solved(dtype):
    flat = torch.full((1, 1, 16, 16), 0.5, dtype=dtype)
    noise = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=dtype)
    denoiser = FilterDenoise(size=3, potential=AbsolutePotential(), sigma=0.1).to(dtype)
    with torch.no_grad():
        x = denoiser(torch.cat([flat, flat + 0.05 * noise]))
    assert bool((x.flatten(1).std(dim=1) < 1e-5).all())
