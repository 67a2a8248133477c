"""Inputs are told apart by content, and what is broken is said in one line."""

from __future__ import annotations

import gzip
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chextools.errors import InputError
from chextools.inputs import inputs
from chextools.plumbing import jsontext
from chextools.records import records
from chextools.records.ids import id_of_path
from chextools.records.records import Failure, Located

RLE = {"size": [2, 3], "counts": [6]}


def read(data: bytes | str) -> list:
    data = data.encode() if isinstance(data, str) else data
    return list(inputs.read("-", io.BytesIO(data)))


def one(data: bytes | str) -> dict:
    (item,) = read(data)
    assert isinstance(item, Located), item
    return item.record


@pytest.mark.parametrize(
    "document, record",
    [
        ({"id": "a", "heatmap": "a.npz"}, {"id": "a", "heatmap": "a.npz"}),
        ({"a": {"Edema": RLE}}, {"id": "a", "masks": {"Edema": RLE}}),
        ({"a": {"Lung Opacity": RLE}}, {"id": "a", "masks": {"Airspace Opacity": RLE}}),
        ({"a": {}}, {"id": "a", "masks": {}}),
        ({"a": {"Edema": [[1, 2]]}}, {"id": "a", "points": {"Edema": [[1, 2]]}}),
        (
            {"a": {"img_size": [2, 3], "Edema": [[[0, 0], [1, 0], [1, 1]]]}},
            {"id": "a", "size": [2, 3], "outlines": {"Edema": [[[0, 0], [1, 0], [1, 1]]]}},
        ),
    ],
)
@pytest.mark.parametrize("form", ["line", "indented", "gzip"])
def test_kinds(document, record, form):
    text = json.dumps(document, indent=1 if form == "indented" and "id" not in document else None).encode()
    assert one(gzip.compress(text) if form == "gzip" else text) == record


def test_coco():
    image = {"id": 7, "file_name": "train/patient1/study2/view1_frontal.jpg", "height": 4, "width": 5}
    square = {"image_id": 7, "category_id": 3, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}
    categories = [{"id": 3, "name": "Edema"}, {"id": 4, "name": "Lung Opacity"}]
    record = one(json.dumps({"images": [image], "annotations": [square], "categories": categories}))
    assert record["id"] == "patient1_study2_view1_frontal"
    from chextools.masks.mask import Mask

    assert {task: Mask.from_rle(rle).area for task, rle in record["masks"].items()} == {
        "Edema": 4,
        "Airspace Opacity": 0,
    }


@pytest.mark.parametrize(
    "data, reason",
    [
        ("hello", "neither JSON, XML nor a CSV of boxes or run lengths"),
        ('{"a": {"Edema": ', "truncated JSON"),
        ('{"a": 1, "b": [2]}', "neither records nor masks"),
        ('{"a": {"Edema": RLE}}', "not JSON"),
        ('{"a": {}, "a": {}}', "the key 'a' stands twice"),
        ("[]", "COCO results name neither images nor categories"),
        ('{"images": [{"id": 1}], "annotations": []}', "COCO: missing or unknown 'categories'"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (gzip.compress(b'{"a": {"Edema": []}}', mtime=0)[:-9], "stdin: "),
    ],
)
def test_a_document_that_cannot_be_used_is_one_line(data, reason):
    with pytest.raises(InputError) as error:
        read(data)
    assert reason in str(error.value) and str(error.value).startswith("stdin: ")
    assert "\n" not in str(error.value)


def test_a_broken_first_line_does_not_hide_that_lines_follow():
    first, second = read('{"id": "a", "heatm\n{"id": "b"}\n')
    assert first == Failure("stdin:1", "truncated JSON")
    assert second.record == {"id": "b"}


def test_blank_lines_are_nothing():
    assert [item.where for item in read('\n{"id": "a"}\n\n{"id": "b"}\n')] == ["stdin:2", "stdin:4"]
    assert read("\n\n") == []


@pytest.mark.parametrize(
    "path, identifier",
    [
        ("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg", "patient64541_study1_view1_frontal"),
        ("a/b.png", "a_b"),
        ("./x.jpg", "x"),
        ("/data/patients/patient7/s.1/v.jpeg", "patient7_s.1_v"),
    ],
)
def test_id_of_path(path, identifier):
    assert id_of_path(path) == identifier


@pytest.mark.parametrize("identifier", ["../x", "a/b", "", ".", "..", "a\0b", "a\nb", 7, None, "x" * 300])
def test_ids_are_plain_names(identifier):
    with pytest.raises(InputError):
        records.check_id(identifier)


def test_undecodable_bytes_survive_the_pipeline():
    record = {"id": "a", "image": b"caf\xe9\n.png".decode("utf-8", "surrogateescape")}
    line = jsontext.dumps(record)
    assert line.isascii() and "\n" not in line
    assert jsontext.loads(line) == record


def test_numbers_that_are_not_finite_become_null():
    assert jsontext.dumps({"a": [float("nan"), 1.5], "b": float("inf")}) == '{"a": [null, 1.5], "b": null}'


def test_keys_are_written_in_order_and_unknown_ones_last():
    assert list(records.ordered({"x": 1, "masks": {}, "id": "a", "size": [1, 1]})) == ["id", "size", "masks", "x"]


@pytest.mark.parametrize(
    "identifier, patient", [("patient7_study1", "patient7"), ("patient7", "patient7"), ("scan_1", "scan_1")]
)
def test_patient_of_an_id(identifier, patient):
    assert records.patient({"id": identifier}) == patient
    assert records.patient({"id": identifier, "patient": "p"}) == "p"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(["id", "size", "masks", "heatmap", "img_size", "images", "annotations", "Edema", "counts", "a"])
documents = json_values | st.dictionaries(keys, json_values | st.dictionaries(keys, json_values))


@settings(max_examples=500, deadline=None)
@given(st.lists(documents.map(json.dumps).map(str.encode) | st.binary(max_size=30), max_size=3).map(b"\n".join))
def test_fuzzed_input_gives_records_or_one_line(data):
    try:
        for item in read(data):
            reason = item.reason if isinstance(item, Failure) else jsontext.dumps(item.record)
            assert "\n" not in reason
    except InputError as error:
        assert "\n" not in str(error)
