"""chex-eval --readers: pairs, each with the others' consensus, by hand; the benchmark as --per-image gives it."""

import json

import pytest

from chextools.masks.shapes import Box

SIZE = (60, 60)


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def written(tmp_path, name, boxes):
    """A reader's masks; None for an image on which nothing is drawn."""
    path = tmp_path / name
    with open(path, "w") as stream:
        for identifier, box in boxes.items():
            mask = Box(*(box or (0, 0, 0, 0))).mask(SIZE) if box else Box(70, 70, 1, 1).mask(SIZE)
            print(json.dumps({"id": identifier, "masks": {"Edema": mask.to_rle()}}), file=stream)
    return path


@pytest.fixture
def three(tmp_path):
    """Of 20 x 10 pixels each; the second moved by half, the third by a whole width."""
    boxes = [{"a": (x, 0, 20, 10), "b": (x, 0, 20, 10) if x < 30 else None} for x in (10, 20, 30)]
    return [written(tmp_path, f"r{n}.jsonl", each) for n, each in enumerate(boxes)]


def truths(paths):
    return [word for path in paths for word in ("--truth", path)]


def test_pairs_and_left_out(cli, three):
    result = cli("chex-eval", "--readers", *truths(three), "--slice", "full")
    assert result.code == 0
    rows = {(row["metric"], row["compared"]): row for row in lines(result.out) if row["task"] == "Edema"}
    # a: IoU 1/3, 0, 1/3; b: 1/3, 0, 0, as one who drew nothing beside one who did is 0
    assert rows["iou", "pairs"]["mean"] == pytest.approx((2 / 9 + 1 / 9) / 2)
    # The others' consensus is where both drew. a: it is [20, 30], empty, and again half; b: nothing but for the last
    assert rows["iou", "leave-one-out"]["mean"] == pytest.approx(((0 + 0 + 0) / 3 + (0 + 0 + 0) / 2) / 2)
    assert rows["kappa", "pairs"]["n"] == 2
    assert {row["readers"] for row in rows.values()} == {3}


def test_two_readers_left_out_are_pairs(cli, three):
    rows = lines(cli("chex-eval", "--readers", *truths(three[:2]), "--metric", "iou").out)
    assert [row["mean"] for row in rows if row["task"] == "Edema"] == [pytest.approx(1 / 3)] * 2


def test_the_benchmark_by_image_is_compared_with_a_model(cli, three, tmp_path):
    human, model = tmp_path / "human.jsonl", tmp_path / "model.jsonl"
    assert cli("chex-eval", "--readers", *truths(three[:2]), "--per-image", human).code == 0
    assert [record["iou"] for record in lines(human.read_text())] == [{"Edema": pytest.approx(1 / 3)}] * 2
    cli("chex-eval", three[0], "--truth", three[1], "--per-image", model)
    compared = cli("chex-compare", model, human, "--metric", "iou")
    assert compared.code == 0, compared.err


def test_records_with_readers_from_a_pipe(cli, three, tmp_path):
    made = cli("chex-segment", "/dev/null")
    assert made.code == 0
    text = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n" + "".join(
        f"a,Edema,1,R{n},{n},0,{n + 10},10\n" for n in range(3)
    )
    (tmp_path / "v.csv").write_text(text)
    records = cli("chex-segment", tmp_path / "v.csv", "--truth-size", "60x60")
    (record,) = lines(records.out)
    assert list(record["readers"]) == ["R0", "R1", "R2"] and record["kind"] == "box"
    rows = lines(cli("chex-eval", "--readers", stdin=records.out.encode()).out)
    straight = lines(cli("chex-eval", "--readers", "--truth", tmp_path / "v.csv").out)
    assert [row["mean"] for row in rows] == [row["mean"] for row in straight]


def test_one_reader_is_none(cli, three):
    result = cli("chex-eval", "--readers", "--truth", three[0])
    assert result.code == 1 and "no CXR has several readers" in result.err


def test_options_of_models_are_refused(cli, three):
    assert cli("chex-eval", "--readers", *truths(three), "--metric", "pixel").code == 2
    assert cli("chex-eval", three[0], "--readers", *truths(three)).code == 2
