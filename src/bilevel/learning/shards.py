"""One evaluation of the loss by many processes, each on its part of the batch.

The first process learns: it alone has the optimizer, the run folder, the whole state. The others
wait for its orders and keep nothing between them. With the order to evaluate, each gets the model's
state, its samples' numbers and warm starts and its random numbers; it answers with loss,
certificate, and the new warm starts and random numbers. The next order sums the gradients. So a
checkpoint of the first process is one of the whole run, whatever the number of processes, and the
order that ends the run can come at any time.

    loss     = sum over processes of  n_r / n  loss_r      (n_r of n samples; the loss is a mean)
    gradient = sum over processes of  n_r / n  gradient_r
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bilevel.differentiation.certificate import Certificate, merge
from bilevel.learning import randomness
from bilevel.learning.batches import Batch
from bilevel.learning.checkpoint import snapshot
from bilevel.learning.processes import Lost, Team
from bilevel.warm_start import Rows

if TYPE_CHECKING:
    from bilevel.learning.learn import LearnResult
    from bilevel.learning.learner import Evaluation, Learner

ECHO = "This happened in the first process, which tells more."


@dataclass(eq=False)
class Evaluate:
    """To all; each one's `Task` follows."""

    step: int
    settings: dict[str, Any]  # must be the same everywhere
    model: dict[str, Any]


@dataclass(eq=False)
class Sum:
    """All answers were good: sum the gradients."""


@dataclass(eq=False)
class End:
    """The run is over: with a result, or with the error that every process raises."""

    model: dict[str, Any]  # its state
    result: LearnResult | None = None
    error: BaseException | None = None


@dataclass(eq=False)
class Task:
    index: Tensor
    share: float  # n_r / n
    warm_starts: Rows
    randomness: dict[str, Any] | None  # None: go on with your own


@dataclass(eq=False)
class Answer:
    loss: float = 0.0
    certificate: Certificate | None = None
    warm_starts: Rows | None = None
    randomness: dict[str, Any] | None = None
    error: BaseException | None = None


def together(
    team: Team,
    model: nn.Module,
    run: Callable[[], LearnResult],
    make_learner: Callable[[], Learner],
    out: str | os.PathLike[str] | None,
) -> LearnResult:
    """The first process runs, the others follow; all return the same or raise the same."""
    with team:
        if team.rank > 0:
            try:
                return _follow(team, model, make_learner)
            except Lost as error:
                if out is not None:
                    error.add_note(f"resume=True goes on from the newest checkpoint in {out}.")
                raise
        try:
            result = run()
        except BaseException as error:
            with suppress(Lost):
                _end(team, End(snapshot(model.state_dict()), error=_portable(error)))
            raise
        _end(team, End(snapshot(model.state_dict()), replace(result, model=None)))
        return result


# --------------------------------------------------------------------------- the first process


def evaluate(team: Team, learner: Learner, batch: Batch) -> Evaluation:
    """Of the whole batch; `batch` is the part of this process."""
    shards = team.split(learner.batches.index)
    shares = [len(shard) / len(learner.batches.index) for shard in shards]
    states = [None, *learner.others]
    evaluation: Evaluation | None = None
    failure: BaseException | None = None
    with team.signals.held():
        model = snapshot(learner.model.state_dict())
        team.broadcast(Evaluate(learner.step, learner.settings, model))
        rows = [{}, *(learner.warm_starts.rows(shard.tolist()) for shard in shards[1:])]
        team.scatter(list(map(Task, shards, shares, rows, states)))
        try:
            with team.signals.released():
                evaluation = learner.evaluate_here(batch)
        except BaseException as error:  # told after the others have answered
            failure = error
        _, *answers = team.gather(None)
        if failure is not None:
            raise failure
        for rank, answer in enumerate(answers, 1):
            if answer.error is not None:
                samples = shards[rank].tolist()
                answer.error.add_note(f"In process {rank} of {team.size}, on samples {samples}.")
                raise answer.error
        assert evaluation is not None
        team.broadcast(Sum())
        gradient = team.sum([shares[0] * slope for slope in evaluation.gradient])
    for answer in answers:
        learner.warm_starts.update(answer.warm_starts)
    learner.others = [answer.randomness for answer in answers]
    certificates = [evaluation.certificate, *(answer.certificate for answer in answers)]
    known = [certificate for certificate in certificates if certificate is not None]
    losses = [evaluation.loss, *(answer.loss for answer in answers)]
    return replace(
        evaluation,
        loss=sum(share * loss for share, loss in zip(shares, losses, strict=True)),
        gradient=gradient,
        certificate=merge(known) if known else None,
    )


def _end(team: Team, end: End) -> None:
    """Let the others go."""
    if team.is_connected:
        with team.signals.held():
            team.broadcast(end)


# -------------------------------------------------------------------------- the other processes


def _follow(team: Team, model: nn.Module, make_learner: Callable[[], Learner]) -> LearnResult:
    """Evaluate until the run ends; returns its result or raises its error."""
    learner: Learner | None = None
    failure: BaseException | None = None
    try:
        learner = make_learner()
    except Exception as error:  # told with the first answer
        failure = error
    batch: Batch = {}
    step, gradient = -1, []
    with team.signals.held():
        while True:
            order = team.broadcast()
            if isinstance(order, End):
                break
            if isinstance(order, Sum):
                team.sum(gradient)
                continue
            task = team.scatter()
            try:
                if learner is None:
                    assert failure is not None
                    raise failure
                _same_settings(team, order, learner)
                with team.signals.released():
                    learner.step = order.step
                    learner.model.load_state_dict(order.model)
                    if task.randomness is not None:
                        randomness.set_state(task.randomness)
                    if step != order.step:  # a line search sees one batch
                        batch, step = learner.batches.take(task.index), order.step
                    answer, gradient = _work(learner, task, batch)
            except BaseException as error:
                answer = Answer(error=_portable(error))
            team.gather(answer)
        model.load_state_dict(order.model)
        if order.error is not None:
            order.error.add_note(ECHO)
            raise order.error
    assert order.result is not None
    return replace(order.result, model=model)


def _work(learner: Learner, task: Task, batch: Batch) -> tuple[Answer, list[Tensor]]:
    if not len(task.index):  # fewer samples than processes
        zero = [torch.zeros_like(parameter) for parameter in learner.parameters.values()]
        return Answer(warm_starts={}, randomness=randomness.get_state()), zero
    learner.warm_starts.load_state_dict(task.warm_starts)
    found = learner.evaluate_here(batch)
    answer = Answer(
        found.loss,
        found.certificate,
        learner.warm_starts.state_dict(),
        randomness.get_state(),
    )
    return answer, [task.share * slope for slope in found.gradient]


def _same_settings(team: Team, order: Evaluate, learner: Learner) -> None:
    if order.settings != learner.settings:
        raise ValueError(
            f"Process {team.rank} runs learn with {learner.settings}, the first process with "
            f"{order.settings}: all must get the same arguments and the same data."
        )


def is_echo(error: BaseException) -> bool:
    """The first process has raised it, too."""
    return ECHO in getattr(error, "__notes__", ())


def _portable(error: BaseException) -> BaseException:
    """The error itself if it can travel, else its name and message."""
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = None
    if isinstance(copy, BaseException) and str(copy) == str(error):
        return copy
    return RuntimeError(f"{type(error).__name__}: {error}")
