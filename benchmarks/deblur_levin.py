"""The weight of TV deblurring, learned on five measured blurs, judged on three others.

python benchmarks/deblur_levin.py     results in benchmarks/results/deblur_levin.md

The kernels are those of Levin et al. (2009): k1 to k5 to learn from, k6 to k8 to judge. The noise
is known, 0.01. The cameras see the real surroundings of the frame.
"""

import time

import numpy as np
import torch
from measure import DATA, RESULTS, store
from skimage.io import imread
from torch import Tensor
from torch.nn.functional import pad

import bilevel as bl
from bilevel.layers import TVDeblur
from bilevel.tasks.deblur import DIFF

SIGMA, SIZE, REACH = 0.01, 64, 13  # noise, pixels of the frame, half the largest kernel
TOL = 2e-3
FACTORS = 4.0 ** np.arange(-3, 4)  # of the learned weight
NOTES = """\
PSNR in dB of 64 x 64 pixels, an own photograph for each kernel, of BSD68. learned: the weight that
L-BFGS finds on k1 to k5. best: of 7 weights, each 4 times
the one before, the learned one among them, for this picture alone."""


def scenes() -> tuple[Tensor, Tensor, Tensor]:
    """(clean, blurred, kernels): a photograph for each kernel, seen through it."""
    path = DATA / "blur_kernels_levin09" / "levin09.npz"
    found = sorted(path.parent.glob("*.npz"))
    if not found:
        raise SystemExit(f"{path.parent} is absent: this benchmark needs the kernels.")
    arrays = np.load(found[0])
    kernels = torch.stack([_padded(torch.from_numpy(arrays[f"k{k}"])) for k in range(1, 9)])
    names = sorted((DATA / "bsd68").glob("*.png"))[: 7 * len(kernels) : 7]
    wide = SIZE + 2 * REACH
    photos = [imread(name)[100 : 100 + wide, 120 : 120 + wide] / 255.0 for name in names]
    scene = torch.from_numpy(np.stack(photos)[:, None])
    frame = (..., slice(REACH, -REACH), slice(REACH, -REACH))
    blurred = torch.stack([bl.Blur(k)(s[None])[0] for k, s in zip(kernels, scene, strict=True)])
    generator = torch.Generator().manual_seed(0)
    noise = SIGMA * torch.randn(len(scene), 1, SIZE, SIZE, generator=generator, dtype=scene.dtype)
    return scene[frame], blurred[frame] + noise, kernels


def _padded(kernel: Tensor) -> Tensor:
    """In the middle of 27 x 27 pixels."""
    margin = (2 * REACH + 1 - len(kernel)) // 2
    return pad(kernel, (margin,) * 4)


def psnr(x: Tensor, clean: Tensor) -> Tensor:  # -> (B,)
    return -10 * (x - clean).square().flatten(1).mean(1).log10()


def learned(clean: Tensor, blurred: Tensor, kernels: Tensor) -> tuple[TVDeblur, list]:
    """The layer with its weight learned, and (weight, PSNR, slope in its logarithm) on the way."""
    layer, path = TVDeblur(0.002, tol=TOL, diff=DIFF).double(), []
    optimizer = torch.optim.LBFGS([layer.log_weight], max_iter=4, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -psnr(layer(blurred, kernels), clean).mean()
        loss.backward()
        path.append([layer.weight.item(), -loss.item(), -layer.log_weight.grad.item()])  # type: ignore[union-attr]
        print(path[-1], flush=True)
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return layer, path


def main() -> None:
    torch.set_num_threads(1)
    clean, blurred, kernels = scenes()
    start = time.process_time()
    layer, path = learned(clean[:5], blurred[:5], kernels[:5])
    seconds, weight = time.process_time() - start, layer.weight.item()
    curves, pictures = [], []
    for factor in FACTORS:
        with torch.no_grad():
            x = TVDeblur(weight * factor, tol=TOL).double()(blurred, kernels)
        curves.append(psnr(x, clean))
        pictures.append(x[5:])
        print(f"weight {weight * factor:.2g}: {curves[-1].tolist()}", flush=True)
    table, same = torch.stack(curves), list(FACTORS).index(1.0)
    rows = [
        {"kernel": f"k{k + 1}", "blurred": b, "learned": v, "best": t, "curve": c}
        for k, (b, v, t, c) in enumerate(
            zip(psnr(blurred, clean).tolist(), table[same].tolist(),
                table.amax(0).tolist(), table.T.tolist(), strict=True)
        )
    ]  # fmt: skip
    rows[0] |= {"path": path, "weights": (weight * FACTORS).tolist(), "seconds": seconds}
    store(
        "deblur_levin",
        "TV deblurring of measured blurs",
        rows,
        ["kernel", "blurred", "learned", "best"],
        NOTES,
    )
    shown = torch.cat([clean[5:], blurred[5:], *(pictures[same + k] for k in (-2, 0, 2))], 1)
    values = (255 * shown.clamp(0, 1)).round().byte().numpy()
    np.savez_compressed(RESULTS / "deblur_levin.npz", pictures=values, kernels=kernels[5:].numpy())


if __name__ == "__main__":
    main()
