"""The dequantiser that comes with the package, on speech it has not learned from.

Anchors of the papers (first 1024 dev frames), and mean squared errors on dev files with odd list
numbers: frames side by side, frames that overlap, and what needs no model.

    python benchmarks/speech_dequantize.py      # benchmarks/results/speech_dequantize.md
"""

from collections.abc import Callable

import numpy as np
import torch
from measure import store
from speech_data import BITS, HALF, N, coarse, frames, loud, paths, spread
from torch import Tensor

import bilevel as bl
from bilevel.layers import Dequantize
from bilevel.tasks import audio
from bilevel.tasks.dequantize import STEPS, cosines, load, quantize, restore, smooth
from bilevel.tasks.hearing import scaled

EVERY = 6  # of the files, for what takes long


def errors(answer: Callable[[Tensor], Tensor], clean: Tensor) -> dict:
    """On frames side by side."""
    with torch.no_grad():
        error = (answer(coarse(clean)) - clean).square().mean(1)
    return {"speech": float(error[loud(clean)].mean()), "all": float(error.mean())}


def by(model: Dequantize) -> Callable[[Tensor], Tensor]:
    """Silent frames are 0 for any K."""

    def answer(x: Tensor) -> Tensor:
        u, awake = torch.zeros_like(x), (x.abs() > HALF).any(1)
        u[awake] = model(x[awake].to(model.rows), HALF).to(x)
        return u

    return answer


def overlapping(model: Dequantize) -> dict:
    parts, awake = [], []
    for path in paths("dev", 1)[::EVERY]:
        sound = scaled(audio.read(path))
        fine = restore(model, sound.with_samples(quantize(sound.samples, BITS)), BITS)
        whole = sound.samples.shape[1] // N * N
        clean, found = (s.samples[0, :whole].reshape(-1, N) for s in (sound, fine))
        parts.append(np.square(found - clean).mean(1))
        awake.append((np.abs(clean) >= 2 * HALF).any(1))
    error, loud_ones = np.concatenate(parts), np.concatenate(awake)
    return {"speech": float(error[loud_ones].mean()), "all": float(error.mean())}


def main() -> None:
    torch.set_num_threads(1)
    first, test = frames("dev")[:1024], frames("dev", 1)
    some = spread(test, 1024)
    model, _ = load(None)
    model.requires_grad_(False)
    solved = Dequantize(cosines(N), solver=bl.LinearProgram(), tol=1e-6, on_fail="warn")
    anchor = Dequantize(cosines(N).float(), steps=1000, solver=bl.PrimalDual(step_size=0.1))
    odd = f"odd dev files, {len(test)} frames"
    sample = f"odd dev files, {len(some)} frames"
    whole = f"odd dev files, every {EVERY}th"
    rows = [
        {"method": "quantised", "on": "first 1024", **errors(lambda x: x, first)},
        {"method": "DCT, 1000 steps", "on": "first 1024", **errors(by(anchor), first)},
        {"method": "DCT, solved", "on": "first 1024", **errors(by(solved), first)},
        {"method": "quantised", "on": odd, **errors(lambda x: x, test)},
        {"method": "5-tap mean, cut to the cells", "on": odd, **errors(_mean, test)},
        {"method": "DCT, solved", "on": "odd dev files, 64 frames",
         **errors(by(solved), spread(test, 64))},
        {"method": f"learned, {STEPS} steps", "on": sample, **errors(by(model), some)},
        {"method": f"learned, {STEPS} steps, overlapping", "on": whole, **overlapping(model)},
    ]  # fmt: skip
    notes = (
        "Mean squared errors, 4 bits, 20 ms frames; speech: frames with a sample outside the two "
        "innermost cells. Odd: list numbers of the files; K was chosen without them."
    )
    columns = ["method", "on", "speech", "all"]
    store("speech_dequantize", "Dequantising speech of 4 bits", rows, columns, notes)


def _mean(x: Tensor) -> Tensor:
    return torch.from_numpy(smooth(x.numpy(), BITS))


if __name__ == "__main__":
    main()
