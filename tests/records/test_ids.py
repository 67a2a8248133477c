"""Ids of paths, and ids that are almost another."""

import time

import pytest

from chextools.records.ids import id_of_path, near_miss


@pytest.mark.parametrize("each", ["a_1.jpg", "A_1", "a_1.DCM", "maps/a_1.npz", "a-1", r"x\patient00001\a_1.png", "a 1"])
def test_an_id_that_is_almost_another_is_suggested(each):
    known = ["z", "a_1", "maps_a_1", "patient00001_a_1"]
    assert near_miss(["other", each], known).startswith(f" (is {each!r} meant to be ")


def test_an_id_that_is_none_is_not_suggested():
    assert near_miss(["a", "b"], ["c", "a"]) == near_miss(["a"], []) == near_miss([], ["a"]) == ""


def test_a_path_of_many_parts_takes_linear_time():
    start = time.process_time()
    id_of_path("patient/" * 10_000 + "x.jpg")
    id_of_path("patient" * 10_000 + "1" * 10_000)
    assert time.process_time() - start < 5
