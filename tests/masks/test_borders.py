"""Borders found on runs against borders followed pixel by pixel, and rectangles against a turn through all angles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chextools.masks import borders
from chextools.masks.convex import convex_hull, min_area_rectangle
from chextools.masks.mask import Mask

# The eight neighbours (dy, dx) in clockwise order from the west.
AROUND = [(0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1)]


def followed(pixels: np.ndarray) -> list[list[tuple[int, int]]]:
    """The points (y, x) of every border in the order of a raster scan: Suzuki and Abe 1985, algorithm 1."""
    f = np.pad(pixels.astype(int), 1)
    number, found = 1, []
    for i in range(1, f.shape[0] - 1):
        for j in range(1, f.shape[1] - 1):
            if f[i, j] == 1 and f[i, j - 1] == 0:
                start = (i, j - 1)
            elif f[i, j] >= 1 and f[i, j + 1] == 0:
                start = (i, j + 1)
            else:
                continue
            number += 1
            found.append([(y - 1, x - 1) for y, x in follow(f, (i, j), start, number)])
    return found


def follow(f: np.ndarray, first: tuple, start: tuple, number: int) -> list[tuple]:
    def neighbours(centre: tuple, after: tuple, step: int):
        k = AROUND.index((after[0] - centre[0], after[1] - centre[1]))
        turned = (AROUND[(k + step * s) % 8] for s in range(1, 9))
        return [(centre[0] + dy, centre[1] + dx) for dy, dx in turned]

    last = next((p for p in neighbours(first, start, 1) if f[p]), None)
    if last is None:
        f[first] = -number
        return [first]
    previous, here, points = last, first, []
    while True:
        points.append(here)
        ring = neighbours(here, previous, -1)
        onward = next(k for k, p in enumerate(ring) if f[p])
        east = (here[0], here[1] + 1)
        if east in ring[:onward]:
            f[here] = -number
        elif f[here] == 1:
            f[here] = number
        if ring[onward] == first and here == last:
            return points
        previous, here = here, ring[onward]


def shoelace(points: list[tuple[int, int]]) -> float:
    y, x = np.array(points).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


@settings(max_examples=400, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_longest_border_is_the_followed_one(pixels):
    """Of equally long ones the last that a raster scan meets; points, area and hull are those of its points."""
    mask = Mask.from_array(pixels)
    border = borders.longest(mask)
    if not pixels.any():
        assert border is None
        return
    all_borders = followed(pixels)
    longest = max(reversed(all_borders), key=len)
    assert border.points == len(longest)
    assert border.area == shoelace(longest)
    corners = convex_hull(np.array([(x, y) for y, x in longest]))
    assert sorted(border.hull.tolist()) == sorted(corners.tolist())


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_all_borders_of_noise_are_followed(share):
    rng = np.random.default_rng(1)
    for _ in range(20):
        pixels = rng.random((30, 25)) < share
        points, area, start = borders._Sides(Mask.from_array(pixels)).measure()
        order = np.argsort(start)
        expected = [(len(border), shoelace(border)) for border in followed(pixels)]
        assert list(zip(points[order].tolist(), area[order].tolist())) == expected


def test_a_filled_rectangle_by_hand():
    pixels = np.zeros((12, 20), bool)
    pixels[3:9, 5:15] = True  # 6 x 10 pixels, whose centres span 5 x 9
    border = borders.longest(Mask.from_array(pixels))
    assert border.points == 2 * (6 + 10) - 4
    assert border.area == 5 * 9
    assert min_area_rectangle(border.hull) == (9, 5)


def test_a_hole_may_have_the_longest_border():
    """In a frame with teeth inside, the hole's border is longer than the outer one, and is the one that counts."""
    pixels = np.ones((11, 11), bool)
    pixels[1:10, 1:10] = False
    pixels[1:8, 3:9:2] = True
    outer, hole = followed(pixels)
    assert len(hole) > len(outer) == 40
    border = borders.longest(Mask.from_array(pixels))
    assert border.points == len(hole) and border.area == shoelace(hole) < 100


@pytest.mark.parametrize("shape, points", [((1, 1), 1), ((1, 7), 12), ((5, 1), 8)])
def test_dots_and_lines_have_no_area(shape, points):
    border = borders.longest(Mask.from_array(np.ones(shape, bool)))
    assert (border.points, border.area) == (points, 0)
    assert min_area_rectangle(border.hull) == (max(shape) - 1, 0)


def test_turning_and_moving_a_mask_changes_nothing():
    rng = np.random.default_rng(5)
    for _ in range(20):
        pixels = rng.random((20, 30)) < 0.55
        pixels[:, :3] = pixels[:, -3:] = pixels[:3] = pixels[-3:] = False
        sides = borders._Sides(Mask.from_array(pixels)).measure()
        for other in (np.roll(pixels, (2, -3), (0, 1)), pixels.T, pixels[::-1], np.rot90(pixels)):
            again = borders._Sides(Mask.from_array(other)).measure()
            assert sorted(zip(*map(np.ndarray.tolist, sides[:2]))) == sorted(zip(*map(np.ndarray.tolist, again[:2])))
