"""chex-phantom: pictures of nobody that say truly what they show."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import launcher
from PIL import Image

from chextools import phantom
from chextools.masks.mask import Mask, intersection
from chextools.metrics import overlap
from chextools.phantoms import outlines, picture
from chextools.phantoms.scene import Body
from chextools.records.ids import id_of_path
from chextools.tasks import CHEXPERT, STUDY

SMALL = ("--count", 24, "--size", 96, 80, "--seed", 3)
SIZE = (160, 160)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def shot(findings: dict[str, float], number: int = 0, view: str = "frontal", size=SIZE) -> picture.Shot:
    body = Body.draw(np.random.default_rng([11, number]))
    return picture.Shot(size, body, view, False, findings, (1, number), (2, number))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data set of 200 images."""
    folder = tmp_path_factory.mktemp("phantoms")
    settings = phantom.PhantomSettings(folder=str(folder), count=200, size=(112, 112), seed=5)
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in phantom.make(settings, 2)))
    return folder


def records_of(data: Path) -> list[dict]:
    return lines((data / "records.jsonl").read_text())


def document(data: Path, name: str) -> dict:
    return json.loads((data / name).read_text())


def test_same_seed_same_bytes_at_any_jobs(cli, tmp_path, monkeypatch):
    outputs, folders = [], []
    for jobs in (1, 3):
        (tmp_path / str(jobs)).mkdir()
        monkeypatch.chdir(tmp_path / str(jobs))
        result = cli("chex-phantom", "-o", "d", *SMALL, "-j", jobs)
        assert (result.code, result.err) == (0, "")
        outputs.append(result.out)
        folders.append(contents(Path("d")))
    assert outputs[0] == outputs[1] and folders[0] == folders[1]
    assert len(lines(outputs[0])) == 24 == sum(name.endswith(".jpg") for name in folders[0])


def test_a_larger_data_set_begins_with_the_smaller_one(tmp_path):
    few, many = (phantom.PhantomSettings(folder=str(tmp_path), count=n, size=(64, 64)) for n in (10, 30))
    assert list(phantom.plan(many))[:10] == list(phantom.plan(few))


def test_a_stopped_run_resumed_ends_with_the_same_bytes(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = cli("chex-phantom", "-o", "d", *SMALL)
    expected = contents(tmp_path / "d")
    (tmp_path / "d").rename("whole")
    command = [*launcher("chex-phantom"), "-o", "d", *map(str, SMALL), "-j", "1", "--resume"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for _ in range(6):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 75
        assert b"--resume goes on" in process.stderr.read()
    stopped = contents(tmp_path / "d")
    assert 6 <= len(stopped) < 24 and not any(".chextmp-" in name or name.endswith(".json") for name in stopped)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*.jpg")}
    resumed = cli("chex-phantom", "-o", "d", *SMALL, "--resume")
    assert (resumed.code, resumed.out) == (0, whole.out)
    assert contents(tmp_path / "d") == expected
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_what_exists_is_refused_before_work(cli, tmp_path):
    folder = tmp_path / "d"
    other = folder / "train/patient00001/study1/view1_frontal.jpg"
    other.parent.mkdir(parents=True)
    Image.new("L", (80, 96)).save(other)
    refused = cli("chex-phantom", "-o", folder, *SMALL)
    assert refused.code == 1 and f"error: {other}: exists; use --force to replace it, or --resume" in refused.err
    foreign = cli("chex-phantom", "-o", folder, *SMALL, "--resume")
    assert foreign.code == 1 and f"{other}: not of this data set" in foreign.err
    assert sorted(contents(folder)) == ["train/patient00001/study1/view1_frontal.jpg"]
    assert cli("chex-phantom", "-o", folder, *SMALL, "--force").code == 0
    assert cli("chex-phantom", "-o", folder, *SMALL[:-1], 4, "--resume").code == 1  # of another seed


def test_every_image_says_that_it_is_made_up(data):
    record = records_of(data)[0]
    with Image.open(record["image"]) as image:
        assert image.info["comment"].startswith(b"made up by chex-phantom ")
        assert image.mode == "L" and [image.height, image.width] == record["size"]


def test_the_csv_files_say_what_the_records_say(data):
    by_id = {}
    for split in phantom.SPLITS:
        with (data / f"{split}.csv").open() as stream:
            for row in csv.DictReader(stream):
                assert row["Path"].startswith(f"{split}/patient") and (data / row["Path"]).exists()
                by_id[id_of_path(row["Path"])] = row
    assert list(next(iter(by_id.values())))[5:] == [t.replace("Airspace", "Lung") for t in CHEXPERT]
    records = records_of(data)
    assert {record["id"] for record in records} == by_id.keys() and len(records) == len(by_id)
    for record in records:
        row = by_id[record["id"]]
        marks = {task: row[task.replace("Airspace", "Lung")] for task in CHEXPERT}
        assert {task: int(float(mark)) for task, mark in marks.items() if mark} == record["labels"]
        assert row["Frontal/Lateral"].lower() == record["view"] and record["split"] == row["Path"].split("/")[0]
        assert row["AP/PA"] in (("AP", "PA") if record["view"] == "frontal" else ("",))


def test_a_patient_is_in_one_split_and_the_shares_are_as_said(data):
    records = records_of(data)
    assert len({(r["patient"], r["split"]) for r in records}) == len({r["patient"] for r in records})
    share = {split: sum(r["split"] == split for r in records) / len(records) for split in phantom.SPLITS}
    assert 0.6 < share["train"] < 0.8 and 0.05 < share["valid"] < 0.2 and 0.1 < share["test"] < 0.3
    assert 0.08 < sum(r["view"] == "lateral" for r in records) / len(records) < 0.22


def test_labels_of_valid_and_test_are_definite_and_those_of_train_have_gaps(data):
    by_split = {split: [r["labels"] for r in records_of(data) if r["split"] == split] for split in phantom.SPLITS}
    for split in phantom.OUTLINED:
        assert all(set(labels) == set(CHEXPERT) and -1 not in labels.values() for labels in by_split[split])
    values = [labels.get(task) for labels in by_split["train"] for task in STUDY]
    assert 0.02 < values.count(-1) / len(values) < 0.15 and 0.15 < values.count(None) / len(values) < 0.45
    every = [labels for split in by_split.values() for labels in split]
    assert all(sum(labels.get(task) == 1 for labels in every) > 0.08 * len(every) for task in STUDY)
    for labels in every:
        assert labels.get("No Finding") != 1 or all(labels.get(t) != 1 for t in STUDY[:-1])


def test_the_truth_outlines_what_is_labelled_and_nothing_else(data):
    records = {r["id"]: r for r in records_of(data) if r["split"] in phantom.OUTLINED}
    truth = document(data, "gt_annotations_valid.json") | document(data, "gt_annotations_test.json")
    points = document(data, "gt_points_valid.json") | document(data, "gt_points_test.json")
    masks = document(data, "gt_segmentations_valid.json") | document(data, "gt_segmentations_test.json")
    for identifier, record in records.items():
        shown = [task for task in STUDY if record["labels"][task] == 1]
        if not shown:
            assert identifier not in truth
            continue
        outlined = dict(truth[identifier])
        height, width = outlined.pop("img_size")
        assert [height, width] == record["size"] and list(outlined) == list(points[identifier]) == shown
        assert list(masks[identifier]) == list(STUDY)
        for task in STUDY:
            mask = Mask.from_polygons((height, width), outlined.get(task, ()))
            assert mask.to_rle() == masks[identifier][task] and (mask.area > 0) == (task in shown)
            assert all(mask.contains(int(y), int(x)) for x, y in points[identifier].get(task, ()))
            for polygon in outlined.get(task, ()):
                x, y = np.array(polygon).T
                assert 20 <= len(polygon) <= 80 and 0 <= min(x.min(), y.min())
                assert x.max() <= width - 1 and y.max() <= height - 1


def test_the_second_reader_is_good_but_not_perfect(data):
    ious, hits = [], []
    for split in phantom.OUTLINED:
        truth, points = document(data, f"gt_annotations_{split}.json"), document(data, f"hb_points_{split}.json")
        second = document(data, f"hb_segmentations_{split}.json")
        assert truth.keys() == second.keys() == points.keys()
        for identifier, outlined in truth.items():
            size = tuple(outlined.pop("img_size"))
            for task, polygons in outlined.items():
                mask, theirs = Mask.from_polygons(size, polygons), Mask.from_rle(second[identifier][task])
                both = intersection(mask, theirs)
                ious.append(both / (mask.area + theirs.area - both))
                hits.append(overlap.point_hit(points[identifier].get(task, ()), mask))
    assert 0.55 < np.mean(ious) < 0.75
    assert 0.85 < np.mean(hits) < 0.95


@pytest.mark.parametrize("view", ["frontal", "lateral"])
@pytest.mark.parametrize("task", STUDY)
def test_a_sign_changes_the_picture_where_its_outline_is(task, view):
    """Of the change that leaving the sign out makes, most lies in its outlines or within a little of them."""
    inside = []
    for number in range(4):
        with_sign, without = (picture.lay_out(shot(f, number, view)) for f in ({task: 0.6}, {}))
        difference = np.abs(with_sign.pixels().astype(float) - without.pixels())
        region = np.any(with_sign.outlined(task), axis=0)
        near = np.any([np.roll(region, (dy, dx), (0, 1)) for dy in (-5, 0, 5) for dx in (-5, 0, 5)], axis=0)
        difference[difference < 8] = 0  # the exposure follows the patient's thickness
        assert difference[region].mean() > 3
        inside.append(difference[near].sum() / difference.sum())
    assert np.mean(inside) > 0.5


@pytest.mark.parametrize("task", ["Lung Lesion", "Consolidation", "Edema", "Airspace Opacity", "Pleural Effusion"])
def test_the_contrast_to_a_ring_around_tells_the_sign(task):
    """Inside minus ring is brighter with the sign than at the same place without it, in every one of eight bodies."""
    gains = []
    for number in range(8):
        with_sign, without = (picture.lay_out(shot(f, number)) for f in ({task: 0.4}, {}))
        region = np.any(with_sign.outlined(task), axis=0)
        wide = np.any([np.roll(region, (dy, dx), (0, 1)) for dy in (-8, 0, 8) for dx in (-8, 0, 8)], axis=0)
        pictures = [laid_out.pixels().astype(float) for laid_out in (with_sign, without)]
        present, absent = (p[region].mean() - p[wide & ~region].mean() for p in pictures)
        gains.append(present - absent)
    assert min(gains) > 3 and np.mean(gains) > 12


def test_an_enlarged_heart_is_larger_than_any_normal_one():
    """Its part of the chest's width, which normal bodies differ in less than the sign adds."""

    def ratio(findings: dict, number: int) -> float:
        laid_out = picture.lay_out(shot(findings, number))
        rows = laid_out.scene.heart > 0.5
        return float(rows.any(axis=0).sum() / laid_out.canvas.unit / (2 * laid_out.shot.body.width))

    normal = [ratio({}, number) for number in range(30)]
    enlarged = [ratio({"Cardiomegaly": severity}, n) for n, severity in enumerate(np.linspace(0, 1, 30))]
    assert max(normal) < 0.52 < min(enlarged)


def test_leaving_one_sign_out_leaves_the_others_where_they_were():
    both, one = (picture.lay_out(shot(f)) for f in ({"Lung Lesion": 0.5, "Edema": 0.5}, {"Lung Lesion": 0.5}))
    for a, b in zip(both.outlined("Lung Lesion"), one.outlined("Lung Lesion"), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("size", [(64, 64), (64, 200), (200, 64)])
def test_other_sizes(size):
    for view in ("frontal", "lateral"):
        laid_out = picture.lay_out(shot(dict.fromkeys(STUDY, 0.5), view=view, size=size))
        assert laid_out.pixels().shape == size
        assert all(any(outlines.lesion_of(r) for r in laid_out.outlined(task)) for task in STUDY)


def test_the_outline_of_a_disc_is_the_disc():
    y, x = np.mgrid[:100, :120]
    disc = (x - 70) ** 2 + (y - 40) ** 2 < 20**2
    lesion = outlines.lesion_of(disc)
    mask = Mask.from_polygons((100, 120), lesion.outlines).to_array()
    assert (mask & disc).sum() / (mask | disc).sum() > 0.95
    assert np.hypot(lesion.point[0] - 70, lesion.point[1] - 40) < 4
    assert outlines.lesion_of(np.zeros((5, 5), bool)) is None


# Doses of difficulty


def planned(count: int = 300, **options) -> list[phantom.Plan]:
    """Images that would be made; nothing is drawn."""
    return list(phantom.plan(phantom.PhantomSettings(folder="x", count=count, size=(64, 64), **options)))


@pytest.mark.parametrize(
    ("views", "expected"), [("frontal", {"frontal"}), ("lateral", {"lateral"}), ("both", {"frontal", "lateral"})]
)
def test_views_are_those_asked_for(views, expected):
    images = planned(views=views)
    assert {image.shot.view for image in images} == expected
    if views == "both":
        studies = [
            [image.shot.view for image in images if Path(image.path).parent == study] for study in studies_of(images)
        ]
        assert studies[:-1] == [["frontal", "lateral"]] * (len(studies) - 1)
    assert not any(image.shot.portable for image in images if views != "frontal")


def studies_of(images: list[phantom.Plan]) -> list[Path]:
    return list(dict.fromkeys(Path(image.path).parent for image in images))


def test_prevalence_is_the_share_of_studies_that_show_a_finding():
    images = planned(1500, views="frontal", prevalence={"Edema": 0.3, "Pneumothorax": 0.0, "Lung Lesion": 1.0})
    shown = {task: np.mean([task in image.shot.findings for image in images]) for task in STUDY}
    assert shown["Pneumothorax"] == 0 and shown["Lung Lesion"] == 1
    assert abs(shown["Edema"] - 0.3) < 0.04  # some 3 standard errors
    usual = planned(1500, views="frontal")
    for task in set(STUDY) - {"Edema", "Pneumothorax", "Lung Lesion"}:
        assert shown[task] == np.mean([task in image.shot.findings for image in usual]), task


def test_prevalences_of_all_and_of_one():
    assert phantom.prevalences([(None, 0.1), ("Lung Opacity", 0.5)]) == dict.fromkeys(STUDY, 0.1) | {
        "Airspace Opacity": 0.5
    }
    with pytest.raises(phantom.InputError, match="--prevalence Pneumonia: not drawn"):
        phantom.prevalences([("Pneumonia", 0.5)])


def test_hard_findings_are_the_same_but_smaller_and_fainter():
    usual, hard = planned(60), planned(60, hard=True)
    assert [set(image.shot.findings) for image in usual] == [set(image.shot.findings) for image in hard]
    areas: dict[str, list[float]] = {task: [] for task in ("Lung Lesion", "Pleural Effusion", "Pneumothorax")}
    for easy, difficult in zip(usual, hard):
        for task in areas.keys() & easy.shot.findings.keys():
            found = [picture.lay_out(image.shot).outlined(task) for image in (easy, difficult)]
            sizes = [sum(float((region > 0.5).sum()) for region in regions) for regions in found]
            if sizes[0]:
                areas[task].append(sizes[1] / sizes[0])
    for task, ratios in areas.items():
        assert ratios and np.mean(ratios) < 0.85, task


def test_an_image_says_how_it_was_dosed_and_another_dose_is_another_data_set(cli, tmp_path):
    made = cli("chex-phantom", "-o", tmp_path / "a", "--count", 2, "--size", 64, 64, "--hard", "--views", "frontal")
    assert made.code == 0
    with Image.open(json.loads(made.out.splitlines()[0])["image"]) as image:
        assert b"--size 64 64 --views frontal --hard: " in image.info["comment"]
    again = cli("chex-phantom", "-o", tmp_path / "a", "--count", 2, "--size", 64, 64, "--views", "frontal", "--resume")
    assert again.code == 1 and "not of this data set" in again.err


def test_a_share_that_is_none_is_refused(cli, tmp_path):
    for share in ("2", "Edema=x", "nan"):
        assert cli("chex-phantom", "-o", tmp_path / "a", "--prevalence", share).code == 2


def xrays(folder: Path) -> Path:
    """Records of five X-rays: two of one patient, flat; a ramp; one without a number; and a lateral one."""
    found = []
    for name, pixels in {
        "patient00007_study1_view1_frontal": np.full((120, 96), 60, np.uint8),
        "patient00007_study2_view1_frontal": np.full((120, 96), 200, np.uint8),
        "patient00009_study1_view1_frontal": np.tile(np.arange(0, 240, 2, dtype=np.uint8), (110, 1)),
        "00012, a": np.full((96, 96), 100, np.uint8),
        "patient00010_study1_view2_lateral": np.full((96, 96), 100, np.uint8),
    }.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
        record = {"id": name, "image": str(folder / f"{name}.png"), "labels": {"No Finding": 1, "Edema": 0}}
        found.append(record | {"view": name[-7:] if name[0] == "p" else "frontal", "sex": "Female", "age": 50})
    (folder / "xrays.jsonl").write_text("".join(json.dumps(record) + "\n" for record in found))
    return folder / "xrays.jsonl"


def test_findings_are_drawn_onto_somebodys_xrays(cli, tmp_path):
    """A copy is its X-ray but where something was drawn, there it is brighter, and the outline says where."""
    source = xrays(tmp_path)
    made = cli(
        "chex-phantom", "-o", tmp_path / "d", "--onto", source, "--count", 8, "--prevalence", "Consolidation=1", "-j", 2
    )
    assert made.code == 0 and made.err.strip().endswith("xrays.jsonl: 1 lateral X-rays left out")
    records, truth = lines(made.out), document(tmp_path / "d", "gt_annotations_train.json")
    assert [r["id"] for r in records[3:5]] == ["train_00012, a_drawn1", "patient00007_study1_view1_frontal_drawn2"]
    assert [r["patient"] for r in records[2:5]] == ["patient00009", "00012, a", "patient00007"]
    assert len({(tmp_path / "d" / r["image"]).read_bytes() for r in records}) == 8
    for record in records:
        assert record["labels"] == {"Airspace Opacity": 1, "Edema": 0, "Consolidation": 1, "No Finding": 0}
        with Image.open(record["image"]) as image:
            drawn = np.asarray(image, int)
        plain = record["id"].removeprefix("train_").rpartition("_drawn")[0]
        change = drawn - np.asarray(Image.open(tmp_path / f"{plain}.png"), int)
        inside = Mask.from_polygons(drawn.shape, truth[record["id"]]["Consolidation"]).to_array().astype(bool)
        assert 0.01 < inside.mean() < 0.25 and record["size"] == list(drawn.shape)
        assert change[inside].mean() > 8 and abs(change[~inside]).mean() < 0.15 * change[inside].mean()
    with (tmp_path / "d/train.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [id_of_path(row["Path"]) for row in rows] == [r["id"] for r in records]
    assert (rows[0]["Sex"], rows[0]["Age"], rows[0]["No Finding"], rows[0]["Lung Opacity"]) == (
        "Female",
        "50",
        "0.0",
        "1.0",
    )


def test_what_is_drawn_onto_xrays_is_the_same_whatever_its_jobs_and_resumed(cli, tmp_path, monkeypatch):
    source = xrays(tmp_path)
    folders = []
    for jobs in (1, 2):
        (tmp_path / str(jobs)).mkdir()
        monkeypatch.chdir(tmp_path / str(jobs))
        assert cli("chex-phantom", "-o", "d", "--onto", source, "-j", jobs, "-q").code == 0
        folders.append(contents(Path("d")))
    assert folders[0] == folders[1] and sum(name.endswith(".jpg") for name in folders[0]) == 4
    next(Path("d").rglob("*drawn1.jpg")).unlink()
    assert cli("chex-phantom", "-o", "d", "--onto", source, "--resume", "-q").code == 0
    assert contents(Path("d")) == folders[0]


def test_what_cannot_be_drawn_onto_xrays_is_one_line(cli, tmp_path):
    source = xrays(tmp_path)
    for options, code, words in (
        (["--onto", tmp_path / "none.csv"], 1, "none.csv: No such file"),
        (["--onto", source, "--prevalence", "Cardiomegaly=1"], 1, "not drawn there; there are Lung Lesion, Airspace"),
        (["--onto", source, "--views", "lateral"], 2, "--views is of made-up bodies"),
    ):
        result = cli("chex-phantom", "-o", tmp_path / "d", *options)
        assert result.code == code and words in result.err and "Traceback" not in result.err
    (tmp_path / "00012, a.png").write_bytes(b"none")
    broken = cli("chex-phantom", "-o", tmp_path / "d", "--onto", source)
    assert broken.code == 1 and "00012, a.png: " in broken.err and "Traceback" not in broken.err
