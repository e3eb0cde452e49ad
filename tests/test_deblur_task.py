"""The deblurring task: its kernels, its camera, its layers, its inpainting sister."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

import bilevel as bl
from bilevel.layers import TVDeblur, TVDeblurer, TVDenoise
from bilevel.tasks import data, images, inpaint, kernels, runs
from bilevel.tasks.deblur import Deblur
from bilevel.tasks.images import Image, ImageError, Kind
from bilevel.tasks.task import noise_left
from bilevel.terms.composition import Composition
from photos import cartoon

BYTES = Kind(np.dtype(np.uint8))
CLEAN = cartoon(40)


def uneven(h, w):
    """A kernel without any symmetry."""
    kernel = np.random.default_rng(0).random((h, w))
    return kernel / kernel.sum()


# ------------------------------------------------------------------------------------- kernels


def test_named_kernels():
    (gauss,) = kernels.read("gaussian:1.5")
    at = np.arange(len(gauss)) - len(gauss) // 2
    assert gauss.shape == (11, 11) and abs(gauss.sum() - 1) < 1e-12
    assert abs((gauss.sum(0) * at**2).sum() - 1.5**2) < 0.05  # cut at three deviations
    (motion,) = kernels.read("motion:9:0")
    assert np.allclose(motion.sum(1)[len(motion) // 2], 1)  # along one row
    assert (motion.sum(0) > 1e-9).sum() in (9, 10, 11) and np.allclose(motion, motion[:, ::-1])
    (slanted,) = kernels.read("motion:9:45")  # to the upper right
    half = len(slanted) // 2
    assert slanted[:half, half + 1 :].sum() > 0.35 > 0.1 > slanted[:half, :half].sum()


def test_kernel_files(tmp_path):
    kernel = uneven(4, 7)
    np.save(tmp_path / "k.npy", 300 * kernel)  # no white: any scale
    np.savez(tmp_path / "k.npz", a=kernel, b=kernel[:2])
    images.write(tmp_path / "k.png", Image(kernel / kernel.max(), Kind(np.dtype(np.uint16))))
    for name, slack in (("k.npy", 1e-12), ("k.npz:a", 1e-12), ("k.png", 1e-5)):
        (back,) = kernels.read(str(tmp_path / name))
        assert np.abs(back - kernel).max() < slack and abs(back.sum() - 1) < 1e-12
    assert [k.shape for k in kernels.read(str(tmp_path / "k.npz"))] == [(4, 7), (2, 7)]
    with pytest.raises(ImageError, match="is 2 kernels. Name one of them"):
        kernels.read_one(str(tmp_path / "k.npz"))


BAD = {
    "negative": np.array([[1.0, -0.1]]),
    "zero": np.zeros((3, 3)),
    "nan": np.array([[np.nan, 1.0]]),
    "signal": np.ones(5),
    "complex": np.ones((2, 2), complex),
    "empty": np.ones((0, 3)),
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_are_no_kernel(tmp_path, name):
    np.save(tmp_path / "k.npy", BAD[name])
    with pytest.raises(ImageError, match="The kernel .* has .* (finite, at least 0|Give a gray)"):
        kernels.read(str(tmp_path / "k.npy"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gaussian:0", "write gaussian:SIGMA"),
        ("motion:nan:3", "motion:LENGTH:DEGREES"),
        ("motion:5", "motion:LENGTH:DEGREES"),
        ("nix.npy", "nix.npy does not exist"),
        ("nix.npz:a", "nix.npz does not exist"),
        ("nix.png", "nix.png does not exist"),
        ("k.mat", "k.mat does not exist"),
    ],
)
def test_kernels_that_are_not_there(text, message):
    with pytest.raises(ImageError, match=message):
        kernels.read(text)


# ---------------------------------------------------------------------------- camera and layer


@pytest.fixture
def task(tmp_path):
    """A task with the kernel of a size, made on demand."""

    def make(*sizes):
        for size in sizes:
            np.save(tmp_path / f"{size}.npy", uneven(*size))
        return Deblur(tuple(str(tmp_path / f"{size}.npy") for size in sizes))

    return make


@pytest.mark.parametrize("size", [(5, 5), (4, 6), (1, 1), (3, 8)])
def test_target_is_what_a_point_kernel_sees(size):
    """The kernel's centre is size // 2, as in `Blur`: a point there moves nothing."""
    point = np.zeros(size)
    point[size[0] // 2, size[1] // 2] = 1
    task = Deblur(("point",))
    task.__dict__["_stack"] = point[None]
    np.testing.assert_allclose(task.see(CLEAN[None]), task.target(CLEAN[None]), atol=1e-12)


@pytest.mark.parametrize("size", [(5, 5), (4, 6)])
def test_the_camera_is_a_convolution_of_what_is_there(task, size):
    here = task(size)
    expected = convolve2d(CLEAN, uneven(*size), mode="valid")
    np.testing.assert_allclose(here.see(CLEAN[None])[0], expected, atol=1e-12)
    assert here.margin == (size[0] - 1, size[1] - 1)


def test_kernels_of_several_sizes_take_turns(task):
    both, small, large = task((2, 5), (6, 3)), task((2, 5)), task((6, 3))
    for number, alone in ((0, small), (1, large), (2, small)):
        seen, frame = both.at(number).see(CLEAN[None]), both.at(number).target(CLEAN[None])
        own, whole = alone.see(CLEAN[None]), alone.target(CLEAN[None])
        # the same blur, on the smaller frame that suits both
        top, left = (a - b for a, b in zip(_corner(both), _corner(alone), strict=True))
        part = (
            slice(None),
            *(slice(o, o + n) for o, n in zip((top, left), seen.shape[1:], strict=True)),
        )
        np.testing.assert_allclose(seen, own[part], atol=1e-12)
        np.testing.assert_allclose(frame, whole[part], atol=0)


def _corner(task):
    h, w = (m + 1 for m in task.margin)
    return h - 1 - h // 2, w - 1 - w // 2


@pytest.mark.parametrize("size", [(5, 5), (4, 6)])
def test_deblur_solves_its_problem(float64, task, size):
    """Against the same energy written anew: full overlaps of a correlation with the mirror."""
    here = task(size)
    # 15 is a size that the FFT likes: the layer's scene is no larger
    y = torch.from_numpy(here.see(cartoon(15)[None]))[None]
    kernel = here.told()["kernel"]
    x = TVDeblur(0.05, tol=1e-5)(y, kernel)
    mirror = bl.Convolution(kernel.flip(0, 1)[None, None])
    misfit = Composition(bl.LeastSquares(y), mirror)  # by its prox: fewer steps
    energy = misfit + 0.05 * bl.TotalVariation() + bl.Box(0.0, 1.0)
    reference = bl.solve(energy, x0=torch.full((1, 1, 15, 15), 0.5), tol=1e-5).x
    frame = here.target(reference[0].numpy())
    # both to a gap of 1e-5, and a blur hides changes: 1e-2 is what that leaves in a pixel
    np.testing.assert_allclose(x[0].detach().numpy(), frame, atol=1e-2)


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0, 7.0])
def test_a_constant_image_is_its_own_restoration(float64, level):
    """Its energy is 0 from the start: what is left of the gap is the rounding of its values."""
    seen = torch.full((1, 1, 12, 14), level)
    x = TVDeblur(0.001)(seen, torch.from_numpy(uneven(5, 4)))
    assert (x - seen).abs().max() < 1e-12


def test_a_point_kernel_denoises(float64):
    seen = torch.from_numpy(data.noisy(CLEAN[None], 25, np.random.default_rng(0)))[None]
    a = TVDeblur(0.1, tol=1e-6)(seen, torch.ones(1, 1))
    b = TVDenoise(0.1, tol=1e-6)(seen)
    assert (a - b).abs().max() < 0.02  # strongly convex: |a - b|^2 / 2 <= two gaps, 1e-6 x 40


def test_deblurring_sharpens_up_to_the_edges(task):
    here = task((5, 5))
    clean = here.target(CLEAN[None])
    seen = data.noisy(here.see(CLEAN[None]), 1, np.random.default_rng(0))
    result = here.apply(here.model(False, 0.0005), seen, 1.0)
    frame = np.ones(clean.shape[1:], bool)
    frame[3:-3, 3:-3] = False
    for part in (frame, ~frame):  # at the edge as well as inside: no ringing
        before, after = (np.square(x - clean)[0][part].mean() for x in (seen, result))
        assert after < before / 8


def test_layers_per_noise_and_per_sample(float64, task):
    here = task((5, 4), (3, 3))
    samples = data.crops([Image(CLEAN, BYTES)], data.Noise(1, 5), here, size=16, count=2)
    batch = {name: torch.stack([s[name] for s in samples]) for name in samples[0]}
    model = here.model(True)
    assert isinstance(model, TVDeblurer) and batch["kernel"].shape == (2, 5, 4)
    together = model(batch["noisy"], batch["kernel"], batch["sigma"])
    for i in range(2):
        alone = model(*(batch[n][i : i + 1] for n in ("noisy", "kernel", "sigma")))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-9, rtol=0)


def test_the_gradient_is_that_of_differences(float64, task):
    here = task((3, 3))
    samples = data.crops([Image(CLEAN, BYTES)], data.Noise(5, 5), here, size=12, count=2)
    batch = {name: torch.stack([s[name] for s in samples]) for name in samples[0]}

    def loss(log_weight):
        model = here.model(False, float(np.exp(log_weight)))
        model.tol = 1e-5
        return model, noise_left(model, batch)

    model, value = loss(-4.0)
    value.backward()
    with torch.no_grad():
        difference = (loss(-3.95)[1] - loss(-4.05)[1]) / 0.1
    # 500 terms of the series leave 0.4 %, so much here
    assert abs(model.log_weight.grad / difference - 1) < 0.02


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (torch.ones(3), r"TVDeblur needs a kernel \(h, w\).*got \(3,\)"),
        ([[1.0]], "TVDeblur needs a kernel .*got list"),
        (torch.ones(3, 2, 2), "TVDeblur got 3 kernels for 1 images"),
    ],
)
def test_kernels_that_a_layer_refuses(kernel, message):
    with pytest.raises(ValueError, match=message):
        TVDeblur()(torch.rand(1, 1, 8, 8), kernel)


def test_a_kernel_larger_than_the_image(task):
    with pytest.raises(ValueError, match="is larger than the image"):
        task((9, 9)).see(np.ones((1, 8, 8)))


def test_a_run_gives_its_task_back(task, tmp_path):
    images.write(tmp_path / "photo.png", Image(CLEAN, BYTES))
    options: dict = {"images": str(tmp_path), "noise": "5", "crop": 8, "crops": 2}
    options["kernel"] = ["gaussian:0.5"]
    job = runs.Job.of("deblur", options)
    result = runs.learn(job, tmp_path / "run", steps=1, progress=False)
    assert runs.Job.of_run(tmp_path / "run") == job
    model, config = runs.load(tmp_path / "run")
    assert isinstance(model, TVDeblur) and config["task"] == "deblur"
    assert torch.equal(model.log_weight, result.model.log_weight)


# ---------------------------------------------------------------------------------- inpainting


def hole(size=20):
    missing = torch.zeros(size, size, dtype=torch.bool)
    missing[8:12, 3:15] = True
    return missing


def test_inpainting_keeps_what_is_known_and_continues_an_edge(float64):
    clean = torch.zeros(1, 1, 20, 20)
    clean[..., 10:] = 0.8
    given = torch.where(hole(), 0.3, clean)
    filled = inpaint.inpaint(given, hole(), None)
    assert torch.equal(filled[..., ~hole()], clean[..., ~hole()])
    # the straight edge is shortest, but the price of isotropic differences hardly changes if the
    # edge is smeared over a pixel
    assert (filled - clean).abs().mean() < 0.01


def test_inpainting_has_the_least_total_variation(float64):
    """No other filling has less: against random changes of the missing pixels."""
    given = torch.from_numpy(cartoon(20))[None, None]
    filled = inpaint.inpaint(given, hole(), None)
    tv = bl.TotalVariation()
    for size in (1e-1, 1e-2):
        other = filled + size * torch.randn(50, 1, 20, 20) * hole()
        assert (tv.value(other) >= tv.value(filled) * (1 - 2 * inpaint.TOL)).all()


def test_inpainting_with_a_weight_denoises(float64):
    """Without a hole that matters it is denoising: the energies agree to the gap."""
    clean = torch.from_numpy(cartoon(20))[None, None]
    noisy = clean + 0.1 * torch.randn_like(clean)
    missing = torch.zeros(20, 20, dtype=torch.bool)
    missing[10, 10] = True
    filled = inpaint.inpaint(noisy, missing, 0.1)
    known = (~missing).double()
    misfit = bl.LeastSquares(known * noisy) @ bl.Mask(known[None, None])
    energy = misfit + 0.1 * bl.TotalVariation()
    best = bl.solve(energy, x0=noisy, tol=1e-5).x
    assert float(energy.value(filled) / energy.value(best)) < 1 + 2 * inpaint.TOL


@pytest.mark.parametrize(
    ("mask", "message"), [(0.0, "is black everywhere"), (1.0, "is white everywhere")]
)
def test_masks_without_a_meaning(tmp_path, mask, message):
    images.write(tmp_path / "m.png", Image(np.full((8, 8), mask), BYTES))
    with pytest.raises(ImageError, match=message):
        inpaint.Inpainter.of(tmp_path / "m.png", None)
