"""Labels to targets: what uncertain and blank ones count as, and which tasks can be learned at all."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.training import labels
from chextools.training.labels import choose_labelling, parse_policy

FOUR = [{"labels": label} for label in ({"Edema": 1}, {"Edema": 0}, {"Edema": -1}, {})]


def test_policies_by_hand():
    expected = {  # (target, weight) of the uncertain label
        "ignore": (0, 0),
        "zeros": (0, 1),
        "ones": (1, 1),
        "smooth": (0.7, 1),
        "multiclass": (2, 1),
    }
    for policy, (target, weight) in expected.items():
        labelling = choose_labelling(FOUR, [], [f"Edema={policy}"], [], "x")
        targets, weights = labels.targets(labels.table(FOUR, labelling.tasks), labelling)
        assert targets[:, 0].tolist() == pytest.approx([1, 0, target, 0])
        assert weights[:, 0].tolist() == [1, 1, weight, 1]


def test_blanks_are_negative_only_where_chexperts_authors_count_them_so():
    records = [{"labels": {"Edema": 1, "Nodule": 1}}, {"labels": {"Edema": 0, "Nodule": 0}}, {"labels": {}}]
    labelling = choose_labelling(records, [], [], [], "x")
    assert labelling.missing == {"Edema": "negative", "Nodule": "ignore"}
    assert labels.targets(labels.table(records, labelling.tasks), labelling)[1][2].tolist() == [1, 0]
    labelling = choose_labelling(records, [], [], ["ignore", "Nodule=negative"], "x")
    assert labelling.missing == {"Edema": "ignore", "Nodule": "negative"}


def test_metrics_leave_uncertain_labels_out_whatever_they_are_trained_as():
    for blank, usable in (("negative", [True, True, False, True]), ("ignore", [True, True, False, False])):
        labelling = choose_labelling(FOUR, [], ["ones"], [blank], "x")
        positive, used = labels.certain(labels.table(FOUR, labelling.tasks), labelling)
        assert positive[:, 0].tolist() == [True, False, False, False] and used[:, 0].tolist() == usable


def test_balanced_classes_weigh_the_same():
    records = [{"labels": {"Edema": int(k == 0), "Fracture": (1, -1, 0, 0)[k]}} for k in range(4)]
    labelling = choose_labelling(records, [], ["Fracture=multiclass"], [], "x")
    weights = labels.class_weights(labels.table(records, labelling.tasks), labelling)
    assert weights[labelling.tasks.index("Edema"), :2].tolist() == [1, 3]
    assert weights[labelling.tasks.index("Fracture")].tolist() == pytest.approx([4 / 6, 4 / 3, 4 / 3])
    assert labelling.multiclass.tolist() == [task == "Fracture" for task in labelling.tasks]


def test_a_table_says_what_is_blank():
    codes = labels.table([{"labels": {"Edema": -1}}, {}], ["Mass", "Edema"])
    assert codes.dtype == np.int8 and codes.tolist() == [[-2, -1], [-2, -2]]
    assert labels.table([], ["Mass"]).shape == (0, 1)


def test_the_last_policy_for_all_counts_and_a_task_has_its_own():
    assert parse_policy(["ones", "Lung Opacity=zeros", "ignore"], "--uncertain", labels.POLICIES) == (
        "ignore",
        {"Airspace Opacity": "zeros"},
    )
    for wrong in ("twos", "=ones", "Edema=", "Edema=twos"):
        with pytest.raises(InputError, match=f"--uncertain '{wrong}': expected ignore, zeros, "):
            parse_policy([wrong], "--uncertain", labels.POLICIES)


def test_tasks_that_cannot_be_learned_are_left_out_unless_they_were_asked_for(caplog):
    records = [{"labels": {"Edema": k, "Mass": 1, "Nodule": 0}} for k in (0, 1)]
    assert choose_labelling(records, [], [], [], "x").tasks == ("Edema",)
    said = "\n".join(caplog.messages)
    assert "Mass: no negative label" in said and "Nodule: no positive label" in said and "no label at all" in said
    for task, reason in (("Mass", "no negative label"), ("Nodule", "no positive label")):
        with pytest.raises(InputError, match=f"^x: {task} cannot be learned: {reason}$"):
            choose_labelling(records, [task], [], [], "x")
    with pytest.raises(InputError, match="^x: no task can be learned"):
        choose_labelling(records[:1], [], [], [], "x")
    uncertain = [{"labels": {"Edema": -1}}, {"labels": {"Edema": 0}}]  # as ones, it has a positive
    assert choose_labelling(uncertain, [], ["ones"], [], "x").tasks == ("Edema",)
