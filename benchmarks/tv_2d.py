"""Total variation in two dims: time to a relative gap, beside scikit-image, plain torch,
fastprox and prox-tv. The last two run in an interpreter of their own (tv_peers.py), and are named
where they are absent.

python benchmarks/tv_2d.py [PART ...]        PART: isotropic, anisotropic, sizes; five minutes for
each of the first two; rows of the others stay. Results in benchmarks/results/tv_2d.md

Every program is first asked for how many iterations it needs, by one function for all: the relative
excess of its picture over the minimum (of a solve in float64 to a gap of 1e-6), and for us the
gap itself. Then it is timed with as many, in alternated pairs, on one thread and on two, as far as
it has threads: scikit-image has none. On two, every time is the mean of half a second of calls: a
core that sleeps takes a tenth of one to come.
"""

import math
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import skimage.data
import torch
from measure import former, ratio, seconds, store
from skimage.restoration import denoise_tv_chambolle
from torch import Tensor
from tv_peers import Peers

import bilevel as bl

WEIGHTS = {True: 0.08, False: 0.065}  # near the best for noise of 25 / 255
GAPS = (1e-3, 1e-4, 1e-6)
SLOW = 4  # seconds a run: not timed
# threads: pairs, and seconds that each of their times is the mean of
THREADS = {1: {"pairs": 15}, 2: {"pairs": 5, "least": 0.5}}


def photograph(size: int) -> Tensor:
    """(1, 1, size, size) in float32: the camera man, mirrored to the size, with noise 25."""
    image = skimage.data.camera() / 255
    while len(image) < size:
        image = np.block([[image, image[:, ::-1]], [image[::-1], image[::-1, ::-1]]])
    noise = np.random.default_rng(0).standard_normal((size, size))
    return torch.from_numpy(image + 25 / 255 * noise).float()[None, None]


def energy(y: Tensor, isotropic: bool) -> bl.Problem:
    return bl.LeastSquares(y) + WEIGHTS[isotropic] * bl.TotalVariation(isotropic=isotropic)


def by_torch(y: Tensor, isotropic: bool, iterations: int) -> Tensor:
    """Accelerated Chambolle-Pock as one writes it in torch, without looking at the gap."""
    D, weight = bl.Gradient(), WEIGHTS[isotropic]
    x = x_bar = y
    p = torch.zeros_like(D(y))
    tau, sigma, gamma = 1.0, 1 / 8, 0.5 if isotropic else 0.15
    for _ in range(iterations):
        p = p + sigma * D(x_bar)
        if isotropic:
            p = p / (p.square().sum(-3, keepdim=True).sqrt() / weight).clamp(min=1)
        else:
            p = p.clamp(-weight, weight)
        new = (x - tau * D.adjoint(p) + tau * y) / (1 + tau)
        theta = 1 / math.sqrt(1 + 2 * gamma * tau)
        x, x_bar = new, new + theta * (new - x)
        tau, sigma = tau * theta, sigma / theta
    return x


def by_skimage(y: Tensor, iterations: int) -> Tensor:
    image = denoise_tv_chambolle(
        y[0, 0].numpy(), weight=WEIGHTS[True], eps=0, max_num_iter=iterations
    )
    return torch.from_numpy(image)[None, None]


def enough(picture, excess, goal: float, limit: float) -> int | None:
    """The least number of iterations, up to 15 %, whose picture has the excess; None if they
    would take longer than the limit, in seconds."""
    iterations = 10
    while excess(picture(iterations)) > goal:
        if seconds(lambda n=iterations: picture(n)) > limit:
            return None
        iterations = math.ceil(1.15 * iterations)
    return iterations


def by_peer(peers: Peers, name: str, y: Tensor, isotropic: bool, iterations: int) -> Tensor:
    asked = WEIGHTS[isotropic], isotropic, iterations, torch.get_num_threads()
    return torch.from_numpy(peers.image(name, y[0, 0].numpy(), *asked))[None, None]


def on(threads: int, run: Callable[[], object]) -> Callable[[], None]:
    """The run on so many threads, as far as it has threads."""

    def threaded() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        run()
        torch.set_num_threads(before)

    return threaded


def timed(ours: Callable[[], None], theirs: Callable[[], None], **options) -> dict:
    times = ratio(ours, theirs, **options)
    between = sorted(1 / r for r in times["interval_90"])
    return {**times, "faster": 1 / times["ratio"], "interval_90": between}


def compared(isotropic: bool, peers: Peers) -> list[dict]:
    y = photograph(512)
    problem, exact = energy(y, isotropic), energy(y.double(), isotropic)
    # its excess is a small part of its gap; a tighter tol would call Newton steps, slow ones
    least = bl.solve(exact, acceleration=bl.Accelerated(), tol=1.1e-6).value.item()

    def excess(x: Tensor) -> float:
        return exact.value(x.double()).item() / least - 1

    others = {"torch": lambda n: by_torch(y, isotropic, n)}
    if isotropic:
        others["scikit-image"] = lambda n: by_skimage(y, n)
    for name in ("fastprox",) if isotropic else ("fastprox", "prox_tv"):
        if name in peers.names:
            others[name] = lambda n, name=name: by_peer(peers, name, y, isotropic, n)
    rows = []
    for goal in GAPS:
        ours = partial(bl.solve, problem, tol=goal)
        solution = ours()
        told = {
            "what": f"{'' if isotropic else 'an'}isotropic, gap {goal:.0e}",
            "gap": solution.gap.item(),  # type: ignore[union-attr]
            "excess": excess(solution.x),
            "iterations": solution.iterations.item(),
        }
        for name, picture in others.items():
            n = enough(picture, excess, goal, SLOW)
            if n is None:
                rows.append({**told, "peer": name, "its iterations": f"over {SLOW} s a run"})
                continue
            for threads, options in THREADS.items():
                times = timed(on(threads, ours), on(threads, partial(picture, n)), **options)
                rows.append({
                    **told, "threads": threads, "peer": name, "its iterations": n, **times
                })  # fmt: skip
                print(rows[-1], flush=True)
        times = timed(on(2, ours), on(1, ours), least=0.5)
        rows.append({**told, "threads": 2, "peer": "ours on one thread", **times})
        print(rows[-1], flush=True)
    return rows


def sizes() -> list[dict]:
    """Nanoseconds a pixel and iteration, on two sizes of picture."""
    rows = []
    for size in (512, 2048):
        problem = energy(photograph(size), True)
        bl.solve(problem, tol=1e-4)
        runs = [seconds(lambda p=problem: bl.solve(p, tol=1e-4)) for _ in range(5)]
        steps = bl.solve(problem, tol=1e-4).iterations.item()
        rows.append({
            "what": f"isotropic, gap 1e-04, {size} x {size}",
            "iterations": steps,
            "ours_ms": 1e3 * min(runs),
            "ns a pixel and iteration": 1e9 * min(runs) / steps / size**2,
        })  # fmt: skip
    return rows


def part_of(row: dict) -> str:
    return "sizes" if " x " in row["what"] else row["what"].partition(",")[0]


def main(*parts: str) -> None:
    torch.set_num_threads(1)
    peers = Peers()
    measures = {
        "isotropic": lambda: compared(True, peers),
        "anisotropic": lambda: compared(False, peers),
        "sizes": sizes,
    }
    before = former("tv_2d") if parts else []
    rows = []
    for part, measure in measures.items():
        again = not parts or part in parts
        rows += measure() if again else [row for row in before if part_of(row) == part]
    columns = [
        *("what", "threads", "gap", "excess", "iterations", "ours_ms", "peer", "its iterations"),
        *("theirs_ms", "faster", "interval_90", "ns a pixel and iteration"),
    ]
    notes = (
        "float32; gap checks, the start and the certificate are in our times, nothing of the kind "
        "in the others'. threads: of both sides; scikit-image has none. gap: ours, certified; "
        "excess: of the energy over the minimum. In the times of fastprox and prox_tv is about "
        "1 ms for the image to go to another process and back. Tried without gain: both halves of "
        "a sweep in one loop, strips of 4 or 8 rows a sweep, vectors of 512 bits; a start from the "
        "picture at half the size, which saves 3 to 6 iterations and costs 7 to 9."
    )
    store("tv_2d", "Total variation in two dims", rows, columns, notes)


if __name__ == "__main__":
    main(*sys.argv[1:])
