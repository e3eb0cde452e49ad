"""Everything on a second device, with the numbers that it has on the CPU."""

import copy

import pytest
import torch

import bilevel as bl
import registry
from bilevel import layers
from bilevel.learning import learn
from elsewhere import NAME, There, elsewhere
from learning_problem import Denoiser, Signals, squared_error
from problems import BY_NAME, EXAMPLES
from registry import IMAGE, Draw

NOT_THERE = {
    bl.FlatZones: "compiled: the CPU only, as its message says",
    bl.CoordinatewiseLSTM: "torch has the fused cell of a GPU on CUDA only",
    bl.LearnedLineSearch: "torch has the fused cell of a GPU on CUDA only",
    bl.Guarded: "the registry's guards such a rule",
}
ORDERS = {torch.float32: 1, torch.float64: 2}  # of derivatives: they differ little by dtype
ON_THE_CPU = {
    "Matrix, CSR": "no Python tensor can pass for a CSR one",
    "SparseMatrix": "a matrix of SciPy's: the CPU only, as its docstring says",
    "SparseMatrix, centred": "a matrix of SciPy's: the CPU only, as its docstring says",
}


def both(case, dtype, run):
    """`run` of the object and its Draw gives {name: tensor}: the same on both devices."""
    if case.name in ON_THE_CPU:
        pytest.skip(ON_THE_CPU[case.name])
    dtype = dtype if not case.dtype.is_complex else dtype.to_complex()
    options = dict(batch=2, event=case.event, dtype=dtype)
    expected = run(case.make(draw := Draw(**options)), draw)
    with elsewhere():
        same(expected, run(case.make(draw := Draw(**options, device=NAME)), draw))


def same(here, there):
    assert here.keys() == there.keys()
    for name, expected in here.items():
        assert isinstance(there[name], There), f"{name} lies on {there[name].device}"
        assert there[name].dtype == expected.dtype, name
        off = 2e-5 if expected.dtype in (torch.float32, torch.complex64) else 1e-7
        size = 1 + float(expected.abs().nan_to_num(posinf=0).max())
        torch.testing.assert_close(
            there[name].cpu(), expected, rtol=off, atol=off * size, equal_nan=True
        )


def derivatives(name, y, x):
    """{name: y, and its first and second derivatives in x where it has them}."""
    found = {name: y.detach()}
    for order in ("slope", "bend")[: ORDERS[x.real.dtype]]:
        if not y.requires_grad:
            break
        (y,) = torch.autograd.grad(y.abs().square().sum(), x, create_graph=True)
        found[f"{order} of {name}"] = y.detach()
    return found


@pytest.mark.parametrize("dtype", ORDERS)
@pytest.mark.parametrize("case", registry.TERMS, ids=str)
def test_terms(case, dtype):
    def run(term, draw):
        x = draw.x().requires_grad_()
        found = derivatives("value", term.value(x), x) if case.valued else {}
        if isinstance(term, bl.Proximable):
            step = torch.full((2,), 0.3, dtype=x.dtype, device=x.device)
            found |= derivatives("prox", term.prox(x, 0.4), x)
            found |= derivatives("prox_conjugate", term.prox_conjugate(x, step), x)
        if isinstance(term, bl.Smooth):
            found |= derivatives("grad", term.grad(x), x)
        if isinstance(term, bl.Dualizable):
            scale = term.dual_scale(x).reshape_as(draw.per_sample())
            found |= derivatives("conjugate", term.conjugate(scale * x), x)
        return found

    both(case, dtype, run)


@pytest.mark.parametrize("dtype", ORDERS)
@pytest.mark.parametrize("case", registry.OPERATORS, ids=str)
def test_operators(case, dtype):
    def run(operator, draw):
        x = draw.x().requires_grad_()
        y = operator(x)
        return derivatives("image", y, x) | derivatives("adjoint", operator.adjoint(y), x)

    both(case, dtype, run)


def answers(example, device, few=20, **options):
    """{name: tensor}: what argmin gives after a few steps, and its gradients."""
    theta = {k: t.clone().to(device) for k, t in example.theta(batch=2)[0].items()}
    free = {k: t.requires_grad_() for k, t in theta.items() if k not in example.fixed}
    x = bl.argmin(example.energy(theta), max_iter=few, on_fail="ignore", **options)
    return answer(x, free)


def answer(x, free):
    """{name: tensor}: x, and its gradients in the tensors it depends on."""
    slopes = torch.autograd.grad(x.square().sum(), free.values(), allow_unused=True)
    named = zip(free, slopes, strict=True)
    return {"x": x.detach()} | {k: slope for k, slope in named if slope is not None}


def ways():
    """(example, options of argmin): each solver where it is for, each rule, each derivative."""
    yield from ((e, {"solver": solver()}) for e in EXAMPLES for solver in e.solvers)
    for rule, solver, names in registry.ACCELERATIONS:
        yield BY_NAME[names[0]], {"solver": solver(), "acceleration": rule}
    for strategy in registry.STRATEGIES:
        yield BY_NAME["tv1d_composed"], {"diff": strategy}
    for linear_solver in registry.LINEAR_SOLVERS:
        yield BY_NAME["ridge"], {"diff": bl.Implicit(linear_solver=linear_solver)}


def called(way):
    return "-".join(type(v).__name__ for v in way.values()) if isinstance(way, dict) else str(way)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch's own, of jvp
@pytest.mark.parametrize("example, options", list(ways()), ids=called)
def test_ways_to_solve(example, options):
    for reason in (NOT_THERE[type(o)] for o in options.values() if type(o) in NOT_THERE):
        pytest.skip(reason)
    expected = answers(example, "cpu", **options)
    with elsewhere():
        same(expected, answers(example, NAME, **options))


def eye(d):
    return torch.eye(5).to(d.x())


def misfit(d):
    return bl.LeastSquares(d.x()) @ bl.Matrix(eye(d))


def filters(potential):
    return layers.FilterDenoise(size=3, potential=potential)


def scribbled(d):
    marks = torch.zeros(d.batch, *d.event[1:], dtype=torch.long, device=d.device)
    marks[:, 0, 0], marks[:, -1, -1] = 1, 2
    return [d.full(), marks]


# name: (layer, its inputs from a Draw, the event)
LAYERS = {
    "SparseCode": (layers.SparseCode(5, 8), lambda d: [d.x()], (5,)),
    "LeastSquaresFit": (layers.LeastSquaresFit(), lambda d: [eye(d), d.x()], (5,)),
    "QuadraticProgram": (layers.QuadraticProgram(), lambda d: [eye(d), d.x()], (5,)),
    "Projection": (layers.Projection(bl.Simplex()), lambda d: [d.x()], (5,)),
    "TVDenoise": (layers.TVDenoise(0.1), lambda d: [d.x()], IMAGE),
    "TVDenoiser": (layers.TVDenoiser(), lambda d: [d.x(), d.positive(d.batch)], IMAGE),
    "TVDeblur": (layers.TVDeblur(0.1), lambda d: [d.x(), d.positive(2, 2)], IMAGE),
    "FilterDenoise": (layers.FilterDenoise(size=3), lambda d: [d.x()], IMAGE),
    "splines": (filters(layers.SplinePotential(8)), lambda d: [d.x()], IMAGE),
    "firm": (filters(layers.FirmPotential(8)), lambda d: [d.x()], IMAGE),
    "VariationalNetwork": (layers.VariationalNetwork(2, 2, size=3), lambda d: [d.x()], IMAGE),
    "Segmenter": (layers.Segmenter(steps=5), scribbled, (3, 4, 5)),
    "Dequantize": (layers.Dequantize(torch.eye(5)), lambda d: [d.x(), 0.1], (5,)),
    "LISTA": (layers.LISTA(torch.eye(5), 3), lambda d: [d.x()], (5,)),
    "CoupledLISTA": (layers.CoupledLISTA(torch.eye(5), 3), lambda d: [d.x()], (5,)),
    "ALISTA": (layers.ALISTA(torch.eye(5), 3), lambda d: [d.x()], (5,)),
    "HyperLISTA": (layers.HyperLISTA(torch.eye(5), 3), lambda d: [d.x()], (5,)),
    "MonotoneEquilibrium": (layers.MonotoneEquilibrium(5, 4), lambda d: [d.x()], (5,)),
    "GradientFlow": (layers.GradientFlow(), lambda d: [misfit(d), d.x()], (5,)),
    "Unrolled": (
        layers.Unrolled(bl.ForwardBackward(), 3, learn=["step_size"]),
        lambda d: [misfit(d) + bl.L1(), d.x()],
        (5,),
    ),
}


def floating(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    layer, inputs, event = LAYERS[name]

    def run(device):
        net = copy.deepcopy(layer).to(device, torch.float64)
        given = inputs(Draw(2, event, device=device))
        free = dict(net.named_parameters())
        free |= {f"input {i}": t.requires_grad_() for i, t in enumerate(given) if floating(t)}
        return answer(net(*given), free)

    expected = run("cpu")
    with elsewhere():
        same(expected, run(NAME))


OPTIMIZERS = {
    "default": None,
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "AdaptiveInexact": bl.AdaptiveInexact,
    "GradientSampling": bl.GradientSampling,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learning(name):
    def run(device):
        model = Denoiser().to(device, torch.float64)
        learn(
            model, Signals()[:2], squared_error, optimizer=OPTIMIZERS[name], steps=2, progress=False
        )
        return {k: p.detach() for k, p in model.named_parameters()}

    expected = run("cpu")
    with elsewhere():
        same(expected, run(NAME))
