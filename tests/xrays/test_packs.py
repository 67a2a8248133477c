"""Packs hold what decoding gives, and are never taken for whole when they are not."""

from __future__ import annotations

import json
import os
import zlib

import numpy as np
import pytest
from conftest import DATA

from chextools.errors import InputError
from chextools.inputs import image_lists
from chextools.xrays import images, packs
from chextools.xrays.packs import Writer, open_pack

SIZE = 16
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, SIZE, SIZE), np.uint8)
RECORDS = [{"id": f"p{k}", "image": f"{k}.png", "size": [9, 9]} for k in range(6)]


def write(folder, rows=range(6), finish=True, **options):
    with Writer(folder, SIZE, **options) as writer:
        for row in rows:
            if RECORDS[row]["id"] not in writer.done:
                writer.add(row, RECORDS[row], PIXELS[row])
        if finish:
            writer.finish()


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_packed_is_read(tmp_path):
    write(tmp_path)
    assert sorted(contents(tmp_path)) == ["images-1-of-1.u8", "index-1-of-1.jsonl"]
    pack = open_pack(tmp_path)
    assert (len(pack), pack.size) == (6, SIZE)
    assert pack.records == [record | {"pack": str(tmp_path)} for record in RECORDS]
    (array,) = pack.arrays
    assert isinstance(array, np.memmap)
    np.testing.assert_array_equal(array, PIXELS)
    np.testing.assert_array_equal(pack.take([4, 0, 4]), PIXELS[[4, 0, 4]])
    np.testing.assert_array_equal(pack.read(pack.row("p3")), PIXELS[3])


def test_an_empty_pack(tmp_path):
    write(tmp_path, rows=[])
    assert len(open_pack(tmp_path)) == 0


def test_shards_read_in_the_order_of_the_whole_list(tmp_path):
    write(tmp_path, [5, 2], shard=(1, 3))
    write(tmp_path, [], shard=(3, 3))
    with pytest.raises(InputError, match="shard 2 of 3 is missing"):
        open_pack(tmp_path)
    write(tmp_path, [0, 1, 3, 4], shard=(2, 3))
    pack = open_pack(tmp_path)
    assert [record["id"] for record in pack.records] == [record["id"] for record in RECORDS]
    np.testing.assert_array_equal(pack.take(range(6)), PIXELS)
    with pytest.raises(InputError, match="holds a pack in 3 shards; this one would be in 1"):
        write(tmp_path)


def test_stopped_anywhere_and_resumed_is_the_same(tmp_path):
    """Whatever a kill leaves of either file: at each length of the index, with more or fewer images."""
    write(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    index, data = whole["index-1-of-1.jsonl"], whole["images-1-of-1.u8"]
    area = SIZE * SIZE
    for cut in [*range(0, len(index), 37), len(index)]:
        rows = max(0, index[:cut].count(b"\n") - 1)
        for extra in (-10, 0, 100, len(data)):
            folder = tmp_path / f"{cut}{extra}"
            folder.mkdir()
            (folder / "index-1-of-1.jsonl.part").write_bytes(index[:cut])
            (folder / "images-1-of-1.u8.part").write_bytes(data[: max(0, rows * area + extra)])
            assert packs.is_pack(folder)
            with pytest.raises(InputError, match="it is unfinished; go on with chex-prep --resume"):
                open_pack(folder)
            write(folder, resume=True)
            assert contents(folder) == whole


def test_killed_between_the_two_names(tmp_path):
    write(tmp_path)
    whole = contents(tmp_path)
    (tmp_path / "index-1-of-1.jsonl").rename(tmp_path / "index-1-of-1.jsonl.part")
    with pytest.raises(InputError, match="unfinished"):
        open_pack(tmp_path)
    write(tmp_path, resume=True)
    assert contents(tmp_path) == whole
    (tmp_path / "images-1-of-1.u8").rename(tmp_path / "images-1-of-1.u8.part")  # while it was opened again
    write(tmp_path, resume=True)
    assert contents(tmp_path) == whole


def test_a_finished_pack_grows(tmp_path):
    """What failed at first is added, and reads in its place of the list."""
    write(tmp_path, [0, 1, 4, 5])
    write(tmp_path, resume=True)
    pack = open_pack(tmp_path)
    assert [record["id"] for record in pack.records] == [record["id"] for record in RECORDS]
    np.testing.assert_array_equal(pack.take(range(6)), PIXELS)
    before = contents(tmp_path)
    write(tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_what_is_there_is_neither_replaced_nor_continued_unasked(tmp_path):
    write(tmp_path, [0, 1], finish=False)
    with pytest.raises(InputError, match="holds an unfinished pack; --resume continues it, --force replaces it"):
        write(tmp_path)
    write(tmp_path, [0, 1, 2], force=True)
    with pytest.raises(InputError, match="holds a pack; --resume continues it, --force replaces it"):
        write(tmp_path)
    with pytest.raises(InputError, match="was packed with size 16, not 17"):
        Writer(tmp_path, SIZE + 1, resume=True)
    write(tmp_path, [3], force=True)
    assert [record["id"] for record in open_pack(tmp_path).records] == ["p3"]


def test_a_pack_being_replaced_stays_until_the_new_one_is_whole(tmp_path):
    write(tmp_path)
    write(tmp_path, [3], force=True, finish=False)
    assert len(open_pack(tmp_path)) == 6


def test_two_runs_on_one_pack(tmp_path):
    with Writer(tmp_path, SIZE):
        with pytest.raises(InputError, match="another chex-prep is packing here"):
            Writer(tmp_path, SIZE, resume=True)


def flip(path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def test_damage_is_found(tmp_path):
    write(tmp_path)
    flip(tmp_path / "images-1-of-1.u8", 2 * SIZE * SIZE)
    pack = open_pack(tmp_path)
    pack.take([0, 1, 3, 4, 5])
    with pytest.raises(InputError, match="the image of p2 is damaged"):
        pack.take([2])
    with (tmp_path / "images-1-of-1.u8").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(InputError, match="1537 bytes, but the index says 6 x 16 x 16"):
        open_pack(tmp_path)
    size = (tmp_path / "index-1-of-1.jsonl").stat().st_size
    for position in (2, size // 2, size - 3):
        flip(tmp_path / "index-1-of-1.jsonl", position)
        with pytest.raises(InputError, match="index-1-of-1.jsonl: damaged"):
            open_pack(tmp_path)
        flip(tmp_path / "index-1-of-1.jsonl", position)


def test_an_index_of_something_else_is_damaged(tmp_path):
    for text in ("", "\n", "{}", "{}\n{}\n", "[1]\n[2]\n", "x" * 99):
        (tmp_path / "images-1-of-1.u8").touch()
        (tmp_path / "index-1-of-1.jsonl").write_text(text)
        with pytest.raises(InputError, match="index-1-of-1.jsonl: damaged"):
            open_pack(tmp_path)


def test_a_damaged_image_is_packed_again(tmp_path):
    write(tmp_path / "whole")
    write(tmp_path / "half", range(5), finish=False)
    flip(tmp_path / "half/images-1-of-1.u8.part", 3 * SIZE * SIZE)
    write(tmp_path / "half", resume=True)
    assert contents(tmp_path / "half") == contents(tmp_path / "whole")


def test_records_of_a_pack_bring_their_pixels(tmp_path):
    """The same bytes as decoding on the fly."""
    items = list(image_lists.read_image_list(str(DATA / "cxr"), None))
    with Writer(tmp_path, 40) as writer:
        for at, item in enumerate(items):
            writer.add(at, item.record, images.load(item.record["image"], 40))
        writer.finish()
    again = list(image_lists.read_image_list(str(tmp_path), None))
    assert len(again) == 8
    for item, packed in zip(items, again):
        assert packed.record == item.record | {"pack": str(tmp_path)}
        np.testing.assert_array_equal(packs.pixels(packed.record, 40), packs.pixels(item.record, 40))
    with pytest.raises(InputError, match="a pack of size 40, not 41"):
        packs.pixels(again[0].record, 41)
    with pytest.raises(InputError, match="does not hold 'x'"):
        packs.pixels({"id": "x", "pack": str(tmp_path)}, 40)


def test_the_index_is_json_lines(tmp_path):
    write(tmp_path)
    header, *rows, last = map(json.loads, (tmp_path / "index-1-of-1.jsonl").read_text().splitlines())
    assert header["size"] == SIZE and last["images"] == len(rows) == 6
    assert [row["record"] for row in rows] == RECORDS


def forged(folder, change) -> None:
    """The pack with its index changed, checksum and all."""
    from chextools.plumbing import jsontext

    path = folder / "index-1-of-1.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    body = "".join(jsontext.dumps(line) + "\n" for line in lines[:-1]).encode()
    footer = lines[-1] | {"crc32": zlib.crc32(body)} if isinstance(lines[-1], dict) else lines[-1]
    path.write_bytes(body + json.dumps(footer).encode() + b"\n")


def put(line: int, value: object, *keys: str):
    def change(lines: list) -> None:
        at = lines[line]
        for key in keys[:-1]:
            at = at[key]
        if keys:
            at[keys[-1]] = value
        else:
            lines[line] = value

    return change


@pytest.mark.parametrize(
    "change, reason",
    [
        (put(1, "../../x", "record", "id"), "not a plain name"),
        (put(1, "/tmp/x", "record", "id"), "not a plain name"),
        (put(1, 3, "record", "id"), "id"),
        (put(1, [1], "record"), "not a JSON object"),
        (put(1, None), "not an object"),
        (put(1, 6, "row"), "rows"),
        (put(1, -1, "row"), "row"),
        (put(1, 2.0, "row"), "row"),
        (put(1, True, "at"), "at"),
        (put(1, "7", "crc32"), "crc32"),
        (put(1, 3, "row"), "rows"),
        (put(0, -16, "size"), "size"),
        (put(0, 10**12, "size"), "size"),
        (put(0, "16", "size"), "size"),
        (put(0, 1, "shard"), "shard"),
        (put(0, [1]), "version"),
        (put(-1, 10**9, "images"), "bytes, but the index says"),
        (put(-1, [], "images"), "bytes, but the index says"),
        (put(-1, 5), "checksum"),
        (lambda lines: lines[1].pop("record"), "not a JSON object"),
        (lambda lines: lines[1].pop("at"), "at"),
        (lambda lines: lines[0].pop("size"), "size"),
    ],
)
def test_a_hostile_index_is_one_line(tmp_path, change, reason):
    write(tmp_path)
    forged(tmp_path, change)
    with pytest.raises(InputError, match=reason) as error:
        open_pack(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500


def test_shards_that_cannot_be_are_refused_without_counting_them(tmp_path):
    (tmp_path / "index-1-of-999999999.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="claims a shard that cannot be"):
        open_pack(tmp_path)


def test_a_fifo_among_the_files_is_not_waited_for(tmp_path):
    write(tmp_path)
    (tmp_path / "index-1-of-1.jsonl").unlink()
    os.mkfifo(tmp_path / "index-1-of-1.jsonl")
    with pytest.raises(InputError, match="not a regular file"):
        open_pack(tmp_path)
