"""Small denoisers of photographs: variational networks, an equilibrium against its unrolled net.

python benchmarks/image_networks.py        results in benchmarks/results/image_networks.md; needs
                                           the shared data; with a part of a network's name,
                                           these alone, the other rows kept

Photographs of bsd400_180 with noise of standard deviation 25.5 of 255, 40 to train on, in patches
of 32 x 32, 12 others to test. The variational networks have eight filters 5 x 5 with activations of
nine Gaussians and eight semi-implicit steps; in one of them all steps share the energy. The other
two nets iterate x' = y - net(x, y), three convolutions 3 x 3 with 16 channels: five times, or to
the equilibrium, the residual below 1e-3.
"""

import sys
import time

import torch
from measure import former, store
from stopping_time import NOISE, photographs, psnr, updates
from torch import Tensor, nn

import bilevel as bl
from bilevel.layers import Equilibrium, VariationalNetwork

SIZE = 32


class Correction(nn.Module):
    """y - net(x, y)"""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
            nn.Conv2d(channels, 1, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y - self.net(torch.cat([x, y], 1))


class Repeated(nn.Module):
    def __init__(self, f: nn.Module, steps: int = 5) -> None:
        super().__init__()
        self.f, self.steps = f, steps

    def forward(self, y: Tensor) -> Tensor:
        x = y
        for _ in range(self.steps):
            x = self.f(x, y)
        return x


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    steps, same = Correction(), Correction()
    same.load_state_dict(steps.state_dict())
    return {
        "five steps of y - net(x, y)": Repeated(steps),
        "the equilibrium of y - net(x, y)": Equilibrium(
            same, diff=bl.FixedPoint(order=1), tol=1e-3, max_iter=200, on_fail="ignore"
        ),
        "variational network, one energy": VariationalNetwork(shared=True),
        "variational network, one a step": VariationalNetwork(),
    }


def train(net: nn.Module, images: Tensor, count: int) -> float:
    """Seconds of the processor."""
    start = time.process_time()
    slow = [p for name, p in net.named_parameters() if "kernel" in name or "net." in name]
    fast = [p for name, p in net.named_parameters() if not ("kernel" in name or "net." in name)]
    optimizer = torch.optim.Adam([{"params": slow, "lr": 3e-3}, {"params": fast, "lr": 1e-2}])
    for _ in updates(net, images, optimizer, count, SIZE):
        pass
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    train_on, clean = photographs(0, 40), photographs(360, 372)
    noisy = clean + NOISE * torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))
    rows, part = [{"network": "noisy", "PSNR": psnr(noisy, clean)}], "".join(sys.argv[1:])
    for name, net in networks().items():
        if part not in name:
            rows += [row for row in former("image_networks") if row["network"] == name]
            continue
        count = 300 if isinstance(net, VariationalNetwork) else 800
        seconds = train(net, train_on, count)
        with torch.no_grad():
            x = net(noisy)
        row = {"network": name, "PSNR": psnr(x, clean), "seconds": seconds}
        row["updates"] = count
        row["parameters"] = sum(p.numel() for p in net.parameters())
        if isinstance(net, Equilibrium):
            with torch.no_grad():
                away = (net.f(x, noisy) - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
            row["residual"] = float(away.max())
        if isinstance(net, VariationalNetwork):
            row["T"] = float(net.flow.stop.detach())
            row["activation"] = net.activation.detach().tolist()
        rows.append(row)
        print({k: v for k, v in row.items() if k != "activation"}, flush=True)
    notes = "Mean PSNR of 12 images, dB. Seconds of the processor."
    columns = ["network", "parameters", "updates", "PSNR", "T", "residual", "seconds"]
    store("image_networks", "Small denoisers", rows, columns, notes)


if __name__ == "__main__":
    main()
