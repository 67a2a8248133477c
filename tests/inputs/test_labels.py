"""Labels of public sets, from files as they are published, and of one's own with columns that are no findings."""

from __future__ import annotations

import gzip
import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from chextools.errors import InputError
from chextools.inputs import image_lists
from chextools.records.records import Failure, Located


@pytest.fixture
def read(caplog):
    caplog.set_level(logging.WARNING)

    def by_id(path, **options) -> dict[str, dict]:
        caplog.clear()
        items = list(image_lists.read_image_lists([str(path)], io.BytesIO(), **options))
        assert all(isinstance(item, Located) for item in items), items
        return {item.record["id"]: item.record for item in items}

    return by_id


def write(path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def touch(*paths) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path, format="PNG")


# Columns


def test_columns_that_are_no_findings_are_known(tmp_path, read, caplog):
    path = write(
        tmp_path / "t.csv",
        "index,Path,patient_id,split,fold,report,Sex,Age,Edema,Cardiomegaly\n"
        "0,a/1.png,P7,val,0,No edema.,F,61.0,1,0\n1,a/2.png,P8,train,1,Edema.,m,058Y,0,\n",
    )
    found = read(path)
    assert caplog.messages == []
    assert found["a_1"] | {"image": ""} == {
        "id": "a_1",
        "image": "",
        "labels": {"Cardiomegaly": 0, "Edema": 1} | {},
        "patient": "P7",
        "split": "valid",
        "sex": "Female",
        "age": 61,
    }
    assert found["a_2"]["labels"] == {"Edema": 0} and found["a_2"]["age"] == 58


def test_what_a_column_is_taken_for_is_said_once(tmp_path, read, caplog):
    rows = "".join(f"{k}.png,{k % 2},{k % 2},{k / 7:.2f},scanner {k}\n" for k in range(9))
    path = write(tmp_path / "t.csv", "Path,Edema,Scoliosis,exposure,device\n" + rows)
    assert read(path)["3"]["labels"] == {"Edema": 1, "Scoliosis": 1}
    assert caplog.messages == [
        f"{path}: columns without labels, left out: exposure, device",
        f"{path}: columns taken for tasks, by their values: Scoliosis",
    ]
    assert read(path, dropped=["Scoliosis", "exposure", "device"])["3"]["labels"] == {"Edema": 1}
    assert caplog.messages == []
    with pytest.raises(InputError, match=r"no column 'scoliosis' \(did you mean 'Scoliosis'\?\)"):
        read(path, dropped=["scoliosis"])


def test_a_finding_stays_one_whatever_its_values(tmp_path):
    path = write(tmp_path / "t.csv", "Path,Edema\na.png,maybe\nb.png,1\n")
    bad, good = image_lists.read_image_lists([str(path)], io.BytesIO())
    assert isinstance(bad, Failure) and "Edema is 'maybe'" in bad.reason
    assert good.record["labels"] == {"Edema": 1}


def test_the_patient_and_the_group_of_a_column(tmp_path, read):
    path = write(tmp_path / "t.csv", "Path,who,site,Edema\na.png,Ann,north,1\nb.png,Bob,south,0\n")
    found = read(path, patient="who", split_by="site")
    assert [r["patient"] for r in found.values()] == ["Ann", "Bob"]
    assert [r["split_by"] for r in found.values()] == ["north", "south"]
    assert found["a"]["labels"] == {"Edema": 1}


# Sets


def test_nih_with_experts_and_official_lists(tmp_path, read, caplog):
    path = write(
        tmp_path / "Data_Entry_2017.csv",
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],Fracture,Pneumothorax,Nodule or mass\n"
        "00000001_000.png,Cardiomegaly|Pneumothorax,0,1,058Y,M,PA,2682,2749,0.143,0.143,NO,NO,YES\n"
        "00000002_000.png,No Finding,0,2,081Y,F,AP,2500,2048,0.171,0.171,YES,,NO\n",
    )
    write(tmp_path / "train_val_list.txt", "00000001_000.png\r\n")
    write(tmp_path / "test_list.txt", "00000002_000.png")
    touch(tmp_path / "images_001/images/00000001_000.png")
    first, second = read(path).values()
    assert (first["split"], second["split"]) == ("train", "test")
    assert first["image"] == str(tmp_path / "images_001/images/00000001_000.png")
    assert first["labels"]["Pneumothorax"] == 0 and first["labels"]["Cardiomegaly"] == 1
    assert first["labels"]["Nodule or mass"] == 1 and first["labels"]["Fracture"] == 0
    assert second["labels"]["Pneumothorax"] == 0 and second["labels"]["Fracture"] == 1
    assert (second["patient"], second["sex"], second["age"], second["projection"]) == ("2", "Female", 81, "AP")
    assert any("of Pneumothorax they count, not the list of findings" in m for m in caplog.messages)
    assert "Fracture" not in read(path, dropped=["Fracture"])["00000001_000"]["labels"]


MIMIC = {
    "chexpert": "subject_id,study_id,Atelectasis,Edema,Lung Opacity,No Finding\n"
    "10000032,50414267,,1.0,-1.0,\n10000764,57375967,0.0,,,\n",
    "split": "dicom_id,study_id,subject_id,split\naa-1,50414267,10000032,train\nbb-2,57375967,10000764,validate\n",
    "metadata": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns\n"
    "aa-1,10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544\nbb-2,10000764,57375967,CHEST,AP,3056,2544\n",
}


@pytest.mark.parametrize("given", MIMIC)
def test_mimic_cxr_jpg_from_any_of_its_files(tmp_path, read, given):
    for kind, text in MIMIC.items():
        write(tmp_path / f"mimic-cxr-2.0.0-{kind}.csv.gz", text)
    touch(tmp_path / "files/p10/p10000032/s50414267/aa-1.jpg")
    first, second = read(tmp_path / f"mimic-cxr-2.0.0-{given}.csv.gz").values()
    assert first == {
        "id": "files_p10_p10000032_s50414267_aa-1",
        "image": str(tmp_path / "files/p10/p10000032/s50414267/aa-1.jpg"),
        "labels": {"Edema": 1, "Airspace Opacity": -1},
        "patient": "p10000032",
        "view": "lateral",
        "split": "train",
        "projection": "LATERAL",
    }
    assert second["labels"] == {"Atelectasis": 0}
    assert (second["split"], second["view"], second["patient"]) == ("valid", "frontal", "p10000764")


def test_mimic_labels_alone_say_what_is_missing(tmp_path):
    path = write(tmp_path / "mimic-cxr-2.0.0-chexpert.csv", MIMIC["chexpert"])
    with pytest.raises(InputError, match="listed in mimic-cxr-...-split.csv.gz or -metadata.csv.gz"):
        list(image_lists.read_image_lists([str(path)], io.BytesIO()))


def test_padchest(tmp_path, read):
    path = write(
        tmp_path / "PADCHEST.csv.gz",
        ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientSex_DICOM,Projection,Labels\n"
        "0,1_a.png,0,20140915,1,9001,F,L,\"['pulmonary fibrosis', 'chronic changes', ' pulmonary fibrosis']\"\n"
        "1,2_b.png,3,20140915,2,9002,M,PA,\"['cardiomegaly', '']\"\n2,3_c.png,3,20140915,3,9003,M,PA,['normal']\n",
    )
    touch(tmp_path / "3/2_b.png")
    found = read(path)
    assert found["1_a"]["labels"] == {"Cardiomegaly": 0, "Fibrosis": 1, "No Finding": 0, "chronic changes": 1}
    assert found["2_b"]["labels"] == {"Cardiomegaly": 1, "Fibrosis": 0, "No Finding": 0, "chronic changes": 0}
    assert (found["1_a"]["view"], found["2_b"]["view"], found["1_a"]["sex"]) == ("lateral", "frontal", "Female")
    assert found["2_b"]["image"] == str(tmp_path / "3/2_b.png") and found["2_b"]["patient"] == "9002"
    assert read(path, renamed={"chronic changes": "Old"})["1_a"]["labels"]["Old"] == 1


def test_vindr_labels_of_three_readers(tmp_path, read, caplog):
    path = write(
        tmp_path / "image_labels_train.csv",
        "image_id,rad_id,Aortic enlargement,Lung Opacity,Pleural effusion,No finding\n"
        "a,R1,1,0,0,0\nb,R1,0,0,0,1\na,R2,1,1,0,0\na,R3,0,1,0,0\nb,R2,1,0,0,0\n",
    )
    touch(tmp_path / "train/a.dicom")
    found = read(path)
    assert found["a"]["labels"] == {
        "Aortic enlargement": 1,
        "Airspace Opacity": 1,
        "Pleural Effusion": 0,
        "No Finding": 0,
    }
    assert found["b"]["labels"]["Aortic enlargement"] == -1 and found["a"]["image"] == str(tmp_path / "train/a.dicom")
    assert "the majority counts, a tie is uncertain" in caplog.text


def test_rsna_classes_and_targets(tmp_path, read):
    classes = write(
        tmp_path / "stage_2_detailed_class_info.csv",
        "patientId,class\np-1,Lung Opacity\np-1,Lung Opacity\np-2,No Lung Opacity / Not Normal\np-3,Normal\n",
    )
    touch(tmp_path / "stage_2_train_images/p-2.dcm")
    found = read(classes)
    assert [list(r["labels"].items()) for r in found.values()] == [
        [("Pneumonia", 1), ("No Finding", 0)],
        [("Pneumonia", 0), ("No Finding", 0)],
        [("Pneumonia", 0), ("No Finding", 1)],
    ]
    assert found["p-2"]["image"] == str(tmp_path / "stage_2_train_images/p-2.dcm")
    boxes = write(
        tmp_path / "labels.csv", "patientId,x,y,width,height,Target\np-1,1,2,3,4,1\np-1,5,6,7,8,1\np-2,,,,,0\n"
    )
    assert {k: r["labels"] for k, r in read(boxes).items()} == {"p-1": {"Pneumonia": 1}, "p-2": {"Pneumonia": 0}}


def test_chexpert_plus(tmp_path, read):
    path = write(
        tmp_path / "df_chexpert_plus_240401.csv",
        "path_to_image,path_to_dicom,frontal_lateral,ap_pa,deid_patient_id,report,section_findings,age,sex,split\n"
        "train/patient42142/study5/view1_frontal.jpg,x.dcm,Frontal,AP,patient42142,Text.,Text.,70.0,Male,train\n",
    )
    label = {"path_to_image": "train/patient42142/study5/view1_frontal.jpg", "Edema": 1.0, "Lung Opacity": None}
    write(tmp_path / "chexbert_labels/impression_fixed.json", json.dumps(label) + "\n")
    touch(tmp_path / "train/patient42142/study5/view1_frontal.png")
    (found,) = read(path).values()
    assert found["id"] == "patient42142_study5_view1_frontal" and found["labels"] == {"Edema": 1}
    assert found["image"].endswith("view1_frontal.png")
    assert (found["patient"], found["split"], found["view"], found["age"]) == ("patient42142", "train", "frontal", 70)


def test_patients_of_paths(tmp_path, read):
    names = ("images/00000013_026.png", "files/p10/p10000032/s1/x.png", "patient00007/study1/view1_lateral.png")
    touch(*(tmp_path / name for name in names))
    assert sorted(r["patient"] for r in read(tmp_path).values()) == ["13", "p10000032", "patient00007"]


def test_what_is_no_image_in_a_folder_is_skipped_and_counted(tmp_path, read, caplog):
    import os

    touch(tmp_path / "a.png")
    write(tmp_path / "._a.png", "\0\5\26\7")
    write(tmp_path / "Thumbs.db", "\xd0\xcf")
    for name, uid in (("DICOMDIR", "1.2.840.10008.1.3.10"), ("report.dcm", "1.2.840.10008.5.1.4.1.1.88.11")):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM\2\0\2\0UI" + len(uid).to_bytes(2, "little") + uid.encode())
    os.mkfifo(tmp_path / "pipe.png")
    assert list(read(tmp_path)) == ["a"]
    (line,) = caplog.messages
    assert "5 files that are no images, skipped" in line
