"""How near the gradients of speech_arms.py are to one another: cosines, on the same frames.

python benchmarks/speech_gradients.py      # benchmarks/results/speech_gradients.md
"""

import torch
from measure import store
from speech_arms import PublishedModel
from speech_data import HALF, coarse, frames, loud, spread
from torch import Tensor

import bilevel as bl
from bilevel.layers import Dequantize
from bilevel.tasks.dequantize import cosines, spectral

FRAMES, COUNTS = 16, (10, 30, 100, 1000)
UNROLLED = {
    "published mask": (PublishedModel, False, bl.Unroll()),
    "no mask": (Dequantize, True, bl.Unroll()),
    "no mask, 20 terms": (Dequantize, True, bl.Truncated(20)),
    "exact, 20 terms": (Dequantize, False, bl.Truncated(20)),
}


def gradient(model: Dequantize, clean: Tensor) -> Tensor:
    (model(coarse(clean), HALF) - clean).square().mean().backward()
    assert model.rows.grad is not None
    return model.rows.grad


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum() / (a.norm() * b.norm()))


def main() -> None:
    torch.set_num_threads(1)
    train = frames("train")
    train = train[loud(train)]
    clean, rows = spread(train, FRAMES), []
    for at, start in {"DCT, weighted": spectral(train), "DCT": cosines(clean.shape[1])}.items():
        solved = Dequantize(start, solver=bl.LinearProgram(), diff=bl.PartlySmooth(), tol=1e-8)
        vertex = gradient(solved, clean)
        for count in COUNTS:
            exact = gradient(Dequantize(start, steps=count, diff=bl.Unroll()), clean)
            row = {"at": at, "steps": count, "of the solution": cosine(vertex, exact)}
            for name, (kind, relaxed, diff) in UNROLLED.items():
                model = kind(start, steps=count, relaxed=relaxed, diff=diff)
                row[name] = cosine(gradient(model, clean), exact)
            rows.append(row)
            print(row, flush=True)
    notes = (
        f"Cosine with the exact gradient of the unrolled steps, for the rows of K, on {FRAMES} "
        "speech frames of the train files, float64."
    )
    store("speech_gradients", "Gradients of dequantisation", rows, list(rows[0]), notes)


if __name__ == "__main__":
    main()
