"""Surface answers from cells what the reference reads off millions of pixels: every answer is held to the pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chextools.heatmaps.levels import bin_starts, level_above, otsu
from chextools.heatmaps.surface import Surface, bilinear

F32 = np.float32
TINY = F32(1e-45)


def expected(surface, threshold):
    """What the pixels themselves say: minimum, maximum, argmax, histogram, transitions."""
    v = surface.dense()
    low, high = v.min(), v.max()
    with np.errstate(all="ignore"):
        m = (v - low) / (high - low)
        bins = (F32(255) * m).astype(np.uint8) if low < high else np.zeros(v.shape, np.uint8)
    inside = np.zeros(v.size + 2, bool)
    inside[1:-1] = (v >= threshold).T.ravel()
    first = tuple(int(i) for i in np.unravel_index(v.argmax(), v.shape))
    return low, high, first, np.bincount(bins.ravel(), minlength=256), np.flatnonzero(inside[1:] != inside[:-1])


def check(values, size, *thresholds):
    """Every method against the pixels, at the Otsu level and at the given thresholds."""
    surface = Surface(values, size)
    low, high, first, histogram, _ = expected(surface, F32(0))
    assert (surface.minimum, surface.maximum, surface.argmax()) == (low, high, first)
    np.testing.assert_array_equal(surface.histogram(), histogram)
    if low < high:
        thresholds += (bin_starts(low, high)[otsu(histogram)], level_above(0.2, low, high))
    for threshold in thresholds:
        np.testing.assert_array_equal(surface.transitions(threshold), expected(surface, threshold)[4])


def smooth(rng, low_size=(6, 5), size=(40, 36)):
    """A map as Grad-CAM gives it: few values, rectified, upsampled to the network's input."""
    return bilinear(np.maximum(rng.standard_normal(low_size), 0).astype(F32), size)


def plateaus(rng, size):
    """Few distinct values in large flat parts."""
    return rng.choice(F32([0, 0.25, 0.5, 1]), (3, 4)).repeat(9, 0).repeat(8, 1)[: size[0], : size[1]]


def one_ulp(rng, size):
    """Neighbouring float32 numbers only."""
    return (F32(0.5).view(np.int32) + rng.integers(0, 3, size, np.int32)).view(F32)


KINDS = {
    "smooth": lambda rng, size: smooth(rng, size=size),
    "negative": lambda rng, size: -smooth(rng, size=size),
    "offset": lambda rng, size: smooth(rng, size=size) + F32(1000),
    "walk": lambda rng, size: np.cumsum(rng.standard_normal(size), 0).astype(F32),
    "relu": lambda rng, size: np.maximum(np.cumsum(rng.standard_normal(size), 1), 0).astype(F32),
    "noise": lambda rng, size: rng.standard_normal(size).astype(F32),
    "plateaus": plateaus,
    "clipped": lambda rng, size: np.clip(smooth(rng, size=size) * 2, F32(0.25), F32(1)),
    "rows": lambda rng, size: np.repeat(rng.random((size[0], 1)).astype(F32), size[1], 1),
    "columns": lambda rng, size: np.repeat(rng.random((1, size[1])).astype(F32), size[0], 0),
    "one ulp": one_ulp,
    "constant": lambda rng, size: np.full(size, rng.standard_normal(), F32),
    "zero": lambda rng, size: np.zeros(size, F32),
    "minus zero": lambda rng, size: rng.choice(F32([0, -0.0]), size),
    "denormal": lambda rng, size: smooth(rng, size=size) * F32(1e-42),
    "small": lambda rng, size: smooth(rng, size=size) * F32(1e-30),
    "large": lambda rng, size: smooth(rng, size=size) * F32(1e30),
    "spike": lambda rng, size: np.where(rng.random(size) < 0.01, F32(1), F32(0)) + smooth(rng, size=size) * F32(1e-6),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nodes, size", [((30, 28), (233, 261)), ((25, 20), (120, 411)), ((16, 32), (300, 64))])
def test_every_answer_is_that_of_the_pixels(kind, nodes, size):
    for seed in range(3):
        values = KINDS[kind](np.random.default_rng(seed), nodes)
        nodes_own = np.random.default_rng(seed).choice(values.ravel(), 2)  # thresholds that nodes and plateaus meet
        check(values, size, *nodes_own, F32(0), TINY, F32(0.5))


@settings(deadline=None, max_examples=150)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["walk", "relu", "noise", "one ulp", "constant", "rows", "columns", "minus zero", "plateaus"]),
    st.integers(0, 2**32 - 1),
)
def test_every_shape(nodes, size, kind, seed):
    values = KINDS[kind](np.random.default_rng(seed), nodes)
    check(values, size, values[0, 0], F32(0))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([0.0, 1.0, 0.5, 0.49999997, 0.2, -1.0, 1e-38, 3.0]), min_size=35, max_size=35),
    st.sampled_from([(40, 50), (61, 33), (128, 128)]),
)
def test_few_values_in_any_arrangement(numbers, size):
    check(np.array(numbers, F32).reshape(5, 7), size, F32(0.5), F32(1), F32(3))


@pytest.mark.parametrize(
    "nodes, size",
    [
        ((1, 1), (1, 1)),
        ((1, 9), (50, 300)),
        ((9, 1), (300, 50)),
        ((5, 5), (1, 900)),
        ((40, 40), (7, 3000)),
        ((300, 3), (200, 900)),
        ((2, 2), (500, 400)),
    ],
)
def test_thin_and_odd_shapes(nodes, size):
    for kind in ("walk", "noise", "rows", "columns"):
        values = KINDS[kind](np.random.default_rng(1), nodes)
        check(values, size, values.max(), F32(0.1))


@pytest.mark.parametrize("kind", ["smooth", "walk", "noise", "clipped"])
def test_at_the_size_of_an_x_ray(kind):
    values = KINDS[kind](np.random.default_rng(3), (320, 320))
    if kind == "smooth":
        values = smooth(np.random.default_rng(3), (10, 10), (320, 320))
    check(values, (2022, 1751), F32(0.5))


def test_one_pixel_of_the_map():
    surface = Surface(smooth(np.random.default_rng(0)), (333, 290))
    v = surface.dense()
    y, x = np.meshgrid(np.arange(333)[::7], np.arange(290)[::5], indexing="ij")
    np.testing.assert_array_equal(surface.pixels(y, x), v[y, x])


def test_overflow_neither_raises_nor_hangs():
    values = F32([[-3e38, 3e38], [0, 1e38]])
    surface = Surface(values, (50, 60))
    assert surface.histogram().sum() == 3000
    assert bin_starts(surface.minimum, surface.maximum).shape == (255,)
    assert surface.argmax() == (0, 45)
    with pytest.raises(ValueError, match="shape"):
        Surface(np.zeros((0, 3), F32), (5, 5))


@pytest.mark.parametrize(
    "low, high",
    [
        (0, 1),
        (0, 1e-3),
        (-1, 2),
        (1000, 1001),
        (0.1, 0.3),
        (1, 1.0000004),
        (-7, -2),
        (0, 1e-44),
        (0, 3e38),
        (-1e-3, 1e5),
    ],
)
def test_levels_are_where_bins_begin(low, high):
    low, high = F32(low), F32(high)
    begin = bin_starts(low, high)

    def bin_of(v):
        return (F32(255) * ((v - low) / (high - low))).astype(np.uint8)

    k = np.arange(1, 256)
    assert (bin_of(begin) >= k).all()
    assert (bin_of(np.nextafter(begin, F32(-np.inf))) < k)[begin > low].all()


@pytest.mark.parametrize("threshold", [0.2, 0.30000000000000004, 0.5, 0.7999999999999998, 0.0, 0.999999999, 1.0, -0.5])
@pytest.mark.parametrize("low, high", [(0, 1), (-1, 2), (0.1, 0.3), (1000, 1001), (0, 1e-3)])
def test_a_threshold_is_compared_as_float64(threshold, low, high):
    low, high = F32(low), F32(high)
    begin = level_above(threshold, low, high)

    def is_in(v):
        return np.float64((v - low) / (high - low)) > threshold

    if threshold >= 1:
        assert begin == np.inf
        assert Surface(F32([[low, high]]), (90, 90)).transitions(begin).size == 0
    elif threshold < 0:
        assert begin == low
    else:
        assert is_in(begin) and not is_in(np.nextafter(begin, F32(-np.inf)))


def test_runs_touching_over_a_columns_end_are_one():
    surface = Surface(F32([[0, 1, 1, 0]]), (100, 400))
    begin, end = surface.transitions(F32(0.5))
    assert (begin % 100, end % 100, (end - begin) // 100) == (0, 0, 200)
    np.testing.assert_array_equal(surface.transitions(F32(-1)), [0, 40000])
    assert surface.transitions(F32(2)).size == 0


def test_otsu_separates_two_classes():
    histogram = np.zeros(256, np.int64)
    histogram[[10, 12, 200]] = 100, 50, 30
    assert otsu(histogram) == 12  # the first of the equal maxima 12..199
    assert otsu(np.bincount([7], [1000], 256)) == 0
    histogram[:] = 0
    histogram[[0, 255]] = 10**8, 1  # a class below float32's epsilon does not count
    assert otsu(histogram) == 0


def test_pixels_are_torchs_bit_for_bit():
    """The reference's torch had fma; without AVX2 torch rounds products before it adds them."""
    torch = pytest.importorskip("torch")
    if "AVX" not in torch.backends.cpu.get_cpu_capability():
        pytest.skip("torch without fma on this CPU")
    rng = np.random.default_rng(5)
    sizes = [
        ((10, 10), (320, 320)),
        ((320, 320), (2022, 1751)),
        ((320, 320), (320, 390)),
        ((7, 7), (224, 224)),
        ((320, 300), (100, 77)),
        ((4, 4), (1, 1)),
        ((33, 17), (65, 129)),
        ((32, 32), (32, 39)),
        ((9, 8), (64, 64)),
        ((9, 8), (64, 65)),
        ((320, 320), (320, 320)),
        ((1, 5), (30, 30)),
        ((1, 5), (90, 90)),
        ((5, 1), (90, 90)),
    ]
    sizes += [(tuple(rng.integers(1, 40, 2)), tuple(rng.integers(1, 200, 2))) for _ in range(100)]
    for nodes, size in sizes:
        values = rng.standard_normal(nodes).astype(F32)
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(values)[None, None], size=tuple(map(int, size)), mode="bilinear", align_corners=False
        )[0, 0].numpy()
        np.testing.assert_array_equal(bilinear(values, size), theirs, str((nodes, size)))
