"""Labels of public sets, each by its own reader: whose columns these are, and what a row says of an image."""

from __future__ import annotations

import json
import logging

import pytest

from chextools.errors import InputError
from chextools.inputs import labels_by_id, labels_chexpert, labels_mimic, labels_nih, labels_padchest
from chextools.inputs.label_columns import Wishes
from chextools.plumbing.csvtext import CsvTable
from chextools.records.records import Failure


def read(reader, text: str, root="", name: str = "t.csv", **wishes) -> tuple[dict[str, dict], list[Failure]]:
    """(records by id, failures)."""
    table = CsvTable([line.encode() for line in text.splitlines(keepends=True)], name)
    found = list(reader(table, Wishes(root=str(root), **wishes)))
    failures = [item for item in found if isinstance(item, Failure)]
    return {item.record["id"]: item.record for item in found if not isinstance(item, Failure)}, failures


def labels(records: dict[str, dict]) -> dict[str, dict]:
    return {identifier: record["labels"] for identifier, record in records.items()}


@pytest.mark.parametrize(
    "header, answers",
    [
        ("Path,Edema", "chexpert"),
        ("path_to_image,age", "chexpert"),
        ("subject_id,study_id,Edema", "mimic"),
        ("dicom_id,study_id,split", "mimic"),
        ("ImageID,Labels", "padchest"),
        ("patientId,Target", "rsna"),
        ("patientId,class", "rsna"),
        ("image_id,rad_id,Edema", "vindr"),
        ("image_id,class_name,x_min", ""),  # of boxes
        ("path,edema", ""),
    ],
)
def test_whose_columns_these_are(header, answers):
    columns = header.split(",")
    found = {
        "chexpert": labels_chexpert.path_column(columns) is not None,
        "mimic": labels_mimic.is_mimic(columns),
        "padchest": labels_padchest.is_padchest(columns),
        "rsna": labels_by_id.is_rsna(columns),
        "vindr": labels_by_id.is_vindr(columns),
    }
    assert [name for name, fits in found.items() if fits] == answers.split()


# CheXpert


CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,Edema,Lung Opacity\n"
    "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg,Female,65,Frontal,AP,1.0,-1.0\n"
)


def test_a_row_of_chexpert():
    ((identifier, record),) = read(labels_chexpert.read_labels, CHEXPERT)[0].items()
    assert identifier == "patient64541_study1_view1_frontal"
    assert record["labels"] == {"Edema": 1, "Airspace Opacity": -1}
    assert (record["patient"], record["split"], record["view"]) == ("patient64541", "valid", "frontal")
    assert (record["sex"], record["age"], record["projection"]) == ("Female", 65, "AP")


def test_chexpert_fails_by_row():
    text = "Path,Edema\na.png,2\n,1\nb.png,0.0\nc.png,\nd.png,1,1\n"
    records, failures = read(labels_chexpert.read_labels, text)
    assert labels(records) == {"b": {"Edema": 0}, "c": {}}  # blank is missing
    assert [(f.where, f.reason[:40]) for f in failures][:2] == [
        ("t.csv:2", "Edema is '2'; a label is 1, 0, -1 or bla"),
        ("t.csv:3", "no path"),
    ]
    assert [f.where for f in failures] == ["t.csv:2", "t.csv:3", "t.csv:6"]


def test_tasks_are_renamed_and_chosen():
    text = "Path,Edema,Mass\na.png,1,0\n"
    assert labels(read(labels_chexpert.read_labels, text, renamed={"Mass": "Lesion"})[0]) == {
        "a": {"Edema": 1, "Lesion": 0}
    }
    assert labels(read(labels_chexpert.read_labels, text, tasks=["Mass"])[0]) == {"a": {"Mass": 0}}
    with pytest.raises(InputError, match=r"t.csv: nothing is called 'Masss' \(did you mean 'Mass'\?\)"):
        read(labels_chexpert.read_labels, text, renamed={"Masss": "Lesion"})
    with pytest.raises(InputError, match="the columns 'Edema' and 'Mass' are one task"):
        read(labels_chexpert.read_labels, text, renamed={"Mass": "Edema"})


def test_labels_of_chexpert_plus_stand_beside_it(tmp_path):
    text = "path_to_image,deid_patient_id\ntrain/patient1/study1/view1_frontal.jpg,patient1\nx/y.jpg,patient2\n"
    lines = [{"path_to_image": "train/patient1/study1/view1_frontal.jpg", "Edema": 1.0, "Pneumonia": None}]
    beside = tmp_path / "impression_fixed.json"
    beside.write_text("".join(json.dumps(line) + "\n\n" for line in lines))
    records, _ = read(labels_chexpert.read_labels, text, tmp_path)
    assert [record["labels"] for record in records.values()] == [{"Edema": 1}, {}]
    beside.write_text('{"path": "x"}\n')
    with pytest.raises(InputError, match='impression_fixed.json:1: no "path_to_image"'):
        read(labels_chexpert.read_labels, text, tmp_path)


# NIH


def test_a_row_of_nih():
    text = (
        "Image Index,Finding Labels,Patient ID,Patient Age,Patient Gender,View Position\n"
        "00000001_000.png,Effusion|Hernia,1,58,M,PA\n00000002_000.png,No Finding,2,81,F,AP\n3.png,Cough,3,1,F,AP\n"
    )
    records, (failure,) = read(labels_nih.read_labels, text)
    first, second = records["00000001_000"], records["00000002_000"]
    assert len(first["labels"]) == 15 and {t for t, v in first["labels"].items() if v} == {"Pleural Effusion", "Hernia"}
    assert {t for t, v in second["labels"].items() if v} == {"No Finding"}
    assert (first["patient"], first["age"], first["sex"], first["view"]) == ("1", 58, "Male", "frontal")
    assert failure.where == "t.csv:4" and "unknown finding 'Cough'" in failure.reason


def test_an_expert_of_nih_counts_before_the_list(caplog):
    caplog.set_level(logging.WARNING)
    text = "Image Index,Finding Labels,Hernia\na.png,Hernia,NO\nb.png,No Finding,YES\nc.png,Hernia,\n"
    records, _ = read(labels_nih.read_labels, text)
    assert [record["labels"]["Hernia"] for record in records.values()] == [0, 1, 1]
    assert "of Hernia they count, not the list of findings" in caplog.text
    with pytest.raises(InputError, match="t.csv: no column Finding Labels"):
        read(labels_nih.read_labels, "Image Index,x\na.png,1\n")


def test_nihs_own_lists_are_splits_and_its_archives_are_searched(tmp_path):
    (tmp_path / "train_val_list.txt").write_bytes(b"a.png\r\n\r\n")
    (tmp_path / "test_list.txt").write_text("b.png")
    (tmp_path / "images_002/images").mkdir(parents=True)
    (tmp_path / "images_002/images/b.png").touch()
    records, _ = read(
        labels_nih.read_labels, "Image Index,Finding Labels\na.png,Mass\nb.png,Mass\nc.png,Mass\n", tmp_path
    )
    assert [record.get("split") for record in records.values()] == ["train", "test", None]
    assert records["b"]["image"] == str(tmp_path / "images_002/images/b.png")
    assert records["a"]["image"] == str(tmp_path / "a.png")  # not there: where it would be first


# PadChest


def test_padchest_has_a_list_of_findings_and_what_others_have_is_negative():
    text = (
        "ImageID,PatientID,Projection,Labels\n"
        "a.png,1,L,\"['nodule', ' Nodule', 'unchanged', 'old scar']\"\n"
        "b.png,2,PA,['normal']\nc.png,3,XX,['Old  scar']\n"
        "d.png,4,PA,__import__('os')\ne/f.png,5,PA,['normal']\n"
    )
    records, failures = read(labels_padchest.read_labels, text)
    assert labels(records) == {
        "a": {"No Finding": 0, "Nodule": 1, "old scar": 1},
        "b": {"No Finding": 1, "Nodule": 0, "old scar": 0},
        "c": {"No Finding": 0, "Nodule": 0, "old scar": 1},
    }
    assert [record.get("view") for record in records.values()] == ["lateral", "frontal", None]
    assert [(f.where, f.reason) for f in failures] == [
        ("t.csv:5", "Labels is \"__import__('os')\", not a list of findings"),
        ("t.csv:6", "no usable ImageID"),
    ]


# MIMIC-CXR-JPG


def test_mimic_from_the_list_of_its_images(tmp_path):
    (tmp_path / "mimic-cxr-2.0.0-chexpert.csv").write_text(
        "subject_id,study_id,Edema,Pneumonia\n10000032,50414267,1.0,\n10000764,57375967,,-1.0\n"
    )
    text = (
        "dicom_id,subject_id,study_id,ViewPosition\nd1,10000032,50414267,PA\nd2,10000764,57375967,LL\n"
        "d3,99999999,1,XX\nd4,../x,1,PA\n"
    )
    records, (failure,) = read(labels_mimic.read_labels, text, tmp_path, name=str(tmp_path / "t.csv"))
    assert list(labels(records).values()) == [{"Edema": 1}, {"Pneumonia": -1}, {}]
    assert [record.get("view") for record in records.values()] == ["frontal", "lateral", None]
    assert [record["patient"] for record in records.values()] == ["p10000032", "p10000764", "p99999999"]
    first = next(iter(records.values()))
    assert first["image"] == str(tmp_path / "files/p10/p10000032/s50414267/d1.jpg")
    assert "no usable subject_id, study_id or dicom_id" in failure.reason


def test_mimics_labels_need_the_list_of_images(tmp_path):
    with pytest.raises(InputError, match="their images are listed in"):
        read(labels_mimic.read_labels, "subject_id,study_id,Edema\n1,2,1\n", tmp_path, name=str(tmp_path / "t.csv"))


# VinDr-CXR and RSNA


@pytest.mark.parametrize("votes, label", [("1", 1), ("110", 1), ("100", 0), ("10", -1), ("0", 0)])
def test_the_majority_of_vindrs_readers_counts_and_a_tie_is_uncertain(votes, label):
    rows = "".join(f"a,R{number},{vote},0\n" for number, vote in enumerate(votes))
    records, _ = read(labels_by_id.read_vindr, "image_id,rad_id,Edema,ILD\n" + rows)
    assert labels(records) == {"a": {"Edema": label, "ILD": 0}}


@pytest.mark.parametrize(
    "said, expected",
    [
        ("Lung Opacity", {"Pneumonia": 1, "No Finding": 0}),
        ("No Lung Opacity / Not Normal", {"Pneumonia": 0, "No Finding": 0}),
        ("Normal", {"Pneumonia": 0, "No Finding": 1}),
    ],
)
def test_rsnas_classes(said, expected):
    records, _ = read(labels_by_id.read_rsna, f"patientId,class\np1,{said}\n")
    assert labels(records) == {"p1": expected} and records["p1"]["patient"] == "p1"


def test_rsna_fails_by_row():
    records, failures = read(labels_by_id.read_rsna, "patientId,class\np1,Fine\n../p2,Normal\n,Normal\np3,Normal\n")
    assert list(records) == ["p3"] and [failure.where for failure in failures] == ["t.csv:2", "t.csv:3", "t.csv:4"]
    assert "the class is 'Fine'; it is one of Lung Opacity," in failures[0].reason


def test_an_image_by_its_id_is_found_where_the_set_puts_it(tmp_path):
    (tmp_path / "stage_2_train_images").mkdir()
    (tmp_path / "stage_2_train_images/p1.dcm").touch()
    records, _ = read(labels_by_id.read_rsna, "patientId,Target\np1,1\np1,1\np2,0\n", tmp_path)
    assert records["p1"]["image"] == str(tmp_path / "stage_2_train_images/p1.dcm")
    assert labels(records) == {"p1": {"Pneumonia": 1}, "p2": {"Pneumonia": 0}}
