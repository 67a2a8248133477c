"""chextools-tutorial(7): its scripts run as they stand."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess

import manual
from conftest import ROOT, need_tool

PAGE = ROOT / "man/man7/chextools-tutorial.7"
ENTRY = "00011136_002.png,Consolidation|Effusion|Pneumonia,21,11136,31,M,PA,2992,2991,0.143,0.143,"  # as NIH has it


def example(holding: str) -> str:
    (found,) = [text for text in manual.examples(PAGE) if holding in text]
    return found


def images(text: str) -> list[tuple[int, int]]:
    """(patient, follow-up) in a list such as "165:1 798:25,39"."""
    return [(int(p), int(f)) for p, of in re.findall(r"(\d+):([\d,]+)", text) for f in of.split(",")]


def test_the_lists_are_of_all_images_once():
    lists = [images(text) for text in manual.examples(PAGE) if re.fullmatch(r"[\d:,\s]+", text)]
    assert list(map(len, lists)) == [373, 130]
    assert len(set(lists[0]) | set(lists[1])) == 503
    assert not {patient for patient, _ in lists[0]} & {patient for patient, _ in lists[1]}
    assert (11136, 21) in lists[1]


def test_the_script_finds_the_images_in_nihs_own_file(tmp_path, path):
    """Which rows it takes of a file with the head and the kind of rows of Data_Entry_2017_v2020.csv."""
    train, test = (text for text in manual.examples(PAGE) if re.fullmatch(r"[\d:,\s]+", text))
    (tmp_path / "nih-train.txt").write_text(train)
    (tmp_path / "nih-test.txt").write_text(test)
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position"
    head += ",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    others = [
        ENTRY.replace("_002", "_003").replace(",21,", ",22,"),
        ENTRY.replace("11136", "00165").replace(",21,", ",1,"),
    ]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("\n".join([head, ENTRY, *others]) + "\n")
    rows = example("awk").partition("chex-prep")[0]
    subprocess.run(["sh", "-e", "-c", rows], cwd=tmp_path, check=True, env=os.environ | {"PATH": path})
    taken = [list(csv.reader((tmp_path / f"{name}.csv").open()))[1:] for name in ("train", "test")]
    assert [[row[0] for row in part] for part in taken] == [["00000165_002.png"], ["00011136_002.png"]]


def test_the_leaderboard_scores_a_folder_of_submissions(small, tmp_path, path):
    """Each submission is scored once; a new one joins; one that is broken or gone is left out, and stops nothing."""
    make = need_tool("make")
    (tmp_path / "leaderboard.mk").write_text(example("SCORES ="))
    (tmp_path / "gt.json").symlink_to(small / "expected/gt.json")
    (tmp_path / "submissions").mkdir()

    def submit(name: str, source: str | None) -> None:
        content = (small / "expected" / source).read_text() if source else "{nonsense"
        (tmp_path / "submissions" / name).write_text(content)

    def made() -> tuple[list[str], str]:
        command = [make, "-s", "-f", "leaderboard.mk"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PATH": path})
        assert result.returncode == 0, result.stderr
        return [
            row["run"] for row in map(json.loads, (tmp_path / "leaderboard.jsonl").read_text().splitlines())
        ], result.stderr

    submit("otsu.json", "seg_otsu.json")
    submit("human.json", "seg_tuned.json")
    names, _ = made()
    assert sorted(names) == ["human", "otsu"]
    page = (tmp_path / "leaderboard.html").read_text()
    submit("broken.json", None)
    submit("cutoff.json", "seg_cutoff.json")
    scored = (tmp_path / "scores/otsu.json.jsonl").stat().st_mtime_ns
    names, err = made()
    assert sorted(names) == ["cutoff", "human", "otsu"] and "submissions/broken.json" in err
    assert (tmp_path / "scores/otsu.json.jsonl").stat().st_mtime_ns == scored
    assert "By mIoU, " in (tmp_path / "leaderboard.html").read_text() and "By mIoU, " not in page
    submit("cutoff.json", None)  # what was scored before must not stay
    (tmp_path / "submissions/broken.json").unlink()
    assert sorted(made()[0]) == ["human", "otsu"]
