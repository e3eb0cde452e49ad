"""Many processes: the numbers of one, with any number of them; an error in one is one in all."""

import os
import sys

import pytest
import torch

from bilevel.learning import learn, processes, read_metrics
from learning_problem import (
    Denoiser,
    Pairs,
    Shrink,
    Signals,
    numbers,
    run,
    sgd,
    squared_error,
)
from many import adam, noisy, together

pytest.importorskip("lightning_fabric")


def close(some, others, rel=1e-6):
    """The rows and the parameters, to 1e-6; steps and iterations exactly."""
    (rows, model), (other_rows, other_model) = some, others
    for row, other in zip(rows, other_rows, strict=True):
        assert row.keys() == other.keys()
        for key, value in other.items():
            exact = value is None or isinstance(value, int)  # iterations: so warm starts are right
            assert row[key] == (value if exact else pytest.approx(value, rel=rel, abs=1e-12)), key
    for key, value in other_model.items():
        mine, value = torch.tensor(model[key]), torch.tensor(value)
        assert (mine - value).abs().max() <= rel * value.abs().max(), key
    return True


FLOAT32 = 1e-5  # rel: a hundred roundings


def denoise(out=None, steps=6, batch_size=None, resume=False):
    result = learn(
        Denoiser(),
        Signals(),
        squared_error,
        optimizer=None if batch_size is None else adam,
        batch_size=batch_size,
        steps=steps,
        out=out,
        resume=resume,
        progress=False,
    )
    assert result.out == out
    return numbers(result), result.certificate.gap.tolist()


# in 3 processes, batches of 3 and 1 of 4 samples are split 1 1 1 and 1 0 0
@pytest.mark.parametrize("size, batch_size", [(2, None), (2, 3), (3, None), (3, 3)])
def test_the_numbers_are_those_of_one_process(size, batch_size):
    alone, gap = denoise(batch_size=batch_size)
    first, *others = together(denoise, None, 6, batch_size, size=size)
    assert close(first[0], alone)
    assert first[1] == pytest.approx(gap, rel=1e-3)  # the certificate of all samples, in order
    assert all(other == first for other in others)


@pytest.mark.parametrize("sizes", [(1, 2), (2, 1), (2, 3)])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_run_goes_on_with_another_number_of_processes(tmp_path, sizes, batch_size):
    whole = denoise(batch_size=batch_size)
    for size, steps in zip(sizes, (3, 6), strict=True):
        args = (tmp_path, steps, batch_size, True)
        outcomes = [denoise(*args)] if size == 1 else together(denoise, *args, size=size)
    assert all(close(outcome[0], whole[0]) for outcome in outcomes)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_resumed_equals_uninterrupted_to_the_last_digit(tmp_path):
    whole, _ = together(noisy)
    together(noisy, tmp_path, 3)
    resumed, _ = together(noisy, tmp_path, 6, True)
    assert resumed == whole
    assert len({row["loss"] for row in whole[0]}) == 6


def draw():
    drawn = []

    def loss(model, batch):
        drawn.append(torch.rand(()).item())
        return squared_error(model, batch)

    run(steps=2, loss=loss, optimizer=sgd)
    return drawn


def test_each_process_has_its_own_random_numbers():
    first, second = together(draw)
    assert len(set(first + second)) == 4


def only_the_first_speaks(out):
    steps = []
    run(out, steps=3, optimizer=sgd, on_step=lambda step, row: steps.append(step))
    return steps


def test_on_step_is_called_in_the_first_process(tmp_path):
    assert together(only_the_first_speaks, tmp_path) == [[1, 2, 3], []]


# ---------------------------------------------------------------------------------- what fails


class Odd(ValueError):
    """Does not travel: it can only be made with two arguments."""

    def __init__(self, text, unpicklable):
        super().__init__(text)
        self.unpicklable = unpicklable


def failing(out, error, rank):
    calls = []

    def loss(model, batch):
        calls.append(1)
        if len(calls) == 4 and os.environ["RANK"] == rank:
            raise error if error else Odd("odd", lambda: 0)
        return squared_error(model, batch)

    run(out, loss=loss, optimizer=sgd)


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("error", [ZeroDivisionError("zero"), KeyboardInterrupt(), None])
def test_an_error_anywhere_is_raised_everywhere_and_loses_nothing(tmp_path, error, rank):
    first, second = together(failing, tmp_path, error, rank)
    if isinstance(error, KeyboardInterrupt):
        expected = "bilevel.learning.learn.Interrupted: Interrupted."
    elif error is not None:
        expected = "ZeroDivisionError: zero"
    else:
        expected = "Odd: odd"
    assert expected in first and expected in second
    assert "Step 3 is saved in" in first and "resume=True goes on from there" in first
    assert "This happened in the first process" in second
    if rank == "1" and not isinstance(error, KeyboardInterrupt):
        assert "In process 1 of 2, on samples [4, 5, 6]." in first
    whole = numbers(run(optimizer=sgd))
    assert close(numbers(run(tmp_path, optimizer=sgd, resume=True)), whole, FLOAT32)


def nan_in_the_second_process(out):
    calls = []

    def loss(model, batch):
        calls.append(1)
        bad = len(calls) == 4 and os.environ["RANK"] == "1"
        return squared_error(model, batch) * (torch.nan if bad else 1.0)

    model = Shrink()
    try:
        run(out, model=model, loss=loss, optimizer=sgd)
    except FloatingPointError as error:
        return str(error), model.bias.tolist()


def test_nan_is_told_with_its_step_and_every_model_is_put_back(tmp_path):
    first, second = together(nan_in_the_second_process, tmp_path)
    assert first == second  # the same error and the same parameters
    assert "Step 4: the loss is not finite" in first[0]
    three = run(steps=3, optimizer=sgd).model.bias.tolist()
    assert torch.tensor(first[1]).allclose(torch.tensor(three), rtol=1e-5)


def refused_then_elsewhere(strange, out):
    try:
        run(strange, steps=2)
    except FileExistsError:
        return numbers(run(out, steps=2, optimizer=sgd))


def test_a_refused_folder_is_refused_in_every_process_and_they_can_go_on(tmp_path):
    strange, out = tmp_path / "strange", tmp_path / "run"
    strange.mkdir()
    (strange / "thesis.tex").write_text("x")
    first, second = together(refused_then_elsewhere, strange, out)
    alone = numbers(run(steps=2, optimizer=sgd))
    assert first == second and close(first, alone, FLOAT32)


def other_data():
    samples = 7 - int(os.environ["RANK"])
    learn(Shrink(), Pairs(samples), squared_error, steps=2, progress=False)


def broken_data():
    samples = Pairs(7) if os.environ["RANK"] == "0" else []
    learn(Shrink(), samples, squared_error, steps=2, progress=False)


def test_processes_that_disagree_are_refused():
    first, second = together(other_data)
    assert "Process 1 runs learn with" in first and "'samples': 6" in first
    assert "all must get the same arguments and the same data" in second
    first, _ = together(broken_data)
    assert "data is empty" in first and "In process 1 of 2" in first


def test_without_lightning_fabric_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ImportError, match=r"2 processes, .* pip install 'bilevel\[many\]'"):
        run()


def test_a_model_on_two_kinds_of_device_is_refused():
    model = Shrink()
    model.bias = torch.nn.Parameter(torch.zeros(2, 3, device="meta"))
    with pytest.raises(ValueError, match=r"on \['cpu', 'meta'\]: with many processes they must"):
        processes.Team(model)


def test_one_process_does_not_import_lightning(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)  # its import fails
    run(steps=1)
