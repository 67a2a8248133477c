"""JSON parsed strictly, in linear time, and no deeper than code that walks it can go."""

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
    assert jsontext.loads(opening * (half // 2) + "1" + closing * (half // 2))
    for deep in (100, 500, 100_000):
        with pytest.raises(InputError, match="nested more than 64 deep"):
            jsontext.loads(opening * deep + "1" + closing * deep)


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
