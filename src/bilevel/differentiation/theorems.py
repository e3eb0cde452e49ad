"""Which theorem covers which strategy: the table behind `explain` and its page."""

from __future__ import annotations

from dataclasses import dataclass

from .assumptions import (
    Assumption,
    contraction_proven,
    contracts,
    invertible,
    known_curvature,
    no_kink,
    piece_proven,
    plain,
    smooth,
    solved,
    strongly_convex,
    two_dimensional,
)
from .base import Strategy
from .explicit import Explicit
from .flat_zones import FlatZones
from .implicit import FixedPoint, Implicit, OneStep, Truncated
from .partly_smooth import PartlySmooth
from .piggyback import Piggyback
from .smoothed import Smoothed
from .unrolled import Unroll


@dataclass(frozen=True)
class Theorem:
    """What is known of a derivative, under which assumptions."""

    name: str
    says: str
    strategies: tuple[type[Strategy], ...]
    assumes: tuple[Assumption, ...]
    memory: str
    steps: str
    source: str
    weak: bool = False  # covers what another theorem leaves open; advice is due


_SYSTEM = ("one recorded T, and what the linear solver keeps", "tens to hundreds of products")

# of those that cover a strategy the first whose assumptions hold counts
THEOREMS = (
    Theorem(
        "Chain rule",
        "the solution is a formula, and its derivative that of the formula",
        (Explicit,),
        (no_kink,),
        "what the formula keeps",
        "one pass through the formula",
        "Moreau 1965, for the prox",
    ),
    Theorem(
        "A-posteriori bound of a hypergradient",
        "the derivative exists, and its error is bounded by the two residuals",
        (Implicit,),
        (smooth, strongly_convex, known_curvature, solved),
        *_SYSTEM,
        "Ehrhardt, Roberts 2024; hypergradient(lipschitz=...)",
    ),
    Theorem(
        "Implicit function theorem",
        "the derivative exists and solves M dz = dT; all orders, where T has them",
        (FixedPoint, Implicit),
        (no_kink, invertible, solved),
        *_SYSTEM,
        "Christianson 1994; on the manifold of a non-smooth term Lewis 2002, Vaiter et al. 2017",
    ),
    Theorem(
        "Implicit function theorem on the active manifold",
        "the derivative exists, and is that along the manifold",
        (PartlySmooth,),
        (no_kink, solved),
        "the manifold and its system, of its dimension",
        "one factorisation where small, else some products",
        "Lewis 2002; Vaiter et al. 2017",
    ),
    Theorem(
        "Implicit function theorem on the flat zones",
        "the derivative exists, and is that of images that stay flat where x is",
        (FlatZones,),
        (two_dimensional, no_kink, solved),
        "as many numbers as pixels",
        "means over the zones, or conjugate gradients on them",
        "Vaiter et al. 2017",
    ),
    Theorem(
        "Smoothing",
        "the derivative is that of the minimiser of the smoothed energy, which is another one",
        (Smoothed,),
        (solved,),
        *_SYSTEM,
        "Nesterov 2005; Kunisch, Pock 2013",
        weak=True,
    ),
    Theorem(
        "Consistent singular system",
        "a solution of M* w = v gives the derivative, if the solution has one; no proof beyond "
        "first order",
        (FixedPoint, Implicit),
        (no_kink, solved),
        *_SYSTEM,
        "the page on derivatives, a singular M",
        weak=True,
    ),
    Theorem(
        "Conservative Jacobian",
        "at a kink the formula gives an element of a conservative Jacobian, no derivative",
        (FixedPoint, Implicit, Explicit),
        (invertible, solved),
        *_SYSTEM,
        "Bolte, Le, Pauwels, Silveti-Falls 2021",
        weak=True,
    ),
    Theorem(
        "Truncated series",
        "the error is (dT/dz)^k dz: the k-th power of the contraction",
        (Truncated, OneStep),
        (no_kink, contracts, solved),
        "one recorded T",
        "k products, 1 for OneStep",
        "Bolte, Pauwels, Vaiter 2023; Brauer, Lorenz 2023",
    ),
    Theorem(
        "Derivatives of a contracting iteration",
        "dz_k tends to dz linearly, as k q^k at worst, after z_k has found the smooth piece",
        (Unroll,),
        (plain, no_kink, contracts, solved),
        "every recorded step, or every segment-th",
        "as many as recorded",
        "Gilbert 1992; Mehmood, Ochs 2020; for non-smooth T Bolte, Pauwels, Vaiter 2022",
    ),
    Theorem(
        "A-posteriori bound of a contraction",
        "the derivative exists, and its error is bounded by what one step still moves the solution "
        "and the adjoint",
        (Piggyback,),
        (contraction_proven, piece_proven, solved),
        "two states",
        "as many as the solution takes, at three times the price",
        "Banach 1922; Bogensperger et al. 2024; hypergradient(lipschitz=...)",
    ),
    Theorem(
        "Piggyback adjoint",
        "the adjoint's iterates tend to the adjoint as those of the solution do, once these have "
        "found the smooth piece",
        (Piggyback,),
        (no_kink, contracts, solved),
        "two states",
        "as many as the solution takes, at three times the price",
        "Chambolle, Pock 2021; Bogensperger, Chambolle, Pock 2022",
    ),
    Theorem(
        "Derivatives inherit acceleration",
        "the accelerated iteration's derivatives converge at its own rate, for a twice "
        "differentiable energy; restarts are not covered",
        (Unroll,),
        (smooth, strongly_convex, no_kink, solved),
        "every recorded step, or every segment-th",
        "as many as recorded",
        "Mehmood, Ochs 2020, 2022",
    ),
)


def covering(strategy: Strategy) -> tuple[Theorem, ...]:
    return tuple(t for t in THEOREMS if isinstance(strategy, t.strategies))
