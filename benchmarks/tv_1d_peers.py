"""Other programs for 1-D total variation, timed in an interpreter of their own, without torch.

fastprox needs Python >= 3.12: BILEVEL_PEERS_PYTHON names an interpreter with

pip install numpy fastprox TVDCondat2013 prox-tv-sdist        (the last: with LAPACK's headers)
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
from clock import processor_seconds

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
        """Of one call of each; what: 'forward' or 'backward'."""
        assert self._process.stdin is not None
        pickle.dump((what, x, weight, names), self._process.stdin)
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


def _serve() -> None:
    """Answer requests until there are no more."""
    modules = {}
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
            what, x, weight, names = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        make = {"forward": _forward, "backward": _backward}[what]
        calls = {name: make(name, modules[name], x, weight) for name in names}
        pickle.dump({n: processor_seconds(call, 0.05) for n, call in calls.items()}, channel)
        channel.flush()


if __name__ == "__main__":
    _serve()
