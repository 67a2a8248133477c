"""Optimisers, the rate at each step, and the loss, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chextools.training import optimiser


def test_schedules():
    def rates(schedule: str, warmup: int = 0):
        return [optimiser.rate(schedule, step, 6, warmup) for step in range(6)]

    assert rates("constant", 2) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])
    assert rates("step") == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert rates("cosine") == pytest.approx([(1 + np.cos(np.pi * step / 6)) / 2 for step in range(6)])
    assert rates("cosine", 2) == pytest.approx([1 / 3, 2 / 3, *((1 + np.cos(np.pi * k / 4)) / 2 for k in range(4))])


@pytest.mark.parametrize("schedule, last", [("constant", 1), ("cosine", 0), ("step", 0.01)])
def test_past_its_end_a_schedule_stays_where_it_is(schedule, last):
    assert optimiser.rate(schedule, 6, 6, 0) == optimiser.rate(schedule, 100, 6, 0) == pytest.approx(last)
    assert optimiser.rate(schedule, 9, 6, 9) == pytest.approx(1)  # all of it was warm-up


@pytest.mark.parametrize(
    "name, given, decay, kind", [("adam", None, 0, "Adam"), ("adamw", None, 0.01, "AdamW"), ("sgd", 0.2, 0.2, "SGD")]
)
def test_optimisers_hold_their_groups(name, given, decay, kind):
    network = torch.nn.Linear(2, 3)
    made = optimiser.make(name, [{"params": [network.weight], "lr": 0.1}, {"params": [network.bias]}], 0.5, given)
    trunk, head = made.param_groups
    assert type(made).__name__ == kind and (trunk["lr"], head["lr"]) == (0.1, 0.5)
    assert trunk["params"][0] is network.weight and head["params"][0] is network.bias
    for group in (trunk, head):
        assert group["weight_decay"] == decay and group.get("momentum") == (0.9 if name == "sgd" else None)


def test_the_loss_by_hand():
    """Binary cross-entropy of tasks 0 and 2, cross-entropy over three classes of task 1, each where it has weight."""
    loss = optimiser.Loss([False, True, False], np.ones((3, 3), np.float32), "cpu")
    output = torch.randn(2, 5)
    target = torch.tensor([[1.0, 2, 0], [0, 1, 1]])
    weight = torch.tensor([[1.0, 1, 0], [1, 0, 1]])
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    expected = (
        binary(output[:, 0], target[:, 0], reduction="sum")
        + binary(output[1, 4], target[1, 2])
        - output[0, 1:4].log_softmax(0)[2]
    )
    torch.testing.assert_close(loss(output, target, weight), expected)


def test_a_class_counts_as_often_as_it_weighs():
    """A label of weight 3 is three labels, of a positive in two classes as of any in three."""
    weights = np.array([[1, 3, 1], [2, 1, 5]], np.float32)
    weighed, plain = (optimiser.Loss([False, True], w, "cpu") for w in (weights, np.ones_like(weights)))
    output = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    one, other = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])  # which of the tasks is looked at
    for task, target, times in ((one, [1, 0], 3), (one, [0, 0], 1), (other, [0, 0], 2), (other, [0, 2], 5)):
        target = torch.tensor([target], dtype=torch.float32)
        torch.testing.assert_close(weighed(output, target, task), times * plain(output, target, task))


def test_no_label_is_no_loss_and_still_has_a_gradient():
    output = torch.randn(2, 1, requires_grad=True)
    loss = optimiser.Loss([False], np.ones((1, 3), np.float32), "cpu")(output, torch.ones(2, 1), torch.zeros(2, 1))
    loss.backward()
    assert loss == 0 and (output.grad == 0).all()
