"""Derivatives of declarative nodes: by one product, against the mixed derivative written out.

python benchmarks/declarative_types.py     results in benchmarks/results/declarative_types.md

The other side are the formulas of deep declarative networks, dense, as that library has them: H, A,
B and C by one backward pass a row, then dy/dx. Both are given the same solution. Times are of the
processor, in one thread.
"""

import time
import warnings
from dataclasses import dataclass, replace

import torch
from measure import processor_seconds, store
from torch import Tensor

import bilevel as bl

BATCH = 4
NOTES = """\
x, y: numbers in a sample of the data and of the solution. dense: the formulas
of Gould, Hartley, Campbell (2021) written out, ms. ours: backward, ms, each of a fresh call;
with checks: of that call, too, which is given the solution, polishes it, and looks whether the
derivative exists. difference: of the two gradients, relative."""


@dataclass(frozen=True)
class Type:
    node: bl.DeclarativeNode
    x: Tensor
    y: Tensor  # the solution


def squares(y: Tensor, x: Tensor) -> Tensor:
    return (y - x).square().sum(1)


def entropic(y: Tensor, x: Tensor) -> Tensor:
    return (y - x).cosh().sum(1)


def robust(y: Tensor, x: Tensor) -> Tensor:
    return ((1 + (y - x).square()).sqrt() - 1).sum(1)


def rayleigh(y: Tensor, S: Tensor) -> Tensor:
    return -(y * ((S + S.mT) / 2 @ y[..., None])[..., 0]).sum(1)


def outside(y: Tensor, *_: Tensor) -> Tensor:
    return y.square().sum(1, keepdim=True) - 1


def total(y: Tensor, *_: Tensor) -> Tensor:
    return y.sum(1, keepdim=True) - 1


def transport(P: Tensor, C: Tensor) -> Tensor:
    return (P * C + 0.3 * P * (P.log() - 1)).flatten(1).sum(1)


def marginals(P: Tensor, _: Tensor) -> Tensor:
    n = P.shape[1]
    return torch.cat([P.sum(2) - 1 / n, P.sum(1)[:, :-1] - 1 / n], 1)


def plan(C: Tensor) -> Tensor:
    """The regularised plan of uniform marginals, by Sinkhorn's iteration."""
    n, log_k = C.shape[1], -C / 0.3
    v = torch.zeros_like(C[:, :1])
    for _ in range(500):
        u = -(log_k + v).logsumexp(2, keepdim=True)
        v = -(log_k + u).logsumexp(1, keepdim=True)
    return (log_k + u + v).exp() / n


def types(n: int) -> dict[str, Type]:
    generator = torch.Generator().manual_seed(n)

    def draw(*shape: int) -> Tensor:
        return torch.randn(BATCH, *shape, generator=generator, dtype=torch.float64)

    rows = draw(n, max(2, n // 4))[0]

    def fit(y: Tensor, w: Tensor) -> Tensor:
        return (w.exp() * (y @ rows.T - 1).square()).sum(1)

    x, S, C = 1 + draw(n), draw(n, n), draw(n // 4, n // 4).sigmoid()
    unit = x / x.norm(dim=1, keepdim=True)
    top = torch.linalg.eigh(S + S.mT).eigenvectors[..., -1]
    root = x.sqrt().nan_to_num(0.0).exp()[:, :, None]  # of the weights of the rows, given their x
    weights = 2 * root[..., 0].log()
    fitted = torch.linalg.lstsq(root * rows, root).solution[..., 0]
    node = bl.DeclarativeNode
    return {
        "no constraint": Type(node(entropic), x, x),
        "linear equality": Type(node(entropic, total), x, x + (1 - x.sum(1, True)) / n),
        "sphere": Type(node(squares, outside), x, unit),
        "ball": Type(node(squares, None, outside), x, unit),
        "robust pooling": pooling(x),
        "weighted least squares": Type(node(fit), weights, fitted),
        "eigenvector": Type(node(rayleigh, outside), S, top),
        "optimal transport": Type(node(transport, marginals), C, plan(C)),
    }


def pooling(x: Tensor) -> Type:
    node = bl.DeclarativeNode(robust)
    return Type(node, x, node(x, y0=x.mean(1, keepdim=True)))


def jacobian(values: Tensor, at: Tensor) -> Tensor:  # (B, k), (B, *event) -> (B, k, n)
    """One backward pass a row."""
    rows = []
    for column in values.unbind(1):
        grad = None
        if column.requires_grad:
            (grad,) = torch.autograd.grad(column.sum(), at, create_graph=True, allow_unused=True)
        rows.append(torch.zeros_like(at) if grad is None else grad)
    return torch.stack(rows, 1).flatten(2)


def dense(kind: Type, v: Tensor) -> Tensor:
    """v* dy/dx, everything written out; one solve with [H A*; A 0] where the formula has two with
    H, which is singular for an eigenvector."""
    x, y = kind.x.clone().requires_grad_(), kind.y.clone().requires_grad_()
    constraint = kind.node.equality or kind.node.inequality  # which is active in all samples
    slope = torch.autograd.grad(kind.node.objective(y, x).sum(), y, create_graph=True)[0].flatten(1)
    if constraint is None:
        H, B = (jacobian(slope, at).detach() for at in (y, x))
        derivative = -torch.linalg.solve(H, B)
    else:
        c = constraint(y, x)
        A, C = jacobian(c, y), jacobian(c, x).detach()
        nu = torch.linalg.solve((A @ A.mT).detach(), -(A @ slope[..., None]).detach())
        H, B = (jacobian(slope + (A.mT @ nu)[..., 0], at).detach() for at in (y, x))
        A = A.detach()
        corner = H.new_zeros(len(H), c.shape[1], c.shape[1])
        matrix = torch.cat([torch.cat([H, A.mT], 2), torch.cat([A, corner], 2)], 1)
        derivative = -torch.linalg.solve(matrix, torch.cat([B, C], 1))[:, : H.shape[1]]
    return (derivative.mT @ v.flatten(1)[..., None]).reshape(x.shape)


def measured(name: str, kind: Type, v: Tensor) -> dict:
    x = kind.x.clone().requires_grad_()
    given = replace(kind.node, solver=lambda *_: kind.y, order=1)

    def once() -> tuple[float, float, Tensor]:  # seconds of the backward pass, and of the call, too
        start = time.process_time()
        y = given(x, y0=kind.y)
        called = time.process_time()
        (gradient,) = torch.autograd.grad(y, x, v)
        ended = time.process_time()
        return ended - called, ended - start, gradient

    once()
    begin, ours = time.perf_counter(), []
    while len(ours) < 5 or time.perf_counter() < begin + 0.5:
        *passed, gradient = once()
        ours.append(passed)
    backward, both = (1e3 * min(each) for each in zip(*ours, strict=True))
    right, theirs = dense(kind, v), 1e3 * processor_seconds(lambda: dense(kind, v), 0.5)
    row = {"node": name, "samples": len(x), "x": kind.x[0].numel(), "y": kind.y[0].numel()}
    row |= {"dense": theirs, "ours": backward, "with checks": both}
    return row | {"difference": float((gradient - right).norm() / right.norm())}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    rows, generator = [], torch.Generator().manual_seed(0)
    for samples in (64, 512, 4096):  # as many as the channels of a batch of images have
        x = 1 + torch.randn(samples, 49, generator=generator, dtype=torch.float64)
        rows.append(measured("robust pooling", pooling(x), torch.ones_like(x[:, :1])))
        print(rows[-1], flush=True)
    for n in (8, 32, 128):
        for name, kind in types(n).items():
            v = torch.randn_like(kind.y)
            rows.append(measured(name, kind, v))
            print(rows[-1], flush=True)
    columns = ["node", "samples", "x", "y", "dense", "ours", "with checks", "difference"]
    store("declarative_types", "Derivatives of declarative nodes", rows, columns, NOTES)


if __name__ == "__main__":
    main()
