"""What is known of the error of a solution and of its gradient."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from .._broadcast import norm_event


class Later:
    """A field that may be set to a function of its owner, which fills it when it is first read."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, owner: Any, kind: type) -> Any:
        if owner is None:
            return None  # the default
        values = vars(owner)
        if callable(values[self.name]):
            values[self.name](owner)
        return values[self.name]

    def __set__(self, owner: Any, value: Any) -> None:
        vars(owner)[self.name] = value


@dataclass(eq=False)
class Certificate:
    """Numbers that say how far a solution and its gradient can be trusted, one a sample `(B,)`;
    None: not measured.

    The forward part is filled by the solve, the adjoint part when backward runs, the probes by
    `hypergradient(probe=True)`.
    """

    solver: str = ""
    strategy: str = ""
    # forward
    gap: Later = Later()  # relative duality gap, where the problem has one
    residual: Later = Later()  # |z - T(z)| / |z|
    iterations: Tensor | None = None  # steps of the solver
    converged: Tensor | None = None  # bool
    # |T(T(z)) - T(z)| / |T(z) - z| near the solution; nan once at rounding level
    contraction: Later = Later()
    # where all terms declare their manifolds, and a gradient is asked for:
    identified: Tensor | None = None  # steps for which the active set has been seen unchanged
    margin: Tensor | None = None  # least slack of what holds the active set; 0 at a kink
    distance: Tensor | None = None  # BOUND of |x - solution|, sqrt(2 gap / mu); by `accuracy`
    # adjoint
    pull: Tensor | None = None  # |d loss / d x|
    loss_error: Tensor | None = None  # ESTIMATE of loss(x) - loss(solution): -<w, z - T(z)>
    adjoint_residual: Tensor | None = None  # |g - M* w| / |g|: of the last adjoint solve
    adjoint_iterations: int | None = None
    newton: Tensor | None = None  # ESTIMATE of |x - solution| / |x|: the Newton step that is left
    seen: Tensor | None = None  # the share of that step which moves the gradient, 1 at most
    # probes: the relative change of the gradient ...
    inconsistency: float | None = None  # ... with another adjoint solution
    influence: float | None = None  # ... when doubtful kinks fall on the other side; of `minimum`,
    # at another solution
    drift: float | None = None  # ... when the solve goes on to the exact solution, to first order
    bound: float | None = None  # BOUND of the gradient's relative error, by `hypergradient`
    estimate: Later = Later()  # ESTIMATE, not a bound, of the gradient's relative error
    theorem: Later = Later()  # the one behind the bound, if there is one, else the estimate's

    def update_estimate(self) -> None:
        self.estimate = self.theorem = Certificate._fill_estimate

    def _fill_estimate(self) -> None:
        """What is left of the solution's error (the drift, else what the gradient sees of the
        Newton step, else the contraction's guess) plus the adjoint's (what another adjoint solution
        changes, else its residual), no more than a bound: first order, and the constants of the
        second unknown."""
        estimate, theorem = self.residual, "Banach: residual / (1 - contraction measured)"
        if estimate is not None and self.drift is not None:
            estimate = torch.full_like(estimate, self.drift)
            theorem = "Implicit function theorem along the residual, to first order"
        elif estimate is not None:
            rate = torch.zeros_like(estimate) if self.contraction is None else self.contraction
            estimate = estimate / (1 - rate.nan_to_num(0.0).clamp(0, 1 - 1e-6))
            if self.newton is not None and self.seen is not None:
                known = ~self.newton.isnan()
                estimate = torch.where(known, self.newton * self.seen, estimate)
                if bool(known.any()):
                    theorem = "Newton-Kantorovich, to first order"
        adjoint = self.adjoint_residual if self.inconsistency is None else self.inconsistency
        if estimate is not None and adjoint is not None:
            estimate = estimate + adjoint
        if estimate is not None and self.bound is not None:
            estimate = estimate.clamp_max(self.bound)
            of = "contraction" if self.strategy == "Piggyback" else "hypergradient"
            theorem = f"A-posteriori bound of a {of}"
        self.estimate, self.theorem = estimate, None if estimate is None else theorem

    def read(self) -> dict[str, Any]:
        """All fields, worked out: what is not keeps the problem alive until it is read."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def as_dict(self) -> dict[str, float | str | int]:
        """Plain numbers for tables: the worst over the batch (least for `converged`), under the
        fields' names."""
        summary: dict[str, float | str | int] = {}
        for name, value in self.read().items():
            if value is None or value == "":
                continue
            if isinstance(value, Tensor):
                if not value.numel():
                    continue
                value = float(value.all()) if value.dtype == torch.bool else _worst(value)
            summary[name] = value
        return summary

    def __str__(self) -> str:
        lines = (
            f"  {k:20s} {v:.3g}" if isinstance(v, float) else f"  {k:20s} {v}"
            for k, v in self.as_dict().items()
        )
        return "\n".join(["Certificate (worst over the batch; the estimate is no bound)", *lines])


def _worst(value: Tensor) -> float:
    """The largest number; nan (not measurable) only where all are."""
    known = value[~value.isnan()]
    return float(known.max()) if known.numel() else float("nan")


def merge(certificates: list[Certificate]) -> Certificate:
    """One certificate for several solves: per-sample numbers end to end, single ones the worst."""
    if len(certificates) == 1:
        return certificates[0]
    merged = Certificate()
    for f in fields(Certificate):
        values = [
            v for v in (getattr(c, f.name) for c in certificates) if v is not None and v != ""
        ]
        if not values:
            continue
        if isinstance(values[0], Tensor):
            setattr(merged, f.name, torch.cat([v.cpu() for v in values]))
        elif isinstance(values[0], str):
            setattr(merged, f.name, " + ".join(dict.fromkeys(values)))
        else:
            setattr(merged, f.name, max(values))
    return merged


class _Certified(torch.autograd.Function):
    """x, with its certificate hung on the graph's node, where `hypergradient` finds it."""

    @staticmethod
    def forward(ctx, x: Tensor, certificate: Certificate) -> Tensor:
        ctx.certificate = certificate
        return x.view_as(x)

    @staticmethod
    def backward(ctx, cotangent: Tensor):  # type: ignore[override]
        # not of a batch of cotangents, which Unroll takes and the others refuse
        if not torch._C._functorch.is_legacy_batchedtensor(cotangent):  # type: ignore[attr-defined]
            ctx.certificate.pull = norm_event(cotangent.detach())
        return cotangent, None

    @staticmethod
    def jvp(ctx, tangent: Tensor, _: None):  # type: ignore[override]
        return tangent.view_as(tangent)


def certified(x: Tensor, certificate: Certificate) -> Tensor:
    """x, with the certificate hung on its node in the graph."""
    return _Certified.apply(x, certificate)  # type: ignore[return-value]


def certificates(loss: Tensor) -> list[Certificate]:
    """The certificates of all solutions in the graph of the loss, nearest first."""
    found, seen, front = [], set(), [loss.grad_fn]
    while front:
        node = front.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        certificate = getattr(node, "certificate", None)
        if isinstance(certificate, Certificate):
            found.append(certificate)
        front.extend(following for following, _ in node.next_functions)
    return found
