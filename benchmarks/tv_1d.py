"""1-D total variation: its exact prox and its derivative beside other programs that compute it.

python benchmarks/tv_1d.py        results in benchmarks/results/tv_1d.md

Other programs run in an interpreter of their own (tv_peers.py) and are named as absent where
they are not installed. All in one thread, in alternation; the least time of the processor in some
rounds, as a shared machine only ever adds to it.
"""

from collections.abc import Callable

import numpy as np
import torch
from measure import processor_seconds, store
from torch import Tensor
from tv_peers import PEERS, Peers

import bilevel as bl

BATCHES = [("pieces", 4096, 256, 3.0), ("pieces", 64, 4096, 3.0), ("noise", 32, 10**4, 0.3)]


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


def forward(x: np.ndarray, weight: float) -> Callable[[], object]:
    ours, term = torch.from_numpy(x), bl.TotalVariation(dims=1)
    return lambda: term.prox(ours, weight)


def backward(x: np.ndarray, weight: float) -> Callable[[], object]:
    """The gradient in x and in the weight, the solution being known."""
    g = torch.from_numpy(np.random.default_rng(1).standard_normal(x.shape))
    leaf = torch.from_numpy(x).requires_grad_()
    learned = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
    u = bl.TotalVariation(dims=1, weight=learned).prox(leaf, 1.0)
    return lambda: torch.autograd.grad(u, (leaf, learned), g, retain_graph=True)


def timed(
    what: str, x: np.ndarray, weight: float, peers: Peers, names: list[str]
) -> dict[str, float]:
    """Seconds a call of ours and of the named ones, the least of three alternated rounds."""
    call = (forward if what == "forward" else backward)(x, weight)
    call()  # compiles
    rounds = [
        {"bilevel": processor_seconds(call, 0.05), **peers.seconds(what, x, weight, names)}
        for _ in range(3)
    ]
    return {name: min(times[name] for times in rounds) for name in rounds[0]}


def row(what: str, x: np.ndarray, weight: float, times: dict[str, float]) -> dict:
    per_sample = {name: 1e9 * t / x.size for name, t in times.items()}
    rivals = [t for name, t in times.items() if name != "bilevel"]
    ratio = times["bilevel"] / min(rivals) if rivals else float("nan")
    found = {name: per_sample.get(name, float("nan")) for name in ("bilevel", *PEERS)}
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
        "argmin and gradient in the weight": lambda: torch.autograd.grad(
            bl.argmin(energy + learned * bl.TotalVariation(dims=1))[0, 0], learned
        ),
    }
    for call in calls.values():
        call()
    return [{"case": f"n = 100: {k}", "us": 1e6 * processor_seconds(c)} for k, c in calls.items()]


def main() -> None:
    torch.set_num_threads(1)
    peers, rows = Peers(), []
    exact = [name for name in peers.names if name == "fastprox"]  # in float32, and with a vjp
    for n in (10**4, 10**5, 10**6):
        for kind in ("pieces", "noise", "ramp", "walk", "linspace"):
            x = signal(kind, n)[None]
            for weight in sorted({0.3, 3.0, 100.0, n / 1000}):
                if n > 10**5 and weight not in (0.3, 3.0):
                    continue
                slow = kind == "linspace" or (weight > 10 and kind in ("ramp", "walk"))
                names = [p for p in peers.names if p != "TVDCondat2013" or not slow]  # quadratic
                times = timed("forward", x, weight, peers, names)
                entry = row(f"{kind}, n = {n:.0e}", x, weight, times)
                rows.append({**entry, "optimality": violation(x[0], weight)})
                print(rows[-1], flush=True)
    for kind, count, n, weight in BATCHES:
        x = np.stack([signal(kind, n, seed) for seed in range(count)])
        what = f"batch {count} x {n}, {kind}"
        times = timed("forward", x, weight, peers, peers.names)
        rows.append(row(what, x, weight, times))
        x4 = x.astype(np.float32)
        times = timed("forward", x4, weight, peers, exact)
        rows.append(row(f"{what}, float32", x4, weight, times))
    for count, n, weight in ((1, 10**6, 0.3), (1, 10**6, 3.0), (4096, 256, 3.0)):
        x = np.stack([signal("pieces", n, seed) for seed in range(count)])
        times = timed("backward", x, weight, peers, exact)
        rows.append(row(f"backward, {count} x {n}", x, weight, times))
    rows += small()
    columns = ["case", "weight", "bilevel", *PEERS, "ours / best", "optimality", "us"]
    missing = ", ".join(p for p in PEERS if p not in peers.names) or "none"
    notes = (
        "Nanoseconds of the processor a sample, one thread, the call from Python included; the "
        "last column: microseconds a call. ours / best: against the fastest of the others. "
        "optimality: the largest violation of the optimality conditions, relative. weight n / 1000 "
        "on linspace makes methods without a fallback quadratic. The same 1e4 samples again and "
        "again are learned by the processor's branch prediction, 32 signals of 1e4 are not. "
        f"Not installed: {missing}."
    )
    store("tv_1d", "1-D total variation", rows, columns, notes)


if __name__ == "__main__":
    main()
