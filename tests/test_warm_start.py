"""Warm starts are kept per sample and per solve, whatever the batch."""

import torch

from bilevel.warm_start import WarmStarts, current, warm_starts


def test_there_is_no_context_outside():
    assert current() is None
    with warm_starts(WarmStarts(), torch.tensor([0])) as context:
        assert current() is context
    assert current() is None


def test_samples_find_their_rows_in_any_batch():
    store = WarmStarts()
    x, y = torch.randn(3, 2), torch.randn(3, 4, 5)
    with warm_starts(store, torch.tensor([7, 2, 5])) as context:
        context.recall((torch.zeros(3, 2), torch.zeros(3, 4, 5)))
        context.keep((x, y))
    default = torch.full((2, 2), 9.0), torch.full((2, 4, 5), 9.0)
    with warm_starts(store, torch.tensor([5, 1])) as context:
        u, v = context.recall(default)
    assert torch.equal(u[0], x[2]) and torch.equal(v[0], y[2])  # sample 5
    assert torch.equal(u[1], default[0][1]) and torch.equal(v[1], default[1][1])  # never seen


def test_solves_are_numbered_within_one_evaluation():
    store, index, zero = WarmStarts(), torch.tensor([0]), (torch.zeros(1, 2),)
    for shift in (0.0, 10.0):  # the second evaluation replaces what the first kept
        with warm_starts(store, index) as context:
            for solve in range(2):
                context.recall(zero)
                context.keep((torch.full((1, 2), shift + solve),))
    with warm_starts(store, index) as context:
        assert context.recall(zero)[0].tolist() == [[10.0, 10.0]]
        assert context.recall(zero)[0].tolist() == [[11.0, 11.0]]
        assert context.recall(zero)[0].tolist() == [[0.0, 0.0]]  # a third solve has no past


def test_what_is_kept_is_a_copy_without_a_graph():
    store, index = WarmStarts(), torch.tensor([0, 1])
    z = torch.ones(2, 3, requires_grad=True)
    with warm_starts(store, index) as context:
        context.recall((torch.zeros(2, 3),))
        context.keep((z * 1,))
        with torch.no_grad():
            z += 5
    with warm_starts(store, index) as context:
        (row,) = context.recall((z,))
    assert torch.equal(row, torch.ones(2, 3)) and not row.requires_grad


def test_another_shape_dtype_or_batch_takes_the_default():
    store, index = WarmStarts(), torch.tensor([0, 1])
    with warm_starts(store, index) as context:
        context.recall((torch.zeros(2, 3),))
        context.keep((torch.ones(2, 3),))
    for default in (torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.float64)):
        with warm_starts(store, index) as context:
            assert torch.equal(context.recall((default,))[0], default)
    patches = torch.zeros(8, 3)  # rows that are no samples are neither read nor kept
    with warm_starts(store, index) as context:
        assert torch.equal(context.recall((patches,))[0], patches)
        context.keep((torch.full((8, 3), 7.0),))
    with warm_starts(store, index) as context:
        assert torch.equal(context.recall((torch.zeros(2, 3),))[0], torch.ones(2, 3))


def test_a_saved_state_is_not_changed_by_later_solves():
    store, index = WarmStarts(), torch.tensor([0])
    for value in (1.0, 2.0):
        with warm_starts(store, index) as context:
            context.recall((torch.zeros(1, 2),))
            context.keep((torch.full((1, 2), value),))
        if value == 1.0:
            saved = store.state_dict()
    restored = WarmStarts()
    restored.load_state_dict(saved)
    with warm_starts(restored, index) as context:
        assert context.recall((torch.zeros(1, 2),))[0].tolist() == [[1.0, 1.0]]
