"""unmix: against SciPy pixel by pixel, on a real cube, by the command line."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from scipy.optimize import nnls

import bilevel as bl
from command_line import bilevel, said


def mixtures(pixels=20, bands=12, materials=3):
    generator = np.random.default_rng(0)
    E = generator.random((bands, materials))
    return E, generator.random((pixels, bands))


def test_against_scipy():
    E, b = mixtures()
    heavy = 1e5 * np.ones((1, 3))  # a row that forces the sum, as is done by hand
    simplex = [nnls(np.vstack([E, heavy]), np.append(row, 1e5))[0] for row in b]
    np.testing.assert_allclose(bl.unmix(b, E, tol=1e-10), simplex, atol=1e-6)
    free = np.array([nnls(E, row)[0] for row in b])
    shares = free / free.sum(1, keepdims=True)
    np.testing.assert_allclose(bl.unmix(b, E, normalise=True, tol=1e-10), shares, atol=1e-6)


def test_a_brightness_for_each_pixel():
    E, _ = mixtures()
    a = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    dark = np.array([[0.4], [2.0]]) * (a @ E.T)
    np.testing.assert_allclose(bl.unmix(dark, E, normalise=True, tol=1e-10), a, atol=1e-6)
    assert np.abs(bl.unmix(dark, E) - a).max() > 0.05
    assert not bl.unmix(np.zeros((1, 12)), E, normalise=True).any()


def test_spectra_are_refined_through_the_shares():
    """From others, by the light in all bands, where the shares see every second one only."""
    generator = torch.Generator().manual_seed(0)
    E = torch.rand(12, 3, generator=generator, dtype=torch.float64)
    b = torch.rand(40, 3, generator=generator, dtype=torch.float64) @ E.mT
    log_spectra = (E + 0.2 * torch.rand(12, 3, generator=generator, dtype=torch.float64)).log()
    log_spectra.requires_grad_()

    def misfit(log_spectra):
        F = log_spectra.exp()
        a = bl.argmin(bl.LeastSquares(b[:, ::2]) @ bl.Matrix(F[::2]) + bl.NonNegative(), tol=1e-10)
        return (a @ F.mT - b).square().mean()

    (slope,) = torch.autograd.grad(misfit(log_spectra), log_spectra)
    way = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        plus, minus = (misfit(log_spectra + h * way) for h in (1e-6, -1e-6))
    torch.testing.assert_close((slope * way).sum(), (plus - minus) / 2e-6, rtol=1e-5, atol=1e-9)
    before = misfit(log_spectra).item()
    optimizer = torch.optim.LBFGS([log_spectra], max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = misfit(log_spectra)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert misfit(log_spectra).item() < before / 20


def test_samson_by_the_command_line(tmp_path, shared_data):
    samson = shared_data("hyperspectral_samson")
    cube = scipy.io.loadmat(samson / "Samson.mat")["Y"].T.reshape(95, 95, 156, order="F")
    E = scipy.io.loadmat(samson / "E.mat")["E"]
    np.save(tmp_path / "cube.npy", cube)
    np.save(tmp_path / "E.npy", E)
    paths = [tmp_path / name for name in ("cube.npy", "E.npy", "A.npy")]
    order = "unmix", paths[0], "--endmembers", paths[1], "-o", paths[2]
    result = bilevel(*order)
    assert result.exit_code == 0 and "3 materials in 9025 pixels" in said(result)
    again = bilevel(*order)
    assert again.exit_code == 1 and "overwrite with --force" in said(again)
    A = np.load(paths[2])
    assert A.shape == (95, 95, 3) and A.min() >= 0 and np.abs(A.sum(2) - 1).max() < 1e-6
    truth = scipy.io.loadmat(samson / "A_true.mat")["A_true"]
    assert np.sqrt(((A - truth) ** 2).mean()) < 0.15


def test_refusals():
    E, b = mixtures()
    with pytest.raises(ValueError, match="Transpose one of them"):
        bl.unmix(b, E.T)
    with pytest.raises(ValueError, match="needs normalise=True, got 0.1"):
        bl.unmix(b, E, weight=0.1)
    with pytest.raises(ValueError, match="NaN or inf"):
        bl.unmix(np.full((1, 12), np.nan), E)
    with pytest.raises(ValueError, match="complex numbers"):
        bl.unmix(b + 1j, E)
    with pytest.raises(ValueError, match="finite.*got nan"):
        bl.unmix(b, E, weight=np.nan, normalise=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nix.npy"], "nix.npy does not exist. Give an NPY file"),
        (["evil.npy"], "evil.npy could not be read as NPY"),
        (["empty.npy"], "empty.npy could not be read as NPY"),
        (["claims.npy"], "claims.npy could not be read as NPY .*size"),
        (["complex.npy"], "complex.npy holds complex128"),
        (["archive.npz"], "archive.npz is an archive of arrays"),
        (["b.npy", "-o", "no/a.npy"], "output folder no does not exist"),
        (["b.npy", "-o", "a.txt"], "a.txt is not an NPY file"),
        (["b.npy", "-o", "E.npy"], "E.npy exists. Choose another, or overwrite with --force"),
        (["b.npy", "-o", "E.npy", "--force"], "E.npy is the input. Choose another name"),
    ],
)
def test_bad_files_are_named(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    E, b = mixtures()
    for name, array in {"E": E, "b": b, "complex": b + 1j}.items():
        np.save(f"{name}.npy", array)
    np.savez("archive.npz", b)
    whole = Path("b.npy").read_bytes()
    Path("claims.npy").write_bytes(whole.replace(b"(20, 12)", b"(99, 99)"))
    Path("evil.npy").write_bytes(pickle.dumps(print))
    Path("empty.npy").touch()
    result = bilevel("unmix", "--endmembers", "E.npy", "-o", "out.npy", *arguments)
    assert result.exit_code == 1 and re.search(f"Error: .*{message}", said(result)), result.output
    assert not Path("out.npy").exists()
