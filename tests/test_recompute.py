"""Implicit(recompute=True): the same derivatives, and nothing is kept for backward."""

import weakref

import pytest
import torch

import bilevel as bl
from bilevel.differentiation import pieces

KEPT, ANEW = bl.Implicit(), bl.Implicit(recompute=True)


def draw(*shape, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=rng)


def smooth(y, kernel):
    return bl.LeastSquares(y) + 0.3 * bl.Huber(0.1) @ bl.Convolution(kernel)


def composed(y, kernel):
    return bl.LeastSquares(y) + 0.3 * bl.L1() @ bl.Convolution(kernel)


@pytest.mark.parametrize("together", [20, 50, 100])  # one sample at a time, two, all three
@pytest.mark.parametrize("energy", [smooth, composed])
def test_first_and_second_derivatives_are_the_same_and_can_be_asked_for_again(
    energy, together, monkeypatch
):
    monkeypatch.setattr(pieces, "_TOGETHER", together)
    theta = draw(3, 1, 5, 4).requires_grad_(), draw(2, 1, 2, 2, seed=1).requires_grad_()
    both = []
    for diff in (KEPT, ANEW):
        x = bl.argmin(energy(*theta), diff=diff, tol=1e-6)
        for _ in range(2):
            first = torch.autograd.grad(x.square().sum(), theta, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), theta)
        both.append((*first, *second))
    torch.testing.assert_close(*both, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("diff", "some"), [(KEPT, True), (ANEW, False)], ids=repr)
def test_what_the_conditions_record_is_gone_until_the_backward_pass(diff, some):
    y, w, parts = draw(2, 30), draw(30, seed=1).requires_grad_(), []

    def penalty(x):
        part = w * x  # which the square keeps for its derivative
        parts.append(weakref.ref(part))
        return part.square().sum(1)

    x = bl.argmin(bl.LeastSquares(y) + bl.Potential(penalty), diff=diff)
    assert any(part() is not None for part in parts) == some
    x.sum().backward()
    assert w.grad is not None


def most_recorded(energy):
    """Numbers that the backward pass keeps at a time."""
    alive, most = [], 0

    def keep(part):
        nonlocal most
        alive.append(weakref.ref(part))
        most = max(most, sum(p.numel() for ref in alive if (p := ref()) is not None))
        return part

    x = bl.argmin(energy, diff=ANEW)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda part: part):
        x.sum().backward()
    return most


def test_one_piece_is_recorded_at_a_time(monkeypatch):
    energy = smooth(draw(24, 1, 5, 4), draw(6, 1, 2, 2, seed=1).requires_grad_())
    whole = most_recorded(energy)
    monkeypatch.setattr(pieces, "_TOGETHER", 2 * 20)
    assert most_recorded(energy) < whole / 2
