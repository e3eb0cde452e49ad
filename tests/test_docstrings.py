"""Every example in a docstring runs, and prints what it says."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import bilevel as bl

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(bl.__path__, "bilevel.")
    if not module.name.endswith("__main__")
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", ["bilevel", *MODULES])
def test_examples(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=FLAGS)
    assert result.failed == 0


def test_examples_are_found():
    """The first things that a newcomer calls have one."""
    finder = doctest.DocTestFinder(recurse=False)
    for thing in (bl.argmin, bl.solve, bl.hypergradient):
        assert any(test.examples for test in finder.find(thing, thing.__name__)), thing.__name__


def test_everything_public_has_a_docstring():
    things = [getattr(bl, name) for name in dir(bl) if not name.startswith("_")]
    things = [t for t in things if inspect.isclass(t) or inspect.isfunction(t)]
    without = [
        t.__name__ for t in things if (t.__doc__ or f"{t.__name__}(").startswith(f"{t.__name__}(")
    ]
    assert without == []
