"""What chex-view knows beside the records, which it chooses, and what a page says of what it drew."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from chextools.errors import InputError
from chextools.masks.mask import Mask
from chextools.records.records import Failure, Located
from chextools.viewing import known, pages, waiting
from chextools.viewing.known import Known
from chextools.viewing.panels import Subject
from chextools.viewing.settings import ViewSettings
from chextools.viewing.sketch import Line
from chextools.viewing.target import Target

H, W = 48, 64


def rle(*box: int) -> dict:
    top, left, bottom, right = box
    array = np.zeros((H, W), bool)
    array[top:bottom, left:right] = True
    return Mask.from_array(array).to_rle()


TRUTH = rle(10, 10, 20, 20)


@pytest.fixture
def image(tmp_path) -> str:
    Image.new("L", (W, H), 90).save(tmp_path / "x.png")
    return str(tmp_path / "x.png")


def record(name: str, image: str, right: int = 20, task: str = "Edema", **more) -> dict:
    return {"id": name, "image": image, "masks": {task: rle(10, 10, 20, right)}} | more


def truth_of(*names: str, task: str = "Edema") -> Known:
    return Known({name: {"id": name, "masks": {task: TRUTH}} for name in names}, tasks=[task])


def settings(**changed) -> ViewSettings:
    return ViewSettings(**{"size": 64} | changed)


# What is known


def test_masks_points_and_images_come_together_by_id(tmp_path, image):
    (tmp_path / "gt.json").write_text(json.dumps({"a": {"Edema": TRUTH}}))
    (tmp_path / "points.json").write_text(json.dumps({"a": {"Edema": [[15, 15]]}}))
    images = [Located("i:1", {"id": "a", "image": image}), Failure("i:2", "torn")]
    found = known.read_known([str(tmp_path / "gt.json"), str(tmp_path / "points.json")], images, io.BytesIO())
    assert found.points == {"a": {"Edema": [[15, 15]]}} and found.tasks == ["Edema"] and found.images == {"a": image}
    assert found.failures == [Failure("i:2", "torn")]
    subject = found.subject(Located("x:1", {"id": "a"}))
    assert subject.record["image"] == image and subject.truth["masks"] == {"Edema": TRUTH}
    assert subject.points == {"Edema": [[15, 15]]}


def test_of_an_unknown_record_nothing_is_known_and_a_records_own_image_stays(image):
    found = Known(images={"a": "other.png"})
    subject = found.subject(Located("x:1", {"id": "a", "image": image}))
    assert subject.record["image"] == image and subject.truth is None and subject.points is None
    assert found.subject(Failure("x:2", "torn")) == Failure("x:2", "torn")


def test_a_truth_without_any_is_one_line(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": "a", "scores": {"Edema": 1}}\n')
    with pytest.raises(InputError, match="x.jsonl: no truth"):
        known.read_known([str(tmp_path / "x.jsonl")], [], io.BytesIO())


# What is chosen


def drawn(tmp_path, records: list[dict], found: Known, **changed) -> list:
    (tmp_path / "out").mkdir(exist_ok=True)
    work = waiting.Waiting(found, settings(**changed), Target(tmp_path / "out", force=True), 1)
    subjects = [found.subject(Located(f"x:{k + 1}", each)) for k, each in enumerate(records)]
    return list(work.results(subjects))


LADDER = {"a": 20, "b": 15, "c": 40, "d": 18}  # right edges; the truth's is 20


def iou(right: int) -> float:
    return min(right - 10, 10) / max(right - 10, 10)


@pytest.mark.parametrize("select,order", [("worst", 1), ("best", -1)])
def test_the_worst_and_best_are_by_iou(tmp_path, image, select, order):
    found = drawn(tmp_path, [record(n, image, r) for n, r in LADDER.items()], truth_of(*LADDER), select=select, count=2)
    expected = sorted(LADDER, key=lambda name: order * iou(LADDER[name]))[:2]
    assert {item.record["id"] for item in found} == set(expected)
    for item in found:
        assert item.record["views"]["Edema"]["iou"] == pytest.approx(iou(LADDER[item.record["id"]]))


def test_what_is_drawn_at_random_is_of_the_seed_and_not_of_the_order(tmp_path, image):
    records = [record(name, image) for name in "abcdefgh"]

    def ids(some: list[dict], seed: int) -> set[str]:
        return {item.record["id"] for item in drawn(tmp_path, some, Known(), select="random", count=3, seed=seed)}

    assert ids(records, 0) == ids(records[::-1], 0) and len({tuple(sorted(ids(records, k))) for k in range(4)}) > 1


def test_a_sheet_says_on_which_page_and_tile_each_is(tmp_path, image):
    found = drawn(tmp_path, [record(f"i{k:02}", image) for k in range(22)], Known(), layout="sheet", size=16)
    columns, rows = settings(layout="sheet", size=16).page
    places = [item.record["views"]["Edema"] for item in found]
    assert [place["tile"] for place in places[: columns * rows]] == [
        [1 + k // columns, 1 + k % columns] for k in range(min(22, columns * rows))
    ]
    assert len({place["picture"] for place in places}) == math.ceil(22 / (columns * rows))


def test_a_grid_has_a_column_per_method_and_a_row_per_task(tmp_path, image):
    records = [
        record("a", image, task=task, method=method) for method in ("m1", "m2") for task in ("Edema", "Cardiomegaly")
    ]
    found = drawn(tmp_path, records, Known(), layout="grid", size=32)
    tiles = {(i.record["method"], task): view["tile"] for i in found for task, view in i.record["views"].items()}
    assert tiles == {
        ("m1", "Cardiomegaly"): [1, 1],
        ("m1", "Edema"): [2, 1],
        ("m2", "Cardiomegaly"): [1, 2],
        ("m2", "Edema"): [2, 2],
    }


def test_what_cannot_be_measured_is_a_failure_and_the_others_go_on(tmp_path, image):
    records = [record("a", image), record("b", str(tmp_path / "none.png"))]
    good, bad = sorted(drawn(tmp_path, records, Known(), select="random"), key=lambda item: isinstance(item, Failure))
    assert good.record["id"] == "a" and bad.where == "x:2" and "none.png" in bad.reason


def test_records_of_one_x_ray_are_told_apart_by_method_and_model():
    assert waiting.column_of({}) == ("", "")
    assert waiting.column_of({"method": "gradcam", "model": "1f"}) == ("gradcam", "1f")


# Pictures


def test_one_picture_per_wanted_task_with_its_numbers(tmp_path, image):
    masks = {"Edema": rle(10, 10, 20, 15), "Fracture": TRUTH}
    subject = Subject("x:1", {"id": "a", "image": image, "masks": masks}, {"id": "a", "masks": {"Edema": TRUTH}})
    target = Target(tmp_path)
    found = pages.draw_single(settings(), target, {"Edema"}, subject)
    assert list(found.record["views"]) == ["Edema"] and found.record["views"]["Edema"]["iou"] == 0.5
    with Image.open(found.record["views"]["Edema"]["picture"]) as picture:
        assert picture.width >= 64 and picture.height > 48
    again = pages.draw_single(settings(), target, {"Edema"}, subject)
    assert isinstance(again, Failure) or "exists; use --force" in again.record["failed"]["Edema"]


def test_views_are_last_and_failures_of_before_are_gone():
    made = pages.with_views({"id": "a", "failed": {"Edema": "old"}, "views": {}, "own": 1}, {"Edema": {}}, {})
    assert made == {"id": "a", "own": 1, "views": {"Edema": {}}} and list(made)[-1] == "views"


def test_a_place_that_fails_says_so_and_its_neighbour_is_drawn(tmp_path, image):
    subjects = [Subject(f"x:{k}", record(name, image)) for k, name in enumerate("ab")]
    subjects[1].record["failed"] = {"Edema": "torn"}
    subjects[1].record["masks"] = {}
    places = [(0, 0, 0, "Edema"), (0, 1, 1, "Edema")]
    found = pages.draw_page(
        settings(layout="sheet"), Target(tmp_path), pages.Page(tmp_path / "p.png", [Line("x")], subjects, places)
    )
    assert found[1] == {"failed": "torn"} and "failed" not in found[0] and (tmp_path / "p.png").is_file()
