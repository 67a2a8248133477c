"""CSV files of boxes and of runs: which columns are whose, and what each row says, without files."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.inputs import boxes, runs_csv, truth_csv
from chextools.masks.shapes import Box, Runs
from chextools.records.record import DRAWING
from chextools.records.records import Failure


def read(text: str) -> tuple[dict[str, dict], list[Failure]]:
    """(records by id, failures)."""
    found = list(truth_csv.records_of([line.encode() for line in text.splitlines(keepends=True)], "t.csv"))
    failures = [item for item in found if isinstance(item, Failure)]
    return {item["id"]: item for item in found if not isinstance(item, Failure)}, failures


def mask(record: dict, task: str, size=None) -> np.ndarray:
    return record[DRAWING].mask(task, size).to_array()


@pytest.mark.parametrize(
    "header, module, reader",
    [
        ("image index,finding label,bbox [x,y,w,h]", boxes, "_nih"),
        ("patientid,x,y,width,height,target", boxes, "_rsna"),
        ("image_id,rad_id,class_name,x_min,y_min,x_max,y_max", boxes, "_vindr"),
        ("image_id,x_min,y_min,x_max,y_max", boxes, None),
        ("imageid,encodedpixels", runs_csv, "_kaggle"),
        ("image_id,left lung,height,width", runs_csv, "_chexmask"),
        ("image_id,left lung", runs_csv, None),
        ("encodedpixels", runs_csv, None),
    ],
)
def test_a_reader_is_told_by_its_columns(header, module, reader):
    found = module.reader_of(header.split(","))
    assert (found and found.__name__) == reader
    assert truth_csv.is_truth(header.upper().split(",")) is (reader is not None)


# Boxes


def test_nih():
    records, failures = read(
        "Image Index,Finding Label,Bbox [x,y,w,h]\n1.png,Infiltrate,1.5,2,3,4\n1.png,Effusion,5,6,7,8\n"
        "1.png,Infiltrate,1.5,2,3,4\n2.png,Mass,1,2,-3,4\n,Mass,1,2,3,4\n"
    )
    drawing = records["1"][DRAWING]
    assert drawing.readers == {"": {"Infiltration": [Box(1.5, 2, 3, 4)], "Pleural Effusion": [Box(5, 6, 7, 8)]}}
    assert (drawing.size, drawing.is_assumed, drawing.tasks) == ((1024, 1024), True, ())
    assert records["2"]["failed"] == {"Mass": "t.csv:5: a box of -3 x 4 pixels has no area"}
    assert [failure.where for failure in failures] == ["t.csv:6"]


def test_nih_without_its_four_columns():
    with pytest.raises(InputError, match="t.csv: no four columns of a box"):
        read("Image Index,Finding Label,x,y,w\n1.png,Mass,1,2,3\n")


def test_rsna():
    records, _ = read(
        "patientId,x,y,width,height,Target\na,1,2,3,4,1\na,5,6,7,8,1\nb,,,,,0\nc,1,2,3,4,0\nd,1,2,3,4,2\n"
    )
    assert records["a"][DRAWING].readers[""]["Pneumonia"] == [Box(1, 2, 3, 4), Box(5, 6, 7, 8)]
    assert mask(records["a"], "Pneumonia").sum() == 3 * 4 + 7 * 8 and not mask(records["b"], "Pneumonia").any()
    assert records["c"]["failed"] == {"Pneumonia": "t.csv:5: Target is 0, but there is a box"}
    assert records["d"]["failed"] == {"Pneumonia": "t.csv:6: Target is 2; it must be 0 or 1"}


def test_vindr_has_corners_and_readers():
    records, failures = read(
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max,dim0,dim1\n"
        "a,R1,Nodule/Mass,1,2,4,6,10,12\na,R2,No finding,,,,,10,12\na,R3,Nodule/Mass,2,2,4,6,10,12\n"
        "b,R1,ILD,5,5,5,9,10,12\na,R1,ILD,1,1,2,2,10,13\n"
    )
    drawing = records["a"][DRAWING]
    assert list(drawing.readers) == ["R1", "R2", "R3"] and drawing.readers["R1"] == {"Nodule/Mass": [Box(1, 2, 3, 4)]}
    expected = np.zeros((10, 12), bool)
    expected[2:6, 2:4] = True  # two of three
    np.testing.assert_array_equal(mask(records["a"], "Nodule/Mass"), expected)
    assert not mask(records["a"], "ILD").any()  # every reader looked for what the file has
    assert "no area" in records["b"]["failed"]["ILD"]
    assert [f.reason for f in failures] == ["a has two sizes: (10, 12) and (10, 13)"]


# Runs


def test_runs_relative_and_absolute_by_hand():
    """Columns first: 3 rows. `2 2 5 1` is 2 on after pixel 2 and 1 after 5 more, or pixels 2, 3 and 5 from 1 on."""
    header = "ImageId,EncodedPixels {},Height,Width\na,2 2 5 1,3,4\n"
    relative, absolute = (read(header.format(form))[0]["a"] for form in ("relative", "absolute"))
    flat = mask(relative, "Pneumothorax").ravel(order="F")
    assert np.flatnonzero(flat).tolist() == [2, 3, 9]
    assert np.flatnonzero(mask(absolute, "Pneumothorax").ravel(order="F")).tolist() == [1, 2, 4]


@pytest.mark.parametrize(
    "runs, form",
    [
        ("5 3 2 1", "relative"),  # as absolute ones they would go back
        ("1 2 1048577 1", "absolute"),  # as relative ones they would leave an image of 1024 x 1024
        ("1 1 3 1 5 1 7 1 9 1", "absolute"),  # five that each start behind the one before
    ],
)
def test_the_form_of_runs_is_told_by_where_they_lie(runs, form):
    records, _ = read(f"ImageId,EncodedPixels\nx,{runs}\n")
    assert records["x"][DRAWING].readers[""]["Pneumothorax"] == [Runs(runs, form)]


def test_runs_that_could_be_either_are_refused_unless_the_set_is_known():
    with pytest.raises(InputError, match="name the column 'EncodedPixels relative' or 'EncodedPixels absolute'"):
        read("ImageId,EncodedPixels\nx,1 2 3 4\n")
    records, _ = read("ImageId,EncodedPixels\nx,1 2 3 4\ny,-1\n")  # -1 is SIIM-ACR's
    assert records["x"][DRAWING].readers[""]["Pneumothorax"] == [Runs("1 2 3 4", "relative")]
    assert not mask(records["y"], "Pneumothorax").any() and mask(records["y"], "Pneumothorax").shape == (1024, 1024)


def test_our_own_runs_come_back_by_class():
    text = ",".join(runs_csv.COLUMNS) + "\na,2,3,Mass,1 2\na,2,3,Edema,\n"
    records, _ = read(text)
    np.testing.assert_array_equal(mask(records["a"], "Mass"), [[1, 0, 0], [1, 0, 0]])
    assert not mask(records["a"], "Edema").any()


def test_chexmask_goes_by_rows_and_needs_a_size():
    records, failures = read("image_id,Left Lung,Heart,Height,Width\na,1 2 5 1,-1,2,4\nb,1 2,,,\nc,1 9,,2,4\n")
    np.testing.assert_array_equal(mask(records["a"], "Left Lung"), [[1, 1, 0, 0], [1, 0, 0, 0]])
    assert not mask(records["a"], "Heart").any() and records["a"]["size"] == [2, 4]
    assert [f.reason for f in failures] == ["no Height and Width"]
    with pytest.raises(InputError):
        mask(records["c"], "Left Lung")


# Neither


def test_columns_are_compared_without_case_and_cells_without_blanks():
    records, _ = read("PatientID,X,y,width,height,TARGET\n a , 1 ,2,3,4, 1\n")
    assert records["a"][DRAWING].readers[""]["Pneumonia"] == [Box(1, 2, 3, 4)]


@pytest.mark.parametrize(
    "header, said",
    [("Path,Edema", "a CSV of labels: it says what is there, but not where"), ("a,b", "neither JSON, XML nor a CSV")],
)
def test_a_csv_of_something_else(header, said):
    assert not truth_csv.is_truth(header.split(","))
    with pytest.raises(InputError, match=f"t.csv: {said}"):
        read(f"{header}\n1,2\n")


def test_a_row_that_cannot_be_read_fails_alone():
    records, failures = read("patientId,x,y,width,height,Target\na,1,2,3,4,1,9,9\nb,,,,,0\n")
    assert list(records) == ["b"] and [failure.where for failure in failures] == ["t.csv:2"]
