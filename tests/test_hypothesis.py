"""The laws again, on shapes and dtypes that nobody thought of."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bilevel as bl
from bilevel import testing
from registry import OPERATORS, TERMS, Draw

few = settings(deadline=None, max_examples=5, derandomize=True, database=None)
dtypes = st.sampled_from([torch.float32, torch.float64])


@st.composite
def draws(draw, case, smallest=1):
    """An instance of a case with a random batch, sizes, dtype and seed; the rank stays."""
    fixed = max(case.kept, 1 if case.event[0] == 1 else 0)  # channels that a kernel asks for
    sizes = st.integers(smallest, 6)
    event = case.event[:fixed] + tuple(draw(sizes) for _ in case.event[fixed:])
    event = event[:-1] + event[-2:-1] if case.square else event
    dtype = draw(dtypes)
    dtype = dtype.to_complex() if case.dtype.is_complex else dtype
    return Draw(draw(st.integers(0, 4)), event, dtype, draw(st.integers(0, 99)))


def scaled(draw, data):
    return draw.x() * data.draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0]))


VALUED = [c for c in TERMS if c.valued]
PROXIMABLE = [c for c in VALUED if isinstance(c.make(Draw(event=c.event)), bl.Proximable)]
DUALIZABLE = [c for c in TERMS if isinstance(c.make(Draw(event=c.event)), bl.Dualizable)]


@pytest.mark.parametrize("case", PROXIMABLE, ids=str)
@few
@given(data=st.data())
def test_prox(case, data):
    draw = data.draw(draws(case))
    term, x = case.make(draw), scaled(draw, data)
    step = data.draw(st.sampled_from([0.05, 1.0, 7.0]))
    assert term.prox(x, step).dtype == draw.dtype
    testing.prox_minimises(term, x, step)
    if case.convex:
        testing.prox_firmly_nonexpansive(term, x, draw.x(), step)
    testing.moreau(term, x, step)


@pytest.mark.parametrize("case", DUALIZABLE, ids=str)
@few
@given(data=st.data())
def test_conjugate(case, data):
    draw = data.draw(draws(case))
    term = case.make(draw)
    testing.conjugate_inequality(term, scaled(draw, data), scaled(draw, data))


@pytest.mark.parametrize("case", [c for c in VALUED if c.indexable], ids=str)
@few
@given(data=st.data())
def test_take(case, data):
    draw = data.draw(draws(case))
    term, x = case.make(draw), draw.x()
    rows = st.lists(st.integers(0, draw.batch - 1), max_size=5) if draw.batch else st.just([])
    testing.take_is_indexing(term, x, torch.tensor(data.draw(rows), dtype=torch.long))
    testing.values_are_per_sample(term, x)


@pytest.mark.parametrize("case", OPERATORS, ids=str)
@few
@given(data=st.data())
def test_operators(case, data):
    draw = data.draw(draws(case, smallest=2))
    operator = case.make(draw)
    testing.adjoint_dot_test(operator, draw.x())
    testing.is_linear(operator, draw.x(), draw.x())
    image = operator(draw.x())
    assert image.dtype.to_real() == draw.dtype.to_real()
    assert operator.adjoint(image).dtype == draw.dtype
    if draw.batch == 1:  # of many small products, the slow part
        testing.norm_bounds(operator, draw.x())


@few
@given(
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 3),
    dtypes,
    st.booleans(),
)
def test_denoising_any_image(batch, channels, height, width, dtype, isotropic):
    """Also images of one pixel, one row, none at all in the batch."""
    draw = Draw(batch, (channels, height, width + 1), dtype)
    y, weight = draw.x(), torch.tensor(0.2, dtype=dtype, requires_grad=True)
    energy = bl.LeastSquares(y) + weight * bl.TotalVariation(isotropic=isotropic)
    x = bl.argmin(energy, tol=1e-5)
    assert x.shape == y.shape and x.dtype == dtype
    torch.testing.assert_close(x.sum((2, 3)), y.sum((2, 3)), rtol=1e-2, atol=1e-2)  # D 1 = 0
    x.square().sum().backward()
    assert weight.grad is None or weight.grad.isfinite()
