"""Networks for sparse codes: steps of ISTA on y = A x with matrices and thresholds of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from ..problem import Problem
from ..solvers import ForwardBackward
from ..terms import L1, TrimmedL1, VectorField
from .logarithm import logarithm
from .unrolled import Unrolled


class SparseCoder(nn.Module, ABC):
    """y (B, m) -> x (B, n), sparse, with y = A x: `steps` steps of ForwardBackward(1), from 0."""

    matrix: Tensor

    def __init__(self, matrix: Tensor, steps: int) -> None:
        super().__init__()
        if not isinstance(matrix, Tensor) or matrix.ndim != 2:
            got = tuple(matrix.shape) if isinstance(matrix, Tensor) else type(matrix).__name__
            raise ValueError(f"{type(self).__name__} needs a matrix (m, n), got {got}.")
        if matrix.dtype not in (torch.float32, torch.float64) or not bool(matrix.isfinite().all()):
            raise ValueError(
                f"{type(self).__name__} needs a matrix of finite float32 or float64 numbers, got "
                f"{matrix.dtype} from {matrix.min():.3g} to {matrix.max():.3g}."
            )
        self.register_buffer("matrix", matrix.detach().clone())
        self.net = Unrolled(ForwardBackward(step_size=1.0), steps)

    def forward(self, y: Tensor) -> Tensor:  # (B, m) -> (B, n)
        return self.net(*self._start(y))

    def trajectory(self, y: Tensor) -> list[Tensor]:
        """The codes after 0, 1, ..., steps steps."""
        return self.net.trajectory(*self._start(y))

    def _start(self, y: Tensor):
        m, n = self.matrix.shape
        if y.ndim != 2 or y.shape[1] != m or y.dtype != self.matrix.dtype:
            raise ValueError(
                f"{type(self).__name__} needs data (B, {m}), got {tuple(y.shape)} of {y.dtype}, "
                f"where the matrix is of {self.matrix.dtype}. For one sample pass y[None]."
            )
        return (lambda path: self.energy(y, path)), y.new_zeros(len(y), n)

    def repeated(self, name: str, start: float) -> nn.Parameter:  # (steps,)
        """The logarithm of a positive number, one a step."""
        return nn.Parameter(logarithm(self, name, start, self.matrix).repeat(self.net.steps))

    @abstractmethod
    def energy(self, y: Tensor, path: list[Tensor]) -> Problem:
        """Of the next step from path[-1]."""


class LISTA(SparseCoder):
    """x_{k+1} = soft(x_k S_k + y W_k, threshold_k), with free matrices S_k (n, n) and W_k (m, n).

    It starts as ISTA: S = I - A^T A / L, W = A / L. steps (n^2 + m n + 1) parameters.

    [1] Gregor, LeCun. Learning fast approximations of sparse coding. ICML, 2010.
    """

    def __init__(self, matrix: Tensor, steps: int = 16, threshold: float = 0.1) -> None:
        super().__init__(matrix, steps)
        L = torch.linalg.matrix_norm(self.matrix, 2) ** 2
        inhibit = torch.eye(self.matrix.shape[1]).to(self.matrix) - self.matrix.mT @ self.matrix / L
        self.inhibit = nn.ParameterList([inhibit.clone() for _ in range(steps)])  # S
        self.encode = nn.ParameterList([self.matrix / L for _ in range(steps)])  # W
        self.log_threshold = self.repeated("threshold", threshold)

    def energy(self, y: Tensor, path: list[Tensor]) -> Problem:
        k = len(path) - 1
        S, W = self.inhibit[k], self.encode[k]
        pull = VectorField(lambda x: x - torch.addmm(y @ W, x, S))
        return pull + self.log_threshold[k].exp() * L1()


class CoupledLISTA(SparseCoder):
    """x_{k+1} = prox(x_k - (x_k A^T - y) W_k), with a free matrix W_k (m, n) in each step:
    LISTA-CP, and LISTA-CPSS with `spare` > 0.

    The prox is that of threshold_k |x|_1, where the min(spare (k + 1), most) n largest entries are
    spared, "support selection". W_k starts as `analytic_weight`. steps (m n + 1) parameters.

    [1] Chen, Liu, Wang, Yin. Theoretical linear convergence of unfolded ISTA and its practical
        weights and thresholds. NeurIPS, 2018.
    """

    def __init__(
        self,
        matrix: Tensor,
        steps: int = 16,
        threshold: float = 0.1,
        *,
        spare: float = 0.0,  # a part of the entries, more with each step
        most: float = 0.13,
    ) -> None:
        super().__init__(matrix, steps)
        self.spare, self.most = spare, most
        weight = analytic_weight(self.matrix)
        self.encode = nn.ParameterList([weight.clone() for _ in range(steps)])  # W
        self.log_threshold = self.repeated("threshold", threshold)

    def energy(self, y: Tensor, path: list[Tensor]) -> Problem:
        k = len(path) - 1
        W = self.encode[k]
        pull = VectorField(lambda x: _residual(x, self.matrix, y) @ W)
        return pull + self.log_threshold[k].exp() * _sparing(
            min(self.spare * (k + 1), self.most) * self.matrix.shape[1]
        )


class ALISTA(SparseCoder):
    """x_{k+1} = prox(x_k - step_k (x_k A^T - y) W), W = `analytic_weight` and not learned, the prox
    as in CoupledLISTA. 2 steps parameters.

    [1] Liu, Chen, Wang, Yin. ALISTA: analytic weights are as good as learned weights in LISTA.
        ICLR, 2019.
    """

    weight: Tensor

    def __init__(
        self,
        matrix: Tensor,
        steps: int = 16,
        threshold: float = 0.1,
        *,
        spare: float = 0.012,
        most: float = 0.13,
    ) -> None:
        super().__init__(matrix, steps)
        self.spare, self.most = spare, most
        self.register_buffer("weight", analytic_weight(self.matrix))
        self.log_step = nn.Parameter(self.matrix.new_zeros(steps))
        self.log_threshold = self.repeated("threshold", threshold)

    def energy(self, y: Tensor, path: list[Tensor]) -> Problem:
        k = len(path) - 1
        step = self.log_step[k].exp()
        pull = VectorField(lambda x: step * (_residual(x, self.matrix, y) @ self.weight))
        return pull + self.log_threshold[k].exp() * _sparing(
            min(self.spare * (k + 1), self.most) * self.matrix.shape[1]
        )


class HyperLISTA(SparseCoder):
    """Three parameters c: momentum, threshold and support selection adapt to each sample.

    x_{k+1} = prox(x_k - (x_k A^T - y) W + c_2 mu |x_k|_0 (x_k - x_{k-1})), the prox of c_1 mu r_k
    |x|_1 with the c_3 log(r_0 / r_k) largest entries spared, r_k = |A^+ (A x_k - y)|_1,
    W = `analytic_weight`, mu its coherence with A. The number of spared entries is real, TrimmedL1
    is continuous in it, so that all three have a gradient (the paper searches on a grid).

    [1] Chen, Liu, Wang, Yin. Hyperparameter tuning is all you need for LISTA. NeurIPS, 2021.
    """

    weight: Tensor
    inverse: Tensor
    coherence: Tensor

    def __init__(
        self,
        matrix: Tensor,
        steps: int = 16,
        start: tuple[float, float, float] = (0.03, 0.01, 10.0),
    ) -> None:
        super().__init__(matrix, steps)
        weight = analytic_weight(self.matrix)
        self.register_buffer("weight", weight)
        self.register_buffer("inverse", torch.linalg.pinv(self.matrix))
        self.register_buffer("coherence", (weight.mT @ self.matrix).fill_diagonal_(0).abs().max())
        self.log_c = nn.Parameter(logarithm(self, "start", start, self.matrix))

    def energy(self, y: Tensor, path: list[Tensor]) -> Problem:
        size, momentum, spare = self.log_c.exp()
        x, previous = path[-1], path[-2] if len(path) > 1 else path[-1]
        residual = _residual(x, self.matrix, y)
        left = (residual @ self.inverse.mT).abs().sum(1, keepdim=True)  # r_k
        whole = (y @ self.inverse.mT).abs().sum(1, keepdim=True)
        tiny = torch.finfo(y.dtype).tiny
        count = spare * (whole.clamp_min(tiny) / left.clamp_min(tiny)).log().clamp_min(0)
        nonzeros = (x != 0).sum(1, keepdim=True)
        push = momentum * self.coherence * nonzeros * (x - previous)
        pull = residual @ self.weight - push
        return VectorField(lambda _: pull) + size * self.coherence * left * TrimmedL1(
            count.clamp_max(float(x.shape[1]))
        )


def analytic_weight(matrix: Tensor) -> Tensor:  # (m, n) -> (m, n)
    """argmin over W of |W^T A|_F with <w_i, a_i> = 1 for every column (Liu et al. 2019): w_i is
    (A A^T)^-1 a_i, scaled."""
    rank = int(torch.linalg.matrix_rank(matrix))
    if rank < len(matrix) or not bool(matrix.any(0).all()):
        raise ValueError(
            "the analytic weight needs a matrix (m, n) of rank m, without a column of zeros, got "
            f"{tuple(matrix.shape)} of rank {rank}."
        )
    solved = torch.linalg.solve(matrix @ matrix.mT, matrix)
    return solved / (solved * matrix).sum(0)


def _residual(x: Tensor, matrix: Tensor, y: Tensor) -> Tensor:  # A x - y
    return torch.addmm(-y, x, matrix.mT)


def _sparing(count: float) -> L1 | TrimmedL1:
    return TrimmedL1(count) if count else L1()
