"""Small learning problems; the numbers of `run` depend on all that a resumed run must restore."""

import multiprocessing

import torch
from torch import nn

import bilevel as bl
from bilevel import warm_start
from bilevel.learning import learn

# processes to be killed; what takes long to import is imported once, in the server they fork from
fork_server = multiprocessing.get_context("forkserver")
fork_server.set_forkserver_preload(
    ["bilevel.learning", "pytest", "torch._dynamo", "torch.utils.tensorboard", "lightning_fabric"]
)


class Shrink(nn.Module):
    """min_x |x - y|^2 / 2 + exp(log_weight) |x|^2 / 2, by 3 gradient steps from the warm start."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor(value))
        self.bias = nn.Parameter(torch.zeros(2, 3))

    def forward(self, y):
        (x,) = context.recall((y,)) if (context := warm_start.current()) else (y,)
        for _ in range(3):
            x = x - 0.3 * (x - y - self.bias + self.log_weight.exp() * x)
        if context is not None:
            context.keep((x,))
        return x


class Pairs:
    def __init__(self, n: int = 7) -> None:
        generator = torch.Generator().manual_seed(0)
        self.clean = torch.randn(n, 2, 3, generator=generator)
        self.noisy = self.clean + 0.5 * torch.randn(n, 2, 3, generator=generator)

    def __len__(self):
        return len(self.clean)

    def __getitem__(self, i):
        return {"noisy": self.noisy[i], "clean": self.clean[i]}


def squared_error(model, batch):
    return (model(batch["noisy"]) - batch["clean"]).square().mean()


def noisy_error(model, batch):
    """With random numbers of torch, as dropout has."""
    noise = 0.1 * torch.randn_like(batch["noisy"])
    return (model(batch["noisy"] + noise) - batch["clean"]).square().mean()


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))


def rosenbrock(model, batch):
    w = model.weight
    return ((1 - w) ** 2 + 5 * (w**2 - 1) ** 2) * batch["scale"].mean()


ONE = [{"scale": torch.tensor(1.0, dtype=torch.float64)}]


class Denoiser(nn.Module):
    """min_x |x - y|^2 / 2 + exp(log_weight) TV(x), solved and differentiated by the library."""

    def __init__(self):
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor(-3.0, dtype=torch.float64))

    def forward(self, y):
        return bl.argmin(bl.LeastSquares(y) + self.log_weight.exp() * bl.L1() @ bl.Gradient(1))


class Signals(list):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        clean = torch.randn(4, 4, generator=generator, dtype=torch.float64).repeat_interleave(5, 1)
        noise = torch.randn(4, 20, generator=generator, dtype=torch.float64)
        super().__init__(
            {"clean": c, "noisy": c + 0.3 * n} for c, n in zip(clean, noise, strict=True)
        )


def run(out=None, *, steps=10, model=None, loss=squared_error, **options):
    options = {"progress": False, **options}
    model = Shrink() if model is None else model
    return learn(model, Pairs(), loss, steps=steps, out=out, **options)


def events(folder):
    """(step, value) of the loss, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard"), {"scalars": 0}).Reload()
    return [(event.step, event.value) for event in reader.Scalars("loss")]


def numbers(result):
    """All that must be the same to the last digit: everything but the time it took."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    return rows, {k: v.tolist() for k, v in result.model.state_dict().items()}
