"""JSON parsed strictly, in linear time, and no deeper than code that walks it can go."""

import io
import json
import math
import random

import pytest

from chextools.errors import InputError
from chextools.plumbing import jsontext


@pytest.mark.parametrize(
    "value", [{"a": ["\\", '"[[[', "]", 1.5e300, -(10**298)]}, [[[]], [{}]], "[" * 999, 'x\\"[' * 99]
)
def test_what_is_written_reads_back(value):
    text = json.dumps(value)
    assert jsontext.loads(text) == jsontext.loads(text.encode()) == value


@pytest.mark.parametrize("opening,closing", [("[", "]"), ('{"a":', "}"), ('[{"\\\\\\"[":', "}]")])
def test_nesting_is_bounded(opening, closing):
    half = 64 // (opening.count("[") // 2 + 1)
    assert jsontext.loads(opening * half + "1" + closing * half)
    for deep in (half + 1, 100, 500, 100_000):
        text = opening * deep + "1" + closing * deep
        with pytest.raises(InputError, match="nested more than 64 deep"):
            jsontext.loads(text)
        with pytest.raises(InputError, match="nested more than 64 deep"):
            list(jsontext.members(io.BytesIO(b'{"a": ' + text.encode() + b"}")))
    with pytest.raises(InputError, match="truncated JSON"):
        jsontext.loads(opening * 5 + "[" + "[1]," * 100)


def test_wide_is_not_deep():
    value = [[[random.random(), 1] for _ in range(1000)] for _ in range(10)]
    assert jsontext.loads(json.dumps(value)) == value
    assert jsontext.loads(json.dumps({"a": [{}] * 5000})) == {"a": [{}] * 5000}


@pytest.mark.parametrize("number", ["1" * 301, "9" * 5000, "1" * 10**6, "1e999", "1E+400", "1e1000000"])
def test_numbers_beyond_a_float_are_infinite(number):
    assert jsontext.loads(f'{{"a": [{number}, -{number}, 1]}}') == {"a": [math.inf, -math.inf, 1]}


@pytest.mark.parametrize(
    "number,value", [("1" * 299, int("1" * 299)), ("1e300", 1e300), ("1e-999", 0.0), ('"E999"', "E999")]
)
def test_numbers_that_are_some_are_read(number, value):
    assert jsontext.loads(number) == value


def test_a_key_that_stands_twice_among_many_is_named():
    text = "{" + ", ".join(f'"{k}": 1' for k in range(200_000)) + ', "7": 2}'
    with pytest.raises(InputError, match="^the key '7' stands twice in one object$"):
        jsontext.loads(text)


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "-Infinity", "{'a': 1}", "[1,]", "", '"\\ud800', b'{"a": "\xff"}']
)
def test_what_is_no_json_is_an_input_error(text):
    with pytest.raises(InputError):
        jsontext.loads(text)


def test_lines_are_numbered_and_a_broken_one_stands_in_its_place():
    lines = [b'{"a": 1}\n', b"\n", b"{\n", b"[2]\r\n", b'{"b": ']
    found = list(jsontext.parsed_lines(lines, "x", 2))
    assert [where for where, _ in found] == ["x:3", "x:5", "x:6", "x:7"]
    assert [found[0][1], found[2][1]] == [{"a": 1}, [2]]
    assert str(found[1][1]) == str(found[3][1]) == "truncated JSON"


def members(text: str | bytes) -> list:
    return list(jsontext.members(io.BytesIO(text.encode() if isinstance(text, str) else text)))


MEMBERS = {
    "a": {"b": [1, -2.5e3], "caf\u00e9\u4e2d": '"}]\\'},
    "": [],
    "c": -17,
    "d": None,
    "e": "\U0001f600\ud800",
    "f": {},
}


@pytest.mark.parametrize("block", [1, 2, 3, 7, 2**20])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_members_are_those_of_the_object(monkeypatch, block, ascii_only):
    """Wherever a block ends: in a number, a character, an escape or a key."""
    monkeypatch.setattr(jsontext, "_BLOCK", block)
    for indent in (None, 1):
        text = json.dumps(MEMBERS, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
        assert members(text) == list(MEMBERS.items())
    assert members(" {} ") == []


@pytest.mark.parametrize("block", [1, 5, 2**20])
@pytest.mark.parametrize(
    "text",
    [
        "", "{", '{"a"', '{"a":', '{"a": tru', '{"a": 1', '{"a": {"b": [1, 2', '{"a": "x', '{"a": 1,', '{"a": 1}\n}',
        '{"a": 1,}', "{a: 1}", '{"a": [1,]}', '{"a" 1}', '{"a": 1\n "b": 2}', '{"a": 1}, {', '{"a": NaN}',
        '{"a": 1, "a": 2}', '{"b": {"a": 1, "a": 2}}', '{"a": ' + "[" * 200 + "]" * 200 + "}",
        b'{"a": "\xff"}', b'{"a": 1, "b": "\xc3',
    ],
)  # fmt: skip
def test_members_are_refused_as_the_object_is(monkeypatch, block, text):
    monkeypatch.setattr(jsontext, "_BLOCK", block)
    with pytest.raises(InputError) as whole:
        jsontext.loads(text)
    with pytest.raises(InputError) as parts:
        members(text)
    assert str(parts.value) == str(whole.value)


def test_members_beyond_any_bound(monkeypatch):
    assert members(f'{{"a": {"1" * 5000}}}') == [("a", math.inf)]
    with pytest.raises(InputError, match="nested more than 64 deep|not usable JSON"):
        members('{"a": ' + "[" * 100_000)
    monkeypatch.setattr(jsontext, "MAX_OBJECTS", 1000)
    with pytest.raises(InputError, match="more than 1000 objects and lists"):
        members('{"a": [' + "[]," * 2000)
