"""chex-train's options for looking where it should, all together: they reach the weights, and a run that is stopped."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from chextools.models import checkpoints

SHORT = ("--size", "32", "--batch-size", "6", "--steps", "4", "--checkpoint-every", "2", "--device", "cpu", "-j", "1")
ALL = (
    *("--arch", "shufflenet_v2_x0_5", "--dilate", "4", "--mix", "ph/t.csv:0.5", "--mix-loss", "set"),
    *("--outlines", "ph/t.csv=gt.json", "--outline-weight", "0.5", "--trunk-rate", "0.5", "--layer-decay", "0.1"),
    *("--crop", "0.7", "--exposure", "0.3", "--border", "0.1", "--class-weights", "balanced"),
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two sets of 9 images with the same names; of the second, in ph, Edema is outlined and Nodule is labelled."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "ph").mkdir()
    for folder, header in ((tmp_path, "Path,Edema"), (tmp_path / "ph", "Path,Edema,Nodule")):
        rows = []
        for k in range(9):
            pixels = random.integers(0, 100, (40, 40))
            pixels[5:20, 5:20] += 100 * (k % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{k}.png")
            rows.append(f"{k}.png,{k % 2}" + f",{k // 2 % 2}" * ("Nodule" in header))
        (folder / "t.csv").write_text("\n".join([header, *rows]) + "\n")
    square = [[5, 5], [20, 5], [20, 20], [5, 20]]
    (tmp_path / "gt.json").write_text(
        json.dumps({str(k): {"img_size": [40, 40], "Edema": [square]} for k in (1, 3, 5, 7)})
    )
    return tmp_path


def train(cli, run: str, *more: str):
    return cli("chex-train", "t.csv", "--valid", "t.csv", "-o", run, *SHORT, *more)


def weights(run: str) -> dict:
    return checkpoints.load(f"{run}/last.pt").model.state_dict()


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_all_together_are_said_replayed_and_resumed(cli, place):
    whole = train(cli, "whole", *ALL)
    assert whole.code == 0, whole.err
    assert "t.csv: 3 of the 6 images of each batch" in whole.err and "ph/t.csv: 3 of the 6" in whole.err
    assert "t.csv: no label at all of Nodule: its images count for the other tasks only" in whole.err
    assert "gt.json: outlines of 4 of 4 positive labels, in 4 images" in whole.err
    rows = [json.loads(line) for line in whole.out.splitlines()]
    assert [row["epoch"] for row in rows] == [round(6 / 9, 4), round(12 / 9, 4)]  # of TRAIN's own images
    outside = [row["outline_loss"] for row in rows]  # null where no outline was met since the last row
    assert 0 <= outside[0] <= 1 and rows[0]["auroc"]["Nodule"] is None
    assert train(cli, "parts", *ALL, "--max-time", "0").code == 75
    for _ in range(6):
        result = train(cli, "parts", "--resume", "--max-time", "0")
        if result.code == 0:
            break
    assert result.code == 0 and same(weights("whole"), weights("parts"))
    parts = [json.loads(line) for line in result.out.splitlines()]
    assert [row["outline_loss"] for row in parts] == outside
    assert cli("chex-train", "--config", "whole/config.json", "-o", "again").code == 0
    assert same(weights("whole"), weights("again"))
    other = train(cli, "other", "--config", "whole/config.json", "--outline-weight", "0")
    assert other.code == 0 and not same(weights("whole"), weights("other"))
    cam = cli("chex-cam", "1.png", "--checkpoint", "whole/last.pt", "-o", "maps", "--device", "cpu")
    assert cam.code == 0, cam.err
    with np.load(json.loads(cam.out)["heatmap"]) as maps:
        assert maps["maps"].shape[1:] == (4, 4)  # one cell without --dilate


def test_a_frozen_trunk_is_left_as_it_was(cli, place):
    plain = ("--arch", "shufflenet_v2_x0_5")
    assert train(cli, "A", *plain).code == 0
    assert train(cli, "B", *plain, "--weights", "A/last.pt", "--trunk-rate", "0").code == 0
    before, after = weights("A"), weights("B")
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    "options, said",
    [
        (("--dilate", "2", "--arch", "vit_b_32"), "--dilate 2: vit_b_32: the last "),
        (("--mix", "no.csv"), "no.csv: No such file or directory"),
        (("--mix", "ph/t.csv:1.5"), "--mix ph/t.csv:1.5: the share of a batch must be above 0 and below 1"),
        (("--mix", "-", "--valid", "-"), "only one can be stdin"),
        (("--outlines", "no.json"), "no.json: No such file or directory"),
        (("--outlines", "gt.json", "--mix", "ph/t.csv"), "--outlines SET=FILE says of which set it is"),
        (
            ("--outlines", "gt.json", "--arch", "shufflenet_v2_x0_5"),
            "shufflenet_v2_x0_5 has no pool over its last maps",
        ),
        (("--outlines", "gt.json", "--compile"), "--outlines cannot be used with --compile"),
    ],
)
def test_what_cannot_work_is_one_line(cli, place, options, said):
    result = train(cli, "RUN", *options)
    assert result.code in (1, 2) and result.err.count("error:") == 1
    assert said in result.err.splitlines()[-1] and not (place / "RUN").exists()
