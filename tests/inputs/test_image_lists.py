"""Whatever lists X-rays becomes the same image records."""

from __future__ import annotations

import gzip
import io
import json
import os

import numpy as np
import pytest
from conftest import DATA
from PIL import Image

from chextools.errors import InputError
from chextools.inputs import image_lists, label_columns
from chextools.records.records import Failure, Located

CXRS = DATA / "cxr"


def read(source, stdin: bytes = b"", **options) -> list:
    return list(image_lists.read_image_lists([str(source)], io.BytesIO(stdin), **options))


def good(items: list) -> list[dict]:
    assert all(isinstance(item, Located) for item in items), items
    return [item.record for item in items]


def reasons(items: list) -> list[str]:
    return [f"{item.where}: {item.reason}" for item in items if isinstance(item, Failure)]


def touch(*paths) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path, format="PNG")


# CheXpert


def test_a_row_of_chexpert():
    first = good(read(CXRS / "valid.csv"))[0]
    assert list(first) == ["id", "image", "labels", "patient", "view", "split", "sex", "age", "projection"]
    assert first == {
        "id": "patient00001_study1_view1_frontal",
        "image": str(CXRS / "valid/patient00001/study1/view1_frontal.jpg"),  # CheXpert-v1.0 was dropped
        "labels": {"Cardiomegaly": 1, "Airspace Opacity": 0, "Edema": -1},
        "patient": "patient00001",
        "view": "frontal",
        "split": "valid",
        "sex": "Female",
        "age": 40,
        "projection": "AP",
    }


def test_blank_labels_are_missing_and_a_lateral_is_one():
    records = good(read(CXRS / "valid.csv"))
    assert records[1]["labels"] == {"Cardiomegaly": 0, "Edema": 0}
    assert records[3]["labels"] == {}
    assert (records[6]["view"], "projection" in records[6]) == ("lateral", False)


def test_without_the_columns_of_valid_csv_as_in_test_labels(tmp_path):
    """The view comes from the name; labels keep their spelling but for Lung Opacity; a pandas index is no task."""
    (tmp_path / "t.csv").write_text(
        ",Path,Lung Opacity,My Finding\n"
        "0,test/patient7/study1/view2_lateral.jpg,1,0.0\n"
        "1,test/patient8/study1/x.jpg,,-1\n"
    )
    one, two = good(read(tmp_path / "t.csv"))
    assert (one["labels"], one["view"], one["split"]) == ({"Airspace Opacity": 1, "My Finding": 0}, "lateral", "test")
    assert (two["labels"], "view" in two, "sex" in two) == ({"My Finding": -1}, False, False)


def test_stdin_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    data = (CXRS / "valid.csv").read_bytes()
    monkeypatch.chdir(CXRS)
    assert good(read("-", data)) == good(read("valid.csv")) == good(read("./valid.csv"))
    assert good(read("-", b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))) == good(read("valid.csv"))
    (tmp_path / "valid.csv.gz").write_bytes(gzip.compress(data))
    assert good(read(tmp_path / "valid.csv.gz", root=".")) == good(read("valid.csv"))


def test_root_and_leading_components(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "here/b/patient1/x.png", tmp_path / "here/flat.png")

    def resolved(root, *paths):
        places = label_columns.ImagePaths(root, paths)
        return [places.resolve(path) for path in paths]

    assert resolved("here", "a/b/patient1/x.png") == ["here/b/patient1/x.png"]
    assert resolved("here", "/far/away/flat.png") == ["here/flat.png"]
    assert resolved("here", "a/b/none.png") == ["here/a/b/none.png"]
    assert resolved("here", "a\\b\\patient1\\x.png") == ["here/b/patient1/x.png"]
    touch(tmp_path / "x.png")  # not another patient's file of the same name
    assert resolved("", "a/patient2/x.png") == ["a/patient2/x.png"]


def test_an_image_that_does_not_exist_is_not_replaced_by_another_of_its_name(tmp_path):
    """Leading components go once for the whole CSV, and never so many that two paths become one."""
    lines = "Path,Pneumonia\nset/train/a.png,1\nset/test/a.png,0\nset/test/b.png,0\n"
    (tmp_path / "t.csv").write_text(lines)
    touch(tmp_path / "test/a.png", tmp_path / "a.png")

    def found():
        return [os.path.relpath(item.record["image"], tmp_path) for item in read(tmp_path / "t.csv")]

    assert found() == ["train/a.png", "test/a.png", "test/b.png"]
    (tmp_path / "test/a.png").unlink()
    assert found() == ["set/train/a.png", "set/test/a.png", "set/test/b.png"]


def test_two_rows_far_apart_never_share_a_file(tmp_path):
    rows = [f"one/{k}.png,1" for k in range(300)] + ["two/7.png,0"]
    (tmp_path / "t.csv").write_text("Path,Pneumonia\n" + "\n".join(rows) + "\n")
    touch(*(tmp_path / f"{k}.png" for k in range(300)))
    *found, last = read(tmp_path / "t.csv")
    assert all(isinstance(item, Located) for item in found)
    assert isinstance(last, Failure) and "two/7.png and one/7.png would be one file" in last.reason


def test_rows_that_cannot_be_used(tmp_path):
    (tmp_path / "t.csv").write_text("Path,Edema\na.jpg,2\nb.jpg,yes\n,1\nc.jpg\n\nd.jpg,1\nsub/../d.jpg,nan\n")
    items = read(tmp_path / "t.csv")
    assert reasons(items) == [
        f"{tmp_path}/t.csv:{line}"
        for line in (
            "2: Edema is '2'; a label is 1, 0, -1 or blank",
            "3: Edema is 'yes'; a label is 1, 0, -1 or blank",
            "4: no path",
            "5: 1 cells, but the header has 2",
            "8: Edema is 'nan'; a label is 1, 0, -1 or blank",
        )
    ]
    assert [item.record["id"] for item in items if isinstance(item, Located)] == ["d"]


def test_two_images_with_one_id_name_both_paths(tmp_path):
    (tmp_path / "t.csv").write_text("Path\na/patient1/x.jpg\nb/patient1/x.png\n")
    (reason,) = reasons(read(tmp_path / "t.csv"))
    assert reason == (
        f"{tmp_path}/t.csv:3: duplicate id 'patient1_x' of {tmp_path}/b/patient1/x.png, "
        f"first at {tmp_path}/t.csv:2 ({tmp_path}/a/patient1/x.jpg)"
    )
    touch(tmp_path / "f/x.png", tmp_path / "f/x.jpg")
    assert reasons(read(tmp_path / "f")) == [
        f"{tmp_path}/f/x.png: duplicate id 'x' of {tmp_path}/f/x.png, first at {tmp_path}/f/x.jpg"
    ]


def test_tasks_and_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("Path,Edema,Ödem,Site\na.jpg,1,0,Bonn\n")
    assert good(read(path, tasks=["Edema"]))[0]["labels"] == {"Edema": 1}
    assert good(read(path, tasks=["Mine"], renamed={"Ödem": "Mine"}))[0]["labels"] == {"Mine": 0}
    for options, reason in (
        ({"tasks": ["Edma"]}, r"unknown task 'Edma' \(did you mean 'Edema'\?\)"),
        ({"renamed": {"Edma": "x"}}, r"nothing is called 'Edma' \(did you mean 'Edema'\?\)"),
        ({"renamed": {"Ödem": "Edema"}}, "the columns 'Edema' and 'Ödem' are one task"),
    ):
        with pytest.raises(InputError, match=reason):
            read(path, **options)


@pytest.mark.parametrize(
    "header, reason",
    [
        ("path,Edema", r"nor a CSV with a column Path or Image Index \(did you mean 'Path'\?\)"),
        ("Path,Edema,Edema", "two columns are named 'Edema'"),
        ("Path,Lung Opacity,Airspace Opacity", "the columns 'Lung Opacity' and 'Airspace Opacity' are one task"),
    ],
)
def test_headers_that_cannot_be_used(tmp_path, header, reason):
    (tmp_path / "t.csv").write_text(f"{header}\na.jpg,1,1\n")
    with pytest.raises(InputError, match=reason):
        read(tmp_path / "t.csv")


# NIH

NIH = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,OriginalImage[Width
00000001_000.png,Effusion|Mass,0,1,058Y,M,PA,2682
00000001_001.png,No Finding,1,1,59,M,AP,2682
00000002_000.png,Efusion,0,2,60,F,PA,2500
"""


def test_nih(tmp_path, caplog):
    """A finding that is not named is negative; only the same finding under another name is renamed."""
    path = tmp_path / "Data_Entry_2017.csv"
    path.write_text(NIH)
    touch(tmp_path / "images_002/images/00000001_001.png")
    items = read(path)
    one, two = (item.record for item in items[:2])
    assert {task for task, label in one["labels"].items() if label} == {"Pleural Effusion", "Mass"}
    assert len(one["labels"]) == 15 and set(one["labels"].values()) == {0, 1}
    assert {task for task, label in two["labels"].items() if label} == {"No Finding"}
    assert (one["id"], one["patient"], one["age"], one["sex"], one["projection"], one["view"]) == (
        "00000001_000",
        "1",
        58,
        "Male",
        "PA",
        "frontal",
    )
    assert two["image"] == str(tmp_path / "images_002/images/00000001_001.png")
    assert reasons(items) == [f"{path}:4: unknown finding 'Efusion' (did you mean 'Effusion'?)"]
    assert "Effusion is Pleural Effusion; other findings keep their names (--map OLD=NEW changes it)" in caplog.text


def test_nih_names_can_be_chosen(tmp_path):
    (tmp_path / "n.csv").write_text(NIH)
    renamed = {"Mass": "Lung Lesion", "Nodule": "Lung Lesion", "Effusion": "Effusion"}
    one = read(tmp_path / "n.csv", renamed=renamed)[0].record
    assert {task for task, label in one["labels"].items() if label} == {"Effusion", "Lung Lesion"}
    only = read(tmp_path / "n.csv", renamed=renamed, tasks=["Lung Lesion"])[1].record
    assert only["labels"] == {"Lung Lesion": 0}


# Folders, paths, records


def test_a_folder_holds_what_is_an_image_and_what_is_named_like_one(tmp_path):
    touch(tmp_path / "b/patient1/study1/x.png", tmp_path / "a/plain", tmp_path / "1.2.840.1", tmp_path / "1.2.840.2")
    touch(tmp_path / ".hidden.png")
    for name in ("notes.txt", "no.jpg"):
        (tmp_path / name).write_text("text")
    records = good(read(tmp_path))
    assert [r["id"] for r in records] == ["1.2.840.1", "1.2.840.2", "no", "a_plain", "patient1_study1_x"]
    assert records[-1]["image"] == str(tmp_path / "b/patient1/study1/x.png")
    assert records[-1]["patient"] == "patient1" and "patient" not in records[0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in folder"):
        read(tmp_path / "empty")


def test_an_image_is_told_by_its_content(tmp_path):
    touch(tmp_path / "plain")
    assert good(read(tmp_path / "plain"))[0]["image"] == str(tmp_path / "plain")
    with pytest.raises(InputError, match="neither an image, records, nor a CSV"):
        (tmp_path / "text").write_text("hello\n")
        read(tmp_path / "text")


def test_paths_on_stdin(tmp_path):
    names = ["a b/patient3/x.jpg", "é.png", os.fsdecode(b"\xff.png")]
    data = [os.fsencode(name) for name in names]
    expected = ["patient3_x", "é", os.fsdecode(b"\xff")]
    for stdin, null in ((b"\n".join(data), False), (b"\0".join(data) + b"\0", True), (b"\0".join(data), True)):
        records = good(read("-", stdin, null=null))
        assert [r["image"] for r in records] == names and [r["id"] for r in records] == expected
    (odd,) = read("-", b"two\nlines.png\0", null=True)
    assert "is not a plain name" in odd.reason
    with pytest.raises(InputError, match="did you mean 'Path'"):
        read("-", b"path,Edema\na.jpg,1\n")


def test_records_pass_with_their_labels_checked():
    lines = [
        {"id": "a", "image": "a.png", "labels": {"Lung Opacity": 1.0, "Edema": None}, "mine": [1]},
        {"id": "b"},
        {"id": "c", "image": "c.png", "labels": {"Edema": 0.5}},
        {"id": "d", "image": 5},
    ]
    items = read("-", "".join(json.dumps(line) + "\n" for line in lines).encode())
    assert items[0].record == {"id": "a", "image": "a.png", "labels": {"Airspace Opacity": 1}, "mine": [1]}
    assert reasons(items) == [
        'stdin:2: no "image" key',
        "stdin:3: Edema is '0.5'; a label is 1, 0, -1 or blank",
        'stdin:4: "image" must be a string, not 5',
    ]


def test_nothing_on_stdin_is_nothing():
    assert read("-") == read("-", b"", null=True) == []
