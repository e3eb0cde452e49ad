"""Adjoints of total variation in larger problems: products with a step against a sparse factor.

python benchmarks/composed_adjoints.py [NAME ...]    results in benchmarks/results; shared data.

Crops of a photograph, solved to the default tolerance; the gradient of a random linear loss in the
data and the weight by `FixedPoint` and by `PartlySmooth`, the default.
"""

import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from measure import DATA, former, processor_seconds, store
from skimage.io import imread
from torch import Tensor
from tv_larger import gaussian

import bilevel as bl

SIZE = 40
Energy = Callable[[Tensor, Tensor], bl.Problem]  # of the data and the weight
TV = bl.TotalVariation


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def bent(y: Tensor, w: Tensor) -> bl.Problem:
    u, v, norm = bl.Part(0, of=3), bl.Part(slice(1, 3), of=3), bl.L21(dim=1)
    steep = norm @ (bl.Gradient() @ u - v) + 2 * norm @ bl.SymmetrizedGradient() @ v
    return bl.LeastSquares(y) @ u + w * steep


def cases() -> dict[str, tuple[Tensor, float, Energy, Tensor | None]]:
    """(data, weight, energy, start) of each."""
    photograph = DATA / "bsd400_180" / "test_001.png"
    if not photograph.exists():
        raise SystemExit(f"{photograph} is absent: this benchmark needs the photographs.")
    clean = torch.from_numpy(imread(photograph).astype(np.float64) / 255)
    clean, noise = clean[None, 60 : 60 + SIZE, 50 : 50 + SIZE], drawn(1, SIZE, SIZE)
    seen = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < 0.6
    filters = drawn(4, 1, 3, 3)
    filters = filters - filters.mean((2, 3), keepdim=True)
    mask, blur = bl.Mask(seen), bl.Blur(gaussian(torch.float64))
    radon = bl.Radon(torch.linspace(0, torch.pi, SIZE // 2 + 1)[:-1])
    counts = torch.poisson(50 * clean, generator=torch.Generator().manual_seed(3)) + 0.5
    rays, middle = radon(clean), torch.full_like(clean, 0.5)
    grainy, least = clean + 0.05 * noise, bl.LeastSquares
    return {
        "mask": (mask(grainy), 0.08, lambda y, w: least(y) @ mask + w * TV(), None),
        "mask, box": (
            mask(grainy), 0.08, lambda y, w: least(y) @ mask + w * TV() + bl.Box(0.2, 0.8), None
        ),
        "blur": (
            blur(clean) + 0.01 * noise, 0.01, lambda y, w: least(y) @ blur + w * TV(), None
        ),
        "Radon transform": (
            rays + 0.01 * rays.max() * drawn(*rays.shape), 0.3,
            lambda y, w: least(y) @ radon + w * TV(), None,
        ),
        "Poisson counts": (
            counts, 4.0, lambda y, w: bl.KullbackLeibler(y, background=1.0) + w * TV(), middle
        ),
        "Huber's loss": (grainy, 0.8, lambda y, w: bl.Huber(0.1, y) + w * TV(), middle),
        "TGV": (grainy, 0.08, bent, torch.zeros(1, 3, SIZE, SIZE)),
        "filters": (
            grainy[:, None], 0.03, lambda y, w: least(y) + w * bl.L1() @ bl.Convolution(filters),
            None,
        ),
    }  # fmt: skip


def adjoint(
    name: str, diff: bl.FixedPoint | bl.PartlySmooth
) -> tuple[bl.Certificate, Tensor, float]:
    """(certificate, gradient, seconds of the backward pass)."""
    data, weight, energy, x0 = cases()[name]
    leaves = [data.clone().requires_grad_(), torch.tensor(weight, requires_grad=True)]
    report = bl.Certificate()
    x = bl.argmin(energy(*leaves), x0=x0, diff=diff, report=report, on_fail="ignore")
    back = partial(torch.autograd.grad, (x * drawn(*x.shape)).sum(), leaves, retain_graph=True)
    seconds = processor_seconds(back, budget=1.0)
    return report, torch.cat([g.flatten() for g in back()]), seconds


def compared(name: str) -> dict:
    row: dict = {"problem": name}
    found = {}
    for diff in (bl.FixedPoint(), bl.PartlySmooth()):
        who = type(diff).__name__
        report, found[who], seconds = adjoint(name, diff)
        assert report.adjoint_residual is not None
        row |= {
            f"{who}: residual": float(report.adjoint_residual.max()),
            f"{who}: ms": 1e3 * seconds,
        }
    one, other = found.values()
    return row | {"apart": float((one - other).norm() / other.norm())}


def main() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    rows = {row["problem"]: row for row in former("composed_adjoints")}
    for name in sys.argv[1:] or cases():
        rows[name] = compared(name)
        print(rows[name], flush=True)
    notes = (
        f"Isotropic total variation of {SIZE} x {SIZE} pixels, float64, forward tolerance 1e-6, "
        "adjoint tolerance 1e-7 (the defaults). residual: of the adjoint, relative; FixedPoint "
        "stops after 1000 products. ms: of the processor, "
        "the backward pass. apart: the two gradients, relative."
    )
    columns = list(next(iter(rows.values())))
    store("composed_adjoints", "Adjoints of composed terms", [*rows.values()], columns, notes)


if __name__ == "__main__":
    main()
