"""Nothing public escapes the laws: every class of a kind has an instance in the registry."""

import inspect

import pytest

import bilevel as bl
import registry
from bilevel import testing
from problems import EXAMPLES
from references import REFERENCES
from registry import Draw


def leaves(kind):
    """The public classes of a kind that are no interfaces."""
    classes = (getattr(bl, name) for name in dir(bl) if not name.startswith("_"))
    found = {c for c in classes if inspect.isclass(c) and issubclass(c, kind)}
    return {c for c in found if not inspect.isabstract(c) and c not in INTERFACES}


INTERFACES = {bl.Term, bl.Smooth, bl.Proximable, bl.Dualizable, bl.Composed, bl.Weighted}


def built(cases):
    return {type(case.make(Draw(event=case.event))) for case in cases}


@pytest.mark.parametrize(
    "kind, listed",
    [
        (bl.Term, built(registry.TERMS)),
        (bl.Operator, built(registry.OPERATORS)),
        (bl.Solver, set(registry.SOLVERS)),
        (bl.Acceleration, {type(a) for a, _, _ in registry.ACCELERATIONS}),
        (bl.LinearSolver, {type(s) for s in registry.LINEAR_SOLVERS}),
        (bl.Strategy, {type(s) for s in registry.STRATEGIES}),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_every_public_class_is_registered(kind, listed):
    missing = {c.__name__ for c in leaves(kind) - listed}
    assert not missing, f"add a line to tests/registry.py for each of {sorted(missing)}"


def test_a_class_that_is_not_registered_is_found(monkeypatch):
    class Fresh(bl.L1):
        pass

    monkeypatch.setattr(bl, "Fresh", Fresh, raising=False)
    with pytest.raises(AssertionError, match=r"for each of \['Fresh'\]"):
        test_every_public_class_is_registered(bl.Term, built(registry.TERMS))


def test_every_solver_and_reference_has_an_example():
    assert {s for e in EXAMPLES for s in e.solvers} == set(registry.SOLVERS)
    assert {e.reference or e.name for e in EXAMPLES} == set(REFERENCES)


def test_names_are_unique():
    for cases in (registry.TERMS, registry.OPERATORS):
        names = [case.name for case in cases]
        assert len(set(names)) == len(names)


def test_the_laws_are_public_and_say_what_they_are():
    laws = set(testing.__all__) - {"solution_maps"}  # a module
    for name in laws:
        law = getattr(testing, name)
        assert callable(law) and law.__doc__, name
    functions = {
        name
        for module in (testing.terms, testing.operators, testing.solvers, testing.gradients)
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and name[0] != "_"
    }
    assert functions == laws
