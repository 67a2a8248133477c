"""A record as it comes from outside: typed values behind the one check, or one short line."""

import pytest

from chextools.errors import InputError
from chextools.records import record
from chextools.records.record import checked

WIDE = "x" * 10**6


@pytest.mark.parametrize(
    "value",
    [None, 5, "text", [], {}, {"id": None}, {"id": 5}, {"id": ""}, {"id": ".."}, {"id": "a/b"}, {"id": "a\n"}]
    + [{"id": "\ud800"}, {"id": WIDE}, {"id": ["a"]}, {"id": 10**400}, {"id": {"a": WIDE}}],
)
def test_what_is_no_record_is_a_short_line(value):
    with pytest.raises(InputError) as error:
        checked(value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "key,value",
    [(key, value) for key in ("labels", "scores", "masks", "failed", "flags") for value in (None, 1, "a", [1], [])]
    + [(key, {name: None}) for key in ("labels", "masks", "points") for name in ("", "Average", "img_id", "a\nb", WIDE)]
    + [("scores", {"Edema": v}) for v in ("0.5", True, [0.5], 1.01, -0.1, 10**400, float("inf"), {"a": WIDE})]
    + [("labels", {"Edema": v}) for v in ([1], {"a": 1})]
    + [("failed", {"Edema": v}) for v in (None, 1, ["a"], {})]
    + [("size", v) for v in ([], [1], [1, 2, 3], [0, 1], [-1, 1], [1.5, 2], ["1", 2], [True, 2], 5, "12", [10**400, 1])]
    + [("size", [2**16, 1]), ("size", [60000, 60000]), ("outlines", {}), ("outlines", {"Edema": []})]
    + [
        ("spacing", v)
        for v in (5, [1], [1, "a"], [0, 1], [-1, 1], [1e308, 1e308], [1e-300, 1], [1, 10**400], [True, 1])
    ]
    + [("readers", v) for v in (2, [1], {}, "a", {"a": 1}, {WIDE: None}, {"a": {"Average": {}}})]
    + [("kind", v) for v in (5, ["box"], {"Edema": 5})]
    + [("instances", v) for v in (5, {"Edema": -1}, {"Edema": 1.5}, {"Edema": True}, {"Edema": None})]
    + [(key, v) for key in ("image", "heatmap") for v in ("", 5, ["a"], {}, "a\0b")]
    + [("patient", 5), ("scores", {"Lung Opacity": 1, "Airspace Opacity": 1})],
)
def test_a_value_that_its_key_cannot_have_is_a_short_line(key, value):
    with pytest.raises(InputError) as error:
        checked({"id": "a", key: value})
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    "points",
    [None, 5, "ab", {"a": 1}, [5], [None], [[1]], [[1, 2, 3]], [["1", 2]], [[True, 1]], [[10**400, 1]], [[1, None]]],
)
def test_broken_points_cost_their_task(points):
    found = checked({"id": "a", "points": {"Edema": points, "Mass": [[1, 2.5]]}, "failed": {"Hernia": "why"}})
    assert found["points"] == {"Mass": [[1, 2.5]]}
    assert found["failed"].keys() == {"Hernia", "Edema"} and len(found["failed"]["Edema"]) < 200


def test_a_null_path_or_size_is_none():
    nulls = dict.fromkeys(("image", "size", "patient", "view", "split", "heatmap", "kind", "instances", "readers"))
    assert checked({"id": "a", "mine": None, **nulls}) == {"id": "a", "mine": None}


def test_names_of_tasks_are_canonical_and_other_keys_untouched():
    found = checked(
        {"id": "a", "scores": {"Lung Opacity": 0.5, "Edema": None}, "size": [2, 3], "mine": {"Lung Opacity": 1}}
    )
    assert found == {
        "id": "a",
        "scores": {"Airspace Opacity": 0.5, "Edema": None},
        "size": [2, 3],
        "mine": {"Lung Opacity": 1},
    }


def test_every_key_that_is_checked_has_a_type():
    assert record._CHECKS.keys() | set(record.TASK_KEYS) <= set(record.KEYS)
    assert list(record.ordered({"other": 1, "failed": {}, "id": "a"})) == ["id", "failed", "other"]
