"""What a prox sets to 0 is 0, not small."""

import pytest
import torch

import bilevel as bl

pytestmark = pytest.mark.usefixtures("float64")

TERMS = {
    "L2": bl.L2(),
    "L21": bl.L21(dim=1),
    "SparseL21": bl.SparseL21(0.7, dim=1),
    "GroupL2": bl.GroupL2(torch.arange(12).reshape(3, 4) % 4),
    "SquaredL1": bl.SquaredL1(),
    "MCP": bl.MCP(1.0, 2.0),
    "LogSum": bl.LogSum(1.0),
}


@pytest.mark.parametrize("weight", [0.6, torch.tensor(0.6, dtype=torch.float64)], ids=type)
@pytest.mark.parametrize("name", TERMS)
def test_zeros_are_exact(name, weight):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 3, 4, generator=generator) * torch.rand(2000, 1, 1, generator=generator)
    p = (weight * TERMS[name]).prox(x / 2, 0.5)
    assert (p == 0).any() and not ((p != 0) & (p.abs() < 1e-14)).any()
