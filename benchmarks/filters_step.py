"""What a step of denoising by 48 filters 7 x 7 costs, on 16 images of 64 x 64, and its memory.

python benchmarks/filters_step.py       results in benchmarks/results/filters_step.md
"""

import torch
from measure import processor_seconds, store, stored_bytes
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d

import bilevel as bl
from bilevel._memory import keep_freed
from bilevel.layers import FilterDenoise
from bilevel.layers.filters import dct_filters
from bilevel.operators import Convolution
from bilevel.tasks.shipped import denoisers

BUDGET = 2.0  # seconds of the processor, each
UNROLLED = 10  # steps measured, a tenth of the 100 told


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


def megabytes(y: Tensor) -> dict[str, float]:
    def kept(**options) -> float:
        model = FilterDenoise()
        with stored_bytes() as parts:
            bl.argmin(model.energy(y), x0=y, on_fail="ignore", **options)
        return parts.total() / 1e6

    unrolled = {"solver": bl.GradientDescent(), "diff": bl.Unroll(), "max_iter": UNROLLED}
    each = kept(**unrolled, tol=1e-12, acceleration=bl.Plain()) / UNROLLED
    return {
        "implicit differentiation": kept(diff=bl.Implicit(order=1), tol=1e-1),
        f"unrolled, 100 gradient steps ({UNROLLED} measured)": 100 * each,
    }


def main() -> None:
    torch.set_num_threads(1)
    keep_freed()  # as every solve does
    y = torch.rand(16, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        times = milliseconds(y)
    rows = [{"what": what, "ms": ms} for what, ms in times.items()]
    rows += [{"what": f"stored for {what}", "MB": mb} for what, mb in megabytes(y).items()]
    notes = (
        "float32, one thread, milliseconds of the processor, the least of many. Aims: a gradient "
        "step in 23 ms by torch operations and 12 ms by a compiled kernel (there is none); 20 MB "
        "for implicit differentiation (missed)."
    )
    store("filters_step", "A step of denoising by filters", rows, ["what", "ms", "MB"], notes)


if __name__ == "__main__":
    main()
