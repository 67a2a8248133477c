"""CSV as spreadsheets, pandas and hospitals write it."""

import csv
import io

import pytest

from chextools.errors import InputError, LimitError
from chextools.plumbing import csvtext, streams


def table(data):
    return csvtext.read_table(streams.as_utf8(io.BytesIO(data), "x"), "x")


def rows(data):
    return [cells for _, cells in table(data).rows()]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_line_ends_and_encodings(delimiter, end, encoding):
    text = end.join(["", delimiter.join(["Path ", "\xa0Lung\xa0 Opacity"]), delimiter.join(["a/ö.jpg", "1"]), ""])
    assert rows(text.encode(encoding)) == [{"Path": "a/ö.jpg", "Lung Opacity": "1"}]


def test_rows_say_where_they_begin():
    found = table(b'\na,b\n1,2\n\n"x\ny",4\n5\n6,7')
    assert [(where, cells if isinstance(cells, dict) else str(cells)) for where, cells in found.rows()] == [
        ("x:3", {"a": "1", "b": "2"}),
        ("x:5", {"a": "x\ny", "b": "4"}),
        ("x:7", "1 cells, but the header has 2"),
        ("x:8", {"a": "6", "b": "7"}),
    ]


def test_a_row_that_is_no_csv_stands_in_its_place_and_the_next_is_read():
    found = rows(b'a,b\n"1" 2,3\n4,5\n"6,7')
    assert "not CSV" in str(found[0]) and found[1] == {"a": "4", "b": "5"} and "not CSV" in str(found[2])


def test_a_long_cell_is_read_and_the_process_keeps_its_own_bound():
    before = csv.field_size_limit()
    assert rows(b"a,b\n" + b"x" * 200_000 + b",1\n") == [{"a": "x" * 200_000, "b": "1"}]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("data", [b"a,b\n" + b"x" * 1000, b'a,b\n"' + b"x\n" * 500, b"a" + b"," * 300])
def test_bounds(data, monkeypatch):
    monkeypatch.setattr(csvtext, "MAX_ROW", 999)
    monkeypatch.setattr(csvtext, "MAX_COLUMNS", 300)
    with pytest.raises(InputError, match="more than|larger"):
        for cells in rows(data):
            raise cells


def test_many_columns_take_linear_time():
    names = [f"column {k}" for k in range(100_000)]
    data = ",".join(names).encode() + b"\n" + b",".join([b"1"] * 100_000)
    assert rows(data) == [dict.fromkeys(names, "1")]
    with pytest.raises(InputError, match="two columns are named 'column 5'"):
        table(data.replace(b"\n", b",column 5\n"))


def test_bytes_that_are_no_text_survive():
    assert rows(b"Path,a\n\xff.jpg,1\n")[0]["Path"].encode("utf-8", "surrogateescape") == b"\xff.jpg"


@pytest.mark.parametrize("data", [b"", b"\n\n \r\n"])
def test_nothing_is_no_table(data):
    with pytest.raises(InputError, match="^x: no header of a CSV$"):
        table(data)


@pytest.mark.parametrize(
    "name,answer", [("", 1), ("Unnamed: 0", 1), ("Unnamed: 0.1", 0), ("index", 1), ("level_0", 1), ("Edema", 0)]
)
def test_an_index_is_told_by_its_name(name, answer):
    assert csvtext.is_index(name) == answer


def test_a_limit_error_is_an_input_error():
    assert issubclass(LimitError, InputError)
