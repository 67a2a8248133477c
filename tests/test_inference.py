"""Batches of images read ahead: in order, streaming, with failures in their place."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from chextools.errors import InputError
from chextools.models import inference
from chextools.records.records import Failure, Located
from chextools.xrays.squares import Square


@pytest.fixture
def xrays(tmp_path):
    """Items of ten images, of grey levels 0, 10, ... 90; the fourth file is broken."""
    items = []
    for k in range(10):
        path = tmp_path / f"{k}.png"
        Image.new("L", (12, 10), 10 * k).save(path)
        items.append(Located(f"in:{k}", {"id": str(k), "image": str(path)}))
    (tmp_path / "3.png").write_bytes(b"broken")
    return items


@pytest.mark.parametrize("jobs", [1, 4])
def test_batches_keep_the_order_and_pass_failures_on(xrays, jobs):
    items = [*xrays, Failure("in:10", "was bad before"), Located("in:11", {"id": "x"})]
    batches = list(inference.batches(items, 8, 5, jobs))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    flat = [entry for batch in batches for entry in batch]
    assert [item.where for item, _ in flat] == [item.where for item in items]
    assert [image is None for _, image in flat] == [k in (3, 10, 11) for k in range(12)]
    assert flat[3][0].reason.endswith("not an image of a known kind") and flat[11][0].reason == 'no "image" key'
    images = {k: image for k, (_, image) in enumerate(flat) if image is not None}
    assert all((image == 10 * k).all() and image.shape == (8, 8) for k, image in images.items())


def test_several_sizes_at_once(xrays):
    ((_, images),) = next(inference.batches(xrays[:1], (Square(8), Square(6)), 1))
    assert [image.shape for image in images] == [(8, 8), (6, 6)]


def test_a_batch_comes_before_the_input_ends(xrays):
    """The input is read in a thread, so that one that waits holds nothing up; and no further ahead than two batches."""
    go, taken = threading.Event(), []

    def slow():
        for item in xrays[:3] * 20:
            if len(taken) == 4:
                go.wait(30)
            taken.append(item)
            yield item

    stream = inference.batches(slow(), 8, 2)
    assert len(next(stream)) == 2 and len(taken) <= 4
    go.set()
    time.sleep(0.3)
    assert len(taken) <= 2 + 2 * 2 + 2
    stream.close()
    assert not any(thread.name == inference.READER for thread in threading.enumerate())


def test_an_error_of_the_input_is_raised_where_batches_are_used(xrays):
    def items():
        yield xrays[0]
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        list(inference.batches(items(), 8, 4))


def test_normalised_pixels():
    images = inference.normalise(np.array([[[0, 255]]], np.uint8), (0.5, 0.4, 0.3), (0.5, 0.2, 0.1))
    assert images.shape == (1, 3, 1, 2) and images.dtype == torch.float32
    torch.testing.assert_close(images[0, :, 0], torch.tensor([[-1.0, 1], [-2, 3], [-3, 7]]))


def test_threads_are_those_granted_and_given_back(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with inference.threads():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_device_that_is_not_there_is_one_line(caplog):
    with pytest.raises(InputError, match="--device nosuch: "):
        inference.device("nosuch")
    if not torch.cuda.is_available():
        assert inference.device("auto").type in ("cpu", "mps")
        with pytest.raises(InputError, match="--device cuda: "):
            inference.device("cuda")


def test_long_work_that_nobody_wants_ends_between_its_parts(monkeypatch):
    begun, parts = threading.Event(), []

    def work(batch):
        begun.set()
        for part in range(10_000):
            inference.leave_if_stopped()
            parts.append(part)
            time.sleep(0.001)

    def interrupted(results):
        begun.wait()
        raise KeyboardInterrupt  # as Ctrl-C does while a result is waited for

    monkeypatch.setattr(inference, "_next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(inference.computed((number for number in range(3)), work, 2))
    assert 0 < len(parts) < 10_000
    inference.leave_if_stopped()  # elsewhere it does nothing
