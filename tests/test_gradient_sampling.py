"""GradientSampling: minima at kinks, where descent along gradients stalls."""

import itertools

import pytest
import torch
from torch import nn

import bilevel as bl
from bilevel.learning import learn
from bilevel.learning.gradient_sampling import _shortest
from learning_problem import ONE, numbers


class Point(nn.Module):
    def __init__(self, *start, dtype=torch.float64):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=dtype))


def kinked_rosenbrock(model, batch):  # (1, 1) lies at the end of a curved valley of kinks
    x, y = model.w
    return 8 * (x**2 - y).abs() + (1 - x) ** 2


def largest(model, batch):
    return (model.w.abs() * torch.arange(1, 1 + len(model.w))).max()


def run(model, loss, steps=200, **options):
    options = {"optimizer": bl.GradientSampling, "progress": False, **options}
    return learn(model, ONE, loss, steps=steps, **options)


def test_it_passes_a_valley_of_kinks_where_a_gradient_method_stalls():
    start = (-1.0, 2.0)
    result = run(Point(*start), kinked_rosenbrock)
    assert (result.model.w - 1).abs().max() < 1e-2
    stuck = run(Point(*start), kinked_rosenbrock, optimizer=None)
    assert stuck.history[-1]["loss"] > 100 * result.history[-1]["loss"]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_minimum_that_is_a_corner(n):
    result = run(Point(*torch.linspace(0.5, 1.0, n).tolist()), largest)
    assert result.model.w.abs().max() < 1e-4
    assert result.steps < 200  # it ended by itself


def test_a_smooth_loss_is_no_harder():
    result = run(Point(3.0, -2.0), lambda m, b: (m.w - 1).square().sum())
    assert (result.model.w - 1).abs().max() < 1e-4


def test_the_seed_decides():
    one, same, other = (
        numbers(run(Point(-1.0, 2.0), kinked_rosenbrock, steps=5, seed=s)) for s in (0, 0, 1)
    )
    assert one == same != other


def test_where_the_gradient_is_zero_nothing_moves():
    result = run(Point(1.0, 1.0), lambda m, b: (m.w - 1).square().sum())
    assert result.steps == 1 and result.model.w.tolist() == [1.0, 1.0]


def test_single_precision_and_complex_parameters():
    model = Point(0.5, 1.0, dtype=torch.float32)
    run(model, largest, optimizer=lambda p: bl.GradientSampling(p, smallest=1e-4))
    assert model.w.dtype == torch.float32 and model.w.abs().max() < 1e-2
    model = Point(1.0 + 2.0j, dtype=torch.complex128)
    run(model, lambda m, b: (m.w - 1j).abs().sum())
    assert (model.w - 1j).abs() < 1e-4


@pytest.mark.parametrize("m, n", [(2, 1), (3, 2), (4, 3), (3, 5)])
def test_the_shortest_vector_of_the_hull(m, n):
    """Against all faces: the least-norm point of each affine hull that lies in its hull."""
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        G = torch.randn(m, n, generator=generator, dtype=torch.float64) + 0.7
        best = min(
            float(candidate.norm())
            for size in range(1, m + 1)
            for face in itertools.combinations(range(m), size)
            if (candidate := _least_in_affine_hull(G[list(face)])) is not None
        )
        found = _shortest(G)
        assert float(found.norm()) == pytest.approx(best, abs=2e-4)


def _least_in_affine_hull(G):
    system = torch.cat([torch.cat([G @ G.T, G.new_ones(len(G), 1)], 1), G.new_ones(1, len(G) + 1)])
    system[-1, -1] = 0
    rhs = G.new_zeros(len(G) + 1)
    rhs[-1] = 1
    weights = torch.linalg.lstsq(system, rhs[:, None], driver="gelsd").solution[:-1, 0]
    return weights @ G if bool((weights >= -1e-12).all()) else None


@pytest.mark.parametrize(
    "message, options",
    [
        ("0 < smallest <= radius", {"radius": 1e-9}),
        ("0 < smallest <= radius", {"smallest": 0.0}),
        ("samples >= 1", {"samples": 0}),
    ],
)
def test_bad_input_is_told(message, options):
    with pytest.raises(ValueError, match=message):
        bl.GradientSampling([torch.ones(2)], **options)
