"""JSON as strangers write it and as we do, and the one reader of JSON Lines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from typing import Any

from chextools.errors import InputError, LimitError, quoted

MAX_DEPTH = 64  # of nesting, or little more; records and COCO have 6. Code that walks or pickles a value recurses
MAX_OBJECTS = 2**22  # objects and lists in one text, each of which takes up to 200 bytes of memory for two of text
_MAX_DIGITS = 300  # of an integer: one that is a number, as float, has at most 309

_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def dumps(value: object) -> str:
    """One line of JSON in ASCII, so that any path survives; a number that is not finite becomes null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(finite(value), allow_nan=False)


def finite(value: object) -> object:
    """A copy in which null stands for every NaN and infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value


def loads(text: str | bytes) -> Any:
    """Parse JSON strictly: no NaN, no key twice, no nesting beyond `MAX_DEPTH`. Raises InputError in one line.

    A number beyond a float's range is infinite, whole or not: for whoever checks numbers to refuse where it stands.
    Time and memory are linear in the text's length.
    """
    bare = _less_strings(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    _check_shape(bare)
    whole = _whole if b"0" * _MAX_DIGITS in bare.translate(_DIGITS) else None
    try:
        return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys, parse_int=whole)
    except InputError:
        raise
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
            raise InputError("truncated JSON") from None
        raise InputError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not usable JSON: {error}") from None


def parsed_lines(lines: Iterable[bytes], name: str, number: int = 0) -> Iterator[tuple[str, Any]]:
    """(where it stands, such as `stdin:17`, and its value) of each line of JSON Lines that is not blank.

    number: how many lines came before. In place of a value that cannot be parsed stands the InputError.
    """
    for at, line in enumerate(lines, number + 1):
        if line.strip():
            try:
                value = loads(line)
            except InputError as error:
                cut = "" if line.endswith((b"\n", b"\r")) or "truncated" in str(error) else " (a truncated last line)"
                value = InputError(f"{error}{cut}")
            yield f"{name}:{at}", value


def _less_strings(data: bytes) -> bytes:
    if b'\\"' in data:  # else no quote is escaped
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(data.split(b'"')[::2])


def _check_shape(bare: bytes) -> None:
    """Text less its strings, and then less all but brackets, shrinks by a level whenever the innermost pairs go."""
    if bare.count(b"[") + bare.count(b"{") <= MAX_DEPTH:
        return
    brackets = bare.translate(None, _BRACKETS)
    if len(brackets) > 2 * MAX_OBJECTS:
        raise LimitError(f"not usable JSON: more than {MAX_OBJECTS} objects and lists")
    for _ in range(MAX_DEPTH):
        if len(brackets) <= MAX_DEPTH:
            return
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    if len(brackets) > MAX_DEPTH:
        raise LimitError(f"not usable JSON: nested more than {MAX_DEPTH} deep")


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else -math.inf if digits.startswith("-") else math.inf


def _refuse_constant(name: str) -> None:
    raise InputError(f"not JSON: {name} is not a number")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InputError(f"the key {quoted(name)} stands twice in one object")
            seen.add(name)
    return result
