"""Zip archives as we write them: what Python's own module writes, and reads."""

from __future__ import annotations

import io
import zipfile

import pytest

from chextools.plumbing import zips

MEMBERS = {"maps.npy": bytes(range(256)) * 9, "empty.npy": b"", "id.npy": b"x"}


@pytest.mark.parametrize("members", [{}, MEMBERS])
def test_an_archive_is_pythons_to_the_byte(members):
    theirs = io.BytesIO()
    with zipfile.ZipFile(theirs, "w") as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)  # of the first day there is
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, data)
    assert zips.zipped(members) == theirs.getvalue()


def test_what_is_written_is_read():
    found = zips.zip_members(memoryview(zips.zipped(MEMBERS)))
    assert {name: bytes(member.data) for name, member in found.items()} == MEMBERS
    assert all(member.method == zips.STORED for member in found.values())
