"""Outlines to masks: Pillow's and COCO's pixels, and a bound to what outlines may cost."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as cocomask

from chextools.errors import InputError, LimitError
from chextools.masks import polygons
from chextools.masks.mask import Mask


def test_polygons_are_filled_with_their_outline():
    square = Mask.from_polygons((10, 12), [[[2, 3], [5, 3], [5, 6], [2, 6]]])
    expected = np.zeros((10, 12), bool)
    expected[3:7, 2:6] = True
    np.testing.assert_array_equal(square.to_array(), expected)
    truncated = Mask.from_polygons((10, 12), [[[2.9, 3.9], [5.9, 3.9], [5.9, 6.9], [2.9, 6.9]]])
    assert truncated == square


@pytest.mark.parametrize("seed", range(30))
def test_polygons_equal_pillow_on_the_whole_canvas(seed):
    """Cropping rows, which we do, changes no pixel; outlines may touch or leave the image by a pixel."""
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(5, 60, 2))
    polygons = [
        np.stack([rng.uniform(-0.9, width + 0.9, k), rng.uniform(-0.9, height + 0.9, k)], axis=1).tolist()
        for k in rng.integers(3, 9, 2)
    ]
    canvas = Image.new("1", (width, height))
    for polygon in polygons:
        ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
    np.testing.assert_array_equal(Mask.from_polygons((height, width), polygons).to_array(), np.array(canvas, bool))


@pytest.mark.parametrize(
    "polygon, reason",
    [
        ([[1, 1], [2, 2]], "has 2 points"),
        ([], "must be a list of [x, y] numbers"),
        ([[1, 1], [5, 1], [50, 5]], "the point (50, 5) outside the image of 10 x 12"),
        ([[1, 1], [5, 1], [5, -3]], "outside"),
        ([[1, 1], [5, 1], [5, float("inf")]], "numbers"),
        ([[1, 1], [5, 1], [5]], "numbers"),
        ("polygon", "numbers"),
        ([[1, 1], [5, 1], [1e300, 5]], "outside"),
    ],
)
def test_bad_polygons_are_refused(polygon, reason):
    with pytest.raises(InputError, match=r"^outline 2 ") as error:
        Mask.from_polygons((10, 12), [[[1, 1], [5, 1], [5, 5]], polygon])
    assert reason in str(error.value)


@pytest.mark.parametrize("seed", range(10))
def test_an_image_drawn_in_bands_is_the_same(seed, monkeypatch):
    """Spikes, horizontal edges and corners on the bands' borders: bands of one to seven rows, strips of one column."""
    rng = np.random.default_rng(seed)
    size = tuple(int(v) for v in rng.integers(8, 40, 2))
    outlines = [(rng.random((n, 2)) * (size[1], size[0])).astype(int).tolist() for n in (3, 9, 30)]
    outlines.append([[1, 7], [5, 7], [5, 2], [6, 2], [6, 7], [7, 7], [1, 7]])
    whole = Mask.from_polygons(size, outlines)
    monkeypatch.setattr(polygons, "_BAND", size[1] * (1 + seed % 7))
    monkeypatch.setattr(polygons, "_STRIP", 1)
    assert Mask.from_polygons(size, outlines) == whole
    assert Mask.from_array(whole.to_array()) == whole


def spikes(count: int, side: int) -> np.ndarray:
    k = np.arange(count)
    return np.stack([k * (side - 1) / (count - 1), np.where(k % 2, 0, side - 1)], axis=1)


@pytest.mark.parametrize(
    "outline, said",
    [
        (spikes(4000, 3000), "edges cross 11.* rows of an image of 3000 x 3000"),
        (spikes(4000, 3000)[:, ::-1], "edges cross .* columns"),
        (np.tile([[1, 1], [2, 2]], (150_000, 1)), "outlines of 300000 points"),
    ],
)
def test_what_nobody_draws_is_refused(outline, said):
    with pytest.raises(LimitError, match=said):
        Mask.from_polygons((3000, 3000), [outline.tolist()])


def test_a_spiral_of_20000_points_is_drawn():
    turn, radius = np.linspace(0, 600 * np.pi, 20_000), np.linspace(0, 1100, 20_000)
    outline = np.stack([1400 + radius * np.cos(turn), 1150 + radius * np.sin(turn)], axis=1).tolist()
    mask = Mask.from_polygons((2320, 2828), [outline])
    assert len(mask.bounds) > 100_000 and Mask.from_rle(mask.to_rle()) == mask


def test_coordinates_are_numbers():
    """NumPy would take "1" for 1."""
    with pytest.raises(InputError, match="must be a list of"):
        Mask.from_polygons((10, 12), [[["1", "1"], ["5", "1"], ["5", "5"]]])


def test_coco_outlines_are_those_of_its_library_and_bounded():
    rng = np.random.default_rng(0)
    points = (rng.random((12, 2)) * 50).tolist()
    found = Mask.from_rle(polygons.coco_outline_to_rle((50, 50), points))
    np.testing.assert_array_equal(
        found.to_array(), cocomask.decode(cocomask.frPyObjects([sum(points, [])], 50, 50))[..., 0]
    )
    with pytest.raises(LimitError, match="nobody draws"):
        polygons.coco_outline_to_rle((3000, 3000), spikes(6000, 3000).tolist())
