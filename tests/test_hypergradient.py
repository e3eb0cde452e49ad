"""hypergradient: the gradient with its certificate; transforms that cannot work are refused."""

import pytest
import torch

import bilevel as bl
from problems import BY_NAME


def denoised(batch=2, **options):
    theta, _ = BY_NAME["tv2d_anisotropic"].theta(batch=batch)
    w = theta["w"].clone().requires_grad_()
    return w, bl.argmin(BY_NAME["tv2d_anisotropic"].energy({**theta, "w": w}), **options)


def test_it_is_autograd_s_gradient_with_a_certificate():
    w, x = denoised()
    expected = torch.autograd.grad(x.square().mean(), w, retain_graph=True)
    gradients, certificate = bl.hypergradient(x.square().mean(), [w])
    assert torch.equal(gradients[0], expected[0])
    for name in ("gap", "residual", "iterations", "converged", "contraction", "adjoint_residual"):
        assert getattr(certificate, name).shape == (2,), name
    assert certificate.converged.all()
    assert (certificate.residual <= 1e-8).all() and (certificate.gap <= 1e-8).all()
    assert (certificate.adjoint_residual <= 1e-8).all()
    assert certificate.adjoint_iterations > 0
    assert certificate.solver.startswith("PrimalDual with ")
    assert certificate.strategy == "FixedPoint"
    summary = certificate.as_dict()
    assert all(isinstance(v, float | int | str) for v in summary.values())
    assert "adjoint_residual" in str(certificate)


def test_the_certificate_of_argmin_is_the_same_object():
    report = bl.Certificate()
    w, x = denoised(report=report)
    assert report.residual is not None and report.adjoint_residual is None  # before backward
    _, certificate = bl.hypergradient(x.sum(), [w])
    assert certificate is report and report.adjoint_residual is not None


def test_several_solutions_in_one_loss():
    """Their samples end to end; whatever lies between solution and loss."""
    (w, x), (v, y) = denoised(2), denoised(3)
    loss = torch.nn.functional.softplus(x.flatten()).sum() * (y.clamp(min=0.1) ** 2).mean()
    gradients, certificate = bl.hypergradient(loss, [w, v])
    assert certificate.residual.shape == (5,)
    expected = torch.autograd.grad(denoised(2)[1].sum(), w, allow_unused=True)
    assert expected == (None,)
    assert all(g.abs().max() > 0 for g in gradients)


def test_one_solution_behind_another():
    w, x = denoised()
    z = bl.argmin(bl.LeastSquares(x) + 0.1 * bl.L1())
    _, certificate = bl.hypergradient(z.sum(), [w])
    assert certificate.residual.shape == (4,)


def test_an_unused_parameter_gets_zeros():
    w, x = denoised()
    other = torch.ones(3, requires_grad=True)
    gradients, _ = bl.hypergradient(x.sum(), [w, other])
    assert torch.equal(gradients[1], torch.zeros(3))


def test_second_order_through_hypergradient():
    w, x = denoised()
    (gradient,), _ = bl.hypergradient(x.pow(3).sum(), [w], create_graph=True)
    expected = torch.autograd.grad(x.pow(3).sum(), w, create_graph=True)[0]
    a, b = (torch.autograd.grad(g.sum(), w, retain_graph=True)[0] for g in (gradient, expected))
    assert torch.equal(a, b)


def test_a_loss_without_a_solution_is_refused():
    w = torch.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="does not depend on a solution of argmin with a gradient"):
        bl.hypergradient(w.sum(), [w])
    _, x = denoised()
    with pytest.raises(ValueError, match=r"scalar loss, got shape \(2, 3, 4\)"):
        bl.hypergradient(x, [w])
    with torch.no_grad():
        w, x = denoised()
    with pytest.raises(ValueError, match="was argmin called outside torch.no_grad"):
        bl.hypergradient((w * x.mean()).sum(), [w])


def energy_of(y):
    return bl.argmin(bl.LeastSquares(y) + 0.1 * bl.L1()).sum()


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, in jvp
@pytest.mark.parametrize(
    "transform",
    [
        lambda y: torch.func.grad(energy_of)(y),
        lambda y: torch.func.vmap(energy_of)(y[None]),
        lambda y: torch.func.jacrev(energy_of)(y),
        lambda y: torch.func.jvp(energy_of, (y,), (y,)),
        lambda y: torch.func.vjp(energy_of, y),
        lambda y: torch.func.hessian(energy_of)(y),
    ],
    ids=["grad", "vmap", "jacrev", "jvp", "vjp", "hessian"],
)
def test_functorch_transforms_are_refused(transform):
    y = torch.randn(2, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="cannot run inside torch.func transforms .* Use torch"):
        transform(y)


def test_autograd_functional_works():
    """What the refusal names as the way out."""
    y = torch.tensor([[2.0, -1.0, 0.05]], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(energy_of, y)
    torch.testing.assert_close(jacobian, torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64))
    hessian = torch.autograd.functional.hessian(lambda y: energy_of(y) ** 2, y)
    g = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(hessian[0, :, 0], 2 * torch.outer(g, g))
