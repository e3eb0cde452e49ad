"""Solutions do not depend on dtype, strides, start or batch more than they must."""

import numpy as np
import pytest
import torch

import bilevel as bl
from problems import EXAMPLES
from test_solvers import error, requiring_grad

every = pytest.mark.parametrize("example", EXAMPLES, ids=str)


@every
def test_float32(example):
    """The default tol is 1e-5, a gap: x is good to sqrt(1e-5 P / mu), 2e-2 here."""
    theta, answers = example.theta(batch=2)
    single = {k: v.float() for k, v in theta.items()}
    solution = bl.solve(example.energy(single))
    assert solution.x.dtype == solution.value.dtype == solution.residual.dtype == torch.float32
    assert error(solution.x, answers) <= 2e-2


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_dtype_plays_no_part(example, dtype):
    theta, _ = example.theta(batch=2)
    results = []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            leaves = requiring_grad({k: v.to(dtype) for k, v in theta.items()})
            x = bl.argmin(example.energy(leaves), tol=1e-5)
            used = [v for k, v in leaves.items() if k not in example.fixed]
            results.append([x.detach(), *torch.autograd.grad(x.sum(), used)])
        finally:
            torch.set_default_dtype(torch.float32)
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype == dtype
        assert torch.equal(a, b)


def strided(v):
    """The same numbers, every second entry of a larger tensor, dims in another order."""
    if not v.ndim:
        return v
    wide = torch.zeros(*v.shape[:-1], 2 * v.shape[-1], dtype=v.dtype)
    wide[..., ::2] = v
    return wide.transpose(0, -1).contiguous().transpose(0, -1)[..., ::2]


@every
def test_strides_play_no_part(example):
    theta, _ = example.theta(batch=3)
    twisted = {k: strided(v) for k, v in theta.items()}
    assert any(not v.is_contiguous() for v in twisted.values())
    a, b = (bl.solve(example.energy(t), tol=1e-10) for t in (theta, twisted))
    torch.testing.assert_close(a.x, b.x, rtol=1e-5, atol=1e-6)  # sums in another order
    leaves = requiring_grad(theta)
    twisted = {k: strided(v) for k, v in leaves.items()}
    x = bl.argmin(example.energy(twisted), tol=1e-10)
    used = [v for k, v in leaves.items() if k not in example.fixed]
    assert all(g.isfinite().all() for g in torch.autograd.grad(x.square().sum(), used))


@every
def test_the_start_plays_no_part(example):
    theta, answers = example.theta(batch=2)
    x0 = torch.from_numpy(np.stack([a.x for a in answers])) + 1
    x0 = x0.clone().requires_grad_()
    solution = bl.solve(example.energy(theta), x0=x0, tol=1e-13)
    assert error(solution.x, answers) <= 1e-5
    leaves = requiring_grad(theta)
    x = bl.argmin(example.energy(leaves), x0=x0, tol=1e-9)
    assert torch.autograd.grad(x.sum(), x0, allow_unused=True) == (None,)


@every
def test_an_empty_batch_is_solved(example):
    theta, _ = example.theta(batch=2)
    empty = requiring_grad({k: v[:0] for k, v in theta.items()})
    x0 = torch.from_numpy(example.theta(batch=2)[1][0].x)[None][:0]
    solution = bl.solve(example.energy(empty), x0=x0)
    assert solution.x.shape == x0.shape
    assert solution.converged.shape == (0,)
    x = bl.argmin(example.energy(empty), x0=x0)
    assert x.shape == x0.shape
    if x.requires_grad:
        x.sum().backward()


@every
def test_nothing_is_changed_in_place(example):
    theta, _ = example.theta(batch=2)
    before = {k: v.clone() for k, v in theta.items()}
    x0 = bl.solve(example.energy(theta)).x
    again, kept = x0.clone(), x0
    bl.solve(example.energy(theta), x0=x0, max_iter=30, on_fail="ignore")
    assert torch.equal(again, kept)
    assert all(torch.equal(theta[k], v) for k, v in before.items())
