"""COCO: an annotation that cannot be used costs only itself; ours is read by COCO's own library, and evaluates to 1."""

import contextlib
import io
import json

import pytest
from pycocotools import mask as cocomask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from chextools.errors import InputError
from chextools.inputs import coco
from chextools.inputs.inputs import read_stream
from chextools.masks.mask import Mask
from chextools.records.records import Failure, Located


def square(x, y, width, height):
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def document(annotations, images=(1, 2)):
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 100, "width": 120} for n in images],
        "annotations": [{"id": n, "iscrowd": 0} | annotation for n, annotation in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": "Cardiomegaly"}, {"id": 2, "name": "Edema"}],
    }


def annotated(image, category, **more):
    return {"image_id": image, "category_id": category, "bbox": [60, 30, 20, 20]} | more


def read(value):
    return list(read_stream(io.BufferedReader(io.BytesIO(json.dumps(value).encode())), "x.json"))


def areas(record):
    return {task: Mask.from_rle(rle).area for task, rle in record["masks"].items()}


@pytest.mark.parametrize("images", [(1, 2), (2, 1)])
def test_one_bad_annotation_costs_only_its_category_of_its_image(images):
    bad = annotated(1, 2, segmentation=[[1, 2, 3]])
    fine = annotated(1, 1, segmentation=square(10, 20, 30, 40))
    found = {item.record["id"]: item.record for item in read(document([bad, fine], images))}
    assert areas(found["1"]) == {"Cardiomegaly": 1200}
    assert found["1"]["failed"] == {
        "Edema": "annotation 1: a COCO polygon must be a flat list of at least three x, y pairs"
    }
    assert areas(found["2"]) == {"Cardiomegaly": 0, "Edema": 0}


@pytest.mark.parametrize("segmentation", [{}, {"segmentation": []}, {"segmentation": None}, {"segmentation": [[]]}])
def test_an_annotation_without_outline_is_its_box(segmentation, caplog):
    first, _ = read(document([annotated(1, 2, **segmentation)]))
    assert areas(first.record)["Edema"] == 400
    assert first.record["kind"] == "box"
    assert "1 annotations have a box and no outline" in caplog.text


def test_only_some_categories_are_boxes():
    first, _ = read(document([annotated(1, 2), annotated(1, 1, segmentation=square(1, 1, 3, 3))]))
    assert first.record["kind"] == {"Edema": "box"}


def test_what_reaches_a_little_outside_is_clipped_and_said(caplog):
    """Equal to COCO's own drawing on a larger image."""
    slanted = [[-3.2, 20.0, 40.0, 25.0, 44.5, 60.0, -3.2, 104.0]]
    first, _ = read(document([annotated(1, 1, segmentation=slanted)]))
    moved = [[v + 10 for v in slanted[0]]]
    whole = cocomask.decode(cocomask.frPyObjects(moved, 120, 140))[10:110, 10:130, 0]
    assert Mask.from_rle(first.record["masks"]["Cardiomegaly"]) == Mask.from_array(whole)
    assert "1 outlines reach outside their image: clipped" in caplog.text


def test_what_reaches_far_outside_is_of_another_image():
    first, _ = read(document([annotated(1, 1, segmentation=square(300, 300, 40, 40))]))
    assert "reaches 240 pixels outside the image of 100 x 120" in first.record["failed"]["Cardiomegaly"]


@pytest.mark.parametrize("stranger, said", [(annotated(99, 1), "image 99"), (annotated(1, 7), "category 7")])
def test_an_annotation_of_nothing_listed_is_one_failure(stranger, said):
    *found, failure = read(document([stranger, annotated(1, 1, segmentation=square(1, 1, 9, 9))]))
    assert failure == Failure("x.json: COCO: annotation 1", f"{said} is not listed")
    assert [areas(item.record)["Cardiomegaly"] for item in found] == [81, 0]


def test_two_names_of_one_task_are_one():
    value = document([annotated(1, 1, segmentation=square(1, 1, 9, 9)), annotated(1, 2)])
    value["categories"] = [{"id": 1, "name": "Lung Opacity"}, {"id": 2, "name": "Airspace Opacity"}]
    assert areas(read(value)[0].record) == {"Airspace Opacity": 481}


def records():
    """Two images; in the second one of the two tasks is empty."""
    masks = [Mask.from_array(cocomask.decode(cocomask.frPyObjects(square(*box), 90, 80))[..., 0]) for box in
             ([10, 10, 30, 40], [20, 30, 50, 30], [5, 5, 60, 60])]  # fmt: skip
    empty = Mask.empty((90, 80))
    pairs = [(masks[0], masks[1]), (masks[2], empty)]
    for number, (edema, mass) in enumerate(pairs):
        yield {
            "id": f"p{number}",
            "size": [90, 80],
            "scores": {"Edema": 0.9, "Mass": 0.3},
            "masks": {"Edema": edema.to_rle(), "Mass": mass.to_rle()},
        }


def test_ours_reads_back_as_it_was():
    again = [item.record for item in read(coco.document_of(records())) if isinstance(item, Located)]
    assert [record["masks"] for record in again] == [record["masks"] for record in records()]
    assert not any("kind" in record for record in again)


def test_results_take_the_numbers_of_another_data_set(cli, tmp_path):
    masks = [next(iter(records()))]
    theirs = {
        "images": [{"id": 17, "file_name": "imgs/p0.png", "height": 90, "width": 80}],
        "annotations": [],
        "categories": [{"id": 5, "name": "Edema"}],
    }
    theirs["images"][0]["record"] = "p0"
    (tmp_path / "theirs.json").write_text(json.dumps(theirs))
    lines = "".join(json.dumps(record) + "\n" for record in [*masks, masks[0] | {"id": "p9"}])
    options = ["--format", "coco-results", "--like", tmp_path / "theirs.json"]
    result = cli("chex-segment", *options, stdin=lines.encode())
    (found,) = json.loads(result.out)
    assert (found["image_id"], found["category_id"], found["score"]) == (17, 5, 0.9)
    assert "left out: 1 CXR (p9)" in result.err


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_truth_against_itself_has_an_average_precision_of_one(kind, tmp_path):
    """Results and data set are written by runs that know nothing of each other, in different orders."""
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(coco.document_of(records())))
    results = list(coco.results_of(reversed(list(records()))))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO(str(truth))
        evaluation = COCOeval(dataset, dataset.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == 1.0
    assert all(annotation["iscrowd"] == 0 for annotation in dataset.anns.values())


def test_two_categories_of_one_id_are_refused():
    value = document([annotated(1, 1)])
    value["categories"].append({"id": 1, "name": "Mass"})
    with pytest.raises(InputError, match="x.json: COCO: two categories have one id"):
        read(value)
    value["categories"][-1]["name"] = "Cardiomegaly"
    assert [item.record["id"] for item in read(value)] == ["1", "2"]


@pytest.mark.parametrize("sides", [{}, {"height": 10**5, "width": 10**5}, {"height": 100}])
def test_an_image_without_a_size_costs_itself_and_says_so(sides):
    value = document([annotated(1, 1)])
    value["images"][0] = {"id": 1, "file_name": "1.png"} | sides
    first, second = read(value)
    assert isinstance(first, Failure) and first.reason.startswith("its size ") and isinstance(second, Located)
