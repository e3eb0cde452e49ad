"""One epoch of learning K in the setting of the published program: its gradient beside the exact
ones.

As "Asymptotic analysis and truncated backpropagation for the unrolled primal-dual algorithm"
(Brauer, Lorenz 2023) and its program have it: K itself is learned from the DCT by Adam through
L = 30 steps, tau = 0.099 / |K|, sigma = 9.9 / |K|, all 66 628 train frames in batches of 32, silent
ones too. Beside the errors the cosines of the published gradient with the exact one near the DCT.

    python benchmarks/speech_epoch.py [ARM ...]      # benchmarks/results/speech_epoch.md
"""

import sys
import time
from dataclasses import dataclass

import torch
from measure import former, store
from speech_arms import NOISE, Published
from speech_data import HALF, coarse, frames, loud, spread
from speech_gradients import cosine
from torch import Tensor

import bilevel as bl
from bilevel.acceleration import Plain
from bilevel.tasks.dequantize import cosines, spectral

STEPS, BATCH, JUDGED, LONG = 30, 32, 1024, 500
NEAR, FEW = 1e-3, 32  # the cosines': noise of K's entries, dev frames


@dataclass(frozen=True)
class Arm:
    rate: float
    cell: type[bl.Box] = bl.Box
    noise: float = 0.0  # of K's entries while learning: the gradient of the averaged loss
    solved: bool = False  # to the end, not for 30 steps
    share: float = 1.0  # of the frames


ARMS = {
    "published mask, 1e-5": Arm(1e-5, Published),
    "exact, 1e-5": Arm(1e-5),
    "published mask, 1e-4": Arm(1e-4, Published),
    "exact, 1e-4": Arm(1e-4),
    "exact, averaged over K, 1e-4": Arm(1e-4, noise=NOISE),
    "published mask, averaged over K, 1e-4": Arm(1e-4, Published, noise=NOISE),
    "published mask, 1e-4, a tenth of the frames": Arm(1e-4, Published, share=0.1),
    "exact, 1e-4, a tenth of the frames": Arm(1e-4, share=0.1),
    "exact, of the solution, 1e-4, a tenth of the frames": Arm(1e-4, solved=True, share=0.1),
}
BEFORE = {"none: DCT": lambda _: cosines(320), "none: DCT, weighted": spectral}


def energy(K: Tensor, x: Tensor, cell: type[bl.Box] = bl.Box) -> bl.Problem:
    return bl.L1() @ bl.Matrix(K) + cell(x - HALF, x + HALF)


def steps(K: Tensor, x: Tensor, count: int, cell: type[bl.Box] = bl.Box) -> Tensor:
    length = 0.99 / float(torch.linalg.matrix_norm(K.detach(), 2))
    solver = bl.PrimalDual(step_size=0.1 * length, dual_step_size=10 * length)
    return bl.argmin(
        energy(K, x, cell), x0=x, solver=solver, diff=bl.Unroll(), acceleration=Plain(),
        max_iter=count, on_fail="ignore",
    )  # fmt: skip


def solution(K: Tensor, x: Tensor) -> Tensor:
    K, x = K.double(), x.double()
    return bl.argmin(
        energy(K, x), x0=x, solver=bl.LinearProgram(), diff=bl.PartlySmooth(order=1), tol=1e-6,
        on_fail="warn",
    )  # fmt: skip


def learned(arm: Arm, clean: Tensor) -> tuple[Tensor, float]:
    """(K, milliseconds of the processor for each step of learning)."""
    torch.manual_seed(0)
    K = cosines(clean.shape[1]).float().requires_grad_()
    optimizer, began = torch.optim.Adam([K], lr=arm.rate), time.process_time()
    parts = torch.randperm(len(clean))[: int(arm.share * len(clean))].split(BATCH)
    for part in parts:
        y = clean[part]
        near = K + arm.noise * torch.randn_like(K)
        u = solution(near, coarse(y)) if arm.solved else steps(near, coarse(y), STEPS, arm.cell)
        optimizer.zero_grad()
        (u - y).square().mean().backward()
        optimizer.step()
    return K.detach(), 1e3 * (time.process_time() - began) / len(parts)


@torch.no_grad()
def figures(K: Tensor, anchors: Tensor, speech: Tensor) -> dict:
    dct, lengths = cosines(len(K)).to(K), K.norm(dim=1)

    def error(clean: Tensor, count: int, operator: Tensor = K) -> float:
        return float((steps(operator, coarse(clean), count) - clean).square().mean())

    return {
        "dev at 30 steps": error(anchors, STEPS),
        "dev at 500 steps": error(anchors, LONG),
        "speech at 30 steps": error(speech, STEPS),
        "speech at 500 steps": error(speech, LONG),
        "row lengths alone": error(speech, STEPS, lengths[:, None] * dct),
        "lengths": [round(float(length), 4) for length in lengths / lengths.max()],
    }


def near_the_dct(dev: Tensor) -> list[str]:
    """Cosines of the published gradient with the exact one, by number of steps."""
    torch.manual_seed(0)
    clean = dev[torch.randperm(len(dev))[:FEW]]
    start = cosines(clean.shape[1])
    start = start + NEAR * torch.randn_like(start)
    found = []
    for count in (10, 30, 100, 1000):
        gradients = []
        for cell in (Published, bl.Box):
            K = start.clone().requires_grad_()
            (steps(K, coarse(clean), count, cell) - clean).square().mean().backward()
            gradients.append(K.grad)
        found.append(f"{cosine(*gradients):.2g} through {count}")
    return found


def main() -> None:
    torch.set_num_threads(1)
    train, dev, odd = frames("train").float(), frames("dev"), frames("dev", 1).float()
    anchors, speech = dev[:JUDGED].float(), spread(odd[loud(odd)], JUDGED)
    rows = former("speech_epoch") if sys.argv[1:] else []
    cosine_words = ", ".join(near_the_dct(dev))
    print(cosine_words, flush=True)
    for name in sys.argv[1:] or [*BEFORE, *ARMS]:
        if name in BEFORE:
            row = figures(BEFORE[name](train[loud(train)]).float(), anchors, speech)
        else:
            K, spent = learned(ARMS[name], train)
            row = figures(K, anchors, speech) | {"ms a step": spent}
        rows = [r for r in rows if r["gradient, rate"] != name]
        rows.append({"gradient, rate": name} | row)
        _store(rows, cosine_words)


def _store(rows: list[dict], cosine_words: str) -> None:
    columns = [
        "gradient, rate", "dev at 30 steps", "dev at 500 steps", "speech at 30 steps",
        "speech at 500 steps", "row lengths alone", "ms a step",
    ]  # fmt: skip
    notes = (
        f"Mean squared errors after one epoch. dev: the first {JUDGED} frames of the dev files, "
        f"silent ones too, as in the published program; speech: {JUDGED} speech frames of dev "
        "files with odd list numbers. Row lengths alone: of the DCT with the lengths of K's rows, "
        "speech at 30 steps. ms: of the processor, a step of learning, shared with "
        f"others. Averaged over K: noise of {NOISE:g} on its entries. Cosine of the published "
        f"gradient with the exact one, both unrolled, K the DCT with noise of {NEAR:g} on its "
        f"entries, {FEW} dev frames, float64: {cosine_words} steps. One seed."
    )
    store("speech_epoch", "Dequantisation: one epoch as published", rows, columns, notes)


if __name__ == "__main__":
    main()
