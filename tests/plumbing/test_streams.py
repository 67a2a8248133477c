"""One rule for gzip, byte order marks and line ends."""

import gzip
import io
import os
import threading
import time

import pytest

from chextools.errors import InputError, LimitError
from chextools.plumbing import streams


def read(data):
    return streams.as_utf8(io.BytesIO(data), "x").read()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_with_a_mark_reads_as_utf_8_without(encoding):
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
    text = "Ödem,\U0001f600\n" * 30000
    assert read((mark + text).encode(encoding)) == text.encode()
    assert read(gzip.compress((mark + text).encode(encoding))) == text.encode()


def test_half_a_unit_of_utf_16_is_an_error():
    with pytest.raises(InputError, match=r"^x: not UTF-16 near byte "):
        read("abc".encode("utf-16")[:-1])


def test_gzip_of_several_members_and_padding_reads_whole():
    assert read(gzip.compress(b"one\n") + gzip.compress(b"two\n") + b"\0" * 512) == b"one\ntwo\n"
    assert read(gzip.compress(b"")) == b""


@pytest.mark.parametrize("keep", [2, 3, 9, 12, 20, -9, -1])
def test_gzip_cut_anywhere_is_an_error_that_names_it(keep):
    with pytest.raises(InputError, match=r"^x: truncated gzip$"):
        read(gzip.compress(b"some text\n" * 99)[:keep])


def test_gzip_with_a_changed_byte_is_an_error():
    data = bytearray(gzip.compress(os.urandom(999)))
    data[500] ^= 1
    with pytest.raises(InputError, match=r"^x: "):
        read(bytes(data))


def test_gzip_that_unpacks_to_far_more_than_text_does_is_refused():
    with pytest.raises(LimitError, match="unpacks to more than 100 times"):
        stream = streams.as_utf8(io.BytesIO(gzip.compress(b"0" * 2**26)), "x")
        while stream.read(2**16):
            pass


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_three_ways(end):
    data = end.join([b"a", b"", b"b" * 70000, b"c"])
    for text in (data, data + end):
        found = list(streams.lines(streams.as_utf8(io.BytesIO(text), "x"), "x"))
        assert [line.rstrip(b"\r\n") for line in found] == [b"a", b"", b"b" * 70000, b"c"]
        assert b"".join(found) == text


def test_a_line_end_of_two_bytes_at_the_bound_is_one():
    stream = io.BytesIO(b"abc\r\nde\r\n")
    assert list(streams.lines(stream, "x", 3)) == [b"abc\r\n", b"de\r\n"]


def test_a_line_beyond_the_bound_is_an_error():
    with pytest.raises(LimitError, match="^x: a line of more than 9 bytes$"):
        list(streams.lines(io.BytesIO(b"1\n" + b"2" * 10), "x", 9))


def test_a_line_is_given_before_the_next_is_written():
    reader, writer = os.pipe()
    with open(reader, "rb") as stream, open(writer, "wb", buffering=0) as out:
        found = None
        out.write(b"one\n")
        found = streams.lines(streams.as_utf8(stream, "x"), "x")
        assert next(found) == b"one\n"
        out.write(b"two\nth")
        assert next(found) == b"two\n"


def test_a_pipe_is_no_regular_file_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    start = time.monotonic()
    with pytest.raises(InputError, match="no regular file"):
        streams.open_regular(tmp_path / "pipe")
    assert time.monotonic() - start < 5


def test_a_pipe_that_the_user_names_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"text"))
    thread.start()
    with streams.open_input(str(tmp_path / "pipe")) as stream:
        assert stream.read() == b"text"
    thread.join()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="/none: No such file or directory$"):
        streams.open_input(str(tmp_path / "none"))
