"""A bad energy gets an error that says what is wrong, what was received and what to do."""

import pytest
import torch

import bilevel as bl
from small_energies import (
    F64,
    L1,
    LS,
    TV,
    A,
    Matrix,
    Plain,
    b,
    full,
    image,
    inf,
    lasso,
    nan,
    spoil,
    y,
)


class Twice(bl.Smooth):
    """A term whose value has the wrong shape."""

    def value(self, x):
        return torch.cat([x.sum(1), x.sum(1)])


ENERGIES = [
    # the batch
    (lambda: LS(y[0]) + L1(),
     ValueError, r"LeastSquares.target has shape \(5,\): dim 0 must be .* target\[None\]"),
    (lambda: LS(b[0]) @ Matrix(A),
     ValueError, r"LeastSquares.target has shape \(7,\): dim 0 .*pass x0"),
    (lambda: LS() + L1(),
     ValueError, r"shape of x cannot be told from LeastSquares \+ L1. Pass x0"),
    (lambda: LS() @ Matrix(A) + L1(),
     ValueError, r"cannot be told from LeastSquares @ Matrix \+ L1"),
    (lambda: LS(image[0, 0]) + TV(),
     ValueError, r"2 image dims need .* got \(8, 8\). For one image pass x\[None\]"),
    (lambda: LS(y) + TV(), ValueError, r"got \(3, 5\).* for a batch of signals dims=1"),
    (lambda: LS(torch.zeros(2, 0)), ValueError, r"x has shape \(2, 0\): each sample is empty"),
    # shapes that do not fit, or would enlarge x in silence
    (lambda: LS(y) + LS(full(1, 6)),
     ValueError, r"target has shape \(1, 6\), which does not broadcast into \(3, 5\)"),
    (lambda: LS(y) + LS(full(3, 1, 5)),
     ValueError, r"LeastSquares.target has shape \(3, 1, 5\).*1-D is per feature"),
    (lambda: LS(y[:1]) + LS(y),
     ValueError, r"\(3, 5\), which .* \(1, 5\).*x has a batch of 1: expand the data"),
    (lambda: LS(y[:, :1]) + LS(y),
     ValueError, r"target has shape \(3, 5\), which does not .* \(3, 1\)"),
    (lambda: LS(y) + full(3, 1, 1) * L1(),
     ValueError, r"L1.weight has shape \(3, 1, 1\), which does not"),
    (lambda: LS(y) + full(3) * L1(),
     ValueError, r"L1.weight has shape \(3,\).*One number a sample is weight.reshape\(-1, 1\)"),
    (lambda: LS(y[:1]) + full(4, 1) * L1(), ValueError, r"expand the data, or x0, to a batch of 4"),
    (lambda: LS(y[:, :1]) + full(5) * L1(),
     ValueError, r"L1.weight has shape \(5,\), which .* \(3, 1\)"),
    (lambda: LS(y) + full(5) * bl.L2(),
     ValueError, r"L2.weight has shape \(5,\), which does not broadcast into \(3, 1\)"),
    (lambda: LS(image) + full(2, 1, 1) * TV(),
     ValueError, r"TotalVariation.weight has shape \(2, 1, 1\)"),
    (lambda: LS(image) + full(1, 1, 1, 8, 8) * TV(),
     ValueError, r"weight has shape \(1, 1, 1, 8, 8\)"),
    (lambda: LS(y) + bl.Box(full(4), 1.0), ValueError, r"Box.lower has shape \(4,\)"),
    (lambda: LS(y) + bl.Simplex(full(3)),
     ValueError, r"Simplex.total has shape \(3,\).*total.reshape\(-1, 1\)"),
    (lambda: LS(y) + bl.Simplex(full(5)),
     ValueError, r"Simplex.total has shape \(5,\), which does not .* \(3, 1\)"),
    (lambda: LS(y) + bl.L2Ball(full(5)),
     ValueError, r"L2Ball.radius has shape \(5,\), which does not .* \(3, 1\)"),
    (lambda: LS(y) + bl.Simplex(dim=0), ValueError, r"Simplex has dim=0 .* Dim 0 is the batch"),
    (lambda: LS(y) + bl.L21(dim=7), ValueError, r"L21 has dim=7 .* must name a dim of the event"),
    (lambda: lasso(data=full(3, 6)),
     ValueError, r"Matrix of shape \(7, 5\) needs y of shape \(B, 7\).*got \(3, 6\)"),
    (lambda: LS(y) + L1() @ Matrix(A[:, :4]),
     ValueError, r"needs x of shape \(B, 4\), its number of columns"),
    (lambda: lasso(A.expand(2, 7, 5)), ValueError, r"Matrix of shape \(2, 7, 5\)"),
    (lambda: LS(image) + L1() @ bl.Convolution(full(1, 1, 9, 9)),
     ValueError, "L1 @ Convolution cannot be evaluated .*Kernel size"),
    (lambda: LS(image) + L1() @ bl.Convolution(full(1, 2, 3, 3)),
     ValueError, r"needs x of shape \(B, 2, \*image\)"),
    (lambda: LS(image) @ bl.Convolution(full(2, 1, 3, 3)),
     ValueError, "the data do not fit the operators of LeastSquares @ Conv"),
    (lambda: LS(y) + L1() @ bl.Stack(Matrix(A), bl.Identity()),
     ValueError, r"ranges of one shape.*h1 @ K1 \+ h2 @ K2"),
    (lambda: LS(y) + Twice(),
     ValueError, r"Twice has a value of shape \(6,\) .* one number a sample"),
    # kinds
    (lambda: Plain() + LS(y),
     TypeError, "Plain offers neither a gradient nor a prox.* inherit Smooth"),
    (lambda: [LS(y), L1()], TypeError, "an energy is a sum of terms, .* got list"),
    (lambda: lambda x: x.sum(1), TypeError, r"got function. Wrap a function of x as Potential"),
    (lambda: LS(y.numpy()) + L1(),
     TypeError, r"LeastSquares.target must be .* got ndarray. Use torch.as_tensor\(target\)"),
    (lambda: LS([[1.0, 2.0]]),
     TypeError, "LeastSquares.target must be a torch tensor or a number, got list"),
    (lambda: LS(y) + bl.Box("a", 1.0),
     TypeError, "Box.lower must be a torch tensor or a number, got str"),
    # dtypes and devices
    (lambda: LS((255 * image).byte()) + TV(),
     TypeError, "torch.uint8: floating point is needed.* 8-bit image by 255"),
    (lambda: LS(image > 0.5) + TV(), TypeError, "dtype torch.bool: floating point is needed"),
    (lambda: LS(y.to(torch.complex128)),
     TypeError, r"would be complex \(torch.complex128\).*view_as_real"),
    (lambda: LS(y.half()) + L1(),
     TypeError, r"torch.float16, too coarse to solve in.*target.float\(\)"),
    (lambda: LS(y.bfloat16()) + L1(), TypeError, "torch.bfloat16, too coarse to solve in"),
    (lambda: LS(y) + full(5, dtype=torch.float32) * L1(),
     TypeError, "L1.weight has dtype torch.float32, LeastSquares.target has"),
    (lambda: lasso(A.float()),
     TypeError, r"Matrix.matrix has dtype torch.float32, .* matrix.to\(torch.float64\)"),
    (lambda: lasso(A.float().to_sparse()), TypeError, "Matrix.matrix has dtype torch.float32"),
    (lambda: lasso((9 * A).long()),
     TypeError, "Matrix.matrix has dtype torch.int64: floating point"),
    (lambda: LS(y.to("meta")) + L1(), ValueError, "LeastSquares.target is on the meta device"),
    (lambda: LS(y) + full(5, device="meta") * L1(), ValueError, "L1.weight is on the meta device"),
    (lambda: LS(y) + full(device="meta") * L1(), ValueError, "L1.weight is on the meta device"),
    (lambda: lasso(A.to("meta")),
     ValueError, "Matrix.matrix is on the meta device, which holds no values"),
    (lambda: LS(y.to_sparse()), TypeError, r"target is sparse .*Use target.to_dense\(\)"),
    # values
    (lambda: LS(spoil(y, nan)) + L1(),
     ValueError, "LeastSquares.target is NaN or inf in 1 of 15 values. Clean"),
    (lambda: LS(spoil(y, -inf)) + L1(), ValueError, "LeastSquares.target is NaN or inf in 1 of 15"),
    (lambda: lasso(spoil(A, nan)), ValueError, "Matrix.matrix is NaN or inf in 1 of 35"),
    (lambda: lasso(spoil(A, inf).to_sparse()),
     ValueError, "Matrix.matrix is NaN or inf in 1 of 35"),
    (lambda: lasso(weight=nan),
     ValueError, "L1.weight is NaN or inf in 1 of 1 values.* look at the step before"),
    (lambda: lasso(weight=-0.1),
     ValueError, r"L1.weight = -0.1: a weight must be >= 0. .* log_weight.exp\(\)"),
    (lambda: lasso(weight=spoil(full(5), -2)), ValueError, "L1.weight = -2 to 0.1: a weight must"),
    (lambda: LS(y) + -1.0 * L1() @ Matrix(A), ValueError, "L1.weight = -1: a weight must be >= 0"),
    (lambda: bl.Huber(0.0, y), ValueError, "Huber.delta = 0: a delta must be > 0"),
    (lambda: LS(y) + bl.ElasticNet(1.5),
     ValueError, r"ElasticNet.ratio = 1.5: .* between 0 and 1.*logit.sigmoid"),
    (lambda: LS(y) + bl.Box(1.0, 0.0),
     ValueError, "Box is empty: lower, up to 1, .* upper, down to 0. Swap"),
    (lambda: LS(y) + bl.Box(full(5), full(5, value=0.0)), ValueError, "Box is empty"),
    (lambda: LS(y) + bl.Box(-1.0, -inf), ValueError, "Box is empty: .*down to -inf"),
    (lambda: LS(y) + bl.Box(nan, 1.0), ValueError, "Box.lower is NaN or inf"),
    (lambda: LS(y) + bl.Simplex(0.0), ValueError, "Simplex.total = 0: a total must be > 0"),
    (lambda: LS(y) + bl.L2Ball(-1.0), ValueError, "L2Ball.radius = -1: a radius must be >= 0"),
    (lambda: bl.Logistic((b > 0.5).to(F64)) @ Matrix(A),
     ValueError, r"labels must be -1 or 1.* pass 2 \* labels - 1"),
    (lambda: LS(1e30 * y.float()),
     ValueError, r"target has values up to 1.0e\+30: their squares overflow torch.float32"),
    (lambda: LS(1e-30 * y.float()),
     ValueError, "target has values up to 1.0e-30: their squares underflow"),
    (lambda: lasso(1e-30 * A.float(), b.float()),
     ValueError, "Matrix.matrix .* underflow torch.float32. Rescale"),
    (lambda: 1e-30 * LS(y.float()) + L1(), ValueError, "LeastSquares.weight has .* underflow"),
]  # fmt: skip


@pytest.mark.parametrize("energy, error, message", ENERGIES, ids=[m[:40] for _, _, m in ENERGIES])
@pytest.mark.parametrize("function", [bl.argmin, bl.solve])
def test_a_bad_energy_is_refused(energy, error, message, function):
    with pytest.raises(error, match=message):
        function(energy())


POTENTIALS = [
    (lambda x: x.square().sum(),
     r"returned shape \(\) for x of shape \(3, 5\): one value a sample is needed, \(3,\)"),
    (lambda x: x.square(), r"returned shape \(3, 5\) .* energy\(x\).flatten\(1\).sum\(1\)"),
    (lambda x: None, "the energy of Potential returned NoneType"),
    (lambda x: y.sum(1), "value of Potential does not depend on x through torch operations"),
    (lambda x: x.detach().square().sum(1), "does not depend on x .*: is x detached"),
    (lambda x: (x - x.log()).sum(1),
     "Potential is NaN or inf at the start, in 2 of 3 samples. Pass an x0"),
    (torch.nn.Linear(4, 1),
     r"Potential cannot be evaluated at x of shape \(3, 5\).* Do its shapes, dtype"),
]  # fmt: skip


@pytest.mark.parametrize("function, message", POTENTIALS, ids=[m[:40] for _, m in POTENTIALS])
def test_a_function_that_is_no_energy_is_refused(function, message):
    with pytest.raises(ValueError, match=message):
        bl.solve(bl.Potential(function), x0=y)


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a graphics card."""

    device = property(lambda self: torch.device("cuda", 0))  # type: ignore[assignment]


def test_tensors_on_two_devices_are_refused():
    message = (
        r"Matrix.matrix is on cuda:0, LeastSquares.target on cpu. Move one: matrix.to\('cpu'\)"
    )
    with pytest.raises(ValueError, match=message):
        bl.argmin(lasso(A.as_subclass(Elsewhere)))


def test_large_data_are_looked_at_again_when_they_have_changed():
    A, b = torch.randn(200, 100), torch.randn(1, 200)
    energy = bl.LeastSquares(b) @ bl.Matrix(A) + bl.LeastSquares()
    bl.solve(energy)
    A[3, 4] = torch.nan
    with pytest.raises(ValueError, match="Matrix.matrix is NaN or inf in 1 of 20000 values"):
        bl.solve(energy)
    A[3, 4] = 0.0
    assert bl.solve(energy).converged.all()
