"""chex-view: pictures that show what they say, numbers that are chex-eval's, layouts, selections, and resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import launcher, need_shared
from PIL import Image

from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.masks.mask import Mask
from chextools.plumbing.lettering import width_of
from chextools.viewing import colours, overlay, text
from chextools.viewing.panels import Case, Subject
from chextools.viewing.target import plain_name
from chextools.xrays import images

H, W = 60, 90


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def box(top: int, left: int, bottom: int, right: int, size=(H, W)) -> Mask:
    array = np.zeros(size, bool)
    array[top:bottom, left:right] = True
    return Mask.from_array(array)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A working directory with a grey X-ray, x.png."""
    monkeypatch.chdir(tmp_path)
    Image.new("L", (W, H), 100).save("x.png")
    return tmp_path


def record(identifier: str, task: str = "Edema", mask: Mask | None = None, **more) -> dict:
    return {"id": identifier, "image": "x.png", "masks": {task: (mask or box(10, 10, 40, 40)).to_rle()}} | more


def lines(*found: dict) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in found).encode()


def truth_file(path, by_id: dict[str, Mask], task: str = "Edema") -> str:
    path.write_text(json.dumps({identifier: {task: mask.to_rle()} for identifier, mask in by_id.items()}))
    return str(path)


def ladder(folder, count: int) -> tuple[bytes, str, list[float]]:
    """Records p00, p01, ... whose masks overlap the same truth less and less; the truth; their IoUs."""
    found = [record(f"p{k:02d}", mask=box(10, 10 + k, 40, 40 + k)) for k in range(count)]
    truth = truth_file(folder / "gt.json", {each["id"]: box(10, 10, 40, 40) for each in found})
    return lines(*found), truth, [(30 - k) / (30 + k) for k in range(count)]


# Drawing


def to_oklab(rgb: np.ndarray) -> np.ndarray:
    """Oklab of sRGB in [0, 1], from the definition, not from the inverse that the colour map is made with."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lms = np.cbrt(
        linear
        @ np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        ).T
    )
    return (
        lms
        @ np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        ).T
    )


def test_the_colour_map_is_perceptually_uniform():
    steps = np.linalg.norm(np.diff(to_oklab(colours.colour_map()[::15] / 255.0), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.1  # colours are whole numbers
    assert (np.diff(to_oklab(colours.colour_map()[::5] / 255.0)[:, 0]) > 0).all()


# What dichromats see: Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_colour_map_keeps_its_order_for_the_colour_blind(kind):
    rgb = colours.colour_map()[::8] / 255.0
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(BLINDNESS[kind]).T, 0, 1)
    encoded = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
    assert (np.diff(to_oklab(encoded)[:, 0]) > 0).all()


def test_no_heat_leaves_the_x_ray_and_more_heat_shows_more_colour():
    pixels = np.full((1, 256), 128, np.uint8)
    drawn = colours.heated(pixels, np.linspace(0, 1, 256)[None]).astype(int)
    assert drawn[0, 0].tolist() == [128, 128, 128]
    colourfulness = np.ptp(drawn[0], axis=1)
    assert colourfulness[255] > 100 and (colourfulness[::32][1:] > colourfulness[::32][:-1]).all()


def is_colour(image: np.ndarray, colour: tuple) -> np.ndarray:
    return np.abs(image.astype(int) - colour).max(axis=-1) < 60


def test_the_truth_is_solid_and_the_prediction_dashed():
    """On a grey that is neither: along the truth's side all is white, along the prediction's about half is blue."""
    panel = overlay.Panel(
        np.full((600, 800), 90, np.uint8),
        (600, 800),
        None,
        box(100, 100, 500, 300, (600, 800)),
        box(100, 500, 500, 700, (600, 800)),
    )
    image = np.asarray(overlay.draw_panel(panel))
    assert is_colour(image[120:480, 98:104], colours.TRUTH).any(axis=1).all()
    share = is_colour(image[120:480, 498:504], colours.PREDICTED).any(axis=1).mean()
    assert 0.4 < share < 0.8
    assert (image[300, 200] == 90).all() and (image[40, 40] == 90).all()  # inside and outside nothing is drawn


@pytest.mark.parametrize("back", [0, 255])
@pytest.mark.parametrize("side", [60, 200, 1000])
def test_outlines_stand_out_from_black_and_from_white(back, side):
    """By 4.5:1 (WCAG 2.2 asks 3:1 of graphics), also the thinnest where it falls between two pixels."""
    quarter = side // 4
    mask = box(quarter, quarter, 3 * quarter, 3 * quarter, (side, side))
    panel = overlay.Panel(np.full((side, side), back, np.uint8), (side, side), None, mask)
    seen = np.asarray(overlay.draw_panel(panel))[side // 2, : side // 2, 0] / 255
    light = np.where(seen <= 0.04045, seen / 12.92, ((seen + 0.055) / 1.055) ** 2.4) + 0.05
    assert light.max() / light.min() > 4.5


def test_a_line_is_a_share_of_the_picture_down_to_what_can_be_seen():
    def width(side: int) -> float:
        """Of the truth's line, in pixels."""
        panel = overlay.Panel(np.zeros((side, side), np.uint8), (80, 80), None, box(20, 20, 60, 60, (80, 80)))
        return np.asarray(overlay.draw_panel(panel))[side // 2, : side // 2, 0].sum() / 255

    assert width(800) / 800 == pytest.approx(width(1600) / 1600, rel=0.1) == pytest.approx(1.3 / 450, rel=0.1)
    assert width(400) / 400 == pytest.approx(1.3 / 450, rel=0.2)  # a third of a pixel is the least step
    assert width(40) == width(80) == width(200) == pytest.approx(1, abs=0.01)


def test_a_hit_a_miss_and_an_unknown_point_have_signs_of_their_own():
    truth = box(0, 0, 50, 50, (100, 100))
    panel = overlay.Panel(np.zeros((100, 100), np.uint8), (100, 100), None, truth, None, [(9, 9)], [(20, 20), (80, 80)])
    assert [sign for *_, sign in panel.markers] == ["truth point", "hit", "miss"]
    unknown = overlay.Panel(panel.pixels, (100, 100), predicted_points=[(20, 20)])
    assert [sign for *_, sign in unknown.markers] == ["point"]
    drawn = {overlay.draw_panel(p).tobytes() for p in (panel, unknown)}
    assert len(drawn) == 2


def test_text_fits_whatever_it_is():
    for words in ("Edema", "Enlarged Cardiomediastinum " * 30, "é你\u202e\ud800\n<b>", "W" * 1000, ""):
        for width in (0, 5, 40, 300):
            assert width_of(text.fitted(words, 20, width), 20) <= width
    assert text.fitted("Edema", 20, 300) == "Edema"
    short = text.fitted("patient64541_study1_view1_frontal", 20, 200)
    assert short.startswith("patient") and short.endswith("frontal") and "…" in short
    assert text.legible("Ödem\n你") == "Odem\\n\\u4f60"


def test_a_long_name_widens_no_picture(work, cli):
    cli("chex-view", "-o", "v", "--size", "100", stdin=lines(record("a"), record("b" * 200, "Edema" * 200)))
    assert len({Image.open(path).size for path in (work / "v").iterdir()}) == 1


# Reading X-rays


def test_shrinking_keeps_proportions_and_turns_as_exif_says(tmp_path):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (8, 10), np.uint8)).resize((500, 400), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.jpg", quality=95)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    image.save(tmp_path / "b.jpg", quality=95, exif=turned)
    header, pixels = images.shrink(tmp_path / "a.jpg", 100)
    assert (header.size, pixels.shape) == ((400, 500), (80, 100))
    header, other = images.shrink(tmp_path / "b.jpg", 100)
    assert (header.size, other.shape) == ((500, 400), (100, 80))
    np.testing.assert_array_equal(np.rot90(pixels, -1), other)
    whole = Image.fromarray(images.read(tmp_path / "a.jpg")).resize((100, 80), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(whole).astype(int) - pixels).mean() < 2


def test_a_square_is_shrunk_as_it_is_loaded(tmp_path):
    rng = np.random.default_rng(1)
    Image.fromarray(rng.integers(0, 255, (300, 300), np.uint8)).save(tmp_path / "a.jpg")
    np.testing.assert_array_equal(images.shrink(tmp_path / "a.jpg", 64)[1], images.load(tmp_path / "a.jpg", 64))


# Numbers


@pytest.fixture(scope="module")
def with_images(tmp_path_factory):
    """The small oracle's masks as records, and made-up X-rays of its sizes."""
    from conftest import DATA

    folder = tmp_path_factory.mktemp("xrays")
    for identifier, masks in json.loads((DATA / "oracle-small/expected/seg_otsu.json").read_text()).items():
        height, width = next(iter(masks.values()))["size"]
        Image.new("L", (width, height), 90).save(folder / f"{identifier}.png")
    return folder


def test_iou_and_hit_are_those_of_chex_eval(cli, small, with_images, tmp_path):
    masks, per_image = tmp_path / "masks.jsonl", tmp_path / "per_image.jsonl"
    truth = small / "expected/gt.json"
    cli("chex-segment", small / "maps", "-o", masks)
    cli("chex-eval", masks, "--truth", truth, "--per-image", per_image)
    result = cli("chex-view", masks, "--truth", truth, "--images", with_images, "-o", tmp_path / "v", "--size", "64")
    assert result.code == 0
    measured = {row["id"]: row for row in rows(per_image.read_text())}
    compared = 0
    for viewed in rows(result.out):
        for task, seen in viewed["views"].items():
            row = measured[viewed["id"]]
            assert seen["iou"] == row["iou"][task] and seen["hit"] == row["hit"][task]
            assert seen["score"] == viewed["scores"][task]
            compared += 1 + (seen["iou"] is not None)
    assert compared > 100


def test_points_of_people_hit_as_in_chex_eval(cli, small, with_images, tmp_path):
    points, truth = small / "gt_points.json", small / "expected/gt.json"
    cli("chex-eval", points, "--human", "--truth", truth, "--per-image", tmp_path / "p.jsonl")
    result = cli("chex-view", points, "--truth", truth, "--images", with_images, "-o", tmp_path / "v", "--size", "64")
    measured = {row["id"]: row["hit"] for row in rows((tmp_path / "p.jsonl").read_text())}
    seen = {(r["id"], t): v["hit"] for r in rows(result.out) for t, v in r["views"].items()}
    assert seen and all(hit == measured[identifier][task] for (identifier, task), hit in seen.items())


def test_the_real_sample(cli, tmp_path):
    sample = need_shared("data/chexlocalize-sample")
    options = ["--images", sample / "valid.csv", "--truth", sample / "gt_annotations_val.json", "-o", tmp_path]
    result = cli("chex-view", sample / "gradcam_maps_val", *options, "--task", "Cardiomegaly")
    (view,) = rows(result.out)[0]["views"].values()
    assert (view["iou"], view["hit"], view["score"]) == (None, 1, 0.1537875697016716)
    picture = Image.open(view["picture"])
    margin = picture.width - 800
    assert margin > 0 and picture.height > 2320 / 2828 * 800  # the X-ray is 800 wide, text above and below


# Heatmaps


def npz(folder, values: np.ndarray, identifier: str = "a") -> dict:
    heatmaps = Heatmaps(identifier, (H, W), {"Edema": values.astype(np.float32)}, {"Edema": 0.5}, input_size=(6, 9))
    write_npz(folder / f"{identifier}.npz", heatmaps)
    return {"id": identifier, "image": "x.png", "heatmap": str(folder / f"{identifier}.npz")}


def heat_of(found: dict, sign: str | None = None) -> tuple[np.ndarray | None, tuple[str, ...]]:
    case = Case(Subject("", found), 90, sign=sign)
    panel, ends = case.panel("Edema", case.read("Edema"))
    return panel.heat, ends


def test_the_sign_says_which_evidence_is_shown(work):
    values = np.zeros((6, 9))
    values[:3, :3], values[3:, 6:] = 2, -4  # around (15, 15) and (45, 75) of the X-ray
    found = npz(work, values)
    places = (15, 15), (45, 75), (30, 45)
    for sign, ends, expected in (
        (None, ("0", "1", "2"), (1, 0, 0)),
        ("positive", ("0", "1", "2"), (1, 0, 0)),
        ("abs", ("0", "2", "4"), (0.5, 1, 0)),
        ("raw", ("-4", "-1", "2"), (1, 0, 4 / 6)),
    ):
        heat, said = heat_of(found, sign)
        assert said == ends
        np.testing.assert_allclose([heat[place] for place in places], expected, atol=1e-6)
        assert sign is None or heat_of(found | {"sign": sign})[1] == ends  # the record's own word
    assert heat_of(found | {"sign": "abs"}, "raw")[1] == ("-4", "-1", "2")


def test_a_flat_heatmap_is_said_and_not_coloured(work, cli):
    found = npz(work, np.ones((6, 9)))
    assert heat_of(found) == (None, ("", ""))
    case = Case(Subject("", found), 90)
    assert "flat heatmap" in case.notes("Edema", case.read("Edema"))
    assert cli("chex-view", "-o", "v", stdin=lines(found)).code == 0


def test_the_greatest_value_is_marked(work):
    values = np.zeros((6, 9))
    values[2, 3] = 1
    case = Case(Subject("", npz(work, values), {"masks": {"Edema": box(20, 30, 30, 40).to_rle()}}), 90)
    reading = case.read("Edema")
    ((x, y),) = reading.points
    assert abs(x - 34.5) <= 1 and abs(y - 24.5) <= 1 and reading.hit == 1


# Layouts and selections


def test_worst_and_best_are_by_iou_and_of_each_task(work, cli):
    stdin, truth, ious = ladder(work, 8)
    for select, expected in (("worst", ious[5:]), ("best", ious[:3])):
        result = cli("chex-view", "--truth", truth, "-o", select, "--select", select, "--count", "3", stdin=stdin)
        chosen = rows(result.out)
        assert [r["views"]["Edema"]["iou"] for r in chosen] == pytest.approx(expected)
        assert sorted(os.listdir(select)) == [f"{r['id']}_Edema.png" for r in chosen]


def test_an_empty_mask_is_worse_than_any_and_what_is_not_outlined_is_not_ranked(work, cli):
    stdin, truth, _ = ladder(work, 3)
    more = [record("p01x"), record("empty", mask=Mask.empty((H, W)))]
    known = json.loads((work / "gt.json").read_text())
    known["empty"] = known["p00"]
    (work / "gt.json").write_text(json.dumps(known))
    result = cli(
        "chex-view", "--truth", truth, "-o", "v", "--select", "worst", "--count", "1", stdin=stdin + lines(*more)
    )
    assert [r["id"] for r in rows(result.out)] == ["empty"]
    everything = cli("chex-view", "--truth", truth, "-o", "v", "-f", "--select", "best", stdin=stdin + lines(*more))
    assert "p01x" not in {r["id"] for r in rows(everything.out)} and len(rows(everything.out)) == 4


def test_random_is_the_same_in_any_order_of_the_input(work, cli):
    stdin, truth, _ = ladder(work, 9)
    options = ["--truth", truth, "-o", "v", "-f", "--select", "random", "--count", "4"]
    forward = cli("chex-view", *options, stdin=stdin).out
    backward = cli("chex-view", *options, stdin=b"".join(stdin.splitlines(True)[::-1])).out
    assert sorted(forward.splitlines()) == sorted(backward.splitlines()) and len(rows(forward)) == 4
    assert {r["id"] for r in rows(forward)} != {
        r["id"] for r in rows(cli("chex-view", *options, "--seed", 1, stdin=stdin).out)
    }


def test_a_sheet_has_twenty_tiles_a_page(work, cli):
    stdin, truth, _ = ladder(work, 23)
    result = cli("chex-view", "--truth", truth, "-o", "v", "--layout", "sheet", "--size", "64", stdin=stdin)
    views = [r["views"]["Edema"] for r in rows(result.out)]
    assert sorted(os.listdir("v")) == ["Edema_001.png", "Edema_002.png"]
    assert [v["picture"] for v in views] == ["v/Edema_001.png"] * 20 + ["v/Edema_002.png"] * 3
    assert [v["tile"] for v in views[:7]] == [[1, 1], [1, 2], [1, 3], [1, 4], [1, 5], [2, 1], [2, 2]]
    assert views[20]["tile"] == [1, 1]
    assert Image.open("v/Edema_001.png").height > 2 * Image.open("v/Edema_002.png").height


def test_a_sheet_of_the_worst_begins_with_the_worst(work, cli):
    stdin, truth, ious = ladder(work, 6)
    options = ["--layout", "sheet", "--select", "worst", "--count", "4", "--truth", truth, "-o", "v"]
    views = [r["views"]["Edema"] for r in rows(cli("chex-view", *options, stdin=stdin).out)]
    assert sorted((v["tile"][1], v["iou"]) for v in views) == [(k, pytest.approx(ious[6 - k])) for k in (1, 2, 3, 4)]


def test_a_grid_puts_methods_side_by_side_and_tasks_down(work, cli):
    other = box(15, 15, 45, 45)
    found = [
        record("a", method="one") | {"masks": {t: other.to_rle() for t in ("Edema", "Atelectasis")}},
        record("b", method="one"),
        record("a", method="two"),
    ]
    result = cli("chex-view", "-o", "v", "--layout", "grid", "--size", "64", stdin=lines(*found))
    tiles = {(r["id"], r["method"], t): v["tile"] for r in rows(result.out) for t, v in r["views"].items()}
    assert tiles == {
        ("a", "one", "Edema"): [1, 1],
        ("a", "one", "Atelectasis"): [2, 1],
        ("a", "two", "Edema"): [1, 2],
        ("b", "one", "Edema"): [1, 1],
    }
    assert sorted(os.listdir("v")) == ["a.png", "b.png"]
    again = cli("chex-view", "-o", "v", "-f", "--layout", "grid", stdin=lines(*found, found[2]))
    assert again.code == 1 and "stdin:4: duplicate id 'a' of one method, first at stdin:3" in again.err


def test_models_tell_columns_of_one_method_apart(work, cli):
    found = [record("a", method="m", model=model) for model in ("1" * 64, "2" * 64)]
    result = cli("chex-view", "-o", "v", "--layout", "grid", stdin=lines(*found))
    assert [r["views"]["Edema"]["tile"] for r in rows(result.out)] == [[1, 1], [1, 2]]


@pytest.mark.parametrize("layout", ["single", "sheet", "grid"])
def test_jobs_give_the_same_pictures(work, cli, layout):
    stdin, truth, _ = ladder(work, 5)
    for jobs in (1, 3):
        cli("chex-view", "--truth", truth, "-o", f"v{jobs}", "--layout", layout, "-j", jobs, stdin=stdin)
    assert os.listdir("v1") and contents("v1") == contents("v3")


def contents(folder) -> dict[str, bytes]:
    return {name: (open(os.path.join(folder, name), "rb").read()) for name in os.listdir(folder)}


# Truth


def test_an_x_ray_alone_shows_the_truth(work, cli):
    (work / "points.json").write_text(json.dumps({"a": {"Edema": [[20, 20]]}}))
    truth = truth_file(work / "gt.json", {"a": box(10, 10, 40, 40), "b": Mask.empty((H, W))})
    xrays = [{"id": name, "image": "x.png"} for name in ("a", "b", "c")]
    result = cli("chex-view", "--truth", truth, "--truth", "points.json", "-o", "v", stdin=lines(*xrays))
    assert [list(r["views"]) for r in rows(result.out)] == [["Edema"], []]
    assert "stdin:3: nothing to show" in result.err and result.code == 1


def test_truth_of_another_size_fails_by_task(work, cli):
    truth = truth_file(work / "gt.json", {"a": box(1, 1, 5, 5, (50, 50))})
    found = record("a")
    found["masks"]["Atelectasis"] = found["masks"]["Edema"]
    result = cli("chex-view", "--truth", truth, "-o", "v", stdin=lines(found))
    (viewed,) = rows(result.out)
    assert list(viewed["views"]) == ["Atelectasis"] and result.code == 1
    assert viewed["failed"] == {"Edema": "the mask has the size [60, 90], its truth [50, 50]"}


def test_truth_with_masks_and_points_in_one_record(work, cli):
    (work / "gt.jsonl").write_bytes(lines(record("a") | {"points": {"Edema": [[20, 20]]}}))
    xray = {"id": "a", "image": "x.png"}
    assert cli("chex-view", "--truth", "gt.jsonl", "-o", "v", stdin=lines(xray)).code == 0
    truth = truth_file(work / "gt.json", {"a": box(10, 10, 40, 40)})
    assert cli("chex-view", "--truth", truth, "-o", "w", stdin=lines(xray)).code == 0
    assert (
        is_colour(np.asarray(Image.open("v/a_Edema.png")), colours.TRUTH).sum()
        > is_colour(np.asarray(Image.open("w/a_Edema.png")), colours.TRUTH).sum()
    )


@pytest.mark.parametrize(
    "odd, reason",
    [
        ({"image": None}, 'no "image" key; name the X-rays with --images'),
        ({"image": "none.png"}, "none.png: No such file or directory"),
        (
            {"size": [1, 2], "masks": {"Edema": {"size": [1, 2], "counts": [1, 1]}}},
            "the record's size is [1, 2], that of x.png [60, 90]",
        ),
        ({"size": [1, 2]}, "[1, 2]"),
        ({"sign": "up"}, "\"sign\" is 'up', not one of positive, abs, raw"),
        ({"heatmap": "none.npz"}, "none.npz: No such file or directory"),
        ({"points": {"Edema": [[99, 1]]}}, "the point (99, 1) lies outside the image of 60 x 90"),
        ({"masks": {"Edema": {"size": [6, 9], "counts": [54]}}}, "the mask has the size [6, 9], the X-ray [60, 90]"),
        ({"id": "\ud800"}, "is not a plain name"),
    ],
)
@pytest.mark.parametrize("layout", ["single", "sheet", "grid"])
def test_what_cannot_be_drawn_is_said_and_the_others_go_on(work, cli, layout, odd, reason):
    result = cli("chex-view", "-o", "v", "--layout", layout, "--size", 64, stdin=lines(record("a") | odd, record("b")))
    assert result.code == 1 and result.err.count("warning") == 1
    assert f"chex-view: warning: stdin:1: {'' if 'id' not in odd else 'id '}" in result.err and reason in result.err
    assert "b" in {r["id"] for r in rows(result.out)}


# Files


@pytest.mark.parametrize(
    "task", ["a/b", "..", "../../x", "a_b", ".", "", "x" * 300, "Ödem", "a-b", "con\u202e", "~", "$(x)"]
)
def test_no_task_leaves_the_folder_or_takes_anothers_name(task):
    others = {"a-b", "a b", "..", "Edema", "x" * 40} - {task}
    name = plain_name(task)
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,()+-")
    assert len(name) < 50 and name not in {plain_name(other) for other in others}


def test_an_existing_picture_is_refused_one_by_one(work, cli):
    os.mkdir("v")
    (work / "v/a_Edema.png").write_text("mine")
    result = cli("chex-view", "-o", "v", stdin=lines(record("a"), record("b")))
    assert result.code == 1 and "v/a_Edema.png: exists; use --force" in result.err
    assert [r["id"] for r in rows(result.out)] == ["b"] and (work / "v/a_Edema.png").read_text() == "mine"
    refused = cli("chex-view", "-o", "v", "--resume", stdin=lines(record("a")))
    assert "made from another record" in refused.err and (work / "v/a_Edema.png").read_text() == "mine"
    assert cli("chex-view", "-o", "v", "-f", stdin=lines(record("a"))).code == 0


@pytest.mark.parametrize("layout", ["single", "sheet", "grid"])
def test_resuming_keeps_what_is_finished_and_refuses_what_is_not_the_same(work, cli, layout):
    stdin, truth, _ = ladder(work, 3)
    options = ["--truth", truth, "-o", "v", "--layout", layout]
    first = cli("chex-view", *options, stdin=stdin)
    before = {name: os.stat(f"v/{name}").st_mtime_ns for name in os.listdir("v")}
    os.remove(f"v/{min(before)}")
    whole = contents("v")
    again = cli("chex-view", *options, "--resume", stdin=stdin)
    assert (again.out, again.err) == (first.out, "")
    after = {name: os.stat(f"v/{name}").st_mtime_ns for name in os.listdir("v")}
    assert after.keys() == before.keys() and all(after[name] == before[name] for name in whole)
    other = cli("chex-view", *options, "--resume", "--size", "200", stdin=stdin)
    assert other.code == 1 and other.out == "" and "made from another record, truth or setting" in other.err


def test_a_killed_run_goes_on_to_the_same_files(work, cli):
    stdin, truth, _ = ladder(work, 25)
    options = ["--truth", truth, "--size", "300", "-j", "2"]
    whole = cli("chex-view", *options, "-o", "v", stdin=stdin).out
    expected = contents("v")
    for path in list(work.glob("v/*")):
        path.unlink()
    command = [*launcher("chex-view"), *options, "-o", "v", "--resume"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdout.readline()
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGKILL)
    while any(Path(f"/proc/{worker}").exists() for worker in workers):  # they end with their parent
        time.sleep(0.05)
    assert 0 < len(list(work.glob("v/*.png"))) < 25
    assert cli("chex-view", *options, "-o", "v", "--resume", stdin=stdin).out == whole
    assert contents("v") == expected


def test_a_tile_that_failed_is_drawn_again(work, cli):
    found = [record("a"), record("b", image="later.png")]
    Image.new("L", (W + 1, H)).save("later.png")
    options = ["-o", "v", "--layout", "sheet", "--size", "64", "--resume"]
    failed = cli("chex-view", *options, stdin=lines(*found))
    assert failed.code == 1 and rows(failed.out)[1]["views"] == {}
    Image.new("L", (W, H)).save("later.png")
    mended = cli("chex-view", *options, stdin=lines(*found))
    assert mended.code == 0 and rows(mended.out)[1]["views"]["Edema"]["tile"] == [1, 2]


def test_a_full_disk_is_said(work):
    script = f"trap '' XFSZ; ulimit -f 1; {' '.join(launcher('chex-view'))} -o v"
    result = subprocess.run(["bash", "-c", script], input=lines(record("a")), capture_output=True, timeout=60)
    assert result.returncode == 1 and b"v/a_Edema.png: File too large" in result.stderr
    assert os.listdir("v") == []


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--count", "3"], "--count is how many --select takes"),
        (["--select", "worst", "--shard", "1/2"], "--shard is not for --select"),
        (["--layout", "sheet", "--shard", "1/2"], "--shard is not for --select"),
        (["--truth", "-"], "only one of RECORDS, --truth and --images can be stdin"),
    ],
)
def test_options_that_contradict_each_other(work, cli, options, reason):
    result = cli("chex-view", "-", "-o", "v", *options)
    assert result.code == 2 and reason in result.err


def test_only_the_wanted_tasks(work, cli):
    found = record("a")
    found["masks"]["Atelectasis"] = found["masks"]["Edema"]
    result = cli("chex-view", "-o", "v", "--task", "Edema", stdin=lines(found))
    assert [list(r["views"]) for r in rows(result.out)] == [["Edema"]]
    refused = cli("chex-view", "-o", "v", "--task", "Edma", stdin=lines(found))
    assert (refused.code, refused.out) == (1, "") and "did you mean 'Edema'?" in refused.err
