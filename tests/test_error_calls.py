"""A bad call gets an error that says what is wrong, what was received and what to do."""

import numpy as np
import pytest
import torch

import bilevel as bl
from small_energies import L1, LS, TV, A, Matrix, Plain, b, full, image, lasso, nan, spoil, y


def energy() -> bl.Problem:
    return LS(y) + 0.1 * L1()


OPTIONS = [
    ({"x0": y[0]}, ValueError, r"x0 has shape \(5,\): dim 0 must be the batch. .*x0\[None\]"),
    ({"x0": y.tolist()},
     TypeError, r"x0 must be a torch tensor, got list. Use torch.as_tensor\(x0\)"),
    ({"x0": y.float()}, TypeError, "target has dtype torch.float64, x0 has torch.float32"),
    ({"x0": spoil(y, nan)}, ValueError, "x0 is NaN or inf in 1 of 15 values"),
    ({"x0": y.to("meta")}, ValueError, "x0 is on the meta device"),
    ({"x0": y.long()}, TypeError, "x0 has dtype torch.int64: floating point is needed"),
    ({"x0": y[:2]},
     ValueError, r"target has shape \(3, 5\), which does not broadcast into \(2, 5\)"),
    ({"solver": bl.PrimalDual}, TypeError, r"is the class PrimalDual, .* solver=PrimalDual\(\)"),
    ({"solver": "fista"},
     TypeError, r"instance of Solver, got 'fista'. There are: ADMM\(\), "),
    ({"acceleration": "fista"}, TypeError, r"instance of Acceleration, got 'fista'.*Nesterov\(\)"),
    ({"acceleration": bl.Nesterov}, TypeError, r"acceleration=Nesterov\(\)"),
    ({"tol": 0}, ValueError, "tol must be a number between 0 and 1, got 0"),
    ({"tol": nan}, ValueError, "tol must be a number between 0 and 1, got nan"),
    ({"tol": "1e-3"}, TypeError, "tol must be a number between 0 and 1, got '1e-3'"),
    ({"max_iter": 0}, ValueError, "max_iter must be a whole number, at least 1, got 0"),
    ({"max_iter": 2.5}, TypeError, "max_iter must be a whole number, at least 1, got 2.5"),
    ({"max_time": 0}, ValueError, "max_time must be a number of seconds > 0, .* got 0"),
    ({"max_time": nan}, ValueError, "max_time must be .* got nan"),
    ({"max_time": "1h"}, TypeError, "max_time must be .* got '1h'"),
    ({"on_fail": "explode"}, ValueError, "on_fail must be .* got 'explode'"),
]  # fmt: skip


@pytest.mark.parametrize("options, error, message", OPTIONS, ids=[m[:40] for *_, m in OPTIONS])
@pytest.mark.parametrize("function", [bl.argmin, bl.solve])
def test_a_bad_option_is_refused(options, error, message, function):
    with pytest.raises(error, match=message):
        function(energy(), **options)


SMOOTH, SPARSE, IMAGE = LS(b) @ Matrix(A), lasso(), LS(image) + 0.1 * TV()
GD, FB, PD = bl.GradientDescent, bl.ForwardBackward, bl.PrimalDual
SOLVERS = [
    # steps
    (SMOOTH, {"solver": GD(1.0)},
     ValueError, r"step_size = 1 cannot converge: it must be below 2 / L = 0\.\d+. Leave it out"),
    (SMOOTH, {"solver": GD(1)}, ValueError, r"cannot converge: it must be below 2 / L = 0\.\d+"),
    (SPARSE, {"solver": FB(1.0)},
     ValueError, "step_size = 1 cannot converge: it must be below 2 / L"),
    (SPARSE, {"solver": FB(full(3, value=1.0))}, ValueError, "step_size = 1 cannot converge"),
    (SMOOTH, {"solver": GD(1e-9)}, ValueError, "step_size = 1e-09 is too small to get anywhere"),
    (SMOOTH, {"solver": GD(0.0)}, ValueError, "step_size must be positive and finite, got 0.0"),
    (SMOOTH, {"solver": GD(nan)}, ValueError, "step_size must be positive and finite, got nan"),
    (SMOOTH, {"solver": GD("auto")},
     TypeError, "step_size must be a number or a tensor, got 'auto'"),
    (SMOOTH, {"solver": GD(full(2))},
     ValueError, r"step_size has shape \(2,\): a number, or one a sample, \(3,\)"),
    (SPARSE, {"solver": FB(full(3, 1))}, ValueError, r"step_size has shape \(3, 1\)"),
    (SPARSE, {"solver": FB(full(3).float())},
     ValueError, "step_size is torch.float32 on cpu, x is torch.float64"),
    (IMAGE, {"solver": PD(0.5, 0.5)},
     ValueError, r"step_size = 0.5 cannot converge: .* 1 / \(dual_step_size \|K\|\^2"),
    (IMAGE, {"solver": PD(-1.0)}, ValueError, "step_size must be positive and finite, got -1"),
    (IMAGE, {"solver": PD(dual_step_size=0.0)}, ValueError, "dual_step_size must be positive"),
    (IMAGE, {"solver": PD(dual_step_size=full(3))}, ValueError, r"dual_step_size has shape \(3,\)"),
    (SPARSE + TV(dims=1), {"solver": PD(1.0)},
     ValueError, "step_size = 1 cannot converge: .* 2 / L"),
    # what the solver needs
    (SPARSE, {"solver": GD()},
     TypeError, r"smooth energy, got LeastSquares @ Matrix \+ L1. Use ForwardBackward\(\)"),
    (IMAGE, {"solver": GD()}, TypeError, r"needs a smooth energy, got .* Use PrimalDual\(\)"),
    (IMAGE, {"solver": FB()},
     TypeError, r"without composed terms, got TotalVariation. Use PrimalDual\(\)"),
    (LS(y) + L1() + bl.Box(0, 1), {"solver": FB()},
     TypeError, "composed terms, got Box @ Identity"),
    (IMAGE, {"acceleration": bl.Nesterov()},
     TypeError, r"Nesterov is for GradientDescent.* got PrimalDual. Use Halpern"),
    (IMAGE, {"acceleration": bl.Backtracking()},
     TypeError, "Backtracking needs a smooth f and no composed"),
    (SPARSE, {"acceleration": bl.Accelerated()},
     TypeError, r"two steps of PrimalDual\(\), got ForwardBackward"),
    (SPARSE, {"acceleration": bl.ExactLineSearch()},
     TypeError, "ExactLineSearch needs a quadratic energy alone"),
    (SPARSE, {"acceleration": bl.ExactLineSearch(), "solver": PD()},
     TypeError, "quadratic energy alone"),
    (SPARSE, {"acceleration": bl.Backtracking(), "solver": PD()},
     TypeError, "Backtracking is for Gradient"),
]  # fmt: skip


@pytest.mark.parametrize(
    "problem, options, error, message", SOLVERS, ids=[m[:40] for *_, m in SOLVERS]
)
def test_a_solver_that_cannot_work_is_refused(problem, options, error, message):
    with pytest.raises(error, match=message):
        bl.solve(problem, **options)


ALGEBRA = [
    (lambda: L1() @ L1(),
     TypeError, r"L1 @ L1: an operator is needed on the right. Wrap a matrix as Matrix\(A\)"),
    (lambda: L1() @ A, TypeError, "L1 @ Tensor: an operator is needed"),
    (lambda: Plain() @ Matrix(A),
     TypeError, "Plain can be composed .* only if it is Smooth or Proximable"),
    (lambda: L1() * L1(), TypeError, "weight of L1 must be a number or a tensor, got L1"),
    (lambda: "a" * L1(), TypeError, "weight of L1 must be a number or a tensor, got str"),
    (lambda: 2j * L1(), TypeError, "weight of L1 must be a number or a tensor, got complex"),
    (lambda: np.ones(5) * L1(),
     TypeError, r"got ndarray. An array becomes a tensor by torch.as_tensor\(weight\)"),
    (lambda: 0.1 * bl.Box(0, 1),
     TypeError, "Box has no weight to multiply by 0.1: .* Leave it out"),
    (lambda: 0.1 * (LS(y) + bl.Box(0, 1)), TypeError, "Box has no weight to multiply by 0.1"),
    (lambda: energy() + 1,
     TypeError, "only terms can be added to an energy, got int. A number does not change"),
    (lambda: 1 + LS(y), TypeError, "only terms can be added to an energy, got int"),
    (lambda: LS(y) + y, TypeError, "only terms can be added to an energy, got Tensor"),
    (lambda: y + LS(y), TypeError, "only terms can be added to an energy, got Tensor"),
    (lambda: LS(y) + bl.L1, TypeError, r"got the class L1.*parentheses, L1\(\)"),
    (lambda: Matrix([[1.0]]), ValueError, r"Matrix needs a tensor \(m, n\), .* got list"),
    (lambda: Matrix(y[0]), ValueError, r"got shape \(5,\), torch.strided"),
    (lambda: Matrix(torch.stack([A, A]).to_sparse()),
     ValueError, r"got shape \(2, 7, 5\), torch.sparse_coo"),
    (lambda: bl.Stack(), ValueError, "Stack needs at least one operator, got none"),
    (lambda: bl.Stack([Matrix(A)]),
     TypeError, r"Stack needs operators, got list. Write Stack\(K1, K2\)"),
    (lambda: bl.Convolution(full(3, 3)),
     ValueError, r"needs a kernel \(out, in, \*size\) .* got \(3, 3\)"),
    (lambda: bl.Convolution(full(1, 1, 3), padding=-1),
     ValueError, "needs padding, .* >= 0 .* got -1"),
    (lambda: bl.Gradient(dims=4), ValueError, "Gradient needs dims 1, 2 or 3, got 4"),
    (lambda: TV(dims=2.0), ValueError, "TotalVariation needs dims 1, 2 or 3, got 2.0"),
    (lambda: bl.Potential(3.0), TypeError, r"Potential needs a function of x, .* got float"),
    (lambda: bl.OverRelaxation(2.0), ValueError, "OverRelaxation needs 0 < rho < 2, got 2.0"),
    (lambda: bl.Accelerated(gamma=2.0), ValueError, "0 < gamma <= 1 .* got gamma=2.0"),
    (lambda: bl.Accelerated(first=0.0), ValueError, "a first tau > 0, got gamma=0.5, first=0.0"),
    (lambda: bl.FixedPoint("cg"), TypeError, "linear_solver must be a LinearSolver .* got 'cg'"),
    (lambda: bl.Implicit(bl.CG), TypeError, "linear_solver must be a LinearSolver .* got <class"),
    (lambda: bl.FixedPoint(order=0), ValueError, "order must be 1 or more, got 0"),
    (lambda: bl.Truncated(0), ValueError, "Truncated needs at least 1 term, got 0"),
    (lambda: bl.Unroll(last=0), ValueError, "Unroll needs last >= 1, got 0"),
    (lambda: bl.argmin(energy(), diff="implicit"),
     TypeError, r"diff .* got 'implicit'. There are: FixedPoint\(\)"),
    (lambda: bl.argmin(energy(), diff=bl.OneStep),
     TypeError, r"the class OneStep, .* diff=OneStep\(\)"),
    (lambda: bl.argmin(energy(), report={}),
     TypeError, r"must be a Certificate, got dict. Pass report=Cert"),
]  # fmt: skip


@pytest.mark.parametrize("make, error, message", ALGEBRA, ids=[m[:40] for *_, m in ALGEBRA])
def test_what_makes_no_sense_is_refused_where_it_is_written(make, error, message):
    with pytest.raises(error, match=message):
        make()
