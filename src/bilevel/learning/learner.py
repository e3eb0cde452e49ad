"""One learning run as a state machine: `advance` is a step, `state_dict` all the next one needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bilevel.accuracy import current_accuracy
from bilevel.differentiation.certificate import Certificate, certificates, merge
from bilevel.learning import randomness, shards
from bilevel.learning.batches import Batch, Batches, Dataset
from bilevel.learning.checkpoint import snapshot
from bilevel.learning.optimizers import MakeOptimizer, describe, make_optimizer, restore
from bilevel.learning.processes import Team
from bilevel.learning.run_folder import Record
from bilevel.warm_start import WarmStarts, warm_starts

Loss = Callable[[nn.Module, Batch], Tensor]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The loss and its gradient at one θ."""

    theta: list[Tensor]
    loss: float
    gradient: list[Tensor]
    certificate: Certificate | None  # of the hypergradient; None if the loss solves no problem
    tol: float | None  # of the surrounding `accuracy`, as passed by the optimizer

    def state_dict(self) -> dict[str, Any]:
        return {**vars(self), "certificate": self.certificate and self.certificate.read()}

    @classmethod
    def from_state(cls, state: dict[str, Any], parameters: list[nn.Parameter]) -> Evaluation:
        def placed(tensors: list[Tensor]) -> list[Tensor]:
            return [t.to(p.device) for t, p in zip(tensors, parameters, strict=True)]

        certificate = state["certificate"] and Certificate(**state["certificate"])
        theta, gradient = placed(state["theta"]), placed(state["gradient"])
        return cls(theta, state["loss"], gradient, certificate, state["tol"])


class Learner:
    """Model, optimizer, batches, warm starts and random numbers, advancing together."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        loss: Loss,
        optimizer: MakeOptimizer | None,
        batch_size: int | None,
        seed: int,
        team: Team | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"learn needs an nn.Module with parameters, got {model!r}.")
        self.model, self.loss, self.team = model, loss, team
        self.parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError(
                f"{type(model).__name__} has no parameter that requires a gradient, so there is "
                "nothing to learn: register an nn.Parameter."
            )
        parameters = list(self.parameters.values())
        self.optimizer = make_optimizer(optimizer, parameters, batch_size)
        parts = () if team is None else (team.part,)
        self.batches = Batches(data, batch_size, seed, parameters[0].device, *parts)
        self.warm_starts = WarmStarts()
        self.settings = {  # a resumed run gives the same numbers only if these are the same
            "optimizer": describe(self.optimizer),
            "samples": len(data),
            "batch_size": batch_size,
            "seed": seed,
            "parameters": {k: f"{p.dtype} {tuple(p.shape)}" for k, p in self.parameters.items()},
        }
        self.step = 0
        self.seconds = 0.0
        self.finished = False  # a step on the whole data that moved no parameter: so would the next
        self.last: Evaluation | None = None
        # random numbers of the other processes, in order; none yet: each starts from its own seed
        self.others: list[dict[str, Any] | None] = [None] * (team.size - 1 if team else 0)

    def advance(self) -> Record:
        """One `optimizer.step(closure)`. If it raises, half a step may be done: load a state."""
        start = time.perf_counter()
        batch = self.batches.next()
        used: list[Evaluation] = []
        work: list[tuple[int, int]] = []  # of the lower level, for each evaluation computed

        @torch.enable_grad()
        def closure() -> float:
            # a line search ends where the next step begins: that evaluation is not repeated
            last = self._known()
            if last is None:
                last = self.last = self._evaluate(batch)
                work.append(_work(last.certificate))
            else:
                _report(last.certificate)
            used.append(last)
            for parameter, slope in zip(self.parameters.values(), last.gradient, strict=True):
                parameter.grad = slope.clone()  # which the optimizer may change
            return last.loss

        self.optimizer.step(closure)
        self.optimizer.zero_grad()
        for name, parameter in self.parameters.items():
            self._check_finite(parameter, f"the optimizer's step made parameter {name!r}")
        first = used[0]
        self.finished = self.batches.whole and not self._moved_from(first.theta)
        self.step += 1
        self.seconds += time.perf_counter() - start
        row = {
            "step": self.step,
            "loss": first.loss,
            "grad_norm": float(nn.utils.get_total_norm(first.gradient)),
            "seconds": self.seconds,
            **_worst(first.certificate),
            "evaluations": len(work),
            "lower_iterations": sum(solver for solver, _ in work),
            "adjoint_products": sum(adjoint for _, adjoint in work),
        }
        return row | {f"parameter {k}" if k in row else k: v for k, v in self._scalars(first.theta)}

    def state_dict(self) -> dict[str, Any]:
        """A copy of everything that the next step depends on."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "finished": self.finished,
            "settings": self.settings,
            "last": self.last and self.last.state_dict(),  # its tensors are never changed in place
            "warm_starts": self.warm_starts.state_dict(),  # nor these
            **snapshot(
                {
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "batches": self.batches.state_dict(),
                    "randomness": randomness.get_state(),
                    "others": self.others,
                }
            ),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, then, now in _differences(state["settings"], self.settings):
            raise ValueError(
                f"The run began with {name}={then} and cannot be resumed with {name}={now}: "
                "pass what it began with, or begin a new run in another folder."
            )
        self.model.load_state_dict(state["model"])
        restore(self.optimizer, state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        self.warm_starts.load_state_dict(state["warm_starts"])
        randomness.set_state(state["randomness"])
        saved = dict(enumerate(state.get("others", ())))  # of another number of processes, maybe
        self.others = [saved.get(i) for i in range(len(self.others))]
        parameters = list(self.parameters.values())
        self.last = state["last"] and Evaluation.from_state(state["last"], parameters)
        self.step, self.seconds = state["step"], state["seconds"]
        self.finished = state["finished"]

    @property
    def certificate(self) -> Certificate | None:
        return self.last and self.last.certificate

    def _evaluate(self, batch: Batch) -> Evaluation:
        if self.team is None:
            return self.evaluate_here(batch)
        if current_accuracy() is not None:
            raise ValueError(
                f"{type(self.optimizer).__name__} reads the errors of all solves, and those of "
                "other processes do not reach it. Run it in one process, or use L-BFGS or Adam."
            )
        return shards.evaluate(self.team, self, batch)

    def evaluate_here(self, batch: Batch) -> Evaluation:
        """By this process alone."""
        parameters = list(self.parameters.values())
        with warm_starts(self.warm_starts, batch["index"]):
            loss = self.loss(self.model, batch)
            check_loss(loss)
            self._check_finite(loss, "the loss is")
            gradient, certificate = differentiate(loss, parameters)
        for name, slope in zip(self.parameters, gradient, strict=True):
            self._check_finite(slope, f"the gradient of parameter {name!r} is")
        return Evaluation(
            theta=[parameter.detach().clone() for parameter in parameters],
            loss=loss.item(),
            gradient=[slope.detach() for slope in gradient],
            certificate=certificate,
            tol=_asked(),
        )

    def _known(self) -> Evaluation | None:
        """The last evaluation, if it was of this loss, here, and as accurate as is asked now."""
        last, asked = self.last, _asked()
        if last is None or not self.batches.whole or self._moved_from(last.theta):
            return None
        tighter = asked is not None and last.tol is not None and last.tol <= asked
        return last if tighter or asked == last.tol else None

    def _moved_from(self, theta: list[Tensor]) -> bool:
        now = self.parameters.values()
        return not all(torch.equal(p, t) for p, t in zip(now, theta, strict=True))

    def _scalars(self, theta: list[Tensor]) -> list[tuple[str, float]]:
        """The parameters that a table can show: those of one real number."""
        pairs = zip(self.parameters, theta, strict=True)
        return [(k, t.item()) for k, t in pairs if t.numel() == 1 and not t.is_complex()]

    def _check_finite(self, values: Tensor, what: str) -> None:
        finite = values.isfinite()
        if not finite.all():
            example = values[~finite][0].item()
            raise FloatingPointError(
                f"Step {self.step + 1}: {what} not finite ({(~finite).sum()} of {values.numel()} "
                f"values, the first is {example}). Check the data and the starting parameters, or "
                "lower the learning rate."
            )


def differentiate(
    loss: Tensor, parameters: list[nn.Parameter]
) -> tuple[tuple[Tensor, ...], Certificate | None]:
    """Gradients and certificate; without a certificate if the loss solves no problem."""
    found = certificates(loss)
    gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    if not found:
        return gradients, None
    certificate = merge(found)
    certificate.read()
    return gradients, certificate


def _worst(certificate: Certificate | None) -> dict[str, float | None]:
    """The worst sample of the batch."""
    values = {k: getattr(certificate, k, None) for k in ("gap", "residual", "adjoint_residual")}
    return {k: None if v is None else float(v.max()) for k, v in values.items()}


def _work(certificate: Certificate | None) -> tuple[int, int]:
    """(steps of the solver, products of the adjoint solver), summed over the samples; those of a
    batch of adjoints are all counted as the longest."""
    if certificate is None or certificate.iterations is None:
        return 0, 0
    adjoint = (certificate.adjoint_iterations or 0) * len(certificate.iterations)
    return int(certificate.iterations.sum()), adjoint


def _report(certificate: Certificate | None) -> None:
    """Tell a surrounding `accuracy` of solves that were not repeated."""
    level = current_accuracy()
    if certificate is not None and level is not None and level.report is not None:
        level.report.append(certificate)


def _asked() -> float | None:
    level = current_accuracy()
    return None if level is None else level.tol


def _differences(then: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(name, then, now) of what is not the same, inside nested dicts too."""
    for name in then | now:
        a, b = then.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b)
        elif a != b:
            yield name, a, b


def check_loss(loss: Any) -> None:
    """Refuse what a loss(model, ...) returns, unless it is one number with a gradient."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ValueError(
            f"the loss must return a tensor with one number, got {got}: take the mean, say."
        )
    if not loss.requires_grad:
        raise ValueError(
            "the loss does not depend on the parameters of the model: it was computed "
            "under no_grad, detached, or from the batch alone."
        )
