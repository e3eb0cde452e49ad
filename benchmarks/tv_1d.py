"""1-D total variation: its exact prox and its derivative beside other programs that compute it.

python benchmarks/tv_1d.py        results in benchmarks/results/tv_1d.md

Other programs run where they can be imported (pip install bilevel[peers]) and are named as absent
where not. All in one thread, in alternation; the least time of the processor in some rounds, as a
shared machine only ever adds to it.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from measure import processor_seconds, store
from torch import Tensor

import bilevel as bl

PEERS = ("fastprox", "TVDCondat2013", "prox_tv")


def signal(kind: str, n: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(n)
    if kind == "pieces":  # of 100 samples in the mean
        cuts = np.sort(generator.integers(0, n, max(1, n // 100)))
        levels = generator.standard_normal(len(cuts) + 1)
        return levels[np.searchsorted(cuts, np.arange(n), side="right")] + 0.3 * noise
    return {
        "noise": noise,
        "ramp": np.linspace(0, 10, n) + 0.3 * noise,
        "walk": np.cumsum(0.1 * noise),
        "linspace": np.linspace(0, 1, n),
    }[kind]


def importable() -> dict:
    """The peers that are here."""
    found = {}
    for name in PEERS:
        try:
            found[name] = __import__(name)
        except ImportError:
            print(f"{name} is not installed: skipped")
    return found


def forwards(x: np.ndarray, weight: float, peers: dict) -> dict[str, Callable[[], object]]:
    """One call of each on the rows of x."""
    ours, term = torch.from_numpy(x), bl.TotalVariation(dims=1)
    calls: dict[str, Callable[[], object]] = {"bilevel": lambda: term.prox(ours, weight)}
    if "fastprox" in peers:
        calls["fastprox"] = partial(peers["fastprox"].tv1d, x, weight, threads=1)
    if "TVDCondat2013" in peers:
        one = peers["TVDCondat2013"].tvd_2013
        calls["TVDCondat2013"] = lambda: [one(row, weight) for row in x]
    if "prox_tv" in peers:
        line = peers["prox_tv"].tv1_1d
        calls["prox_tv"] = lambda: [line(row, weight, method="hybridtautstring") for row in x]
    return calls


def backwards(x: np.ndarray, weight: float, peers: dict) -> dict[str, Callable[[], object]]:
    """The gradient in x and in the weight, the solution being known."""
    g = np.random.default_rng(1).standard_normal(x.shape)
    leaf = torch.from_numpy(x).requires_grad_()
    learned = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
    u, ours = bl.TotalVariation(dims=1, weight=learned).prox(leaf, 1.0), torch.from_numpy(g)
    calls: dict[str, Callable[[], object]] = {
        "bilevel": lambda: torch.autograd.grad(u, (leaf, learned), ours, retain_graph=True)
    }
    if "fastprox" in peers:
        operator = peers["fastprox"].TV1D()
        _, context = operator.prox(x, weight, keep=True, threads=1)
        calls["fastprox"] = lambda: operator.vjp(context, g)
    return calls


def least(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds a call, in three alternated rounds."""
    for call in calls.values():
        call()  # compiles
    rounds = [{k: processor_seconds(c, 0.05) for k, c in calls.items()} for _ in range(3)]
    return {name: min(times[name] for times in rounds) for name in calls}


def row(what: str, x: np.ndarray, weight: float, times: dict[str, float], peers: dict) -> dict:
    per_sample = {name: 1e9 * t / x.size for name, t in times.items()}
    rivals = [t for name, t in times.items() if name != "bilevel"]
    ratio = times["bilevel"] / min(rivals) if rivals else float("nan")
    found = {name: per_sample.get(name, float("nan")) for name in ("bilevel", *peers)}
    return {"case": what, "weight": weight, **found, "ours / best": ratio}


def violation(x: np.ndarray, weight: float) -> float:
    """Of the optimality conditions by the solution, relative to weight and signal."""
    u = bl.TotalVariation(dims=1).prox(torch.from_numpy(x[None]), weight)[0].numpy()
    z = np.cumsum(x.astype(np.longdouble) - u)
    jumps, size = np.diff(u), weight + np.abs(x).max()
    real = np.abs(jumps) > 1e-12 * size
    at_jumps = np.abs(z[:-1] + weight * np.sign(jumps))[real].max(initial=0)
    return float(max(np.abs(z[:-1]).max() - weight, at_jumps, abs(z[-1])) / size)


def small() -> list[dict]:
    """Microseconds a call for a signal of 100 samples."""
    x = torch.from_numpy(signal("pieces", 100)[None])
    learned = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    term, energy = 3.0 * bl.TotalVariation(dims=1), bl.LeastSquares(x)

    def with_gradient() -> Tensor:
        u = (learned * bl.TotalVariation(dims=1)).prox(x, 1.0)
        return torch.autograd.grad(u[0, 0], learned)[0]

    calls = {
        "prox": lambda: term.prox(x, 1.0),
        "prox and gradient in the weight": with_gradient,
        "argmin, no gradient asked for": lambda: bl.argmin(energy + term),
        "argmin, a gradient asked for": lambda: bl.argmin(
            energy + learned * bl.TotalVariation(dims=1)
        ),
    }
    return [{"case": f"n = 100: {k}", "us": 1e6 * t} for k, t in least(calls).items()]


def main() -> None:
    torch.set_num_threads(1)
    peers, rows = importable(), []
    for n in (10**4, 10**5, 10**6):
        for kind in ("pieces", "noise", "ramp", "walk", "linspace"):
            x = signal(kind, n)[None]
            for weight in sorted({0.3, 3.0, 100.0, n / 1000}):
                if n > 10**5 and weight not in (0.3, 3.0):
                    continue
                calls = forwards(x, weight, peers)
                if kind == "linspace" or (weight > 10 and kind in ("ramp", "walk")):
                    calls.pop("TVDCondat2013", None)  # quadratic there
                entry = row(f"{kind}, n = {n:.0e}", x, weight, least(calls), peers)
                rows.append({**entry, "optimality": violation(x[0], weight)})
                print(rows[-1], flush=True)
    for count, n in ((4096, 256), (64, 4096)):
        x = np.stack([signal("pieces", n, seed) for seed in range(count)])
        rows.append(row(f"batch {count} x {n}", x, 3.0, least(forwards(x, 3.0, peers)), peers))
        x4 = x.astype(np.float32)
        times = least(forwards(x4, 3.0, {k: v for k, v in peers.items() if k == "fastprox"}))
        rows.append(row(f"batch {count} x {n}, float32", x4, 3.0, times, peers))
    for count, n, weight in ((1, 10**6, 0.3), (1, 10**6, 3.0), (4096, 256, 3.0)):
        x = np.stack([signal("pieces", n, seed) for seed in range(count)])
        times = least(backwards(x, weight, peers))
        rows.append(row(f"backward, {count} x {n}", x, weight, times, peers))
    rows += small()
    columns = ["case", "weight", "bilevel", *peers, "ours / best", "optimality", "us"]
    missing = ", ".join(p for p in PEERS if p not in peers) or "none"
    notes = (
        "Nanoseconds of the processor a sample, one thread, the call from Python included; the "
        "last column: microseconds a call. ours / best: against the fastest of the others. "
        "optimality: the largest violation of the optimality conditions, relative. weight n / 1000 "
        "on linspace makes methods without a fallback quadratic. "
        f"Not installed: {missing}."
    )
    store("tv_1d", "1-D total variation", rows, columns, notes)


if __name__ == "__main__":
    main()
