"""Which solver is picked where none is named."""

import pytest
import torch

import bilevel as bl
from bilevel.choice import default_form

D = torch.float64
y, b = torch.randn(2, 6, dtype=D), torch.randn(2, 9, dtype=D)
A, K = bl.Matrix(torch.randn(9, 6, dtype=D)), bl.Matrix(torch.randn(4, 6, dtype=D))
WIDE, MANY = bl.Matrix(torch.randn(4, 6, dtype=D)), bl.Matrix(torch.randn(9, 60, dtype=D))
LS = bl.LeastSquares
image, kernel = torch.randn(2, 1, 20, 20, dtype=D), torch.rand(3, 3, dtype=D)
large = torch.randn(1, 1, 40, 40, dtype=D).cumsum(-1)

PICKED = {
    "DirectProx": [
        LS(y) + 0.3 * bl.TotalVariation(dims=1),
        torch.rand(2, 1, dtype=D) * LS(y) + bl.Simplex(),
    ],
    "Newton": [
        LS(b) @ A + 0.1 * LS(),
        LS(image) + 0.3 * LS() @ bl.Gradient(),
        LS(image) @ bl.Blur(kernel, bl.Periodic()) + 0.3 * LS(),
    ],
    "InteriorPoint": [
        LS(b) @ A + bl.Simplex(),
        LS(y) + bl.Box(-1.0, 1.0) @ K,
        LS(y) + bl.NonNegative() + bl.HalfSpace(torch.ones(6, dtype=D), 1.0),
    ],
    "ForwardBackward": [
        LS(b) @ A + 0.1 * bl.L1(),
        LS(b) @ A + bl.NonNegative(),  # mere bounds, few unknowns
        LS(b[:, :4]) @ WIDE + bl.Simplex(),  # singular
        LS(b) @ MANY + bl.NonNegative(),
        0.0 * LS(y) + bl.Simplex(),
        LS(y) + 0.1 * bl.L0(),
        torch.rand(6, dtype=D) * LS(y) + bl.Linf(),
        LS(b) @ A,  # not known to be strongly convex
        LS(image) @ bl.Blur(kernel) + 0.3 * LS(),  # 400 unknowns, an odd kernel
    ],
    "PrimalDual": [LS(y) + 0.1 * bl.L1() @ K, LS(image) + 0.1 * bl.TotalVariation()],
}
CASES = [(name, energy) for name, energies in PICKED.items() for energy in energies]


@pytest.mark.parametrize(("name", "energy"), CASES)
def test_the_default_goes_by_structure(name, energy):
    solution = bl.solve(energy, on_fail="ignore", max_iter=30)
    assert type(solution.solver).__name__ == name


@pytest.mark.parametrize("name", ["DirectProx", "Newton", "InteriorPoint"])
def test_where_steps_are_asked_for_the_default_makes_steps(name):
    for energy in PICKED[name]:
        report = bl.Certificate()
        options = {"on_fail": "ignore", "max_iter": 20, "report": report}
        bl.argmin(energy, diff=bl.Unroll(), **options)
        assert report.solver.startswith(("ForwardBackward", "PrimalDual"))
        bl.argmin(energy, diff=bl.Unroll(last=2), **options)
        assert report.solver.startswith(name)
    assert type(bl.solve(energy, acceleration=bl.Halpern(), on_fail="ignore").solver) not in (
        bl.DirectProx,
        bl.Newton,
        bl.InteriorPoint,
    )


@pytest.mark.parametrize("name", ["DirectProx", "Newton", "InteriorPoint"])
def test_the_picked_solver_gives_the_gradient_of_the_steps(name):
    energy = {
        "DirectProx": lambda p: LS(p) + 0.3 * bl.TotalVariation(dims=1),
        "Newton": lambda p: LS(b) @ A + 0.1 * LS(p),
        "InteriorPoint": lambda p: LS(b) @ A + 0.2 * LS(p) + bl.Simplex(),
    }[name]
    gradients = []
    for options in ({}, {"solver": bl.ForwardBackward(), "tol": 1e-13}):
        p, report = y.clone().requires_grad_(), bl.Certificate()
        x = bl.argmin(energy(p), report=report, **options)
        gradients.append(torch.autograd.grad(x.pow(3).sum(), p)[0])
        if not options:
            assert report.solver.startswith(name) and report.adjoint_iterations <= 12
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("operator", [bl.Blur(kernel / kernel.sum()), bl.Mask(large[0, 0] > 0)])
def test_data_behind_an_operator_are_dualized_where_x_is_large(operator):
    """In fewer steps than as given; not where steps are asked for, a term is concave, smooth or
    strongly convex."""
    energy = LS(operator(large)) @ operator + 0.3 * bl.TotalVariation()
    chosen = bl.solve(energy, tol=1e-6)
    given = bl.solve(energy, tol=1e-6, acceleration=bl.Plain())
    assert len(chosen.dual) == 2 and len(given.dual) == 1
    assert int(chosen.iterations) < int(given.iterations)
    torch.testing.assert_close(chosen.value, given.value, rtol=1e-5, atol=0)
    for further in (-0.1 * LS() @ operator, 1e-3 * LS(), bl.ElasticNet(0.5)):
        form = energy + further
        assert default_form(form, large) is form
