"""Figures as PNG: as fine as print needs, and no larger than memory bears."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from chextools.reporting import drawing
from chextools.reporting.drawing import Drawing, Line


@pytest.mark.parametrize("width, height, most", [(300, 200, None), (700, 100_000, drawing._MOST_PIXELS)])
def test_a_png_has_four_pixels_a_unit_until_that_is_too_many(width, height, most):
    figure = Drawing(width, height, "a line")
    figure.add(Line([(0, 0), (width, height)]))
    with Image.open(io.BytesIO(drawing.png(figure))) as image:
        made = image.size
    if most is None:
        assert made == (4 * width, 4 * height)
    else:
        assert made[0] * made[1] <= 1.1 * most / drawing._OVERSAMPLED**2
        assert made[1] / made[0] == pytest.approx(height / width, rel=0.05)  # whole pixels
