"""The manifolds of the terms: D prox(w) = (1 + H)^-1 P, on every term of the registry."""

import pytest
import torch

import bilevel as bl
from test_terms import build, selected

pytestmark = pytest.mark.usefixtures("float64")


def derivative(term, w):
    """D prox(w) as (B, n, n), by autograd."""
    at = w.clone().requires_grad_()
    p = term.prox(at, 1.0).flatten(1)
    n = p.shape[1]
    if not p.requires_grad:
        return torch.zeros(len(w), n, n)
    rows = [torch.autograd.grad(p[:, i].sum(), at, retain_graph=True)[0] for i in range(n)]
    return torch.stack([row.flatten(1) for row in rows], 1)


def columns(apply, w):
    """A linear map of x as (B, n, n)."""
    eye = torch.eye(w[0].numel())
    return torch.stack([apply(e.reshape(w.shape[1:]).expand_as(w)).flatten(1) for e in eye], 2)


@selected(bl.Proximable, valued=True)
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_manifold_is_that_of_the_prox(case, scale):
    """(1 + H) D prox(w) = P, P is a projection, H maps T into T and is symmetric."""
    term, draw = build(case)
    w = scale * draw.x()
    p = term.prox(w, 1.0)
    manifold = term.manifold(p, w - p)
    D = derivative(term, w)
    P = columns(manifold.project, w)
    H = columns(lambda v: manifold.hessian(manifold.project(v)), w)
    close = dict(rtol=1e-8, atol=1e-8 * float(1 + H.abs().max()))
    torch.testing.assert_close(P @ P, P, **close)
    torch.testing.assert_close(P.mT, P, **close)
    torch.testing.assert_close(H.mT, H, **close)
    torch.testing.assert_close(P @ H, H, **close)
    torch.testing.assert_close((torch.eye(P.shape[1]) + H) @ D, P, **close)
    basis = manifold.basis()
    torch.testing.assert_close(basis @ basis.mT, P, **close)
    assert len(manifold.signature) == len(w) and manifold.margin.shape == (len(w),)
    assert not (manifold.margin < 0).any()
