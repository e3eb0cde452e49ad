"""Other programs for total variation, run in an interpreter of their own, without torch.

fastprox needs Python >= 3.12: BILEVEL_PEERS_PYTHON names an interpreter with

pip install numpy fastprox TVDCondat2013 prox-tv-sdist        (the last: with LAPACK's headers)
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np
from clock import processor_seconds

Modules = dict[str, ModuleType]  # by name

PEERS = ("fastprox", "TVDCondat2013", "prox_tv")


class Peers:
    """The process in which they run; what is not installed there is named and left out."""

    def __init__(self) -> None:
        python = os.environ.get("BILEVEL_PEERS_PYTHON", sys.executable)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([python, __file__], stdin=pipe, stdout=pipe)
        self.names: list[str] = self._answer()
        for name in sorted({*PEERS} - {*self.names}):
            print(f"{name} is not installed in {python}: skipped")

    def seconds(
        self, what: str, x: np.ndarray, weight: float, names: list[str]
    ) -> dict[str, float]:
        """Of one call of each in one dimension; what: 'forward' or 'backward'."""
        return self._ask(_seconds, what, x, weight, names)

    def image(
        self,
        name: str,
        x: np.ndarray,
        weight: float,
        isotropic: bool,
        iterations: int,
        threads: int,
    ) -> np.ndarray:
        """The two-dimensional x denoised."""
        return self._ask(_image, name, x, weight, isotropic, iterations, threads)

    def _ask(self, request: Callable[..., object], *arguments: object):
        assert self._process.stdin is not None
        pickle.dump((request.__name__, *arguments), self._process.stdin)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        assert self._process.stdout is not None
        return pickle.load(self._process.stdout)


def _forward(name: str, module, x: np.ndarray, weight: float) -> Callable[[], object]:
    if name == "fastprox":
        return partial(module.tv1d, x, weight, threads=1)
    if name == "TVDCondat2013":
        return lambda: [module.tvd_2013(row, weight) for row in x]
    return lambda: [module.tv1_1d(row, weight, method="hybridtautstring") for row in x]


def _backward(name: str, module, x: np.ndarray, weight: float) -> Callable[[], object]:
    """In x and in the weight, the solution being known; fastprox alone has it."""
    assert name == "fastprox"
    operator = module.TV1D()
    _, context = operator.prox(x, weight, keep=True, threads=1)
    g = np.random.default_rng(1).standard_normal(x.shape)
    return lambda: operator.vjp(context, g)


def _seconds(
    modules: Modules, what: str, x: np.ndarray, weight: float, names: list[str]
) -> dict[str, float]:
    make = {"forward": _forward, "backward": _backward}[what]
    calls = {name: make(name, modules[name], x, weight) for name in names}
    return {name: processor_seconds(call, 0.05) for name, call in calls.items()}


def _image(
    modules: Modules,
    name: str,
    x: np.ndarray,
    weight: float,
    isotropic: bool,
    iterations: int,
    threads: int,
) -> np.ndarray:
    if name == "prox_tv":  # anisotropic only
        return modules[name].tv1_2d(x, weight, n_threads=threads, max_iters=iterations, method="dr")
    solve = modules[name].tv_iso if isotropic else modules[name].tv_aniso
    return solve(x, weight, tol=1e-30, max_iter=iterations, threads=threads, warn=False)[0]


def _serve() -> None:
    """Answer requests until there are no more."""
    modules: Modules = {}
    for name in PEERS:
        try:
            modules[name] = __import__(name)
        except ImportError:
            continue
    channel, sys.stdout = sys.stdout.buffer, sys.stderr
    pickle.dump([*modules], channel)
    channel.flush()
    while True:
        try:
            request, *arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        answer = {"_seconds": _seconds, "_image": _image}[request]
        pickle.dump(answer(modules, *arguments), channel)
        channel.flush()


if __name__ == "__main__":
    _serve()
