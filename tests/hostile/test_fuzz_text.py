"""Whatever the text, its readers return or raise InputError, every failure is a short line, and time is bounded.

FUZZ_EXAMPLES in the environment sets how many texts each reader is given.
"""

from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chextools.errors import InputError
from chextools.inputs import image_lists, inputs
from chextools.inputs.truth import masks_of, read_truth
from chextools.metrics import overlap
from chextools.plumbing import csvtext, jsontext, streams
from chextools.records.records import Failure, Located
from chextools.reporting import runs
from chextools.results import thresholds
from chextools.results.measured import read_measured

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "600"))
fuzz = settings(max_examples=EXAMPLES, deadline=20_000, suppress_health_check=list(HealthCheck))

RLE = {"size": [9, 9], "counts": "b07K1"}
OUTLINE = [[1, 1], [5, 1], [5, 5]]
DOCUMENTS = [
    {
        "id": "p0",
        "image": "a.jpg",
        "size": [9, 9],
        "labels": {"Edema": 1},
        "scores": {"Edema": 0.5},
        "masks": {"Edema": RLE},
    },
    {
        "id": "p1",
        "size": [9, 9],
        "outlines": {"Edema": [OUTLINE]},
        "failed": {"Mass": "why"},
        "flags": {"Edema": "flat"},
    },
    {"id": "p2", "points": {"Edema": [[1, 2]]}, "patient": "x", "iou": {"Edema": 0.5}, "hit": {"Edema": 1}},
    {"p0": {"img_size": [9, 9], "Edema": [OUTLINE]}, "p1": {"img_size": [9, 9]}},
    {"p0": {"Edema": RLE}, "p1": {"Edema": RLE}},
    {"p0": {"Edema": [[1, 2]]}, "p1": {"Edema": []}},
    {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 9, "width": 9}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]], "bbox": [1, 1, 4, 4]}
        ],
        "categories": [{"id": 1, "name": "Edema"}],
    },
    {"metric": "iou", "task": "Edema", "mean": 0.5, "lower": 0.1, "upper": 0.9, "n": 3},
    {"metric": "iou", "replicate": 1, "means": {"Edema": 0.5}},
    {"metric": "iou", "for": "threshold", "task": "Edema", "threshold": 0.5, "best": True},
    {
        "shapes": [{"label": "Edema", "points": OUTLINE, "shape_type": "polygon"}],
        "imagePath": "a.jpg",
        "imageHeight": 9,
        "imageWidth": 9,
    },
]
TABLES = [
    "Path,Sex,Age,Frontal/Lateral,AP/PA,Edema\na/patient00001/study1/view1_frontal.jpg,Male,60,Frontal,AP,1.0\n",
    "Image Index,Finding Labels,Patient ID,Patient Age,View Position\n00000001_000.png,Edema|Mass,1,58,PA\n",
    ",Edema,Lung Opacity,img_id\n0,0.5,,p0\n1,1.0,0,p1\n",
    "threshold,task\n0.5,Edema\n",
    "prob_threshold,mIoU,task\n0.5,0.3,Edema\n",
    "name,lower,mean,upper\nEdema,0.1,0.2,0.3\n",
    "Image Index,Finding Label,Bbox [x,y,w,h],,,\n00000001_000.png,Mass,1,2,3,4\n",
    "ImageId,EncodedPixels\na.dcm,1 5 10 3\n",
    "image_id,class_name,x_min,y_min,x_max,y_max\na,Edema,1,1,5,5\n",
]
SEEDS = [json.dumps(document).encode() + b"\n" for document in DOCUMENTS] + [table.encode() for table in TABLES]
SEEDS += [b"".join(SEEDS[:3]), SEEDS[0] * 2, json.dumps(DOCUMENTS[6], indent=1).encode()]
PIECES = [
    b"null",
    b"-1",
    b"1e999",
    b"9" * 400,
    b"[]",
    b"{}",
    b'""',
    b'"\\ud800"',
    b"[[[",
    b"}",
    b",",
    b"\r",
    b"\n",
    b"\0",
    b'"',
]
PIECES += [
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\x1f\x8b",
    b";",
    b"\t",
    b"NaN",
    b"true",
    b"Average",
    b"../../x",
    b"\xc2\xb2",
    b"\xa0",
]


@st.composite
def texts(draw):
    """One of the seeds, or two, with bytes replaced, inserted, repeated or cut out; perhaps as gzip or UTF-16."""
    data = bytearray(draw(st.sampled_from(SEEDS)) + (draw(st.sampled_from(SEEDS)) if draw(st.booleans()) else b""))
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 9)))
        changes = (st.binary(max_size=6), st.sampled_from(PIECES), st.just(bytes(data[start : start + 80]) * 3))
        data[start:stop] = draw(st.one_of(*changes))
    form = draw(st.sampled_from(["plain"] * 6 + ["gzip", "cut", "utf-16"]))
    if form == "utf-16":
        return data.decode("utf-8", "ignore").encode("utf-16")
    packed = gzip.compress(bytes(data)) if form in ("gzip", "cut") else bytes(data)
    return packed[: draw(st.integers(0, len(packed)))] if form == "cut" else packed


def short(items) -> list[dict]:
    """The records among the items, of which each failure is a short line."""
    found = []
    for item in items:
        assert isinstance(item, (Located, Failure))
        if isinstance(item, Failure):
            assert len(item.reason) < 3000 and item.where
        else:
            found.append(item.record)
    return found


def from_records(data: bytes, path: Path) -> None:
    for record in short(inputs.read_all(["-"], io.BytesIO(data))):
        assert record["id"] and "/" not in record["id"]
        jsontext.dumps(
            {key: value for key, value in record.items() if key != "drawing"} if "drawing" in record else record["id"]
        )


def from_truth(data: bytes, path: Path) -> None:
    truth = read_truth(str(path), io.BytesIO())
    for record in truth.records.values():
        masks_of(record, truth.tasks)
        for points in record.get("points", {}).values():
            overlap.pixels_of(points, (9, 9))


def from_x_rays(data: bytes, path: Path) -> None:
    for record in short(image_lists.read_image_lists(["-"], io.BytesIO(data))):
        assert record["id"] and record["image"]
        assert set(record.get("labels", {}).values()) <= {1, 0, -1}


def from_results(data: bytes, path: Path) -> None:
    for record in short(read_measured(str(path), io.BytesIO())):
        for values in record["values"].values():
            assert all(isinstance(value, float) for value in values.values())


def from_thresholds(data: bytes, path: Path) -> None:
    for read in (thresholds.read_thresholds, thresholds.read_cutoffs, thresholds.read_score_thresholds):
        try:
            assert all(0 <= value <= 1 for value in read(str(path)).values())
        except InputError as error:
            assert str(error).startswith(f"{path}")


def from_rows(data: bytes, path: Path) -> None:
    runs.read_runs([str(path)], io.BytesIO())


def from_lines(data: bytes, path: Path) -> None:
    stream = streams.as_utf8(io.BytesIO(data), "x")
    for _, value in jsontext.parsed_lines(streams.lines(stream, "x"), "x"):
        if not isinstance(value, InputError):
            assert jsontext.loads(jsontext.dumps(value)) == jsontext.finite(value)


def from_table(data: bytes, path: Path) -> None:
    table = csvtext.read_table(streams.as_utf8(io.BytesIO(data), "x"), "x")
    assert all(isinstance(row, InputError) or row.keys() == set(table.header) for _, row in table.rows())


READERS = [from_records, from_truth, from_x_rays, from_results, from_thresholds, from_rows, from_lines, from_table]


@pytest.mark.parametrize("reader", READERS)
def test_readers_of_text(reader, tmp_path):
    path = tmp_path / "iou_x.csv"

    @fuzz
    @given(texts())
    def fuzzed(data):
        path.write_bytes(data)
        try:
            reader(data, path)
        except InputError as error:
            assert len(str(error)) < 5000

    fuzzed()
