"""Learned rules: trained through their steps, followed by solvers, guarded, as torch optimizers."""

import copy

import pytest
import torch

import bilevel as bl

N = 6


def draw(count=16, seed=None):
    generator = torch.Generator().manual_seed(seed) if seed is not None else None
    A = torch.randn(count, N, N, generator=generator)
    y, x0 = torch.randn(2, count, N, generator=generator)
    return bl.LeastSquares(y) @ bl.Matrix(A), x0


def energies(rule, steps, problems, solver=None):
    energy, x0 = problems
    with torch.no_grad():
        net = bl.unrolled(solver or bl.GradientDescent(), steps, acceleration=rule)
        return torch.stack([energy.value(x) for x in net.trajectory(energy, x0)])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_the_lstm_starts_as_the_heavy_ball():
    problems, rule = draw(), bl.CoordinatewiseLSTM(momentum=0.7)
    energy, x = problems
    step = 0.95 / energy.lipschitz(x)[:, None]
    last = torch.zeros_like(x)
    for _ in range(5):
        last = 0.7 * last - step * energy.grad(x)
        x = x + last
    assert torch.allclose(energies(rule, 5, problems)[-1], energy.value(x), rtol=1e-4)


def test_the_line_search_starts_as_the_exact_one():
    problems = draw()
    ours, exact = (energies(r, 7, problems) for r in (bl.LearnedLineSearch(), bl.ExactLineSearch()))
    assert torch.allclose(ours, exact, rtol=1e-4)


@pytest.mark.parametrize(
    "rule", [bl.CoordinatewiseLSTM(4), bl.LearnedLineSearch(4)], ids=["LSTM", "line search"]
)
def test_scales_of_x_and_of_the_energy_play_no_part(rule):
    rule = rule.double()
    for parameter in rule.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    A, y = torch.randn(3, N, N).double(), torch.randn(3, N).double()
    x0 = torch.zeros(3, N).double()
    net = bl.unrolled(bl.GradientDescent(), 6, acceleration=rule)
    plain = net(bl.LeastSquares(y) @ bl.Matrix(A), x0)
    scaled = net(1e-6 * bl.LeastSquares(1e4 * y) @ bl.Matrix(1e3 * A), x0)
    assert torch.allclose(10 * plain, scaled, rtol=1e-8)


def test_the_learned_line_search_is_below_the_exact_one_on_other_problems():
    rule, problems = bl.LearnedLineSearch(8), draw(500, seed=1)
    history = bl.learn_rule(
        rule, lambda: draw(64), weights=torch.eye(10)[-1], updates=60, lr=0.05, window=10
    )
    assert len(history) == 60
    ours, exact = (energies(r, 10, problems)[-1].log().mean() for r in (rule, bl.ExactLineSearch()))
    assert ours < exact - 0.1


def test_the_lstm_learns_to_go_further():
    rule, problems = bl.CoordinatewiseLSTM(8), draw(200, seed=1)
    before = energies(rule, 20, problems)[-1]
    bl.learn_rule(rule, draw, weights=torch.ones(20) / 20, updates=8, window=10, lr=0.03)
    after = energies(rule, 20, problems)[-1]
    assert after.log().mean() < before.log().mean()


class Diverges(bl.Acceleration):
    """Ever farther away; of the sample 1 not even a number."""

    def step(self, fixpoint, z, state):
        return (z[0] * torch.tensor([-3.0, torch.nan])[:, None],), state


class Halves(bl.Acceleration):
    def step(self, fixpoint, z, state):
        return (z[0] / 2,), state


def test_the_guarded_rule_is_never_above_its_guard():
    problems = draw(2)
    alone = energies(bl.Nesterov(), 30, problems)
    assert torch.equal(energies(bl.Guarded(Diverges()), 30, problems), alone)
    untrained = bl.CoordinatewiseLSTM(4, momentum=0.999)
    assert (energies(untrained, 30, problems) > alone).any()
    assert (energies(bl.Guarded(untrained), 30, problems) <= alone).all()


def test_what_is_better_than_the_guard_is_kept():
    problem = bl.LeastSquares(torch.zeros(2, N)), torch.ones(2, N)
    slow = bl.GradientDescent(step_size=0.1)
    ours = energies(bl.Guarded(Halves(), bl.Plain()), 8, problem, slow)
    assert torch.allclose(ours[-1], torch.full((2,), N / 2 * 0.25**8))


def test_a_guarded_rule_solves_to_the_tolerance():
    energy, x0 = draw(4)
    x = bl.solve(energy, x0=x0, solver=bl.GradientDescent(),
                 acceleration=bl.Guarded(bl.CoordinatewiseLSTM(4)), tol=1e-4).x  # fmt: skip
    assert (energy.grad(x).norm(dim=1) < 1e-2).all()


def network():
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    x, y = torch.randn(20, 5), torch.randn(20, 1)

    def energy(theta):  # theta: all parameters as a vector; None: those of the model
        held = {}
        if theta is not None:
            sizes = [p.numel() for p in model.parameters()]
            parts = zip(model.named_parameters(), theta.split(sizes), strict=True)
            held = {name: part.reshape(p.shape) for (name, p), part in parts}
        return (torch.func.functional_call(model, held, (x,)) - y).square().mean()

    return model, energy


def closed(optimizer, energy):
    def closure():
        optimizer.zero_grad()
        loss = energy(None)
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize(
    "rule, calls",
    [(bl.Nesterov(), 2), (bl.CoordinatewiseLSTM(4), 1), (bl.Guarded(bl.CoordinatewiseLSTM(4)), 4)],
    ids=["Nesterov", "LSTM", "guarded"],
)
def test_a_rule_steps_a_network_as_it_steps_an_energy(rule, calls):
    model, energy = network()
    start = torch.nn.utils.parameters_to_vector(model.parameters()).detach()[None]
    optimizer = bl.ByRule(model.parameters(), rule, step_size=0.1)
    count, closure = [], closed(optimizer, energy)

    def counted():
        count.append(1)
        return closure()

    told = [optimizer.step(counted) for _ in range(6)]
    assert len(count) <= 6 * calls
    problem = bl.Potential(lambda x: energy(x[0])[None]), start
    values = energies(rule, 6, problem, bl.GradientDescent(step_size=0.1))[:6, 0]
    assert torch.allclose(values, torch.tensor(told), rtol=1e-4)


def test_a_run_by_rule_resumes_from_its_state():
    def steps(optimizer):
        return [optimizer.step(closed(optimizer, energy)) for _ in range(3)]

    model, energy = network()
    optimizer = bl.ByRule(model.parameters(), bl.Nesterov(), step_size=0.1)
    steps(optimizer)
    held, state = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    onwards = steps(optimizer)
    model.load_state_dict(held)
    fresh = bl.ByRule(model.parameters(), bl.Nesterov(), step_size=0.1)
    fresh.load_state_dict(state)
    assert steps(fresh) == onwards


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="hidden >= 1, got 0"):
        bl.CoordinatewiseLSTM(0)
    with pytest.raises(ValueError, match="0 < momentum < 1, got 1"):
        bl.CoordinatewiseLSTM(momentum=1.0)
    with pytest.raises(ValueError, match="hidden >= 1, got 0"):
        bl.LearnedLineSearch(0)
    with pytest.raises(TypeError, match="learn_rule trains a module"):
        bl.learn_rule(bl.Nesterov(), draw, weights=torch.ones(3), updates=1)
    with pytest.raises(ValueError, match="a tensor of one a step, not all 0, got 3"):
        bl.learn_rule(bl.LearnedLineSearch(4), draw, weights=3, updates=1)
    rule = bl.LearnedLineSearch(4)
    with pytest.raises(ValueError, match="not all 0, got tensor"):
        bl.learn_rule(rule, draw, weights=torch.zeros(3), updates=1)
    with pytest.raises(ValueError, match="needs updates >= 1, got 0"):
        bl.learn_rule(rule, draw, weights=torch.ones(3), updates=0)
    with pytest.raises(ValueError, match="needs window >= 1, got 0"):
        bl.learn_rule(rule, draw, weights=torch.ones(3), updates=1, window=0)
    with pytest.raises(ValueError, match="needs lr > 0, finite, got -1"):
        bl.learn_rule(rule, draw, weights=torch.ones(3), updates=1, lr=-1.0)
    with pytest.raises(TypeError, match=r"gives a LeastSquares: a pair \(energy, x0\)"):
        bl.learn_rule(rule, lambda: bl.LeastSquares(), weights=torch.ones(3), updates=1)
    with pytest.raises(TypeError, match=r"Guarded needs a rule such as Nesterov\(\), got <class"):
        bl.Guarded(bl.Nesterov)
    with pytest.raises(ValueError, match="ByRule needs step_size > 0, finite, got -1"):
        bl.ByRule([torch.zeros(2, requires_grad=True)], bl.Nesterov(), step_size=-1)
    with pytest.raises(TypeError, match="ByRule needs a rule"):
        bl.ByRule([torch.zeros(2, requires_grad=True)], "nesterov")
    game = bl.VectorField(lambda x: x)
    with pytest.raises(TypeError, match="no value to compare"):
        bl.solve(game, x0=torch.ones(1, 2), solver=bl.ForwardBackward(step_size=0.1),
                 acceleration=bl.Guarded(bl.Plain()))  # fmt: skip
    with pytest.raises(TypeError, match="LearnedLineSearch needs a quadratic"):
        bl.solve(bl.Potential(lambda x: x.pow(4).sum(1)), x0=torch.ones(1, 2),
                 solver=bl.GradientDescent(), acceleration=bl.LearnedLineSearch())  # fmt: skip
    with pytest.raises(FloatingPointError, match="loss is -inf"):
        zero = bl.LeastSquares(torch.zeros(1, 2)), torch.zeros(1, 2)
        bl.learn_rule(bl.CoordinatewiseLSTM(2), lambda: zero, weights=torch.ones(2), updates=1)
