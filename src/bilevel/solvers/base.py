"""A solver is one autonomous step T; the driver owns the loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Self

from torch import Tensor

from .._broadcast import Scalar
from ..acceleration.base import mix
from ..problem import Problem, relative_change
from ..terms.composition import named

if TYPE_CHECKING:
    from ..acceleration import Acceleration
    from ..kernels.rof import ROF

Z = tuple[Tensor, ...]  # what a solver iterates on; dim 0 of every part is the batch


class Solver(ABC):
    """T: z -> z with z = T(z) at the solution. Frozen; `prepare` fills in the step sizes once."""

    batched: ClassVar[tuple[str, ...]] = ()  # fields that may be (B,): one number a sample
    stride: ClassVar[int] = 10  # steps before the first look
    newton: ClassVar[bool] = False  # whether dT/dz = 0 at the solution: no rate, nothing to polish
    proves: ClassVar[bool] = False  # whether a step `near` an answer, where T is flat, proves it
    recordable: ClassVar[bool] = True  # whether backpropagation through the steps is meaningful
    explicit: ClassVar[bool] = False  # whether a run is one formula that autograd can record

    @abstractmethod
    def check(self, problem: Problem) -> None:
        """Raise TypeError if the problem lacks what this solver needs; name one that would do."""

    @abstractmethod
    def prepare(self, problem: Problem, x0: Tensor) -> Self:
        """The same solver with every step size set, detached, strictly below its limit."""

    @abstractmethod
    def step(self, problem: Problem, z: Z) -> Z:
        """T(z)."""

    def kernel(self, problem: Problem, z: Z) -> ROF | None:
        """A compiled implementation of this T for this problem, where there is one."""
        return None

    @property
    def flat(self) -> bool:
        """Whether dT/dz = 0, to rounding, around the z that `near` has made it for."""
        return False

    def near(self, problem: Problem, z: Z) -> Self:
        """The solver with what its steps at and around z share worked out once."""
        return self

    def keeps(self, z: Z) -> bool:
        """Whether z, a step on from the z of `near`, lies where that T is flat, too."""
        return True

    def euclidean(self) -> Solver | None:
        """A method on the points themselves that may end what this one only creeps towards."""
        return None

    def start(self, problem: Problem, x0: Tensor) -> Z:
        return (x0,)

    def draft(self, problem: Problem, z: Z, tol: float) -> Z:
        """A start nearer to the solution than z, at the best as near as tol, found cheaply, for a
        run that is not recorded."""
        return z

    def primal(self, problem: Problem, z: Z) -> Tensor:
        return z[0]

    def dual(self, problem: Problem, z: Z) -> Z:
        """One dual variable for each h of the problem."""
        return ()

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        """The z at the solution x with duals y."""
        return (x,)

    def residual(self, problem: Problem, z: Z, t: Z, floor: Scalar = 0.0) -> Tensor:  # -> (B,)
        """How far z is from t = T(z), relative to the larger of |t| and the floor."""
        return relative_change(z, t, floor)

    def landed(self, problem: Problem, z: Z, tol: float) -> Z:
        """z, put where T would bring it at last as far as that is plain, to within tol: before z is
        differentiated."""
        return z

    def averaged(self, problem: Problem, z: Z) -> Z:
        """A map with T's fixed points, averaged in the solver's metric: for anchors, relaxation."""
        return self.step(problem, z)

    def relaxed(self, problem: Problem, z: Z, rho: Scalar) -> Z:
        """z + rho (averaged(z) - z)."""
        return mix(rho, self.averaged(problem, z), z)

    def reflection(self, problem: Problem, x: Tensor) -> Scalar:
        """The largest r for which z + (1 + r) (averaged(z) - z) is nonexpansive; 0 is safe."""
        return 0.0

    def rebalanced(self, problem: Problem, balance: Tensor) -> Self:
        """The solver with its primal step times the balance (B,), its dual step divided by it.

        A solver with a single step has nothing to trade and stays as it is.
        """
        return self

    def balance(self, problem: Problem, z: Z, before: Z) -> Tensor:
        """The balance (B,) that the way from `before`, many steps ago, to z asks for; NaN where
        that is lost in rounding."""
        return z[0].new_ones(len(z[0]))

    @abstractmethod
    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        """The rule on the sequence that suits this problem best, unless the caller names one."""

    def take(self, index: Tensor) -> Self:
        taken = {n: _pick(getattr(self, n), index) for n in self.batched}
        return replace(self, **taken) if taken else self  # type: ignore[type-var]


def _pick(value: object, index: Tensor) -> object:
    if isinstance(value, tuple):
        return tuple(_pick(v, index) for v in value)
    carries = isinstance(value, Tensor) and value.ndim and len(value) > 1
    return value[index] if carries else value  # type: ignore[index]


def refuse(solver: Solver, what: str, got: object, instead: str) -> TypeError:
    return TypeError(f"{type(solver).__name__} needs {what}, got {got}. {instead}")


def names(terms: object) -> str:
    """A term or a tuple of terms as the user wrote them, for messages."""
    if isinstance(terms, tuple):
        return " + ".join(named(t) for t in terms) or "none"
    return "none" if terms is None else named(terms)
