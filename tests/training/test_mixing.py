"""chex-train --mix: what a batch is made of, and what labels count as where a set has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chextools.errors import InputError
from chextools.training import labels, mixing
from chextools.training.pixels import Order


def test_every_batch_has_its_share_of_each_set_and_each_set_its_own_order():
    assert mixing.counts(["a:0.5", "b"], 16) == [4, 8, 4]
    order = mixing.Mixture([10, 7, 7], [4, 8, 4], batches=2, seed=3)
    rows = np.array([order.rows(step) for step in range(7)])
    assert order.per_step == 32 and rows.shape == (7, 32)
    sets = order.set_of(rows).reshape(14, 16)  # batch by batch
    assert (sets == np.repeat([0, 1, 2], [4, 8, 4])).all()
    drawn = [rows[order.set_of(rows) == k] - start for k, start in enumerate([0, 10, 17])]
    assert all(sorted(of[:n]) == list(range(n)) for of, n in zip(drawn, [10, 7, 7]))  # all before any comes again
    assert list(drawn[1][:7]) != list(drawn[2][:7])
    assert order.epochs(5) == 4 and order.rows(2).tolist() == rows[2].tolist()


def test_without_further_sets_it_is_the_order_there_was():
    alone, order = Order(10, 8, seed=3), mixing.Mixture([10], [4], batches=2, seed=3)
    assert all(order.rows(step).tolist() == alone.rows(step).tolist() for step in range(5))


@pytest.mark.parametrize(
    "mix, batch, expected",
    [
        ([], 16, [16]),
        (["a"], 16, [8, 8]),
        (["a", "b"], 16, [6, 5, 5]),
        (["a:0.01"], 16, [15, 1]),
        (["a:.3"], 10, [7, 3]),
    ],
)
def test_counts_of_a_batch(mix, batch, expected):
    assert mixing.counts(mix, batch) == expected


@pytest.mark.parametrize(
    "mix, batch, said",
    [
        (["a:1"], 16, "a:1: the share of a batch must be above 0 and below 1"),
        (["a:nan"], 16, "must be above 0"),
        (["a:0.6", "b:0.6"], 16, "shares of 1.2 in all leave none for TRAIN"),
        (["a:0.9"], 4, "4 images a batch leave none for TRAIN"),
    ],
)
def test_shares_that_leave_nothing_are_refused(mix, batch, said):
    with pytest.raises(InputError, match=said):
        mixing.counts(mix, batch)


def test_a_name_with_a_colon_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:0.5").touch()
    assert mixing.parse_mix("a:0.5") == ("a:0.5", None)
    assert mixing.parse_mix("b:0.5") == ("b", 0.5) and mixing.parse_mix("b:c") == ("b:c", None)


def test_what_a_set_has_no_label_of_is_ignored_and_not_negative():
    """Edema's blanks are negative where Edema is labelled at all; Fracture comes from the second set only."""
    first = [{"labels": {"Edema": 1}}, {"labels": {"Edema": 0}}, {"labels": {}}]
    second = [{"labels": {"Fracture": 1, "Nodule": 0}}, {"labels": {"Nodule": 1}}]
    labelling = labels.choose_labelling(first, [], [], [], "x", [second])
    assert labelling.tasks == ("Edema", "Fracture", "Nodule")
    codes = labels.table_of_sets([first, second], labelling.tasks)
    targets, weights = labels.targets(codes, labelling)
    assert weights.tolist() == [[1, 0, 0]] * 3 + [[0, 1, 1], [0, 1, 1]]
    assert targets.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert labels.certain(codes, labelling)[1].tolist() == (weights > 0).tolist()
    # Of Fracture there is one positive and one blank, negative, in the second set; half of each batch is of it
    often = np.array([4 / 3] * 3 + [4 / 2] * 2)
    assert labels.class_weights(codes, labelling, often)[:, 1].tolist() == [2, 1, 1]


def test_each_set_counts_as_its_share_whatever_its_labels():
    weight = torch.tensor([[1.0, 0], [1, 0], [1, 1], [1, 1]])
    found = mixing.by_set(weight, np.array([0, 0, 1, 1]), [2, 2])
    assert found.tolist() == [[1.5, 0], [1.5, 0], [0.75, 0.75], [0.75, 0.75]] and float(found.sum()) == 6
    weight[:2] = 0
    assert torch.equal(mixing.by_set(weight, np.array([0, 0, 1, 1]), [2, 2]), weight)
