"""A rule that promises nothing, beside one that does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .base import Acceleration, State, Z, merge, where
from .momentum import Nesterov

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint


@dataclass(frozen=True)
class Guarded(Acceleration):
    """Two runs from the same start, by `rule` and by `guard`; z_k is the better of the two.

    E(z_k) <= E(guard's z_k) at every step k: no step beyond the training of a learned rule, and no
    problem unlike those it was trained on, does harm. Where the rule's energy is not below the
    guard's, or not a number, the rule starts anew from the guard's iterate, sample by sample. For
    f + g, without composed terms; a step costs one of each rule and two values.
    """

    rule: Acceleration
    guard: Acceleration = field(default_factory=Nesterov)

    def __post_init__(self) -> None:
        for name in ("rule", "guard"):
            if not isinstance(rule := getattr(self, name), Acceleration):
                raise TypeError(f"Guarded needs a {name} such as Nesterov(), got {rule!r}.")

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        problem = fixpoint.problem
        if problem.h or (problem.f is not None and not problem.f.potential):
            raise TypeError(
                "Guarded compares energies, of f + g without composed terms. Here there is no "
                "value to compare: use the rule alone."
            )
        return z, self.guard.start(fixpoint, z), self.rule.start(fixpoint, z)

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        safe, guards, rules = state
        safe, guards = self.guard.step(fixpoint, safe, guards)
        z, rules = self.rule.step(fixpoint, z, rules)
        better = fixpoint.value(z) < fixpoint.value(safe)  # not so where it is NaN
        if not bool(better.all()):
            z = where(better, z, safe)
            rules = merge(better, rules, self.rule.start(fixpoint, z))
        return z, (safe, guards, rules)
