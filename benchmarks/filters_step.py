"""What a step of denoising by 48 filters 7 x 7 costs, on 16 images of 64 x 64, and its memory.

python benchmarks/filters_step.py       results in benchmarks/results/filters_step.md
"""

import torch
from measure import allocated, processor_seconds, seconds, store
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

import bilevel as bl
from bilevel._memory import keep_freed
from bilevel.layers import FilterDenoise
from bilevel.layers.filters import dct_filters
from bilevel.operators import Convolution
from bilevel.tasks.shipped import denoisers

BUDGET = 2.0  # seconds of the processor, each
UNROLLED = 10  # steps
COLUMNS = ["what", "ms", "MB kept", "most MB"]


def milliseconds(y: Tensor) -> dict[str, float]:
    filters = dct_filters(7)
    K, firm = Convolution(filters), denoisers()[25.0].energy(y)
    responses, outer, x = K(y), firm.terms[1].outer, y.clone()

    def step(forward, adjoint) -> Tensor:
        return x - 0.1 * (x - y + adjoint(forward(x).clamp(-1, 1)))

    calls = {
        "gradient step, Huber penalties, torch's convolutions": lambda: step(
            lambda u: conv2d(u, filters), lambda r: conv_transpose2d(r, filters)
        ),
        "gradient step, Huber penalties, `Convolution`": lambda: step(K, K.adjoint),
        "gradient of the energy with the filters that ship": lambda: firm.f.grad(y),
        "K": lambda: K(y),
        "its adjoint": lambda: K.adjoint(responses),
        "gradient of firm penalties, from the responses": lambda: outer.grad(responses),
        "their dual prox": lambda: outer.prox_conjugate(responses, 1.0),
    }
    return {name: 1e3 * processor_seconds(call, BUDGET) for name, call in calls.items()}


def by_the_clock(y: Tensor) -> dict[str, float]:
    """A gradient step with one and two threads."""
    K, found = Convolution(dct_filters(7)), {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        least = min(seconds(lambda: y - K.adjoint(K(y).clamp(-1, 1))) for _ in range(100))
        found[f"gradient step by the clock, threads: {threads}"] = 1e3 * least
    torch.set_num_threads(1)
    return found


def megabytes(y: Tensor) -> list[dict]:
    """What is kept from the solution to the backward pass, and the most that there is in it."""
    model = FilterDenoise()
    steps = {"solver": bl.GradientDescent(), "acceleration": bl.Plain(), "tol": 1e-12}
    ways = {
        "implicit differentiation": {"diff": bl.Implicit(), "tol": 1e-2},
        "the same, first derivatives only": {"diff": bl.Implicit(order=1), "tol": 1e-2},
        "the same, recomputed (as by `FilterDenoise`)": {"diff": model.default_diff(), "tol": 1e-2},
        f"{UNROLLED} gradient steps, unrolled": {"diff": bl.Unroll(), **steps},
    }
    return [{"what": what} | memory(model.energy(y), y, **way) for what, way in ways.items()]


def memory(energy: bl.Problem, y: Tensor, **options) -> dict[str, float]:
    with allocated() as forward:
        x = bl.argmin(energy, x0=y, on_fail="ignore", max_iter=UNROLLED, **options)
    with allocated() as backward:
        x.square().sum().backward()
    return {"MB kept": forward[0] / 1e6, "most MB": (forward[0] + backward[1]) / 1e6}


def main() -> None:
    torch.set_num_threads(1)
    keep_freed()  # as every solve does
    y = torch.rand(16, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        times = milliseconds(y)
    rows = [{"what": what, "ms": ms} for what, ms in times.items()]
    rows += [{"what": what, "ms": ms} for what, ms in by_the_clock(y).items()]
    rows += megabytes(y)
    notes = (
        "float32, one thread, milliseconds of the processor, the least of many. Aims: a gradient "
        "step in 23 ms by torch operations and 12 ms by a compiled kernel (there is none); 20 MB "
        f"for implicit differentiation where 100 unrolled steps, {100 // UNROLLED} times what is "
        "here, take 3.5 GB. Kept: from the solution to the backward pass, by torch's allocator; "
        "most: with what the backward pass itself takes, for all 16 images at once, recomputed: "
        "for three at a time."
    )
    store("filters_step", "A step of denoising by filters", rows, COLUMNS, notes)


if __name__ == "__main__":
    main()
