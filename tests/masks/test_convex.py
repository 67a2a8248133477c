"""Convex hulls and rectangles around them, against a turn through all angles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chextools.masks.convex import convex_hull, min_area_rectangle


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-30, 30), st.integers(-30, 30)), min_size=1, max_size=40))
def test_hull_holds_all_points_with_strict_corners(points):
    points = np.array(points)
    hull = convex_hull(points)
    if len(hull) < 3:  # a point or a line
        assert np.linalg.matrix_rank(points - points[0]) < 2
        return
    edges = np.roll(hull, -1, axis=0) - hull
    turns = edges[:, 0] * np.roll(edges[:, 1], -1) - edges[:, 1] * np.roll(edges[:, 0], -1)
    assert (turns > 0).all()
    offsets = points[:, None] - hull[None]
    assert (edges[:, 0] * offsets[:, :, 1] - edges[:, 1] * offsets[:, :, 0] >= 0).all()


def test_a_spiral_of_hull_points_takes_many_rounds():
    """A convex arc that one far point undoes corner by corner: beyond the rounds that thin all at once."""
    x = np.arange(300)
    arc = np.stack([x, x * x], axis=1)
    hull = convex_hull(np.concatenate([arc, [[300, -100000]]]))
    assert hull.tolist() == [[0, 0], [300, -100000], [299, 299 * 299]]


def test_rectangle_is_the_least_of_all_angles():
    rng = np.random.default_rng(0)
    angles = np.linspace(0, np.pi / 2, 20001)
    turned = np.stack([np.cos(angles), np.sin(angles)])
    for _ in range(20):
        hull = convex_hull(rng.integers(0, 1000, (rng.integers(3, 30), 2)))
        longer, shorter = min_area_rectangle(hull)
        areas = np.ptp(hull @ turned, axis=0) * np.ptp(hull @ (turned[::-1] * [[-1], [1]]), axis=0)
        assert longer >= shorter and longer * shorter == pytest.approx(areas.min(), rel=1e-3)
        assert longer * shorter <= areas.min() * (1 + 1e-12)
