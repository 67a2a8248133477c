"""What is drawn, as annotation tools write it: each tool's shapes and names, from its document to the right pixels."""

from __future__ import annotations

import base64
import io
import math
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from PIL import Image

from chextools.errors import InputError
from chextools.inputs import cvat, drawn, foreign, label_studio, labelme, truth_xml, via, voc
from chextools.masks.drawing import Drawing
from chextools.masks.mask import Mask
from chextools.masks.shapes import Box, Ellipse, Painted, Polygon
from chextools.records.record import DRAWING
from chextools.records.records import Failure

TRIANGLE = [[5.0, 5.0], [30.0, 8.0], [12.0, 25.0]]


def sorted_out(items) -> tuple[dict[str, dict], list[Failure]]:
    """(records by id, failures)."""
    items = list(items)
    return {r["id"]: r for r in items if not isinstance(r, Failure)}, [f for f in items if isinstance(f, Failure)]


def shapes(record: dict, reader: str = "") -> dict:
    return record[DRAWING].readers[reader]


# CVAT


def cvat_image(*parts: str, size='width="50" height="40"') -> dict:
    text = f'<annotations><image name="a/p1.png" {size}>{"".join(parts)}</image></annotations>'
    return sorted_out(cvat.records_of(fromstring(text), "x.xml"))


def test_cvat_shapes():
    box = '<box label="Mass" xtl="2" ytl="3" xbr="6" ybr="8"/>'
    polygon = '<polygon label="Nodule" points="5,5;30,8;12,25"/>'
    ellipse = '<ellipse label="Edema" cx="20" cy="10" rx="5" ry="3" rotation="90"/>'
    (record,) = cvat_image(box, polygon, ellipse)[0].values()
    assert shapes(record) == {
        "Mass": [Box(2, 3, 4, 5)],
        "Nodule": [Polygon.of(TRIANGLE)],
        "Edema": [Ellipse(20, 10, 5, 3, 90)],
    }
    assert record["id"] == "a_p1" and record["size"] == [40, 50]


def test_a_box_of_cvat_is_turned_about_its_middle():
    (record,) = cvat_image('<box label="Mass" xtl="10" ytl="20" xbr="30" ybr="24" rotation="90"/>')[0].values()
    assert shapes(record)["Mass"][0].bounds == pytest.approx((18, 12, 22, 32))


def test_a_mask_of_cvat_goes_by_rows_in_its_box():
    record = cvat_image('<mask label="Mass" rle="1, 2, 2, 1" left="7" top="9" width="3" height="2"/>')[0]["a_p1"]
    found = record[DRAWING].mask("Mass").to_array()
    np.testing.assert_array_equal(found[9:11, 7:10], [[0, 1, 1], [0, 0, 1]])
    assert found.sum() == 3


@pytest.mark.parametrize(
    "part, reason",
    [
        ('<mask label="Mass" rle="1,2" left="0" top="0" width="3" height="2"/>', "add up to 3, but its box has 6"),
        ('<mask label="Mass" rle="1,-1" left="0" top="0" width="3" height="2"/>', "lengths of runs"),
        ('<polygon label="Mass" points="1,2;3"/>', "points"),
        ('<box label="Mass" xtl="2" ytl="3" xbr="2" ybr="8"/>', "no area"),
    ],
)
def test_a_shape_of_cvat_that_is_none_costs_its_task(part, reason):
    records, failures = cvat_image('<box label="Edema" xtl="2" ytl="3" xbr="6" ybr="8"/>', part)
    (record,) = records.values()
    assert list(record["failed"]) == ["Mass"] and not failures
    assert list(shapes(record)) == ["Edema"] and reason in record["failed"]["Mass"]


def test_cvat_without_a_size_and_of_a_video():
    records, (failure,) = cvat_image(size='width="50"')
    assert not records and failure.where == "image 1"
    with pytest.raises(InputError, match="export them as 'CVAT for images'"):
        list(cvat.records_of(fromstring("<annotations><track/></annotations>"), "x.xml"))


# Pascal VOC


def test_voc_counts_pixels_from_1_and_holds_both_ends():
    one = "<object><name>Mass</name><bndbox><xmin>3</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>"
    text = f"<annotation><filename>C:\\x\\p1.jpg</filename>{one}<object><bndbox/></object></annotation>"
    records, (failure,) = sorted_out(voc.records_of(fromstring(text), "x.xml"))
    assert shapes(records["p1"]) == {"Mass": [Box(2, 1, 1, 3)]} and records["p1"][DRAWING].size is None
    assert failure.where == "object 2"


# XML of either


def test_xml_goes_to_whose_it_is():
    parts = [b"<annotation><file", b"name>p1.jpg</filename></annotation>"]  # as they come from a stream
    assert [record["id"] for record in truth_xml.records_of(parts, "x.xml")] == ["p1"]
    assert truth_xml.parse([b"<a><b c='1'>t</b></a>"], "x.xml").find("b").attrib == {"c": "1"}


@pytest.mark.parametrize(
    "text, said",
    [
        (b"<!DOCTYPE a><a/>", "document type or entities"),
        (b"<a>" * 51, "nested more than 50 deep"),
        (b"<a></b>", "not XML: mismatched tag"),
        (b"", "not XML: no element found"),
        (b"<svg/>", "neither CVAT's"),
    ],
)
def test_xml_that_is_refused_names_its_file(text, said):
    with pytest.raises(InputError, match=f"x.xml: .*{said}"):
        list(truth_xml.records_of([text], "x.xml"))


def test_xml_has_a_bound(monkeypatch):
    monkeypatch.setattr(truth_xml, "_MOST", 10)
    with pytest.raises(InputError, match="XML of more than 10 bytes"):
        truth_xml.parse(iter([b"<a>", b"12345678"]), "x.xml")


# LabelMe


def labelme_of(*given: dict, **more) -> tuple[dict, list]:
    document = {"shapes": list(given), "imagePath": "..\\x\\p1.jpg", "imageHeight": 40, "imageWidth": 50} | more
    assert labelme.is_labelme(document)
    return sorted_out(labelme.records_of(document, "p1.json"))


def test_labelme_shapes():
    records, _ = labelme_of(
        {"label": "Mass", "points": TRIANGLE},
        {"label": "Edema", "points": [[40, 30], [20, 10]], "shape_type": "rectangle"},
        {"label": "Nodule", "points": [[20, 20], [23, 24]], "shape_type": "circle"},
    )
    expected = {"Mass": [Polygon.of(TRIANGLE)], "Edema": [Box(20, 10, 20, 20)], "Nodule": [Ellipse(20, 20, 5, 5)]}
    assert shapes(records["p1"]) == expected and records["p1"]["size"] == [40, 50]


def test_a_mask_of_labelme_lies_at_its_corner():
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 255], [255, 255]], np.uint8)).save(stream, "PNG")
    shape = {"label": "Mass", "points": [[3, 4], [4, 5]], "shape_type": "mask"}
    shape["mask"] = base64.b64encode(stream.getvalue()).decode()
    found = labelme_of(shape)[0]["p1"][DRAWING].mask("Mass").to_array()
    assert np.argwhere(found).tolist() == [[4, 4], [5, 3], [5, 4]]
    unsized = labelme_of(shape, imageHeight=None)[0]["p1"]
    assert unsized["failed"] == {"Mass": "shape 1: a mask, but no imageHeight and imageWidth"}


@pytest.mark.parametrize(
    "shape, reason",
    [
        ({"points": [[1, 1], [2, 2]], "shape_type": "line"}, "a 'line' has no area"),
        ({"points": [[1, 1]], "shape_type": "circle"}, "a circle needs two points"),
        ({"points": [[1, 1], [2, 2]], "shape_type": "mask", "mask": "*"}, "the mask is no base64"),
        ({"points": [[1, 1], [2, 2]]}, "at least three points"),
    ],
)
def test_a_shape_of_labelme_that_is_none(shape, reason):
    records, failures = labelme_of({"label": "Mass"} | shape, {"points": TRIANGLE}, "x")
    assert reason in records["p1"]["failed"]["Mass"]
    assert [failure.where for failure in failures] == ["shape 2", "shape 3"]  # without a label; no object


# VIA


def via_of(*regions: dict) -> tuple[dict, list]:
    document = {"p1.png99": {"filename": "p1.png", "regions": list(regions)}}
    assert via.is_via(document) and via.is_via({"_via_img_metadata": document})
    return sorted_out(via.records_of(document, "via.json"))


def via_region(said: dict, **shape) -> dict:
    return {"shape_attributes": shape, "region_attributes": said}


@pytest.mark.parametrize(
    "shape, expected",
    [
        ({"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}, Box(1, 2, 3, 4)),
        ({"name": "circle", "cx": 1, "cy": 2, "r": 3}, Ellipse(1, 2, 3, 3)),
        ({"name": "polygon", "all_points_x": [5, 30, 12], "all_points_y": [5, 8, 25]}, Polygon.of(TRIANGLE)),
    ],
)
def test_via_shapes(shape, expected):
    assert shapes(via_of(via_region({"label": "Mass"}, **shape))[0]["p1"]) == {"Mass": [expected]}


def test_via_turns_an_ellipse_by_radians():
    shape = {"name": "ellipse", "cx": 1, "cy": 2, "rx": 3, "ry": 4, "theta": math.pi / 3}
    (found,) = shapes(via_of(via_region({"label": "Mass"}, **shape))[0]["p1"])["Mass"]
    assert found.degrees == pytest.approx(60)


@pytest.mark.parametrize(
    "said, tasks",
    [
        ({"label": "Mass"}, ["Mass"]),
        ({"certain": "yes", "Finding": "Mass"}, ["Mass"]),  # the attribute called finding, whatever else is said
        ({"thing": "Mass"}, ["Mass"]),
        ({"label": {"Mass": True, "Edema": False, "Nodule": True}}, ["Mass", "Nodule"]),
    ],
)
def test_via_names_findings_in_many_ways(said, tasks):
    box = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
    assert list(shapes(via_of(via_region(said, **box))[0]["p1"])) == tasks


@pytest.mark.parametrize(
    "region, where, reason",
    [
        (via_region({}, name="rect"), None, "region 1 does not say what it is"),
        (via_region({"label": "Mass"}, name="point"), "Mass", "a 'point' has no area"),
        (via_region({"label": "Mass"}, name="polygon", all_points_x=[1], all_points_y=[]), "Mass", "as many x as y"),
    ],
)
def test_a_region_of_via_that_is_none(region, where, reason):
    records, failures = via_of(region)
    assert reason in (records["p1"]["failed"][where] if where else failures[0].reason)


# Label Studio


def studio_of(*results: dict, person: object = None, image="/data/upload/1/0a1b2c3d-p1.png") -> tuple[dict, list]:
    task = {"data": {"image": image}, "annotations": [{"completed_by": person, "result": list(results)}]}
    assert label_studio.is_label_studio([task])
    return sorted_out(label_studio.records_of([task], "x.json"))


def result(kind: str, **value) -> dict:
    return {"type": kind, "value": value | {kind: ["Mass"]}, "original_width": 50, "original_height": 40}


@pytest.mark.parametrize(
    "given, expected",
    [
        (result("rectanglelabels", x=4, y=10, width=20, height=50), Box(2, 4, 10, 20)),
        (result("ellipselabels", x=50, y=50, radiusX=20, radiusY=10, rotation=30), Ellipse(25, 20, 10, 4, 30)),
        (result("polygonlabels", points=[[10, 12.5], [60, 20], [24, 62.5]]), Polygon.of(TRIANGLE)),
    ],
)
def test_label_studio_counts_in_percent(given, expected):
    assert shapes(studio_of(given)[0]["p1"]) == {"Mass": [expected]}


def test_a_rectangle_of_label_studio_is_turned_about_its_corner():
    (found,) = shapes(studio_of(result("rectanglelabels", x=50, y=50, width=20, height=10, rotation=90))[0]["p1"])[
        "Mass"
    ]
    assert found.bounds == pytest.approx((21, 20, 25, 30))  # 10 x 4 pixels, upright, to the left of (25, 20)


@pytest.mark.parametrize(
    "image, identifier",
    [
        ("/data/upload/1/0a1b2c3d-p1.png", "p1"),
        ("/data/local-files/?d=cxr/p%201.png", "p 1"),
        ("https://x.org/p1.png?key=1", "p1"),
        ("0a1b2c3d-p1.png", "0a1b2c3d-p1"),  # nobody uploaded it: that is its name
    ],
)
def test_label_studio_names_images_in_many_ways(image, identifier):
    assert list(studio_of(result("rectanglelabels", x=4, y=10, width=20, height=50), image=image)[0]) == [identifier]


@pytest.mark.parametrize("person, reader", [(None, ""), (3, "3"), ({"id": 3, "email": "a@b.org"}, "a@b.org")])
def test_label_studio_says_who_drew(person, reader):
    record = studio_of(result("rectanglelabels", x=4, y=10, width=20, height=50), person=person)[0]["p1"]
    assert list(record[DRAWING].readers) == [reader]


def test_a_brush_by_hand():
    """4 x 1 pixels of four channels; values of 8 bits, lengths of 3, 4, 8 and 16 bits.

    Eight zeros (1 run, length 3 bits: 7), then eight of 255.
    """
    head = f"{16:032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    bits = f"{head}100111{0:08b}100111{255:08b}"
    bits += "0" * (-len(bits) % 8)
    codes = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert label_studio.brush(codes, (1, 4)).to_array().tolist() == [[False, False, True, True]]
    for given, reason in (
        (codes[:9], "cut"),
        (codes, "16 values in an image of 4 x 4"),
        ([256], "numbers from 0 to 255"),
        ([], "without rle"),
    ):
        with pytest.raises(InputError, match=reason):
            label_studio.brush(given, (4, 4) if reason.startswith("16") else (1, 4))


# What they share


@pytest.mark.parametrize(
    "name, identifier", [("a/b/p1.png", "a_b_p1"), ("x\\p1.jpg", "x_p1"), ("1.2.840.77", "1.2.840.77")]
)
def test_the_id_of_an_image(name, identifier):
    assert drawn.id_of_image(name) == identifier


@pytest.mark.parametrize(
    "name, task",
    [
        ("edema", "Edema"),
        ("lung_opacity", "Airspace Opacity"),
        (" Mass ", "Mass"),
        ("PLEURAL EFFUSION", "Pleural Effusion"),
    ],
)
def test_a_finding_has_chexperts_name_however_it_is_spelled(name, task):
    assert drawn.task_of(name) == task
    for none in ("", " ", None, 3):
        with pytest.raises(InputError, match="no finding is named"):
            drawn.task_of(none)


def test_a_drawing_becomes_masks_and_keeps_readers_and_kind():
    drawing = Drawing(readers={"a": {"Mass": [Box(0, 0, 2, 2)]}, "b": {"Mass": [Box(0, 0, 2, 2)]}}, size=(3, 4))
    found = drawn.with_masks(drawn.record_of("x", drawing))
    assert found["kind"] == "box" and found["size"] == [3, 4] and DRAWING not in found
    assert {reader: Mask.from_rle(own["Mass"]).area for reader, own in found["readers"].items()} == {"a": 4, "b": 4}
    again = drawn.drawing_of(found)
    assert again.mask("Mass") == drawing.mask("Mass") and isinstance(again.readers["a"]["Mass"][0], Painted)


def test_tasks_are_renamed_wherever_they_stand():
    drawing = Drawing(readers={"": {"Mass": [Box(0, 0, 2, 2)], "Edema": []}}, size=(3, 4), tasks=("Mass",))
    found = drawn.renamed({"id": "x", "failed": {"Mass": "no"}, DRAWING: drawing}, {"Mass": "Lesion"})
    assert found["failed"] == {"Lesion": "no"} and found[DRAWING].names == ["Lesion", "Edema"]
    with pytest.raises(InputError, match="two tasks are called Edema"):
        drawn.renamed({"id": "x", DRAWING: drawing}, {"Mass": "Edema"})


@pytest.mark.parametrize(
    "document, tool",
    [
        ({"shapes": [], "imagePath": "p1.png"}, labelme),
        ({"p1": {"filename": "p1.png", "regions": []}}, via),
        ([{"data": {"image": "p1.png"}, "annotations": [{}]}], label_studio),
    ],
)
def test_a_document_goes_to_whose_it_is(document, tool):
    assert [record["id"] for record in foreign.of_document(document, "x.json")] == ["p1"]
    assert [record["id"] for record in tool.records_of(document, "x.json")] == ["p1"]
    assert foreign.of_document({"id": "p1"}, "x.json") is None
