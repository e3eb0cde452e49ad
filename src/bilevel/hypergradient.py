"""hypergradient: the gradient of a loss that reads solutions, with its certificate."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from .differentiation.bounds import Lipschitz, error_bound, tangent_bound
from .differentiation.certificate import Certificate, certificates, merge
from .differentiation.envelope import spread
from .differentiation.newton_step import newton_step
from .differentiation.probes import Probe, kinks, probing
from .errors import KinkWarning, NoSolution, NotConverged, NotUnique

_FAR = 1000.0  # a start: an inexact solve ends as near from there, what lies in a kernel stays


def hypergradient(
    loss: Tensor,
    parameters: Iterable[Tensor],
    *,
    create_graph: bool = False,
    probe: bool = False,
    lipschitz: Lipschitz | None = None,
) -> tuple[tuple[Tensor, ...], Certificate]:
    """(d loss / d parameters, certificate) of a scalar loss that reads solutions of argmin.

    As torch.autograd.grad; a parameter the loss does not depend on gets zeros. Several solutions
    in one loss give one certificate, their samples end to end. With probe=True backward runs twice
    more and the certificate says how far the gradient depends on which adjoint solution was found
    (`inconsistency`, with NotUnique where there is no derivative), on which side of nearby kinks
    the solution lies, and of `minimum` on which of several solutions was found (`influence`, with a
    KinkWarning), and how far it is from that of the exact solution (`drift`, where the strategy is
    right to second order); for the implicit strategies.
    With the constants that no term knows in lipschitz=, the certificate gets a `bound` of the
    gradient's relative error, for smooth, strongly convex energies by Implicit() (Ehrhardt, Roberts
    2024), and by Piggyback() where the terms prove that a step contracts (Bogensperger et al.
    2024); ValueError says which assumption fails.

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
        return _gradient(loss, parameters, create, retain)

    graph = create_graph or probe
    with probing(Probe()) as solved:
        found = gradient(graph, True if graph or lipschitz else None)
    for solve in solved.solves:
        own = solve.system.certificate
        own.newton, own.seen = newton_step(solve)
    certificate = merge(found_in_graph)
    if lipschitz is not None:
        certificate.bound = _bound(found, solved, parameters, lipschitz)
        certificate.update_estimate()
    if probe:
        _examine(gradient, found, solved, parameters, certificate)
    certificate.read()
    return (found if create_graph else tuple(g.detach() for g in found)), certificate


def _gradient(
    loss: Tensor, parameters: tuple[Tensor, ...], create: bool, retain: bool | None
) -> tuple[Tensor, ...]:
    grads = torch.autograd.grad(loss, parameters, None, retain, create, allow_unused=True)
    pairs = zip(parameters, grads, strict=True)
    return tuple(torch.zeros_like(p) if g is None else g for p, g in pairs)


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


def _length(parts: Iterable[Tensor]) -> float:
    return sum(float(part.detach().square().sum()) for part in parts) ** 0.5


def _bound(
    found: tuple[Tensor, ...], solved: Probe, parameters: tuple[Tensor, ...], known: Lipschitz
) -> float:
    """Of |found - exact| / |exact|; inf where the bound of |found - exact| exceeds |found|."""
    if len(solved.solves) + len(solved.tangents) != 1:
        raise ValueError(
            "the bound is for a loss of one solution, differentiated by Implicit() or Piggyback(), "
            f"got {len(solved.solves) + len(solved.tangents)} adjoint solves. Leave lipschitz out."
        )
    if solved.solves:
        bound = error_bound(solved.solves[0], parameters, known)
    else:
        bound = tangent_bound(*solved.tangents[0], parameters, known)
    absolute, size = float(bound), _length(found)
    return absolute / (size - absolute) if absolute < size else float("inf")


def _examine(
    gradient, found: tuple[Tensor, ...], solved: Probe, parameters, certificate: Certificate
) -> None:
    """The probes of `hypergradient`, written into the certificate and judged."""
    size = _length(found)
    unit = size or _of_any_adjoint(solved, parameters) or 1.0

    def inconsistent(start: float) -> float:
        with probing(Probe(random_start=start)):
            other = gradient(False, True)
        moved = _length(a.detach() - b for a, b in zip(found, other, strict=True))
        return moved / unit

    allowed = 0.1 if any(g.dtype != torch.float64 for g in found) else 1e-3
    if solved.values:
        apart = max(spread(least, parameters) for least in solved.values)
        certificate.influence = influence = apart / (size or apart or 1.0)
        if influence > allowed:
            _warn(
                f"the gradient changes by {influence:.1e} with the solution that is found: the "
                "least value has several, or was found too loosely, and only directional "
                "derivatives. The gradient is that of one solution."
            )
    if not solved.solves:
        return  # Unroll, Piggyback: no adjoint system, and nothing measured
    named = [solve.system.inverse.solver for solve in solved.solves]
    stopped = any(solver is not None and not solver.exact for solver in named)  # on purpose
    inconsistency = 0.0 if stopped else inconsistent(1.0)
    certificate.inconsistency = None if stopped else inconsistency
    influence = max(kinks(solve, parameters) for solve in solved.solves)
    certificate.influence = max(influence, certificate.influence or 0.0)
    doubtful = inconsistency > allowed / 10
    if doubtful and inconsistent(_FAR) > _FAR / 10 * inconsistency:  # as a kernel's part is
        raise NotUnique(
            "two solutions of the adjoint system give gradients that differ by "
            f"{inconsistency:.1e}: the solution has no derivative in these parameters "
            "(the dual is not unique and reaches them). Parametrise them so that they keep the "
            "structure, e.g. difference filters of zero mean."
        )
    if influence > allowed:
        _warn(
            f"the gradient changes by {influence:.1e} when nearby kinks fall on the other side: "
            "near this point only directional derivatives exist. The gradient is that of one side."
        )
    certificate.drift = _drift(solved, parameters, found)
    certificate.update_estimate()


def _warn(message: str) -> None:
    warnings.warn(message, KinkWarning, stacklevel=4)  # where hypergradient was called


def _of_any_adjoint(solved: Probe, parameters) -> float:
    """The size of the gradient that a random adjoint as large as the cotangent would give: the unit
    of one that is 0."""
    random = [(s, Probe(random_start=1.0).start(s.b)) for s in solved.solves]
    return _length(s.system.M.pull(s.point, w, parameters) for s, w in random if w is not None)


def _drift(
    solved: Probe, parameters: tuple[Tensor, ...], found: tuple[Tensor, ...]
) -> float | None:
    """|c| / |gradient - c| with c = d gradient / ds for R(z, θ) = s R(z now, θ now), whose solution
    at s = 1 is the z we have and at s = 0 the exact one. As d loss / ds = <w, R>, it is that
    number's gradient in θ: one more backward. None where R lies outside the range of a singular
    system, and where the strategy has no second derivative."""
    if not solved.weighed:
        return None
    left = torch.stack([part.sum() for part in solved.weighed]).sum()
    try:
        change = _gradient(left, parameters, False, True)
    except (NotUnique, NotConverged):
        return None
    exact = _length(g.detach() - c for g, c in zip(found, change, strict=True))
    return _length(change) / (exact or 1.0)
