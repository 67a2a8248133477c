"""A journal of finished lines: what survives a kill, what is found again, and what does not count."""

from __future__ import annotations

import pytest

from chextools.errors import InputError
from chextools.plumbing import journal
from chextools.plumbing.journal import Journal


def key_of(line: bytes) -> str | None:
    """Lines are `key value`; those of `-` do not count."""
    key = line.split()[0].decode()
    return None if key == "-" else key


def test_a_line_is_in_the_file_once_it_is_added(tmp_path):
    finished = Journal(tmp_path / "out", key_of)
    finished.add("a", b"a 1\n")
    assert (tmp_path / "out.part").read_bytes() == b"a 1\n"
    assert "a" in finished and "b" not in finished and finished.line("a") == b"a 1\n"


def test_a_line_that_was_cut_off_is_dropped_and_the_next_stands_in_its_place(tmp_path):
    part = tmp_path / "out.part"
    part.write_bytes(b"a 1\nb 2\nc 3 and it was kil")
    again = Journal(tmp_path / "out", key_of)
    assert part.read_bytes() == b"a 1\nb 2\n"
    assert [key in again for key in "abc"] == [True, True, False]
    again.add("c", b"c 33\n")
    assert part.read_bytes() == b"a 1\nb 2\nc 33\n"
    assert [again.line(key) for key in "abc"] == [b"a 1\n", b"b 2\n", b"c 33\n"]


def test_the_last_line_of_a_key_counts_and_that_of_the_journal_before_the_output(tmp_path):
    (tmp_path / "out").write_bytes(b"a 1\nb 2\nz cut")
    (tmp_path / "out.part").write_bytes(b"a 3\n- 5\na 4\n")
    found = Journal(tmp_path / "out", key_of)
    assert (found.line("a"), found.line("b")) == (b"a 4\n", b"b 2\n")
    assert "-" not in found and "z" not in found
    assert (tmp_path / "out").read_bytes() == b"a 1\nb 2\nz cut"  # the output is read, never changed


def test_the_same_line_is_not_written_twice_but_a_new_one_is(tmp_path):
    finished = Journal(tmp_path / "out", key_of)
    for line in (b"a 1\n", b"a 1\n", b"a 2\n"):
        finished.add("a", line)
    assert (tmp_path / "out.part").read_bytes() == b"a 1\na 2\n"
    assert finished.line("a") == b"a 2\n"


def test_it_goes_when_the_work_is_done_and_stays_when_it_is_not(tmp_path):
    part = tmp_path / f"out{journal.SUFFIX}"
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "out", key_of).kept_until_done():
        raise KeyboardInterrupt
    assert part.exists()
    with Journal(tmp_path / "out", key_of).kept_until_done():
        pass
    assert not part.exists()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"nowhere/out.part: No such file or directory"):
        Journal(tmp_path / "nowhere" / "out", key_of)
