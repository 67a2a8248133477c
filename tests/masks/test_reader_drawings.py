"""A drawing: what is known of which task, who drew what, and in an image of which size."""

from __future__ import annotations

import numpy as np
import pytest

from chextools.errors import InputError
from chextools.masks import drawing
from chextools.masks.drawing import ALONE, Drawing
from chextools.masks.mask import Mask
from chextools.masks.shapes import Box, Painted, Polygon, Runs

LEFT, RIGHT = Box(0, 0, 2, 4), Box(1, 0, 3, 4)
OUTLINE = Polygon.of([[0, 0], [3, 0], [0, 3]])


def alone(size=(4, 5), **shapes) -> Drawing:
    return Drawing(readers={ALONE: shapes}, size=size)


def columns(first, stop, size=(4, 5)) -> np.ndarray:
    return np.tile((np.arange(size[1]) >= first) & (np.arange(size[1]) < stop), (size[0], 1))


def test_three_readers_become_one_mask_by_rule():
    readers = {"a": {"Mass": [LEFT]}, "b": {"Mass": [RIGHT]}, "c": {}}  # c looked and saw nothing
    masks = {
        rule: Drawing(readers=readers, size=(4, 5), rule=rule).mask("Mass")
        for rule in ("union", "majority", "intersection")
    }
    np.testing.assert_array_equal(masks["union"].to_array(), columns(0, 4))
    np.testing.assert_array_equal(masks["majority"].to_array(), columns(1, 2))  # two of three
    assert masks["intersection"].area == 0
    each = Drawing(readers=readers, size=(4, 5)).by_reader("Mass")
    assert {reader: mask.area for reader, mask in each.items()} == {"a": 8, "b": 12, "c": 0}


def test_shapes_of_one_reader_are_united():
    np.testing.assert_array_equal(alone(Mass=[LEFT, RIGHT]).mask("Mass").to_array(), columns(0, 4))


def test_looked_for_and_not_drawn_is_empty_and_not_looked_for_is_unknown():
    found = Drawing(readers={ALONE: {"Mass": [LEFT]}}, size=(4, 5), tasks=("Edema", "Mass"))
    assert found.names == ["Mass", "Edema"]
    assert found.mask("Edema").area == 0 and found.mask("Edema").size == (4, 5)
    assert found.mask("Nodule") is None


def test_counts_are_of_one_readers_boxes_and_outlines():
    runs, painted = Runs("1 2", "absolute"), Painted(Mask.from_array(np.ones((4, 5), bool)))
    found = alone(boxes=[LEFT, RIGHT], mixed=[LEFT, OUTLINE], painted=[painted], runs=[runs], none=[])
    assert [found.count(task) for task in found.names] == [2, 2, None, None, 0]
    assert Drawing(readers={"a": {"Mass": [LEFT]}, "b": {}}).count("Mass") is None


@pytest.mark.parametrize(
    "shapes, kind",
    [
        ({"Mass": [LEFT], "Edema": [RIGHT]}, "box"),
        ({"Mass": [LEFT], "Edema": []}, "box"),  # nothing drawn is of no kind
        ({"Mass": [LEFT], "Edema": [OUTLINE]}, {"Mass": "box"}),
        ({"Mass": [LEFT, OUTLINE]}, None),
        ({}, None),
    ],
)
def test_kind_is_box_where_all_that_is_drawn_are(shapes, kind):
    assert drawing.kind_of(alone(**shapes), ["Mass", "Edema"]) == kind


def test_the_least_image_that_holds_all():
    assert alone(None, Mass=[Box(1.5, 3, 3, 0.25)], Edema=[OUTLINE]).least_size == (4, 5)  # to y 3.25 and x 4.5
    assert alone(None).least_size == (1, 1)
    assert alone(None, Mass=[LEFT, Runs("1 2", "absolute")]).least_size is None


def test_a_size_of_the_file_is_believed_and_an_assumed_one_is_not():
    own, assumed = alone(), Drawing(readers={ALONE: {"Mass": [LEFT]}}, size=(4, 5), is_assumed=True)
    assert own.measured((8, 10), (16, 20)).size == (4, 5)
    assert assumed.measured((8, 10), None).size == (8, 10)
    assert assumed.measured(None, (16, 20)).size == (4, 5)
    assert alone(None).measured(None, (16, 20)).size == (16, 20)


def test_a_drawing_is_scaled_only_where_the_user_said_its_size():
    unsized = alone(None, Mass=[LEFT])
    scaled = unsized.measured((4, 5), (8, 10)).mask("Mass")
    np.testing.assert_array_equal(scaled.to_array(), columns(0, 4, (8, 10)))
    with pytest.raises(InputError, match="boxes are in an image of 4 x 5, this one has 8 x 10: --truth-size 4x5"):
        alone(Mass=[LEFT]).mask("Mass", (8, 10))
    with pytest.raises(InputError, match="masks or outlines are in an image"):
        alone(Mass=[OUTLINE]).mask("Mass", (8, 10))
    with pytest.raises(InputError, match="give --truth-size HxW"):
        unsized.mask("Mass")
