"""The exact prox of 1-D total variation: its reference, its optimality, its derivatives."""

import copy
import logging
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel.kernels import compiled, taut_string
from bilevel.kernels.reference import tv1d as reference

pytestmark = pytest.mark.usefixtures("float64")


KINDS = ["pieces", "noise", "ramp", "walk", "linspace", "constant"]


def denoised(x, w, step=1.0):
    return bl.TotalVariation1D(weight=w).prox(x, step)


def signal(kind, n):
    generator = np.random.default_rng(0)
    noise = generator.standard_normal(n)
    if kind == "pieces":
        levels = generator.standard_normal(n // 100 + 1)
        return torch.from_numpy(np.repeat(levels, 100)[:n] + 0.3 * noise)
    return torch.from_numpy(
        {
            "noise": noise,
            "ramp": np.linspace(0, 10, n) + 0.3 * noise,
            "walk": np.cumsum(0.1 * noise),
            "linspace": np.linspace(0, 1, n),
            "constant": np.full(n, 0.1),
        }[kind]
    )


def draw(seed):
    """(x, w): short signals of every kind, with ties, with edges of weight 0 and inf."""
    g = torch.Generator().manual_seed(seed)
    n = int(torch.randint(1, 40, (), generator=g))
    x = torch.randn(n, generator=g) * 10.0 ** float(torch.randint(-2, 3, (), generator=g))
    w = torch.rand(n - 1, generator=g) * 10.0 ** float(torch.randint(-2, 3, (), generator=g))
    x = (x, x.cumsum(0), x.sort().values, x.round())[seed % 4]
    for every, value in ((3, 0.0), (5, torch.inf)):
        if seed % every == 0:
            w[torch.rand(n - 1, generator=g) < 0.2] = value
    return x, w


def violation(x, u, w):
    """How far u is from optimal: |z| <= w for the running sums z of x - u, z = -+w at jumps up and
    down, 0 at the end. Relative to w and x."""
    z = np.cumsum(x.numpy().astype(np.longdouble) - u.numpy().astype(np.longdouble))
    jumps, w = u.diff().numpy(), np.broadcast_to(np.asarray(w, dtype=float), len(x) - 1)
    size = w.max(initial=0) + np.abs(x.numpy()).max() + 1e-300
    beyond = (np.abs(z[:-1]) - w).max(initial=0)
    real = np.abs(jumps) > 1e-12 * size  # equal values may carry any z in between
    at_jumps = np.abs(z[:-1] + w * np.sign(jumps))[real].max(initial=0)
    return float(max(beyond, at_jumps, np.abs(z[-1])) / size)


def pooled(x, w):  # (n,), (1,) or (n - 1,) -> u, ends, signs
    """By the pooled string from the first sample on."""
    u, ends, signs = (np.empty(len(x), kind) for kind in (float, np.int32, np.int8))
    count = taut_string._pooled(x, w, 0, 0.0, u, 0, False, ends, signs, 0)
    return u, ends[:count], signs[:count]


@pytest.mark.parametrize("seed", range(60))
def test_the_kernel_is_its_reference(seed):
    x, w = draw(seed)
    size = 1 + x.abs().max()
    torch.testing.assert_close(
        denoised(x[None], w)[0], reference(x, w), rtol=0, atol=1e-14 * float(size)
    )


@pytest.mark.parametrize("seed", range(60))
def test_the_pooled_string_is_the_reference(seed):
    """From the first sample on; long signals come to it later, or never."""
    x, w = draw(seed)
    n = len(x)
    edges = w.numpy() if n > 2 else np.append(w.numpy(), 0.0)[:1]
    u, ends, signs = pooled(x.numpy(), edges)
    size = float(1 + x.abs().max())
    torch.testing.assert_close(torch.from_numpy(u), reference(x, w), rtol=0, atol=1e-13 * size)
    assert ends[-1] == n - 1 and (np.diff(ends) > 0).all()
    assert (np.sign(np.diff(u))[ends[:-1]] * signs[:-1] >= 0).all()


@pytest.mark.parametrize("kind", ["pieces", "noise", "ramp", "walk"])
@pytest.mark.parametrize("n", [700, 5000, 30_000])
@pytest.mark.parametrize("same", [True, False])
def test_lanes_find_the_segments_of_the_pooled_string(kind, n, same):
    """Where they are short, 16 parts at once, of which all but the first begin wrongly, nearly up
    to the row's end."""
    x, u = signal(kind, n).numpy(), np.empty(n)
    ends, signs = np.empty(n, np.int32), np.empty(n, np.int8)
    w = 0.3 * np.random.default_rng(1).uniform(0.5, 1, 1 if same else n - 1)
    at, z, again, block, bad, m = taut_string._in_lanes(
        x, w, 0, 0.0, 0, u, 0, False, ends, signs, 0
    )
    right = pooled(x, w)
    assert at >= n - 500 and at == ends[m - 1] + 1 and block == 0 and not bad
    assert again < n / 10  # nearly all segments are found in lanes
    assert abs(z) == (w[0] if same else w[at - 1])
    np.testing.assert_allclose(u[:at], right[0][:at], rtol=0, atol=1e-13)
    assert (ends[:m] == right[1][:m]).all() and (signs[:m] == right[2][:m]).all()


@pytest.mark.parametrize("seed", range(20))
def test_long_signals_of_changing_kind(seed):
    """In turn, in lanes, and where they do not agree: the segments of the pooled string."""
    g = np.random.default_rng(seed)
    kinds, sizes = g.choice(KINDS, 12), g.integers(100, 3000, 12)
    x = np.concatenate([signal(k, n).numpy() for k, n in zip(kinds, sizes, strict=True)])
    w = 0.3 * g.uniform(0.5, 1, len(x) - 1) * 10.0 ** np.repeat(g.integers(0, 2, 12), sizes)[:-1]
    w[g.random(len(w)) < g.choice([0, 1e-4, 1e-3])] = 0.0
    u = denoised(torch.from_numpy(x)[None], torch.from_numpy(w))[0]
    np.testing.assert_allclose(u, pooled(x, w)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight", [3.0, 1e3])
def test_blocks_of_every_length(weight):
    """Edges of weight 0 after 1, 2, ..., 140 samples, before and after sums get a new base."""
    sizes = torch.arange(1, 141)
    x, w = torch.randn(int(sizes.sum())) + 100.0, torch.full((int(sizes.sum()) - 1,), weight)
    w[sizes.cumsum(0)[:-1] - 1] = 0.0
    blocks = x.split(sizes.tolist())
    right = [reference(block, torch.full((len(block) - 1,), weight)) for block in blocks]
    torch.testing.assert_close(denoised(x[None], w)[0], torch.cat(right), rtol=0, atol=1e-12)


@pytest.mark.parametrize("where", [5, 15_000, 29_990])
def test_what_is_no_number_stops_the_lanes_between_edges_of_weight_0(where):
    x, w = signal("noise", 30_000)[None], torch.full((29_999,), 0.3)
    w[[where - 4, where + 3]] = 0.0
    right = denoised(x, w)
    x[0, where] = torch.nan
    u, block = denoised(x, w), slice(where - 3, where + 4)
    assert u[0, block].isnan().all()
    right[0, block] = torch.nan
    torch.testing.assert_close(u, right, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 3, 1000, 10**6])
def test_the_optimality_conditions_hold(kind, n):
    """1e-10: rounding of the solution itself, added up over 1e6 samples, is about 1e-12."""
    x = signal(kind, n)
    for w in (0.3, 3.0, 100.0, n / 1000):
        assert violation(x, denoised(x[None], w)[0], w) <= 1e-10
    w = torch.rand(n - 1)
    assert violation(x, denoised(x[None], w)[0], w) <= 1e-10


def test_every_signal_takes_linear_time():
    """A ramp without noise makes direct methods quadratic: 10 s and more for this one."""
    x = signal("linspace", 10**5)[None]
    denoised(x[:, :9], 1.0)
    start = time.process_time()
    denoised(x, 100.0)
    assert time.process_time() - start < 1


def test_extreme_weights():
    x = torch.randn(3, 2, 50)
    mean = x.mean(-1, keepdim=True).expand_as(x)
    assert torch.equal(denoised(x, 0.0), x)
    for w in (torch.inf, 1e300, 1e6):
        torch.testing.assert_close(denoised(x, w), mean, rtol=0, atol=1e-15)
    parted = torch.full((49,), torch.inf)
    parted[19] = 0.0
    u = denoised(x, parted)
    torch.testing.assert_close(u[..., :20], mean_of(x[..., :20]), rtol=0, atol=1e-15)
    torch.testing.assert_close(u[..., 20:], mean_of(x[..., 20:]), rtol=0, atol=1e-15)


def mean_of(x):
    return x.mean(-1, keepdim=True).expand_as(x)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (2, 1), (2, 3, 1), (2, 0), (1, 2)])
def test_small_and_empty_shapes(shape):
    x = torch.randn(shape, requires_grad=True)
    w = torch.tensor(0.1, requires_grad=True)
    u = denoised(x, w)
    assert u.shape == shape
    u.sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(shape))  # the sum of each signal is kept
    torch.testing.assert_close(w.grad, torch.tensor(0.0))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("n", [9, 4000])
def test_what_is_not_finite_stays_in_its_signal(bad, n):
    """And behind edges of weight 0. The second length comes to the pooled string."""
    x, w = signal("linspace", n).repeat(3, 1), torch.full((n - 1,), n / 1000)
    clean = denoised(x, w)
    x[1, n - 2] = bad
    u = denoised(x, w)
    assert torch.equal(u[::2], clean[::2]) and u[1].isnan().all()
    w[n // 2 - 1] = 0.0
    u = denoised(x, w)
    assert u[1, : n // 2].isfinite().all() and u[1, n // 2 :].isnan().all()


@pytest.mark.parametrize("bad", [torch.nan, -0.1])
def test_a_bad_weight_gives_nan(bad):
    x, w = torch.randn(2, 9), torch.full((2, 8), 0.5)
    w[1, 3] = bad
    u = denoised(x, w)
    assert u[0].isfinite().all() and u[1].isnan().all()
    assert denoised(x, bad).isnan().all()


def test_a_batch_is_its_samples_and_threads_change_nothing():
    x, w = torch.randn(300, 2, 500).cumsum(-1), torch.rand(300, 1, 1)
    g = torch.randn_like(x)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaves = x.clone().requires_grad_(), w.clone().requires_grad_()
            u = denoised(*leaves)
            results.append((u, *torch.autograd.grad(u, leaves, g)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    for i in (0, 150, 299):
        assert torch.equal(denoised(x[i : i + 1], w[i : i + 1])[0], results[0][0][i])


def test_awkward_tensors():
    base = torch.randn(4, 60, 3)
    x = base.movedim(1, -1)
    assert not x.is_contiguous()
    torch.testing.assert_close(denoised(x, 0.3), denoised(x.contiguous(), 0.3), rtol=0, atol=0)
    negative = torch.complex(base, base).conj().imag.movedim(1, -1)  # a view with its sign pending
    assert torch.equal(denoised(negative, 0.3), -denoised(x, 0.3))
    u = denoised(x.float(), 0.3)
    assert u.dtype == torch.float32
    torch.testing.assert_close(u, denoised(x.float().double(), 0.3).float(), rtol=0, atol=0)
    half = denoised(x.bfloat16(), 0.3)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half, denoised(x.bfloat16().float(), 0.3).bfloat16())
    for wrong in (torch.arange(6)[None], torch.ones(1, 6, dtype=torch.complex128)):
        with pytest.raises(TypeError, match="needs a real floating-point x, got torch"):
            denoised(wrong, 0.3)


def test_a_weight_that_does_not_fit_is_refused():
    x = torch.randn(2, 1, 6)
    with pytest.raises(ValueError, match=r"has 6 entries in its last dim.*each of the 5 edges"):
        denoised(x, torch.ones(6))
    with pytest.raises(ValueError, match=r"shape \(6,\), which does not broadcast into"):
        bl.solve(bl.LeastSquares(x) + torch.ones(6) * bl.TotalVariation(dims=1))


def test_behind_an_operator_the_prox_and_the_differences_agree():
    A, b = torch.randn(12, 20), torch.randn(2, 12)
    data = bl.LeastSquares(b) @ bl.Matrix(A) + 0.1 * bl.LeastSquares()
    by_prox = bl.solve(data + 0.5 * bl.TotalVariation(dims=1), tol=1e-12)
    by_differences = bl.solve(data + 0.5 * bl.L1() @ bl.Gradient(1), tol=1e-12)
    assert isinstance(by_prox.solver, bl.ForwardBackward)
    torch.testing.assert_close(by_prox.x, by_differences.x, rtol=0, atol=1e-8)


def test_dims_1_is_a_class_of_its_own():
    term = bl.TotalVariation(1, weight=0.3)
    assert type(term) is bl.TotalVariation1D and term.weight == 0.3
    assert type(bl.TotalVariation(dims=1, isotropic=False)) is bl.TotalVariation1D
    image = bl.TotalVariation(dims=3, weight=0.2)
    for other in (copy.deepcopy(image), pickle.loads(pickle.dumps(image)), replace(image)):
        assert (type(other), other.dims, other.weight) == (bl.TotalVariation, 3, 0.2)
    assert not isinstance(image, bl.Proximable) and isinstance(term, bl.Proximable)
    composed = term @ bl.Matrix(torch.randn(6, 4))
    assert isinstance(composed, bl.Composed)


def test_numba_is_imported_when_a_kernel_is_used():
    """And others when they are used, too."""
    late = {"numba", "scipy", "lightning_fabric", "matplotlib"}
    code = f"import bilevel, sys; assert not {late} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


class Slow:
    """A kernel that compiles at its first call."""

    __name__ = "slow"

    def __init__(self, loaded):
        self.overloads, self.loaded = {}, loaded

    @property
    def stats(self):
        return SimpleNamespace(cache_hits=dict.fromkeys(self.overloads, int(self.loaded)))

    def __call__(self, begin, end):
        time.sleep(0 if self.overloads else 1.01)
        self.overloads[()] = True


@pytest.mark.parametrize("loaded, told", [(False, ["compiled slow in "]), (True, [])])
def test_a_slow_first_call_says_so_once(caplog, loaded, told):
    kernel = Slow(loaded)
    with caplog.at_level(logging.WARNING, "bilevel"):
        compiled.over_rows(kernel, 2, 3)
        compiled.over_rows(kernel, 2, 3)
    assert [r.getMessage()[:17] for r in caplog.records] == told


def test_without_a_folder_for_its_cache_a_kernel_compiles_all_the_same(monkeypatch):
    def njit(cache=False, **options):
        def decorated(function):
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return function, options

        return decorated

    monkeypatch.setattr(compiled, "njit", njit)
    function, options = compiled.compiled(fastmath=True)(abs)
    assert function is abs and options["nogil"] and options["fastmath"]


def test_an_error_in_a_thread_is_not_lost(monkeypatch):
    def kernel(begin, end):
        if begin:
            raise ZeroDivisionError

    kernel.overloads = {}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ZeroDivisionError):
        compiled.over_rows(kernel, 4, 10**6)
