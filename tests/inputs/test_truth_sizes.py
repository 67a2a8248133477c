"""Sizes that files of truth do not say: of the X-rays beside them, of what they are compared with."""

import json

import numpy as np
from PIL import Image

from chextools.masks.mask import Mask

HEAD = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_xrays_say_the_size(cli, tmp_path):
    (tmp_path / "xrays").mkdir()
    Image.fromarray(np.zeros((60, 70), np.uint8)).save(tmp_path / "xrays/a.png")
    (tmp_path / "t.csv").write_text(HEAD + "a,Edema,1,R1,10,20,40,50\nb,Edema,1,R1,1,2,4,5\n")
    result = cli("chex-segment", tmp_path / "t.csv", "--images", tmp_path / "xrays")
    first, second = lines(result.out)
    assert first["size"] == [60, 70] and Mask.from_rle(first["masks"]["Edema"]).area == 900
    assert "does not say the image's size" in second["failed"]["Edema"] and result.code == 1


def test_a_mask_of_another_size_than_its_xray_is_refused_or_scaled(cli, tmp_path):
    for folder, size, name in (("xrays", (60, 70), "a.png"), ("masks", (30, 35), "a_Edema.png")):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.full(size, 255, np.uint8)).save(tmp_path / folder / name)
    options = [tmp_path / "masks", "--images", tmp_path / "xrays"]
    (refused,) = lines(cli("chex-segment", *options).out)
    assert "are in an image of 30 x 35, this one has 60 x 70" in refused["failed"]["Edema"]
    (scaled,) = lines(cli("chex-segment", *options, "--truth-size", "30x35").out)
    assert scaled["size"] == [60, 70] and Mask.from_rle(scaled["masks"]["Edema"]).area == 60 * 70


def test_what_was_not_predicted_is_missed_and_not_failed(cli, tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + "a,Edema,1,R1,10,20,40,50\nb,Edema,1,R1,1,2,4,5\n")
    mask = np.zeros((60, 70), bool)
    mask[20:50, 10:40] = True
    line = json.dumps({"id": "a", "masks": {"Edema": Mask.from_array(mask).to_rle()}}).encode()
    (row, _) = lines(cli("chex-eval", "--truth", tmp_path / "t.csv", "--metric", "iou", stdin=line).out)
    assert (row["mean"], row["n"], row["positives"], row["misses_as_0"], row["failed"]) == (1.0, 1, 2, 0.5, 0)
    assert row["truth"] == "boxes"


def test_boxes_are_scaled_to_each_heatmap(cli, small, tmp_path):
    """Doubled coordinates with doubled size are the same truth."""
    name = "patient64001_study1_view1_frontal"
    rows = lines(cli("chex-segment", small / "gt_annotations.json").out)
    height, width = next(row["size"] for row in rows if row["id"] == name)
    for k in (1, 2):
        (tmp_path / f"{k}.csv").write_text(f"{HEAD}{name},Edema,1,R1,{10 * k},{20 * k},{60 * k},{90 * k}\n")
    options = ["chex-eval", small / "maps", "--metric", "hit", "--metric", "energy", "--task", "Edema"]
    plain = cli(*options, "--truth", tmp_path / "1.csv")
    scaled = cli(*options, "--truth", tmp_path / "2.csv", "--truth-size", f"{2 * height}x{2 * width}")
    assert plain.code == scaled.code == 0 and plain.out == scaled.out
