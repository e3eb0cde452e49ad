"""Operators of PyLops and deepinv as ours, and back."""

import numpy as np
import pylops
import pytest
import scipy.sparse.linalg
import torch

import bilevel as bl
from bilevel import testing

pytestmark = pytest.mark.usefixtures("float64")


def test_a_pylops_gradient_is_ours():
    theirs = pylops.FirstDerivative((4, 5), axis=-1, kind="forward")
    x = torch.randn(2, 3, 4, 5)
    ours = bl.Gradient(1)(x)[..., 0, :]
    torch.testing.assert_close(bl.FromPyLops(theirs)(x), ours)


def test_an_energy_with_a_pylops_operator_and_its_gradient():
    a = np.random.default_rng(0).normal(size=(7, 5))
    A, same = bl.FromPyLops(pylops.MatrixMult(a)), bl.Matrix(torch.tensor(a))
    data, weight = torch.randn(2, 7), torch.tensor(0.3)

    def solution(K):
        return lambda data, weight: bl.argmin(
            bl.LeastSquares(data) @ K + weight * bl.L1(), tol=1e-11
        )

    torch.testing.assert_close(solution(A)(data, 0.3), solution(same)(data, 0.3), atol=1e-8, rtol=0)
    testing.gradients_agree(solution(A), [data, weight])
    assert torch.autograd.gradgradcheck(
        lambda x: A(x).square(), torch.randn(2, 5, requires_grad=True)
    )


def test_operators_of_scipy_are_welcome_too():
    a = np.arange(6.0).reshape(2, 3)
    operator = bl.FromPyLops(scipy.sparse.linalg.aslinearoperator(a))
    x = torch.randn(4, 3)
    torch.testing.assert_close(operator(x), x @ torch.tensor(a).T)


def test_a_complex_pylops_operator():
    theirs = pylops.signalprocessing.FFT2D((4, 6), norm="ortho")
    x = torch.randn(2, 1, 4, 6, dtype=torch.complex128)
    operator = bl.FromPyLops(theirs)
    torch.testing.assert_close(operator(x), bl.FFT(real=False)(x))
    testing.adjoint_dot_test(operator, x)
    single = operator(x.to(torch.complex64))
    assert single.dtype == torch.complex64


@pytest.mark.parametrize(
    "operator, dtype",
    [
        (bl.Gradient(), torch.float64),
        (bl.FFT(), torch.float64),
        (bl.FFT(real=False), torch.complex128),
        (bl.Matrix(torch.randn(2, 3, 5)), torch.float64),
    ],
    ids=["Gradient", "FFT", "FFT, complex", "Matrix, one a sample"],
)
def test_ours_as_pylops_passes_its_dot_test(operator, dtype):
    operator = (
        operator if not isinstance(operator, bl.Matrix) else bl.Matrix(operator.matrix.double())
    )
    shape = (2, 5) if isinstance(operator, bl.Matrix) else (2, 1, 4, 5)
    x = torch.randn(shape, dtype=dtype)
    theirs = bl.to_pylops(operator, x)
    image = operator(x)
    assert theirs.dims == x.shape and theirs.dimsd == image.shape
    np.testing.assert_allclose(theirs @ x.numpy(), image.numpy())
    y = np.asarray(torch.randn_like(image))
    back = theirs.H @ y.ravel()
    np.testing.assert_allclose(back.reshape(shape), operator.adjoint(torch.tensor(y)).numpy())


def test_pylops_solves_with_our_operator():
    a, data = torch.randn(8, 5), torch.randn(1, 8)
    theirs = bl.to_pylops(bl.Matrix(a), torch.zeros(1, 5))
    x = scipy.sparse.linalg.lsqr(theirs, data.numpy().ravel(), atol=1e-13, btol=1e-13)[0]
    np.testing.assert_allclose(x, torch.linalg.lstsq(a, data.T).solution[:, 0].numpy(), atol=1e-9)


class BlurPhysics:
    """Has the methods of a deepinv.physics.LinearPhysics."""

    def __init__(self, kernel):
        self.blur = bl.Blur(kernel, bl.Periodic())

    def A(self, x, **kwargs):
        return self.blur(x)

    def A_adjoint(self, y, **kwargs):
        return self.blur.adjoint(y)


def test_a_physics_of_deepinv_in_an_energy_with_the_gradient_in_its_kernel():
    data = torch.rand(2, 1, 5, 6)

    def solution(kernel):
        K = bl.FromDeepinv(BlurPhysics(kernel))
        return bl.argmin(bl.LeastSquares(data) @ K + 0.2 * bl.LeastSquares(), tol=1e-12)

    kernel = torch.rand(3, 3)
    plain = bl.LeastSquares(data) @ bl.Blur(kernel, bl.Periodic()) + 0.2 * bl.LeastSquares()
    torch.testing.assert_close(solution(kernel), bl.argmin(plain, tol=1e-12), atol=1e-5, rtol=0)
    testing.gradients_agree(solution, [kernel])


def test_ours_as_a_physics():
    x, K = torch.randn(2, 1, 4, 5), bl.Gradient()
    physics = bl.to_deepinv(K)
    assert torch.equal(physics.A(x, sigma=0.1), K(x)) and torch.equal(physics(x), K(x))
    assert torch.equal(physics.A_adjoint(K(x)), K.adjoint(K(x)))


def test_misuse_says_what_to_do(monkeypatch):
    with pytest.raises(TypeError, match=r"got ndarray, which has no matvec. Wrap .* Matrix\(A\)"):
        bl.FromPyLops(np.eye(3))
    with pytest.raises(ValueError, match=r"needs x of shape \(B, ..., 4, 5\), got \(2, 5, 4\)"):
        bl.FromPyLops(pylops.FirstDerivative((4, 5)))(torch.randn(2, 5, 4))
    with pytest.raises(TypeError, match="got object, which has no A. .* into a Potential"):
        bl.FromDeepinv(object())
    monkeypatch.setitem(__import__("sys").modules, "pylops", None)
    with pytest.raises(ImportError, match=r"pip install 'bilevel\[operators\]'"):
        bl.to_pylops(bl.Identity(), torch.zeros(1, 2))
