"""A sketch is one picture in two formats: what lies where, what is written, and what is a vector."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from conftest import need_tool
from PIL import Image

from chextools.errors import InputError
from chextools.masks.mask import Mask
from chextools.plumbing.lettering import width_of
from chextools.viewing import colours, legend, pdf, png, sketch, svg
from chextools.viewing.legend import Legend
from chextools.viewing.overlay import Panel
from chextools.viewing.sketch import Line, Shown, Sketch, Written

SVG = "{http://www.w3.org/2000/svg}"
H, W = 60, 90


def _mask(top: int, left: int, bottom: int, right: int) -> Mask:
    array = np.zeros((H, W), bool)
    array[top:bottom, left:right] = True
    return Mask.from_array(array)


@pytest.fixture
def panel() -> Panel:
    truth, predicted = _mask(10, 10, 40, 40), _mask(15, 20, 45, 60)
    return Panel(np.full((H, W), 90, np.uint8), (H, W), None, truth, predicted, [(20, 20)], [(30, 30), (80, 50)])


def _parsed(made: Sketch, theme: str = "dark") -> ET.Element:
    return ET.fromstring(svg.text_of(made, colours.THEMES[theme]))


def test_parts_are_placed_below_and_beside_each_other(panel):
    one, text = sketch.of_panel(panel), sketch.text_block([Line("Edema")], 50, 12)
    whole = sketch.stacked([sketch.side_by_side([one, None, one], 100, 10), text], 5, 3)
    assert (whole.width, whole.height) == (3 * 100 + 2 * 10 + 6, H + 5 + text.height + 6)
    assert [(s.x, s.y) for s in whole.shapes if isinstance(s, Shown)] == [(3 + 5, 3), (3 + 220 + 5, 3)]


def test_a_picture_that_is_too_large_is_refused_before_it_is_drawn():
    with pytest.raises(InputError, match="too large"):
        sketch.stacked([Sketch(70_000, 10)], 0, 0)


@pytest.mark.parametrize("width", [40, 120, 300])
def test_long_text_takes_a_second_line_and_never_leaves_the_block(width):
    text = "gradcam · score 0.154 · labelled positive · nothing outlined"
    block = sketch.text_block([Line(text, badges=[("IoU 0.37", False)])], width, 12)
    written = [s for s in block.shapes if isinstance(s, Written)]
    assert all(s.x + s.width <= width + 1 for s in written if not s.centred)
    roomy = sketch.text_block([Line(text)], 220, 12)
    assert " ".join(s.text for s in roomy.shapes) == text and roomy.height == 2 * round(1.45 * 12)


@pytest.mark.parametrize("theme", colours.THEMES)
def test_both_formats_have_the_same_paper_and_words(panel, theme):
    made = sketch.stacked([sketch.text_block([Line("Edema <&>", True)], 200, 12), sketch.of_panel(panel)], 4, 8)
    image, root = png.image_of(made, colours.THEMES[theme]), _parsed(made, theme)
    assert image.size == (made.width, made.height) == (int(root.get("width")), int(root.get("height")))
    paper = root.find(f"{SVG}rect").get("fill")
    assert paper == "#" + "".join(f"{v:02x}" for v in image.getpixel((1, 1)))
    assert [t.text for t in root.iter(f"{SVG}text")] == ["Edema <&>"]


def test_text_is_as_wide_as_it_was_measured():
    (text,) = _parsed(sketch.text_block([Line("Cardiomegaly")], 200, 12)).iter(f"{SVG}text")
    assert float(text.get("textLength")) == pytest.approx(width_of("Cardiomegaly", 12), abs=0.01)


def test_outlines_are_vectors_solid_for_the_truth_and_whole_dashes_for_the_prediction(panel):
    paths = [p for p in _parsed(sketch.of_panel(panel)).iter(f"{SVG}path") if p.get("stroke-linejoin")]
    assert [p.get("stroke") for p in paths] == ["#000000", "#ffffff", "#000000", "#40e0ff"]  # each line on its rim
    assert [bool(p.get("stroke-dasharray")) for p in paths] == [False, False, True, True]
    points = [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", paths[1].get("d"))]
    x, y = zip(*points)
    assert (min(x), max(x), min(y), max(y)) == pytest.approx((10, 40, 10, 40), abs=0.3)
    on, off = map(float, paths[3].get("stroke-dasharray").split())
    length = 2 * (30 + 40) - 8 * (1 - 0.5**0.5) * 0.5  # corners are cut
    assert length / (on + off) == pytest.approx(round(length / (on + off)), abs=0.15)


def test_every_sign_is_a_shape_of_its_own(panel):
    root = _parsed(sketch.of_panel(panel))
    assert [sign for *_, sign in panel.markers] == ["truth point", "hit", "miss"]
    assert len(list(root.iter(f"{SVG}circle"))) == 4  # of a hit, ring and dot, on their rims
    assert sum("M" in p.get("d")[1:] for p in root.iter(f"{SVG}path")) == 2  # crosses
    assert sum(p.get("d").endswith("z") for p in root.iter(f"{SVG}path")) == 2  # diamonds


def test_the_bar_has_its_values_under_it():
    made = legend.drawn(Legend("heatmap (the method's units)", ("-4", "-1", "2"), [("truth", "outline")]), 400, 12)
    ramp = next(s for s in made.shapes if isinstance(s, sketch.Ramp))
    values = [s for s in made.shapes if isinstance(s, Written) and s.ink == "faint"]
    assert [s.text for s in values] == ["-4", "-1", "2"]
    assert values[0].x == 0 and values[2].x + values[2].width == pytest.approx(ramp.pixels.shape[1], abs=1)
    assert all(s.y > ramp.y + ramp.pixels.shape[0] for s in values)


def test_a_narrow_bar_keeps_the_values_at_its_ends_and_its_whole_name():
    name = "heatmap, evidence of either sign (the method's units)"
    made = legend.drawn(Legend(name, ("0", "0.000573", "0.00115")), 300, 12)
    written = [s for s in made.shapes if isinstance(s, Written)]
    assert [s.text for s in written if s.ink == "faint"] == ["0", "0.00115"]
    assert " ".join(s.text for s in written if s.ink != "faint") == name
    assert all(s.x + s.width <= 300 for s in written)


def test_a_pdf_is_the_svg(panel):
    """Every operator's numbers are those of the SVG; the table of objects leads to each."""
    lines = [Line("Edema (\\) 50 %", True, [("IoU 0.4", True), ("hit", False)]), Line("caf\xe9 \u2013 b")]
    made = sketch.stacked([sketch.text_block(lines, 400, 12), sketch.of_panel(panel)], 4, 8)
    text = svg.text_of(made, colours.THEMES["light"])
    document = pdf.bytes_of(text, 'chex-view {"a": "\\u00e9"}')
    assert document.splitlines()[1] == b'%chex-view {"a": "\\u00e9"}'
    start = int(document.rpartition(b"startxref\n")[2].split()[0])
    rows = document[start:].splitlines()[3 : 2 + int(document[start:].splitlines()[1].split()[1])]
    for number, row in enumerate(rows, 1):
        assert document[int(row[:10]) :].startswith(b"%d 0 obj" % number)
    streams = [zlib.decompress(s) for s in re.findall(rb"stream\n(.*?)\nendstream", document, re.S)]
    content, pixels = streams[0].decode("cp1252"), streams[1]
    root = ET.fromstring(text)
    assert len(pixels) == 3 * H * W and pixels[:3] == bytes(
        png.image_of(sketch.of_panel(panel), colours.THEMES["light"]).getpixel((0, 0))
    )
    drawn = [p.get("d") for p in root.iter(f"{SVG}path")]
    starts = [f"{d[1:].split('L')[0]} m" for d in drawn]
    assert all(start in content for start in starts)
    assert content.count(" l ") + content.count(" l\n") >= sum(d.count("L") for d in drawn)
    assert "(Edema \\(\\\\\\) 50 %) Tj" in content and content.count(" Tj ET") == len(list(root.iter(f"{SVG}text")))
    assert content.count(" Tz ") == content.count(" Tj ") and content.count("q ") == content.count("Q")


def test_both_formats_look_alike_in_a_browser(panel, tmp_path):
    """Chromium's picture of the SVG beside ours of the PNG: X-ray, lines and points at the same places."""
    import browser

    pixels = np.linspace(40, 160, 300 * 450).reshape(300, 450).astype(np.uint8)
    big = Panel(pixels, (H, W), None, panel.truth, panel.predicted, panel.truth_points, panel.predicted_points)
    made = sketch.of_panel(big)
    page = tmp_path / "a.html"
    page.write_text(f"<body style='margin:0'>{svg.text_of(made, colours.THEMES['light'])}")
    with browser.started(need_tool("chromedriver"), need_tool("chromium"), tmp_path / "profile") as window:
        window.view(450, 300)
        window.open(page)
        (tmp_path / "shot.png").write_bytes(window.screenshot())
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"), int)[:300, :450]
    ours = np.asarray(png.image_of(made, colours.THEMES["light"]), int)
    assert np.abs(shot - ours).mean() < 3
    assert (np.abs(shot - ours).max(axis=2) > 128).mean() < 0.01


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_a_finished_picture_is_known_again_and_another_theme_is_not(tmp_path, monkeypatch, cli, kind):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (W, H), 100).save("x.png")
    record = {"id": "a", "image": "x.png", "masks": {"Edema": _mask(10, 10, 40, 40).to_rle()}}
    stdin = json.dumps(record).encode() + b"\n"
    made = cli("chex-view", "-o", "v", "--format", kind, "--theme", "light", stdin=stdin)
    assert made.code == 0 and json.loads(made.out)["views"]["Edema"]["picture"] == f"v/a_Edema.{kind}"
    before = (tmp_path / f"v/a_Edema.{kind}").stat()
    again = cli("chex-view", "-o", "v", "--format", kind, "--theme", "light", "--resume", stdin=stdin)
    assert (again.code, again.out) == (0, made.out)
    assert (tmp_path / f"v/a_Edema.{kind}").stat().st_mtime_ns == before.st_mtime_ns
    other = cli("chex-view", "-o", "v", "--format", kind, "--resume", stdin=stdin)
    assert other.code == 1 and "made from another" in other.err


@pytest.mark.parametrize("layout", ["single", "sheet", "grid"])
def test_the_original_stands_beside(tmp_path, monkeypatch, cli, layout):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (W, H), 200).save("x.png")
    record = {"id": "a", "image": "x.png", "masks": {"Edema": _mask(0, 0, 60, 90).to_rle()}}
    sizes, light = [], []
    for folder, more in (("v", []), ("w", ["--original"])):
        made = cli("chex-view", "-o", folder, "--layout", layout, *more, stdin=json.dumps(record).encode() + b"\n")
        with Image.open(json.loads(made.out)["views"]["Edema"]["picture"]) as image:
            sizes.append(image.width)
            light.append((np.asarray(image.convert("L")) == 200).sum())
    assert sizes[1] > sizes[0]
    assert light[1] > 1.9 * light[0]
