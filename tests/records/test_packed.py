"""Records kept as bytes are the same records."""

from __future__ import annotations

import tempfile

import pytest

from chextools.errors import InputError
from chextools.records.packed import PackedRecords


def records(n: int) -> list[dict]:
    rle = {"size": [64, 64], "counts": "Xd0P1P10000000000000000000000000000000000000hS2"}
    return [{"id": f"patient{k:05}_\udc80", "masks": {"Edema": dict(rle), "Cardiomegaly": dict(rle)}} for k in range(n)]


@pytest.mark.parametrize("in_memory", [2**20, 500, 0])
def test_what_goes_in_comes_out(in_memory):
    """In memory, on disk, or some of it there."""
    packed, given = PackedRecords(in_memory), records(3)
    for record in given:
        packed.add(record)
    assert list(packed.values()) == given and list(packed) == [record["id"] for record in given]
    assert given[0]["id"] in packed and "other" not in packed and len(packed) == 3 and packed.get("other") is None
    packed.add({"id": given[0]["id"], "masks": {}})
    assert packed[given[0]["id"]]["masks"] == {} and len(packed) == 3
    with pytest.raises(KeyError):
        packed["other"]


def test_what_is_given_is_a_copy():
    packed = PackedRecords()
    packed.add({"id": "a", "size": [1, 2]})
    packed["a"]["size"].append(3)
    assert packed["a"]["size"] == [1, 2]


def test_what_bytes_cannot_hold_is_kept():
    drawing = object()
    packed = PackedRecords()
    packed.add({"id": "a", "drawing": drawing})
    assert packed["a"]["drawing"] is drawing


def test_a_full_disk_is_one_line(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: open("/dev/full", "wb", buffering=buffering))
    packed = PackedRecords(in_memory=0)
    with pytest.raises(InputError, match=r"\(TMPDIR\): No space left on device"):
        packed.add({"id": "a"})
