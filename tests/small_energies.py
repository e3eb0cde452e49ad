"""The data and the energies that tests of error messages share."""

import torch

import bilevel as bl

F64 = torch.float64
y = torch.linspace(-1, 1, 15, dtype=F64).reshape(3, 5)
A = torch.linspace(-1, 2, 35, dtype=F64).reshape(7, 5).sin()
b = torch.linspace(0, 1, 21, dtype=F64).reshape(3, 7)
image = torch.linspace(0, 1, 64, dtype=F64).reshape(1, 1, 8, 8)
nan, inf = float("nan"), float("inf")
LS, L1, TV, Matrix = bl.LeastSquares, bl.L1, bl.TotalVariation, bl.Matrix


def full(*shape: int, value: float = 0.1, **kind) -> torch.Tensor:
    return torch.full(shape, value, **{"dtype": F64, **kind})


def spoil(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[0] = value
    return tensor


def lasso(matrix=A, data=b, weight=0.1) -> bl.Problem:
    return LS(data) @ Matrix(matrix) + weight * L1()


class Plain(bl.Term):
    def value(self, x):
        return x.abs().sum(1)
