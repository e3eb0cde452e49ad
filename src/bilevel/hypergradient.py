"""hypergradient: the gradient of a loss that reads solutions, with its certificate."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from .differentiation.certificate import Certificate, certificates, merge
from .differentiation.probes import Probe, probing
from .errors import KinkWarning, NoSolution, NotUnique


def hypergradient(
    loss: Tensor,
    parameters: Iterable[Tensor],
    *,
    create_graph: bool = False,
    probe: bool = False,
) -> tuple[tuple[Tensor, ...], Certificate]:
    """(d loss / d parameters, certificate) of a scalar loss that reads solutions of argmin.

    As torch.autograd.grad; a parameter the loss does not depend on gets zeros. Several solutions
    in one loss give one certificate, their samples end to end. With probe=True backward runs twice
    more and the certificate says how far the gradient depends on which adjoint solution was found
    (`inconsistency`, with NotUnique where there is no derivative) and on which side of nearby kinks
    the solution lies (`influence`, with a KinkWarning); for the implicit strategies.

    >>> import torch, bilevel as bl
    >>> weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    >>> y = torch.tensor([[2.0, -0.3]], dtype=torch.float64)
    >>> x = bl.argmin(bl.LeastSquares(y) + weight * bl.L1())
    >>> gradients, certificate = bl.hypergradient(x.sum(), [weight], probe=True)
    >>> gradients[0].round(decimals=6)
    tensor(-1., dtype=torch.float64)
    >>> certificate.influence < 1e-3
    True
    """
    parameters = (parameters,) if isinstance(parameters, Tensor) else tuple(parameters)
    _check_loss(loss, parameters)
    if loss.numel() != 1:
        raise ValueError(
            f"hypergradient needs a scalar loss, got shape {tuple(loss.shape)}. Take its mean."
        )
    found_in_graph = certificates(loss)
    if not found_in_graph:
        raise NoSolution(
            "this loss does not depend on a solution of argmin with a gradient. Does a parameter "
            "require_grad, and was argmin called outside torch.no_grad()? For an ordinary loss use "
            "torch.autograd.grad."
        )

    def gradient(create: bool, retain: bool | None) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(loss, parameters, None, retain, create, allow_unused=True)
        pairs = zip(parameters, grads, strict=True)
        return tuple(torch.zeros_like(p) if g is None else g for p, g in pairs)

    found = gradient(create_graph, True if probe or create_graph else None)
    certificate = merge(found_in_graph)
    if probe:
        _examine(gradient, found, parameters, certificate)
    return found, certificate


def _check_loss(loss: object, parameters: tuple[object, ...]) -> None:
    if not isinstance(loss, Tensor):
        raise TypeError(f"hypergradient needs a loss tensor, got {type(loss).__name__}.")
    if not parameters:
        raise ValueError("hypergradient needs parameters, got none: pass model.parameters(), say.")
    for i, parameter in enumerate(parameters):
        if not isinstance(parameter, Tensor) or not parameter.requires_grad:
            what = "no tensor" if not isinstance(parameter, Tensor) else "a tensor without gradient"
            raise ValueError(
                f"parameter {i} of hypergradient is {what}: call requires_grad_() on it before the "
                "energy is built from it."
            )


def _examine(gradient, found: tuple[Tensor, ...], parameters, certificate: Certificate) -> None:
    """The two probes of `hypergradient`, written into the certificate and judged."""
    size = sum(float(g.detach().square().sum()) for g in found) ** 0.5
    with probing(Probe(parameters, random_start=True)):
        other = gradient(False, True)
    moved = sum(float((a.detach() - b).square().sum()) for a, b in zip(found, other, strict=True))
    certificate.inconsistency = inconsistency = moved**0.5 / size if size else 0.0
    with probing(Probe(parameters)) as probe:
        gradient(False, True)
    certificate.influence = influence = max(probe.influence, default=0.0)
    single = any(g.dtype != torch.float64 for g in found)
    if inconsistency > (1e-2 if single else 1e-4):
        raise NotUnique(
            "two solutions of the adjoint system give gradients that differ by "
            f"{inconsistency:.1e}: the solution has no derivative in these parameters "
            "(the dual is not unique and reaches them). Parametrise them so that they keep the "
            "structure, e.g. difference filters of zero mean."
        )
    if influence > (0.1 if single else 1e-3):
        warnings.warn(
            f"the gradient changes by {influence:.1e} when nearby kinks fall on the "
            "other side: near this point only directional derivatives exist. The gradient is that "
            "of one side.",
            KinkWarning,
            stacklevel=3,
        )
