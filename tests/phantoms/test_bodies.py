"""What made-up X-rays are made of: pens on a canvas, tissue, bodies laid out, signs, and the way to a picture."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline

from chextools.phantoms import exposure, frontal, lateral, signs, tissue
from chextools.phantoms.canvas import Canvas, Pen, canvas_of, curve, profile, ribbon
from chextools.phantoms.exposure import Exposure
from chextools.phantoms.scene import Body, Changes, Scene
from chextools.tasks import STUDY

SIZE = (120, 100)
BODY = Body.draw(np.random.default_rng(3))
VIEWS = {"frontal": frontal, "lateral": lateral}
PLAIN = Exposure(0, (0, 0), 1, 0, 0, 0.5, 1, 1, (-0.5,) * 4, False)


@pytest.fixture(scope="module")
def canvas() -> Canvas:
    return canvas_of(SIZE)


def scene_of(view: str, changes: Changes | None = None, body: Body = BODY) -> Scene:
    return VIEWS[view].lay_out(canvas_of(SIZE), body, changes or Changes())


# The canvas


def test_body_units_are_of_the_shorter_side_and_zero_is_the_middle(canvas):
    assert canvas.unit == 100 and canvas.pixels([(0, 0)]).tolist() == [[canvas.shape[1] / 2, canvas.shape[0] / 2]]
    np.testing.assert_allclose(np.diff(canvas.x[0]), 0.01, rtol=1e-4)
    np.testing.assert_allclose(canvas.y[:, 0] + canvas.y[::-1, 0], 0, atol=1e-6)
    assert all(drawn >= side for drawn, side in zip(canvas.shape, SIZE))


@pytest.mark.parametrize("angle", [0, 0.7, math.pi / 2])
def test_an_ellipse_has_its_area(canvas, angle):
    inside = canvas.ellipse((0.05, -0.1), (0.3, 0.15), angle) < 1
    assert inside.sum() / canvas.unit**2 == pytest.approx(math.pi * 0.3 * 0.15, rel=0.01)


def test_a_soft_edge_is_a_half_on_the_line(canvas):
    np.testing.assert_allclose(canvas.step(np.float32([-1, -0.05, 0, 0.05, 1]), 0.2), [0, 0.25, 0.5, 0.75, 1])


def test_noise_is_of_its_seed_and_of_mean_nothing(canvas):
    one, again, other = (canvas.texture(np.random.default_rng(seed), 0.05) for seed in (1, 1, 2))
    assert (one == again).all() and (one != other).any()
    assert abs(one.mean()) < 0.2 and 0.7 < one.std() < 1.3


def test_what_a_pen_draws_has_its_area(canvas):
    pen = Pen(canvas)
    pen.area([(-0.2, -0.1), (0.2, -0.1), (0.2, 0.1), (-0.2, 0.1)], 0.5)
    assert pen.array().sum() / canvas.unit**2 == pytest.approx(0.5 * 0.08, rel=0.05)
    disc, line = Pen(canvas), Pen(canvas)
    disc.disc((0.1, 0.1), 0.2)
    line.line([(-0.3, 0), (0.3, 0)], 0.04)
    assert disc.array().sum() / canvas.unit**2 == pytest.approx(math.pi * 0.04, rel=0.05)
    assert line.array().sum() / canvas.unit**2 == pytest.approx(0.6 * 0.04, rel=0.15)
    assert disc.array(0.05).sum() == pytest.approx(disc.array().sum(), rel=0.01)  # a blur moves, and takes nothing


def test_a_smooth_line_is_the_spline_of_catmull_and_rom():
    knots = np.array([(0, 0), (1, 2), (3, 1), (4, 4)], float)
    found = curve(knots, 5)
    slopes = np.gradient(np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]]), axis=0)
    np.testing.assert_allclose(found, CubicHermiteSpline(range(4), knots, slopes[1:-1])(np.linspace(0, 3, 16)))


def test_a_profile_goes_through_its_knots_and_is_constant_beyond():
    np.testing.assert_allclose(profile(((0, 1), (1, 3), (2, 2)), np.array([-5.0, 0, 1, 2, 9])), [1, 1, 3, 2, 2])


def test_a_ribbon_is_as_wide_as_was_said():
    line = np.array([(0, 0), (3, 4), (6, 8)], float)
    outline = ribbon(line, np.array([0.5, 1, 2]))
    np.testing.assert_allclose(np.linalg.norm(outline[:3] - outline[:2:-1], axis=1), [1, 2, 4])
    np.testing.assert_allclose((outline[:3] + outline[:2:-1]) / 2, line)


# Bodies


@pytest.mark.parametrize("view", VIEWS)
def test_a_body_lets_rays_through_lungs_more_than_beside_them(view):
    scene = scene_of(view)
    total = VIEWS[view].attenuation(scene)
    lung, solid = scene.aerated > 0.9, scene.heart > 0.9
    assert total.shape == scene.canvas.shape and np.isfinite(total).all()
    assert total[lung].mean() < total[solid].mean() - 0.3
    for field in (scene.solid, scene.heart, scene.mediastinum, scene.aerated):
        assert field.min() >= 0 and field.max() <= 1 + 1e-6


@pytest.mark.parametrize("view", VIEWS)
def test_the_same_body_is_the_same_picture(view):
    one, other = (VIEWS[view].attenuation(scene_of(view)) for _ in range(2))
    assert (one == other).all()
    another = dataclasses.replace(BODY, seed=BODY.seed + 1)
    assert (one != VIEWS[view].attenuation(scene_of(view, body=another))).any()


def test_the_cardiothoracic_ratio_is_the_bodys():
    for ratio in (0.42, 0.47):
        scene = scene_of("frontal", body=dataclasses.replace(BODY, heart=ratio))
        columns = np.flatnonzero((scene.heart > 0.5).any(axis=0))
        width = (columns[-1] - columns[0] + 1) / scene.canvas.unit
        assert width / (2 * BODY.width) == pytest.approx(ratio, abs=0.03)


def test_lungs_lie_on_their_sides_and_a_raised_dome_takes_from_its_own():
    flat, raised = scene_of("frontal"), scene_of("frontal", Changes(raised={0: 0.05}))
    for lung in flat.lungs:
        assert (np.sign(flat.canvas.x) * lung.inside).sum() * lung.side > 0
        x, y = lung.at(0.5, 0.5)
        column, row = flat.canvas.pixels([(x, y)])[0].astype(int)
        assert lung.inside[row, column] > 0.9 and lung.depth()[row, column] > 0
    less = [after.inside.sum() < before.inside.sum() for before, after in zip(flat.lungs, raised.lungs)]
    assert less == [True, False]


def test_ribs_take_rays_where_they_lie_and_vessels_thin_out(canvas):
    line = np.stack([np.linspace(-0.3, 0.3, 20), np.zeros(20)], axis=1)
    ribs = tissue.soft_ribs(canvas, [(line[:10], line[9:], 0.02)], 0.3)
    assert ribs[canvas.shape[0] // 2].max() > 0.1 and ribs[:10].max() == 0
    np.testing.assert_allclose(tissue.soft_ribs(canvas, [(line[:10], line[9:], 0.02)], 0.6), 2 * ribs, rtol=1e-5)
    lung, pen = scene_of("frontal").lungs[1], Pen(canvas)
    tissue.vessel_tree(pen, lung, np.random.default_rng(0))
    drawn, far = pen.array(), np.hypot(canvas.x - lung.hilum[0], canvas.y - lung.hilum[1])
    assert drawn[far < 0.08].mean() > drawn[(far > 0.15) & (far < 0.25)].mean() > 0


# Signs


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("task", STUDY)
def test_a_sign_says_where_it_is_and_more_of_it_is_denser(task, view):
    sums = []
    for severity in (0.2, 0.9):
        changes = Changes()
        signs.change(task, changes, severity, np.random.default_rng(5))
        scene = scene_of(view, changes)
        regions = signs.draw(task, scene, severity, np.random.default_rng(5))
        assert regions and all(region.shape == scene.canvas.shape and region.max() > 0.5 for region in regions)
        where = np.maximum.reduce([np.asarray(region, float) for region in regions]) > 0.5
        sums.append((np.abs(VIEWS[view].attenuation(scene) - VIEWS[view].attenuation(scene_of(view)))[where]).sum())
    assert 0 < sums[0] < sums[1]


# The way to a picture


def test_a_picture_taken_straight_is_the_canvas_within_its_margin(canvas):
    values = np.random.default_rng(0).random(canvas.shape).astype(np.float32)
    margin = canvas.margin
    np.testing.assert_allclose(PLAIN.placed(canvas, values), values[margin:-margin, margin:-margin], atol=1e-5)


@pytest.mark.parametrize("changed", [{"zoom": 1.1}, {"turn": 0.1}, {"shift": (0.02, -0.01)}])
def test_a_picture_is_turned_zoomed_and_shifted(canvas, changed):
    """A disc lies where geometry puts it, as large as the zoom makes it."""
    taken, (x, y) = dataclasses.replace(PLAIN, **changed), (0.2, 0.1)
    found = taken.placed(canvas, (canvas.ellipse((x, y), (0.1, 0.1)) < 1).astype(np.float32))
    rows, columns = np.nonzero(found > 0.5)
    c, s = math.cos(taken.turn), math.sin(taken.turn)
    expected = np.array([x * c - y * s, x * s + y * c]) * taken.zoom + taken.shift
    centre = (np.array([columns.mean(), rows.mean()]) + 0.5 - np.array(SIZE[::-1]) / 2) / canvas.unit
    np.testing.assert_allclose(centre, expected, atol=0.006)
    assert len(rows) / canvas.unit**2 == pytest.approx(math.pi * (0.1 * taken.zoom) ** 2, rel=0.03)


def test_what_takes_more_is_brighter_and_blades_are_black(canvas):
    ramp = np.broadcast_to(0.3 + 2 * (canvas.x - canvas.x.min()), canvas.shape).astype(np.float32)
    film = exposure.develop(canvas, ramp, PLAIN, np.random.default_rng(0))
    assert film.dtype == np.uint8 and film.shape == SIZE
    assert (np.diff(film[SIZE[0] // 2].astype(int)) >= 0).all() and film.max() > 200
    framed = dataclasses.replace(PLAIN, border=(0.05, 0, 0.1, 0))
    cut = exposure.develop(canvas, ramp, framed, np.random.default_rng(0))
    assert cut[:9].max() == 0 and cut[:, :4].max() == 0
    np.testing.assert_array_equal(cut[15:-2, 10:-2], film[15:-2, 10:-2])


def test_noise_is_the_generators(canvas):
    flat, noisy = np.ones(canvas.shape, np.float32), dataclasses.replace(PLAIN, noise=0.05)
    made = [exposure.develop(canvas, flat, noisy, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert (made[0] == made[1]).all() and (made[0] != made[2]).any()


def test_a_letter_stands_where_it_is_put(canvas):
    total = np.zeros(canvas.shape, np.float32)
    exposure.mark(canvas, total, (0.2, -0.2))
    rows, columns = np.nonzero(total > 1)
    x, y = canvas.x[0, columns], canvas.y[rows, 0]
    assert 0.18 < x.min() and x.max() < 0.24 and -0.21 < y.min() and y.max() < -0.14
