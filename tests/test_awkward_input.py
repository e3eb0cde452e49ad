"""Unusual input that makes sense gets the right answer: empty batches, strides, scales, modes."""

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel.terms.composition import Composition

F64 = torch.float64
A = torch.randn(7, 5, dtype=F64, generator=torch.Generator().manual_seed(1))
B = torch.randn(3, 7, dtype=F64, generator=torch.Generator().manual_seed(2))
IMAGES = torch.rand(2, 3, 5, 6, dtype=F64, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def weight():
    return torch.tensor(0.1, dtype=F64, requires_grad=True)


def tv(images, weight) -> bl.Problem:
    return bl.LeastSquares(images) + weight * bl.TotalVariation()


def lasso(data, weight, matrix=A) -> bl.Problem:
    return bl.LeastSquares(data) @ bl.Matrix(matrix) + weight * bl.L1()


def both(energy, *leaves, **options):
    """(x, gradients of a fixed quadratic loss)."""
    x = bl.argmin(energy, **options)
    return x.detach(), torch.autograd.grad(x.square().sum() + x.sum(), leaves)


# Batches


@pytest.mark.parametrize(
    "energy, options",
    [
        (lambda w: lasso(B[:0], w), {}),
        (lambda w: lasso(B[:0], w), {"diff": bl.Unroll()}),
        (lambda w: lasso(B[:0], w), {"diff": bl.OneStep()}),
        (lambda w: tv(IMAGES[:0], w), {}),
        (lambda w: w * bl.LeastSquares(B[:0]), {"solver": bl.GradientDescent()}),
        (lambda w: w * bl.LeastSquares(B[:0]) + bl.Simplex(), {}),
        (lambda w: w * bl.LeastSquares(B[:0]) + bl.Box(B[:0], B[:0] + 1), {}),
        (lambda w: w * bl.Logistic(B[:0]) + bl.L2Ball(1.0, B[:0]), {}),
        (lambda w: w * bl.Potential(lambda x: x.square().sum(1)), {"x0": B[:0]}),
    ],
)
def test_an_empty_batch_has_an_empty_answer_and_a_zero_gradient(energy, options, weight):
    x, (gradient,) = both(energy(weight), weight, **options)
    assert len(x) == 0 and x.ndim >= 2 and gradient == 0
    options.pop("diff", None)
    assert bl.solve(energy(weight), **options).certificate.converged.shape == (0,)


def test_an_image_of_one_pixel_is_itself(weight):
    x, (gradient,) = both(tv(torch.ones(2, 1, 1, dtype=F64), weight), weight)
    assert torch.allclose(x, torch.ones_like(x)) and gradient == 0


@pytest.mark.parametrize(
    "layout", ["channels last", "transposed", "strided", "negated", "expanded"]
)
def test_strides_play_no_part(layout, weight):
    images = IMAGES.clone()
    if layout == "channels last":
        same = images.contiguous(memory_format=torch.channels_last)
    elif layout == "transposed":
        same = images.mT.contiguous().mT
    elif layout == "strided":
        same = torch.stack([images, images], -1)[..., 0]
    elif layout == "negated":  # a lazy negative view
        same = torch.complex(images, -images).conj().imag
    else:
        images = images[:1].expand(2, 3, 5, 6).contiguous()
        same = images[:1].expand(2, 3, 5, 6)
    x, (gradient,) = both(tv(images, weight), weight)
    y, (other,) = both(
        tv(same, weight), weight, x0=torch.zeros((), dtype=F64).expand_as(same) + same
    )
    assert torch.allclose(x, y, atol=1e-9) and torch.allclose(gradient, other, atol=1e-7)


@pytest.mark.parametrize("solver", [bl.ForwardBackward, bl.PrimalDual])
def test_each_sample_may_have_its_step(solver):
    limit = 1 / float(torch.linalg.matrix_norm(A, 2) ** 2)
    steps = limit * torch.tensor([0.3, 0.9, 0.6], dtype=F64)
    together = bl.solve(lasso(B, 0.1), solver=solver(steps), tol=1e-10).x
    for i, step in enumerate(steps.tolist()):
        alone = bl.solve(lasso(B[i : i + 1], 0.1), solver=solver(step), tol=1e-10).x
        assert torch.allclose(together[i : i + 1], alone, atol=1e-9)


def test_the_data_may_come_from_a_graph(weight):
    row = B[:1].clone().requires_grad_()
    _, (whole,) = both(lasso(2 * row.expand(3, 7), weight), row)
    _, (one,) = both(lasso(2 * row, weight), row)
    assert torch.allclose(whole, 3 * one)


# Scales


@pytest.mark.parametrize("dtype, scale", [
    (F64, 1e100), (F64, 1e30), (F64, 1e-30), (F64, 1e-100),
    (torch.float32, 1e12), (torch.float32, 1e-12),
], ids=lambda value: getattr(value, "__name__", str(value)))  # fmt: skip
@pytest.mark.parametrize("kind", [tv, lasso], ids=["tv", "lasso"])
def test_units_of_the_data_play_no_part(kind, dtype, scale):
    tol = 1e-4 if dtype == torch.float32 else 1e-6
    data, matrix = (IMAGES if kind is tv else B).to(dtype), A.to(dtype)
    more = {} if kind is tv else {"matrix": matrix}

    def run(factor):
        data_, w = (factor * data).requires_grad_(), torch.tensor(0.3 * factor, dtype=dtype)
        x = bl.argmin(kind(data_, w.requires_grad_(), **more))
        return x.detach() / factor, *torch.autograd.grad(x.sum(), [data_, w])

    for plain, scaled in zip(run(1.0), run(scale), strict=True):
        assert torch.allclose(plain, scaled, atol=50 * tol, rtol=50 * tol)


@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1e-14, 1e-8, 1e2, 1e4, 1e8, 1e14])
def test_a_learned_weight_may_go_astray(size, dtype):
    images = IMAGES[:1].to(dtype)
    weight = torch.tensor(size, dtype=dtype, requires_grad=True)
    x, (gradient,) = both(tv(images, weight), weight, max_iter=3000)
    expected = images if size < 1 else images.mean((2, 3), keepdim=True).expand_as(images)
    assert torch.allclose(x, expected, atol=1e-6 if dtype == F64 else 1e-4)
    assert gradient.isfinite()


@pytest.mark.parametrize("level", [0.0, 1e-9, 0.3, 1e6])
def test_an_energy_that_is_zero_from_the_start_has_a_gap_at_rounding(level):
    y = torch.full((2, 1, 6, 7), level, dtype=F64)
    blur = bl.Blur(torch.tensor([[0.2, 0.5, 0.3]], dtype=F64))
    data = Composition(bl.LeastSquares(blur(y)), blur)  # by its prox
    solution = bl.solve(data + 0.1 * bl.TotalVariation() + bl.Box(0.0, 1e7), x0=y)
    assert torch.allclose(solution.x, y, rtol=1e-12, atol=0)
    assert level == 0 or (solution.gap < 1e-13).all()


def test_a_run_that_creeps_is_not_taken_for_rounding():
    stiff = bl.Matrix(torch.tensor([[1.0, 0.0], [0.0, 1e-3]], dtype=F64))
    energy = bl.LeastSquares(torch.ones(1, 2, dtype=F64)) @ stiff + 1e-5 * bl.L1()
    options = dict(solver=bl.ForwardBackward(), acceleration=bl.Plain(), max_iter=2000)
    solution = bl.solve(energy, on_fail="ignore", **options)
    assert not solution.converged.any() and (solution.gap > 0.5).all()


def test_a_weight_of_zero_leaves_the_other_terms(weight):
    zero = torch.zeros((), dtype=F64, requires_grad=True)
    x, (gradient,) = both(tv(IMAGES, zero), zero)
    assert torch.allclose(x, IMAGES) and gradient.isfinite()
    for data in (0.0 * bl.LeastSquares(B), 0.0 * bl.Huber(1.0, B), 0.0 * bl.Logistic(B.sign())):
        assert bl.solve(data + bl.L1()).x.abs().max() < 1e-6
    mask = (torch.arange(6) % 2).to(F64)  # inpainting: no data at every other column
    x = bl.solve(mask * bl.LeastSquares(IMAGES) + 1e-3 * bl.TotalVariation(isotropic=False)).x
    assert torch.allclose(x[..., 1::2], IMAGES[..., 1::2], atol=5e-3)
    x = bl.solve(0.0 * bl.LeastSquares(B) + 0.0 * bl.L1()).x
    assert torch.equal(x, B)


@pytest.mark.parametrize("energy, data", [(lasso, B), (tv, IMAGES)], ids=["lasso", "tv"])
@pytest.mark.parametrize(
    "diff",
    [bl.FixedPoint(), bl.Implicit(), bl.PartlySmooth(), bl.Truncated(30), bl.Unroll()],
    ids=lambda diff: type(diff).__name__,
)
@pytest.mark.parametrize("dtype, power", [(torch.float32, 90), (torch.float64, 600)], ids=str)
def test_cotangents_whose_squares_are_no_numbers(energy, data, diff, dtype, power):
    data = data.to(dtype, copy=True).requires_grad_()
    matrix = {"matrix": A.to(dtype)} if energy is lasso else {}
    problem = energy(data, torch.tensor(0.1, dtype=dtype), **matrix)
    x = bl.argmin(problem, diff=diff, tol=1e-4)

    def pulled(g):
        return torch.autograd.grad(x, data, g, retain_graph=True)[0]

    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=dtype)
    plain = pulled(g)
    assert bool(plain.any())
    for scale in (2.0**-power, 2.0**power):
        torch.testing.assert_close(pulled(scale * g) / scale, plain)
    g[0] = 0.0  # beside one that is none at all
    torch.testing.assert_close(pulled(2.0**-power * g)[1:] / 2.0**-power, plain[1:])


@pytest.mark.parametrize("diff", [bl.FixedPoint(), bl.Implicit(), bl.FlatZones()], ids=repr)
def test_a_cotangent_that_is_infinite_is_refused(diff):
    data = IMAGES.clone().requires_grad_()
    x = bl.argmin(tv(data, 0.1), diff=diff, tol=1e-4)
    g = torch.ones_like(x)
    g[1, 0, 0, 0] = torch.inf
    with pytest.raises(bl.NotConverged):
        x.backward(g)


# Matrices


@pytest.mark.parametrize("layout", ["to_sparse_coo", "to_sparse_csr", "to_sparse_csc"])
@pytest.mark.parametrize("diff", [None, bl.FixedPoint(bl.GMRES()), bl.Unroll()], ids=repr)
@pytest.mark.filterwarnings("ignore:Sparse")  # torch calls them beta
def test_sparse_matrices_do_what_dense_ones_do(layout, diff, weight):
    dense = torch.where(A > 0, A, 0.0)
    data = B.clone().requires_grad_()
    x, gradients = both(lasso(data, weight, dense), weight, data, diff=diff, tol=1e-11)
    sparse = getattr(dense, layout)()
    y, others = both(lasso(data, weight, sparse), weight, data, diff=diff, tol=1e-11)
    assert torch.allclose(x, y, atol=1e-9)
    for gradient, other in zip(gradients, others, strict=True):
        assert torch.allclose(gradient, other, atol=1e-7)


def test_the_entries_of_a_sparse_matrix_have_gradients():
    dense = torch.where(A > 0, A, 0.0)
    leaf, sparse = dense.clone().requires_grad_(), dense.to_sparse().requires_grad_()
    _, (expected,) = both(lasso(B, 0.1, leaf), leaf, tol=1e-11)
    _, (gradient,) = both(lasso(B, 0.1, sparse), sparse, tol=1e-11)
    assert torch.allclose(gradient.to_dense(), torch.where(A > 0, expected, 0.0), atol=1e-7)


# Modes


def test_autocast_is_off_inside():
    kernel = torch.randn(2, 1, 3, 3)
    image, weight = IMAGES[:, :1].float(), torch.tensor(0.1, requires_grad=True)

    def energy():
        return bl.LeastSquares(image) + weight * bl.L1() @ bl.Convolution(kernel)

    def network():  # what it hands over is rounded, and refused
        return torch.nn.functional.conv2d(image, kernel[:1], padding=1)

    expected, (gradient,) = both(energy(), weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = bl.argmin(energy())
        assert torch.equal(bl.solve(energy()).x, bl.solve(energy()).x)
        with pytest.raises(TypeError, match="torch.bfloat16, too coarse to solve in"):
            bl.argmin(bl.LeastSquares(network()) + weight * bl.L1())
    assert x.dtype == torch.float32 and torch.equal(x, expected)
    (other,) = torch.autograd.grad(x.square().sum() + x.sum(), weight)
    assert torch.equal(gradient, other)


def test_without_grad_mode_nothing_is_recorded(weight):
    energies = [
        tv(IMAGES, weight),
        lasso(B, weight),
        weight * bl.Potential(lambda x: x.cosh().sum(1)),
    ]
    for energy in energies:
        with torch.no_grad():
            assert not bl.argmin(energy, x0=None if energy is not energies[2] else B).requires_grad
    with torch.inference_mode():
        assert bl.argmin(tv(IMAGES, 0.1)).is_inference()
        made_inside = IMAGES.clone()
    _, (gradient,) = both(tv(made_inside, weight), weight)
    _, (expected,) = both(tv(IMAGES, weight), weight)
    assert torch.equal(gradient, expected)


def test_an_answer_without_parameters_has_no_gradient():
    for energy in (tv(IMAGES, 0.1), lasso(B, 0.1), bl.Potential(lambda x: x.cosh().sum(1))):
        x0 = B if isinstance(energy, bl.Potential) else None
        assert not bl.argmin(energy, x0=x0).requires_grad


def test_another_default_dtype_plays_no_part(weight):
    single = torch.tensor(0.1, requires_grad=True)

    def answers():
        yield from both(tv(IMAGES, weight), weight)
        yield from both(tv(IMAGES.float(), single), single)
        yield from both(lasso(B, weight), weight)
        yield bl.solve(bl.LeastSquares(B) @ bl.Matrix(A) + bl.Simplex()).x
        yield bl.solve(bl.Huber(0.5, B) + 0.1 * bl.ElasticNet() + bl.Box(0, 1)).x
        yield bl.solve(bl.LeastSquares(B) + bl.L2Ball(0.5) + bl.L1() @ bl.Gradient(1)).x

    before = torch.get_default_dtype()
    found = []
    try:
        for dtype in (torch.float32, F64):
            torch.set_default_dtype(dtype)
            found.append([a if isinstance(a, torch.Tensor) else a[0] for a in answers()])
    finally:
        torch.set_default_dtype(before)
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)


def test_the_number_of_threads_plays_no_part():
    images = torch.rand(1, 1, 192, 192)  # large enough for torch to split its loops
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(bl.solve(tv(images, 0.1), max_iter=30, on_fail="ignore").x)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_runs_repeat_and_leave_the_random_numbers_alone(weight):
    state = torch.random.get_rng_state()
    (x, (gradient,)), (y, (other,)) = (both(tv(IMAGES, weight), weight) for _ in range(2))
    assert torch.equal(x, y) and torch.equal(gradient, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_energies_add_up_as_numbers_do(weight):
    terms = [bl.LeastSquares(B), weight * bl.L1()]
    x = bl.solve(terms[0] + terms[1]).x
    assert torch.equal(bl.solve(sum(terms)).x, x)
    assert torch.allclose(bl.solve(2 * sum(terms)).x, x)
    assert torch.equal(bl.solve(terms[0] + np.float64(0.1) * bl.L1()).x, x)
    whole = bl.solve(bl.LeastSquares(B) + 1 * bl.L1(), solver=bl.ForwardBackward(1)).x
    assert torch.allclose(whole, bl.solve(bl.LeastSquares(B) + 1.0 * bl.L1()).x)
