"""Training images: in which order, decoded how often, and ahead of whoever asks."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import DATA

from chextools.errors import InputError
from chextools.training.pixels import Ahead, Images, Order, check_images

CXRS = sorted((DATA / "cxr").rglob("*.*g"))


@pytest.fixture
def images() -> Images:
    return Images([{"id": str(k), "image": str(path)} for k, path in enumerate(CXRS)], 16)


def test_every_epoch_takes_every_image_once_in_another_order():
    order = Order(10, 4, seed=3)
    taken = np.concatenate([order.rows(step) for step in range(5)])
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10)) and list(taken[:10]) != list(taken[10:])
    assert order.rows(1).tolist() == taken[4:8].tolist() == Order(10, 4, seed=3).rows(1).tolist()
    assert Order(2, 5, 0).rows(0).shape == (5,)


def test_another_seed_is_another_order():
    one, other = (Order(100, 100, seed).rows(0).tolist() for seed in (1, 2))
    assert one != other and sorted(one) == sorted(other)


def test_decoded_images_are_kept(images, monkeypatch):
    first = images.take(np.array([0, 0]))
    monkeypatch.setattr("chextools.xrays.packs.pixels", None)
    assert (images.take(np.array([0])) == first[:1]).all()


def test_images_are_decoded_again_where_memory_holds_too_few(images, monkeypatch):
    kept = images.take(np.arange(3))
    monkeypatch.setattr("chextools.training.pixels.CACHE_BYTES", 1000)
    few = Images(images.records, 16)
    assert few._cache is None and (few.take(np.arange(3)) == kept).all()


@pytest.mark.parametrize("jobs", [1, 3])
def test_what_is_read_ahead_comes_in_order(images, jobs):
    batches = [np.array([k, (k + 3) % len(images)]) for k in range(len(images))]
    found = list(Ahead(images, batches, jobs, lambda rows: rows[1:]))
    assert [rows.tolist() for rows, _ in found] == [rows.tolist() for rows in batches]
    for rows, pixels in found:
        assert (pixels == images.take(rows[1:])).all() and pixels.shape == (1, 16, 16)


def test_an_error_comes_with_the_batch_it_is_in(images):
    images.records[2] = {"id": "x", "image": "no/such.png"}
    ahead = iter(Ahead(images, [np.array([0]), np.array([2])], 1, lambda rows: rows))
    assert next(ahead)[0].tolist() == [0]
    with pytest.raises(InputError, match="no/such.png"):
        next(ahead)


def test_images_that_are_missing_are_counted_and_ten_are_named():
    records = [{"image": f"no/{k}.png"} for k in range(12)] + [{"image": str(CXRS[0])}]
    with pytest.raises(InputError, match=r"^x: 12 of 13 images are missing: no/0.png, .*no/9.png, and 2 more \(--root"):
        check_images(records, "x", 2)
    check_images([*records[12:], {"image": "no.png", "pack": "seen when it was made"}], "x", 1)
