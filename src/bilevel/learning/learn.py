"""learn: minimise the loss of solutions x(θ) over θ by any torch optimizer, and lose nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bilevel.differentiation import Certificate
from bilevel.learning import processes, randomness, shards
from bilevel.learning.batches import Batch, Dataset
from bilevel.learning.learner import Learner
from bilevel.learning.processes import Team
from bilevel.learning.progress import Progress
from bilevel.learning.run_folder import Record, RunFolder, read_config

PATIENCE = 20  # a checkpoint waits this many times its own writing time: it costs 5 % at most


@dataclass(frozen=True, eq=False)
class LearnResult:
    """What a run ends with. A row of `history` has the loss of a step and the θ it started from."""

    model: nn.Module  # the one that was passed, learned
    history: list[Record]  # one a step, from the first on, also after resuming
    certificate: Certificate | None  # of the last hypergradient; None if the loss solves no problem
    steps: int  # taken; fewer than asked for if a step moved no parameter
    out: Path | None


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `learn`: the model is as after the last completed step, which is saved."""


def learn(
    model: nn.Module,
    data: Dataset,
    loss: Callable[[nn.Module, Batch], Tensor],
    *,
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
    steps: int = 100,
    batch_size: int | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    on_step: Callable[[int, Record], object] | None = None,
    progress: bool = True,
) -> LearnResult:
    """Learn the parameters of the model: min over θ of loss(model, data).

    Without a batch_size every step sees all the data, the default optimizer is L-BFGS (strong Wolfe
    line search, one iteration a step), and the run ends early when a step moves no parameter.
    With one, the default is Adam. In `out` the run leaves its folder (see `run_folder`); config
    goes into its config.toml. With resume=True the run in `out` goes on to `steps` in all, to the
    same numbers as without the interruption; where there is no run yet, it starts.

    Started by torchrun, the processes share every batch: the loss must be a mean over its samples.
    The numbers are those of one process up to rounding; the first process alone writes, shows and
    calls on_step; all return the same (needs bilevel[many]).

    Memory: on the CPU, a copy of the model and the optimizer, and each sample's last solver state.
    """
    if steps < 0:
        raise ValueError(f"steps={steps}: pass the number of steps to take in all, 0 or more.")
    if resume and out is None:
        raise ValueError("resume=True, but out=None: pass the run folder to resume as out.")
    team = Team(model) if processes.size() > 1 else None
    make_learner = partial(Learner, model, data, loss, optimizer, batch_size, seed, team)
    run = partial(_run, make_learner, steps, out, resume, config, on_step, progress)
    with randomness.seeded(seed if team is None else seed + team.rank):
        return run() if team is None else shards.together(team, model, run, make_learner, out)


def _run(
    make_learner: Callable[[], Learner],
    steps: int,
    out: str | os.PathLike[str] | None,
    resume: bool,
    config: Mapping[str, Any] | None,
    on_step: Callable[[int, Record], object] | None,
    progress: bool,
) -> LearnResult:
    """The whole run, by one process or by the first of many."""
    with (
        nullcontext() if out is None else RunFolder(out, resume=resume) as folder,
        Progress(steps, progress) as bar,
    ):
        learner = make_learner()
        history = _begin(learner, folder, config, steps)
        if resume and learner.step == 0:
            bar.say(f"No checkpoint in {out} yet: starting with step 1.")
        keeper = _Keeper(learner, folder)
        bar.update(learner.step)
        try:
            while learner.step < steps and not learner.finished:
                record = learner.advance()
                history.append(record)
                if folder is not None:
                    folder.append(record)
                keeper.keep()
                bar.update(learner.step, record)
                if on_step is not None:
                    on_step(learner.step, record)
            keeper.save()
        except BaseException as error:
            message = keeper.go_back()
            if isinstance(error, KeyboardInterrupt):
                raise Interrupted(f"{str(error) or 'Interrupted.'} {message}") from error
            error.add_note(message)
            raise
        if learner.finished:
            bar.finish(learner.step)
            bar.say(f"Finished: step {learner.step} moved no parameter.")
    return LearnResult(
        learner.model, history, learner.certificate, learner.step, folder.path if folder else None
    )


def _begin(
    learner: Learner, folder: RunFolder | None, config: Mapping[str, Any] | None, steps: int
) -> list[Record]:
    """Take up the newest checkpoint, if there is one; returns the rows up to it."""
    if folder is None:
        return []
    state = folder.checkpoints.newest()
    if state is not None:
        learner.load_state_dict(state)
        config = read_config(folder.path) if config is None else config
    folder.configure({**(config or {}), "learn": {**learner.settings, "steps": steps}})
    return folder.rewind(learner.step)


class _Keeper:
    """Holds the state after the last completed step, and writes it when a write costs little.

    On an error or Ctrl-C it writes at once; after a kill the steps since the last checkpoint are
    taken again, to the same numbers.
    """

    def __init__(self, learner: Learner, folder: RunFolder | None) -> None:
        self.learner, self.folder = learner, folder
        self._saved: int | None = None  # the step of the newest checkpoint
        self._due = 0.0
        self.keep()

    def keep(self) -> None:
        self._good = self.learner.state_dict()
        self._certificate = self.learner.certificate
        if time.monotonic() >= self._due:
            self.save()

    def save(self) -> None:
        step = self._good["step"]
        if self.folder is None or self._saved == step:
            return
        start = time.monotonic()
        self.folder.save(step, self._good, self._good["model"], self._certificate)
        self._saved = step
        self._due = time.monotonic() + PATIENCE * (time.monotonic() - start)

    def go_back(self) -> str:
        """Undo the step under way; returns what to tell the user."""
        self.learner.load_state_dict(self._good)
        step = self._good["step"]
        if self.folder is None:
            return f"The model is as it was after step {step}."
        try:
            self.save()
            self.folder.rewind(step)
        except OSError as error:
            return (
                f"Step {step} could not be saved ({error}). The newest checkpoint is that of step "
                f"{self._saved}: resume=True goes on from there."
            )
        return f"Step {step} is saved in {self.folder.path}: resume=True goes on from there."
