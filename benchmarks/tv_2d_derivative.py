"""The derivative of total variation denoising on photographs: its error against the gap, its time.

python benchmarks/tv_2d_derivative.py        results in benchmarks/results/tv_2d_derivative.*

Loss: the squared error to the clean picture. Reference: the same derivative at a solution that the
finish brought to rounding, which takes images of up to 8192 pixels. Times are of the processor, the
least of some runs.
"""

import time

import matplotlib.pyplot as plt
import torch
from measure import RESULTS, processor_seconds, store
from skimage.data import camera
from torch import Tensor
from tv_2d import WEIGHTS, photograph

import bilevel as bl

CORNERS = [(40, 180), (200, 200), (300, 60), (420, 300)]
SIZE = 64
GAPS = [10.0**-k for k in range(1, 6)] + [2e-6]


def gradients(y: Tensor, clean: Tensor, isotropic: bool, tol: float, **options):
    """(gradient in the data, in the weight, the gap that was reached)."""
    y = y.clone().requires_grad_()
    weight = torch.tensor(WEIGHTS[isotropic], dtype=y.dtype, requires_grad=True)
    report = bl.Certificate()
    energy = bl.LeastSquares(y) + weight * bl.TotalVariation(isotropic=isotropic)
    x = bl.argmin(energy, tol=tol, diff=bl.FlatZones(), report=report, **options)
    of_y, of_weight = torch.autograd.grad((x - clean).square().sum(), (y, weight))
    assert report.gap is not None
    return of_y, of_weight, report.gap.item()


def errors(isotropic: bool) -> list[dict]:
    noisy = photograph(512).double()
    sharp = torch.from_numpy(camera() / 255)[None, None]
    rows = []
    for i, j in CORNERS:
        y, clean = (a[..., i : i + SIZE, j : j + SIZE] for a in (noisy, sharp))
        of_y, of_weight, rest = gradients(y, clean, isotropic, 1e-12, on_fail="ignore")
        for tol in GAPS:
            a, b, gap = gradients(y, clean, isotropic, tol, acceleration=bl.Accelerated())
            rows.append({
                "what": "isotropic" if isotropic else "anisotropic",
                "patch": f"{i}, {j}",
                "gap": gap,
                "error in the data": ((a - of_y).norm() / of_y.norm()).item(),
                "error in the weight": ((b - of_weight) / of_weight).abs().item(),
                "gap of the reference": rest,
            })  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def times(isotropic: bool) -> list[dict]:
    """The backward pass as it comes, and with the adjoint system solved to 1e-6."""
    y = photograph(512).requires_grad_()
    clean = torch.from_numpy(camera() / 255).float()[None, None]
    weight = torch.tensor(WEIGHTS[isotropic], requires_grad=True)
    problem = bl.LeastSquares(y) + weight * bl.TotalVariation(isotropic=isotropic)
    forward = processor_seconds(lambda: bl.solve(problem, tol=1e-6), 2.0)

    def backward(adjoint_tol: float | None) -> tuple[Tensor, float, int | None]:
        report = bl.Certificate()

        def once() -> tuple[Tensor, float]:  # a new image: nothing is left from the last
            with bl.accuracy(1e-6, adjoint_tol=adjoint_tol):
                x = bl.argmin(problem, diff=bl.FlatZones(), report=report)
            slope, start = 2 * (x.detach() - clean), time.process_time()
            of_y, _ = torch.autograd.grad(x, (y, weight), slope, retain_graph=True)
            return of_y, time.process_time() - start

        of_y, *_ = once()
        return of_y, min(once()[1] for _ in range(20)), report.adjoint_iterations

    exact, rows = backward(1e-6)[0], []
    for adjoint_tol in (None, 1e-6):
        gradient, seconds, products = backward(adjoint_tol)
        rows.append({
            "what": f"{'isotropic' if isotropic else 'anisotropic'}, 512 x 512, float32, gap 1e-06"
            + ("" if adjoint_tol is None else ", adjoint to 1e-06"),
            "error in the data": ((gradient - exact).norm() / exact.norm()).item(),
            "forward ms": 1e3 * forward,
            "backward ms": 1e3 * seconds,
            "backward / forward": seconds / forward,
            "products": products,
        })  # fmt: skip
    return rows


def plot(rows: list[dict]) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, what in zip(axes, ("error in the data", "error in the weight"), strict=True):
        for kind, marker in (("isotropic", "o"), ("anisotropic", "s")):
            of_kind = [row for row in rows if row["what"] == kind]
            axis.loglog(
                [row["gap"] for row in of_kind], [max(row[what], 1e-12) for row in of_kind],
                marker, mfc="none", label=kind,
            )  # fmt: skip
        axis.set(xlabel="relative duality gap", title=what)
        axis.invert_xaxis()
    axes[0].set_ylabel("relative error of the derivative")
    axes[0].legend()
    figure.savefig(RESULTS / "tv_2d_derivative.png", dpi=120)


def main() -> None:
    torch.set_num_threads(1)
    rows = [*errors(True), *errors(False)]
    plot(rows)
    rows += [*times(True), *times(False)]
    columns = ["what", "patch", "gap", "error in the data", "error in the weight"]
    columns += ["gap of the reference", "forward ms", "backward ms", "backward / forward"]
    notes = (
        f"Patches of {SIZE} x {SIZE} of the camera man with noise 25 / 255, float64; one thread. "
        "At 512 x 512 the error is the adjoint system's alone. The machine was shared while this "
        "ran: times are of the processor, the least of some runs, and may be too large. "
        "![errors](tv_2d_derivative.png)"
    )
    title = "The derivative of total variation denoising: error and time"
    store("tv_2d_derivative", title, rows, [*columns, "products"], notes)


if __name__ == "__main__":
    main()
