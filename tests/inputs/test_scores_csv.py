"""Scores as other tools write them go into chex-eval, told from labels and truth by their values."""

from __future__ import annotations

import json

import pytest

from chextools.inputs import scores_csv
from chextools.records.records import Failure

LABELS = "Path,Edema,Cardiomegaly\na/1.png,1,0\na/2.png,0,1\na/3.png,1,1\na/4.png,0,0\n"


def measured(cli, tmp_path, scores: str) -> dict:
    (tmp_path / "scores.csv").write_text(scores)
    (tmp_path / "labels.csv").write_text(LABELS)
    result = cli(
        "chex-eval",
        tmp_path / "scores.csv",
        "--truth",
        tmp_path / "labels.csv",
        "--metric",
        "auroc",
        "--replicates",
        "10",
    )
    assert result.code == 0, result.err
    return {row["task"]: row["mean"] for row in map(json.loads, result.out.splitlines()) if "task" in row}


@pytest.mark.parametrize(
    "scores",
    [
        "Path,Edema,Cardiomegaly\na/1.png,.9,.2\na/2.png,.1,.8\na/3.png,.6,.3\na/4.png,.2,.4\n",
        ",Path,Edema,Cardiomegaly\n0,a/1.png,9e-1,.2\n1,a/2.png,.1,.8\n2,a/3.png,.6,.3\n3,a/4.png,.2,.4\n",
        "Unnamed: 0;path;Edema;Cardiomegaly\n0;a\\1.png;.9;.2\n1;a\\2.png;.1;.8\n2;a\\3.png;.6;.3\n3;a\\4.png;.2;.4\n",
        "Cardiomegaly,Edema,split,filename\n.2,.9,test,a/1\n.8,.1,test,a/2\n.3,.6,test,a/3\n.4,.2,test,a/4\n",
    ],
    ids=["plain", "index", "semicolons and backslashes", "other order"],
)
def test_scores_of_pandas(cli, tmp_path, scores):
    found = measured(cli, tmp_path, scores)
    assert found["Edema"] == 1 and found["Cardiomegaly"] == 0.75


def test_labels_are_no_scores(cli, tmp_path):
    (tmp_path / "labels.csv").write_text(LABELS)
    result = cli("chex-eval", tmp_path / "labels.csv", "--truth", tmp_path / "labels.csv", "--metric", "auroc")
    assert result.code == 1 and "a CSV of labels" in result.err


def test_a_score_that_is_none_is_a_failed_record(cli, tmp_path):
    names = [f"{k:02}.png" for k in range(80)]
    (tmp_path / "s.csv").write_text("Path,Edema\n" + "".join(f"{n},.{n[:2]}\n" for n in names) + "b.png,high\n")
    (tmp_path / "t.csv").write_text("Path,Edema\n" + "".join(f"{n},{k % 2}\n" for k, n in enumerate(names)))
    result = cli(
        "chex-eval", tmp_path / "s.csv", "--truth", tmp_path / "t.csv", "--metric", "auroc", "--replicates", "10"
    )
    assert result.code == 1 and "the score of Edema is 'high', not a number" in result.err
    assert json.loads(result.out.splitlines()[0])["failed"] == 1


@pytest.mark.parametrize(
    "text",
    ["Path,Edema\na.png,1\nb.png,0\n", "Edema,Mass\n.5,.25\n", "Path,Edema\na.png,.5\nb.png,high\n", "", "[1, 2]\n"],
    ids=["whole numbers", "no images", "words", "nothing", "JSON"],
)
def test_what_is_no_csv_of_scores_is_given_back_whole(text):
    lines = text.encode().splitlines(keepends=True)
    found, rest = scores_csv.told_apart(iter(lines), "x.csv")
    assert found is None and list(rest) == lines


def test_scores_become_records_whose_empty_cells_are_left_out():
    lines = [b"Path,Edema,Mass\n", b"a/1.png,.5,\n", b"b.png,0.25,1\n", b",.5,.5\n"]
    found, _ = scores_csv.told_apart(iter(lines), "x.csv")
    first, second, third = found
    assert first["scores"] == {"Edema": 0.5} and second == {"id": "b", "scores": {"Edema": 0.25, "Mass": 1.0}}
    assert isinstance(third, Failure) and "no Path" in third.reason and "4" in third.where
