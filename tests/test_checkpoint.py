"""A checkpoint gives back what it was given, or says that it cannot. It never runs code."""

import errno
import os
import pickle
import random

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bilevel.learning import checkpoint
from bilevel.learning.checkpoint import Checkpoints, Damaged

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool, torch.uint8]
DTYPES += [torch.int32, torch.int64, torch.complex64, torch.complex128]


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.equal(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


tensors = arrays.arrays(
    st.sampled_from(["f4", "f8", "i8", "?"]),
    arrays.array_shapes(min_dims=0, min_side=0, max_dims=3),
).map(lambda a: torch.from_numpy(a.copy()))
# NaN is left out of tensors only because torch.equal(nan, nan) is False; test_odd_tensors has it
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | tensors.filter(lambda t: not t.isnan().any())
)
keys = st.text() | st.integers() | st.tuples(st.integers(), st.integers())
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(tree=trees)
def test_any_tree_comes_back(tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("tree") / "tree.safetensors"
    checkpoint.write(path, tree)
    assert same(tree, checkpoint.read(path))


def test_odd_tensors_come_back(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tree = {
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]).nan_to_num(7.0),
        "views of one storage": [base, base.T, base[1:], base[:, ::2]],
        "a.b": base,
        "a": {"b": base + 1},  # the same path as the one above
        "dtypes": [torch.ones(2, 3).to(dtype) for dtype in DTYPES],
        "empty": [torch.zeros(0), torch.zeros(1, 0, 2), torch.zeros(1).expand(0, 1)],
        "conj": torch.tensor([1 + 2j]).conj(),
        "parameter": torch.nn.Parameter(base),
    }
    checkpoint.write(tmp_path / "f", tree)
    back = checkpoint.read(tmp_path / "f")
    tree["parameter"] = base
    assert same(tree, back)


def test_nan_keeps_its_bits(tmp_path):
    nan = torch.tensor([float("nan"), float("-inf"), -0.0])
    checkpoint.write(tmp_path / "f", [nan])
    (back,) = checkpoint.read(tmp_path / "f")
    assert back.view(torch.int32).equal(nan.view(torch.int32))


def test_a_leaf_of_another_kind_is_named(tmp_path):
    with pytest.raises(TypeError, match=r"state\.0\.f is a function\. Convert it"):
        checkpoint.write(tmp_path / "f", {"state": [{"f": lambda: 0}]})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.safetensors"
    checkpoint.write(path, {"weight": torch.randn(5, 7), "step": 3, "lists": [1.5, (None, "é")]})
    return path


def test_every_flipped_bit_is_found(good):
    data = good.read_bytes()
    chance = random.Random(0)
    for position in chance.sample(range(8 * len(data)), 400):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        good.write_bytes(flipped)
        with pytest.raises(Damaged, match=r"good\.safetensors"):
            checkpoint.read(good)


def test_every_truncation_is_found(good):
    data = good.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        good.write_bytes(data[:length])
        with pytest.raises(Damaged, match=r"good\.safetensors is no safetensors file, or a trunc"):
            checkpoint.read(good)


class Bomb:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("kind", ["pickle", "torch", "text"])
def test_foreign_files_are_refused_and_never_run(tmp_path, kind):
    path = tmp_path / "foreign.safetensors"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "torch":
        torch.save({"weight": Bomb()}, path)
    else:
        path.write_text("weight = 3")
    with pytest.raises(Damaged, match=r"foreign\.safetensors is no safetensors file"):
        checkpoint.read(path)


def test_safetensors_of_others_are_refused(tmp_path):
    safetensors.torch.save_file({"weight": torch.ones(2)}, tmp_path / "other")
    with pytest.raises(Damaged, match="other was not written by bilevel"):
        checkpoint.read(tmp_path / "other")


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(good, monkeypatch, call, failure):
    old = good.read_bytes()

    def fail(*_):
        raise failure

    monkeypatch.setattr(os, call, fail)
    expected = "No space left.* Free space" if isinstance(failure, OSError) else None
    with pytest.raises(type(failure), match=expected):
        checkpoint.write(good, {"step": 4})
    assert good.read_bytes() == old
    assert [p.name for p in good.parent.iterdir()] == [good.name]


def test_a_snapshot_does_not_follow():
    weight = torch.nn.Parameter(torch.ones(2))
    copy = checkpoint.snapshot({"a": [weight, (weight, 1)]})
    with torch.no_grad():
        weight += 1
    assert copy["a"][0].tolist() == [1, 1] and copy["a"][1][0].tolist() == [1, 1]
    assert not copy["a"][0].requires_grad


def test_the_two_newest_are_kept(tmp_path):
    kept = Checkpoints(tmp_path / "checkpoints")
    assert kept.newest() is None
    for step in (0, 9, 10, 11):
        kept.save(step, {"step": step})
    assert [p.name for p in kept.paths()] == [
        "step-00000010.safetensors",
        "step-00000011.safetensors",
    ]
    assert kept.newest() == {"step": 11}


def test_a_damaged_checkpoint_is_refused_and_the_previous_offered(tmp_path):
    kept = Checkpoints(tmp_path)
    kept.save(1, {"step": 1})
    kept.save(2, {"step": 2})
    new, old = kept.paths()[1], kept.paths()[0]
    new.write_bytes(new.read_bytes()[:-3])
    with pytest.raises(
        Damaged, match=r"step-00000002.*truncated.*step-00000001\.safetensors is good"
    ):
        kept.newest()
    old.write_bytes(b"")
    with pytest.raises(Damaged, match="step-00000002.*No good checkpoint is left"):
        kept.newest()
    new.unlink()
    kept.save(1, {"step": 1})
    assert kept.newest() == {"step": 1}
