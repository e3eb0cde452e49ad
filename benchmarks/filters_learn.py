"""How the filters that come with the package were learned, from 360 photographs.

python benchmarks/filters_learn.py OUT LEVEL [SECONDS [BEGIN]]    OUT: the run folder to make;
LEVEL: of the noise, of 255; SECONDS: of the processor, 3600 if not told; BEGIN: a run folder to
begin from, of any level. Validation: the middle
of every other one of the 40 photographs that are left; nothing is chosen by it.

Loss: -PSNR on the inside of crops, where every pixel sees all its filters. Gradient:
implicit, with rho_k' less steep by WIDE: at an x near the solution the Hessian is that of a
neighbourhood then. MALLOC_MMAP_THRESHOLD_=4000000000
MALLOC_TRIM_THRESHOLD_=4000000000 in the environment keep large tensors from being mapped anew each
step: twice as fast here.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import tomli_w
import torch
from measure import DATA
from torch import Tensor
from tv_bsd68 import photographs

import bilevel as bl
from bilevel.differentiation import CG
from bilevel.layers import FilterDenoise, FirmPotential
from bilevel.learning import checkpoint
from bilevel.tasks import data, runs

BATCH, CROP, MARGIN = 4, 80, 8  # of filters up to 9 x 9
WIDE = 4.0


@dataclass(frozen=True)
class Training:
    """Largest steps of Adam, by what they move, and products of an adjoint solve at most."""

    filters: float = 3e-3
    potential: float = 1e-2
    others: float = 1e-2
    products: int = 40
    project: Callable[[FilterDenoise], None] = lambda denoiser: None  # after each step


def model(begin: Path | None, level: float) -> FilterDenoise:
    fresh = FilterDenoise(potential=FirmPotential(48))
    if begin is not None:
        learned, config = runs.load(begin)
        fresh.load_state_dict(learned.state_dict())
        rescale(fresh, level / data.Noise.parse(config["data"]["noise"]).low)
    return fresh


@torch.no_grad()
def rescale(denoiser: FilterDenoise, factor: float) -> None:
    """Makes it factor x(noisy / factor): with rho(t / factor) = rho_(factor delta)(t) / factor, so
    the weight and the delta_k are multiplied, and the bends divided by the weight already."""
    denoiser.log_weight += math.log(factor)
    denoiser.potential.log_delta += math.log(factor)


def solved(energy: bl.Problem, noisy: Tensor) -> Tensor:
    return bl.solve(energy, x0=noisy, solver=bl.SplitPenalties(), tol=1e-2, on_fail="warn").x


def inside(x: Tensor) -> Tensor:
    return x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def psnr(x: Tensor, clean: Tensor) -> Tensor:  # (B,)
    return -10 * inside(x - clean).square().flatten(1).mean(1).log10()


def backward(denoiser: FilterDenoise, noisy: Tensor, clean: Tensor, products: int) -> None:
    """Adds the gradient of -PSNR to the parameters'."""
    energy = denoiser.energy(noisy)
    x = solved(energy, noisy).requires_grad_()
    (slope,) = torch.autograd.grad(-psnr(x, clean).mean(), x)
    K, rho = energy.terms[1].operator, _less_steep(energy.terms[1].outer)
    responses = K(x.detach())
    at = responses.detach().requires_grad_()
    (bend,) = torch.autograd.grad(rho.grad(at).sum(), at)

    @torch.no_grad()
    def hessian(v: Tensor) -> Tensor:
        v = v.view_as(noisy)
        return (v + K.adjoint(bend * K(v))).flatten(1)

    adjoint = CG(tol=3e-2, max_iter=products)(hessian, slope.flatten(1)).x.view_as(noisy)
    (-(K(adjoint) * rho.grad(responses)).sum()).backward()


def _less_steep(rho: bl.Spline | bl.Huber) -> bl.Spline | bl.Huber:
    if isinstance(rho, bl.Huber):
        return replace(rho, delta=WIDE * rho.delta)
    scale = torch.tensor([WIDE, 1.0])
    return replace(rho, slopes=rho.slopes / scale, widths=rho.widths * scale)


def crop(images: list[Tensor], rng: torch.Generator) -> Tensor:  # -> (1, CROP, CROP)
    """A part of one of them, perhaps mirrored, perhaps transposed."""
    image = images[torch.randint(len(images), (), generator=rng)]
    row, column = (int(torch.randint(n - CROP + 1, (), generator=rng)) for n in image.shape[1:])
    part = image[:, row : row + CROP, column : column + CROP]
    mirror, turn = torch.rand(2, generator=rng) < 0.5
    part = part.flip(2) if mirror else part
    return part.mT if turn else part


def learn(
    denoiser: FilterDenoise, level: float, seconds: float, training: Training | None = None
) -> None:
    """Adam for so many seconds of the processor, in place."""
    sigma, training = level / 255, training or Training()
    names = sorted((DATA / "bsd400_180").glob("test_*.png"))
    images, rng = photographs(names), torch.Generator().manual_seed(1)
    seen, held_out = images[:360], images[360::2]
    judged = torch.stack([image[:, 30:130, 30:130] for image in held_out])
    judged_noisy = judged + sigma * torch.randn(judged.shape, generator=rng)
    bends = list(denoiser.potential.parameters())
    groups = [
        {"params": [denoiser.mix], "largest": training.filters},
        {"params": bends, "largest": training.potential},
        {"params": [denoiser.log_weight, denoiser.log_share], "largest": training.others},
    ]
    optimizer, start, k = torch.optim.Adam(groups, betas=(0.9, 0.99)), time.process_time(), 0
    while (spent := (time.process_time() - start) / seconds) < 1:
        if k % 50 == 0:
            print(f"{k} steps: {judge(denoiser, judged_noisy, judged):.3f} dB", flush=True)
        for group in optimizer.param_groups:  # warm-up, then half a cosine
            group["lr"] = (
                group["largest"] * min(1, (k + 1) / 20) * (1 + math.cos(math.pi * spent)) / 2
            )
        clean = torch.stack([crop(seen, rng) for _ in range(BATCH)])
        noisy = clean + sigma * torch.randn(clean.shape, generator=rng)
        optimizer.zero_grad()
        backward(denoiser, noisy, clean, training.products)
        optimizer.step()
        training.project(denoiser)
        k += 1
    print(f"{k} steps: {judge(denoiser, judged_noisy, judged):.3f} dB")


@torch.no_grad()
def judge(denoiser: FilterDenoise, noisy: Tensor, clean: Tensor) -> float:
    parts = [solved(denoiser.energy(y), y) for y in noisy.split(1)]
    return float(psnr(torch.cat(parts), clean).mean())


def save(denoiser: FilterDenoise, out: Path, level: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write(out / "model.safetensors", dict(denoiser.state_dict()))
    config = {
        "task": "denoise",
        "model": {"name": "filters", "noise_dependent": False},
        "data": {"noise": f"{level:g}"},
    }
    (out / "config.toml").write_text(tomli_w.dumps(config))


def main(out: Path, level: float, seconds: float = 3600.0, begin: Path | None = None) -> None:
    denoiser = model(begin, level)
    learn(denoiser, level, seconds)
    save(denoiser, out, level)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), *map(float, sys.argv[2:4]), *map(Path, sys.argv[4:5]))
