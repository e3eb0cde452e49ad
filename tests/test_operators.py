"""The laws of operators, on every operator of the registry."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from registry import OPERATORS, Draw

pytestmark = pytest.mark.usefixtures("float64")
every = pytest.mark.parametrize("case", OPERATORS, ids=str)


def build(case, batch=4, seed=0):
    draw = Draw(batch, case.event, seed=seed, dtype=case.dtype)
    return case.make(draw), draw


@every
def test_adjoint(case):
    for seed in range(3):
        operator, draw = build(case, seed=seed)
        testing.adjoint_dot_test(operator, draw.x(), seed)
        testing.is_linear(operator, draw.x(), draw.x())


@every
def test_zeros_of_the_right_shape(case):
    operator, draw = build(case)
    x = draw.x()
    y = operator(x)
    torch.testing.assert_close(operator.rest(x), torch.zeros_like(y))
    torch.testing.assert_close(operator.origin(y), torch.zeros_like(operator.adjoint(y)))


@every
def test_norm(case):
    operator, draw = build(case)
    testing.norm_bounds(operator, draw.x())


@every
def test_absolute(case):
    operator, draw = build(case)
    if type(operator).absolute is bl.Operator.absolute:
        with pytest.raises(TypeError, match="does not tell the absolute values of its entries"):
            operator.absolute()
        return
    testing.absolute_is_entrywise(operator, draw.x())


@every
def test_take(case):
    operator, draw = build(case)
    x = draw.x()
    y = torch.randn_like(operator(x))
    for index in ([2], [3, 0], [1, 1, 2], []):
        index = torch.tensor(index, dtype=torch.long)
        taken = operator.take(index, x)
        torch.testing.assert_close(taken(x[index]), operator(x)[index])
        torch.testing.assert_close(taken.adjoint(y[index]), operator.adjoint(y)[index])


@every
def test_samples_do_not_interact(case):
    operator, draw = build(case)
    x = draw.x()
    others = x.flip(-1) + 1
    others[1] = x[1]
    torch.testing.assert_close(operator(others)[1], operator(x)[1])


@every
def test_composition_applies_the_right_one_first(case):
    operator, draw = build(case)
    x = draw.x()
    twice = bl.Matrix(2 * torch.eye(5)) if draw.event == (5,) else bl.Identity()
    composed = operator @ twice
    torch.testing.assert_close(composed(x), operator(twice(x)))
    testing.adjoint_dot_test(composed, x)
    testing.norm_bounds(composed, x)


def test_norms_in_closed_form():
    """Gradient's is exact for every size, the matrix's to rounding."""
    for shape in [(2,), (3, 7), (4, 3, 5), (1, 6), (1,)]:
        gradient = bl.Gradient(dims=len(shape))
        n = torch.Size(shape).numel()
        columns = gradient(torch.eye(n).reshape(n, *shape)).flatten(1)
        expected = torch.linalg.matrix_norm(columns, 2)
        assert abs(gradient.norm(torch.zeros(1, *shape)) - float(expected)) <= 1e-14
    a = torch.randn(3, 4, 6)
    torch.testing.assert_close(
        bl.Matrix(a).norm(torch.zeros(3, 6)), torch.linalg.svdvals(a)[:, 0], rtol=1e-14, atol=0
    )


def test_power_iteration_bounds_a_large_matrix():
    """Beyond 256 rows and columns no exact norm is computed; the values decay, as in practice."""
    a = torch.randn(260, 1) @ torch.randn(1, 258) + 0.3 * torch.randn(260, 258)
    testing.norm_bounds(bl.Matrix(a), torch.randn(2, 258))
    testing.norm_bounds(bl.Matrix(a.to_sparse_coo()), torch.randn(2, 258))


def test_the_zero_operator():
    zeros = torch.zeros(3, 5)
    for operator, n in ((bl.Matrix(zeros), 5), (bl.Matrix(zeros.to_sparse_coo()), 5),
                        (bl.Gradient(dims=1), 1)):  # fmt: skip
        x = torch.ones(2, n)
        assert operator(x).abs().max() == 0
        assert float(operator.norm(x)) <= 1e-15


def test_a_stack_of_convolutions_is_one_convolution_of_all_kernels():
    kernel, x = torch.randn(3, 1, 2, 2), torch.randn(2, 1, 4, 5)
    stack = bl.Stack(*(bl.Convolution(k[None]) for k in kernel))
    torch.testing.assert_close(stack(x)[:, :, 0], bl.Convolution(kernel)(x))
    y = torch.randn_like(stack(x))
    torch.testing.assert_close(stack.adjoint(y), bl.Convolution(kernel).adjoint(y[:, :, 0]))


def test_the_gradient_of_a_convolution_is_in_its_kernel_and_its_input():
    kernel = torch.randn(2, 1, 2, 2, requires_grad=True)
    x = torch.randn(1, 1, 3, 4, requires_grad=True)
    y = torch.randn(1, 2, 2, 3, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k, x: bl.Convolution(k)(x), (kernel, x))
    assert torch.autograd.gradcheck(lambda k, y: bl.Convolution(k).adjoint(y), (kernel, y))


def test_a_law_that_is_broken_says_so():
    class Backward(bl.Gradient):
        def adjoint(self, y):
            return -super().adjoint(y)

        def norm(self, x):
            return 3.0

    x = torch.randn(2, 6)
    with pytest.raises(AssertionError, match="Backward: adjoint_dot_test is broken in 2 of 2"):
        testing.adjoint_dot_test(Backward(dims=1), x)
    with pytest.raises(AssertionError, match=r"Backward: norm_bounds \(tight\) is broken"):
        testing.norm_bounds(Backward(dims=1), x)
