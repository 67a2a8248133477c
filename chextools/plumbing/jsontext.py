"""JSON as strangers write it and as we do, and the one reader of JSON Lines."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NoReturn

from chextools.errors import InputError, LimitError, quoted

MAX_DEPTH = 64  # of nesting; records and COCO have 6. Code that walks or pickles a value recurses
MAX_OBJECTS = 2**22  # objects and lists in one text, each of which takes up to 200 bytes of memory for two of text
MAX_MEMBER = 2**26  # characters of a member of an object that is read one by one: an image with all its outlines
_MAX_DIGITS = 300  # of an integer: one that is a number, as float, has at most 309

_TOO_DEEP = f"not usable JSON: nested more than {MAX_DEPTH} deep"
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SPACE = re.compile(r"[ \t\n\r]*")
_BLOCK = 2**20  # bytes read at once
_CUT = 16  # characters: what is wrong nearer to where a text is cut may only be cut


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
    except RecursionError:
        raise LimitError(_TOO_DEEP) from None
    except ValueError as error:
        raise InputError(f"not usable JSON: {error}") from None


def members(stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    """The members (key, value) of the one object in a stream, as strictly as `loads`, in the memory of one member.

    Raises InputError where it goes wrong: what came before has been given by then.
    """
    text = _Text(stream)
    seen: set[str] = set()
    text.take("{", "value")
    if text.following() == "}":
        text.take("}", "value")
    else:
        while True:
            if text.following() != '"':
                text.refuse("Expecting property name enclosed in double quotes")
            key = text.value()
            text.take(":", "':' delimiter")
            value = text.value()
            if key in seen:
                raise InputError(f"the key {quoted(key)} stands twice in one object")
            seen.add(key)
            yield key, value
            if text.following() == "}":
                text.take("}", "value")
                break
            text.take(",", "',' delimiter")
    if text.following():
        text.refuse("Extra data")


class _Text:
    """JSON of a stream, from a place on: what has been read of it is forgotten."""

    def __init__(self, stream: BinaryIO):
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
        self._text, self._at, self._ended = "", 0, False
        self._bytes = self._lines = self._columns = 0  # of what is forgotten; bytes of what is read
        self._parser = _PARSERS[False]

    def following(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # what is empty matches
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, character: str, what: str) -> None:
        if self.following() != character:
            self.refuse(f"Expecting {what}")
        self._at += 1

    def value(self) -> Any:
        """The value that begins here, of which what follows is read."""
        self.following()
        while True:
            try:
                value, end = self._parser.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.pos >= len(self._text) - _CUT or error.msg.startswith("Unterminated string")
                if self._ended or not cut:
                    self.refuse(error.msg, error)
            except RecursionError:
                raise LimitError(_TOO_DEEP) from None
            except ValueError as error:
                raise error if isinstance(error, InputError) else InputError(f"not usable JSON: {error}") from None
            else:
                if end < len(self._text) or self._ended or self._text[end - 1] in '"}]':
                    break  # else a number may go on
            self._more()
        if self._text.count("[", self._at, end) + self._text.count("{", self._at, end) > MAX_DEPTH:
            _check_shape(_less_strings(self._text[self._at : end].encode("utf-8", "surrogatepass")))
        self._at = end
        return value

    def _more(self) -> bool:
        """Forget what has been read, and read on; whether anything came."""
        if self._ended:
            return False
        done = self._text[: self._at]
        lines = done.count("\n")
        self._lines += lines
        self._columns = len(done) - done.rfind("\n") - 1 if lines else self._columns + len(done)
        rest = self._text[self._at :]
        if len(rest) > MAX_MEMBER:
            raise LimitError(f"not usable JSON: a member of more than {MAX_MEMBER} characters")
        data = self._stream.read(max(_BLOCK, len(rest)))
        self._ended = not data
        waiting = len(self._decoder.getstate()[0])
        try:
            self._text, self._at = rest + self._decoder.decode(data, self._ended), 0
        except UnicodeDecodeError as error:
            raise InputError(f"not UTF-8 at byte {self._bytes - waiting + error.start + 1}") from None
        self._bytes += len(data)
        if max(self._text.count("["), self._text.count("{")) > MAX_OBJECTS:
            raise LimitError(f"not usable JSON: more than {MAX_OBJECTS} objects and lists")
        self._parser = _PARSERS[b"0" * _MAX_DIGITS in self._text.encode("utf-8", "surrogatepass").translate(_DIGITS)]
        return bool(data)

    def refuse(self, message: str, error: json.JSONDecodeError | None = None) -> NoReturn:
        """Raise InputError that says where."""
        position = error.pos if error else self._at
        if position >= len(self._text.rstrip()) or message.startswith("Unterminated string"):
            raise InputError("truncated JSON") from None
        before = self._text[:position]
        lines = before.count("\n")
        column = position - before.rfind("\n") if lines else self._columns + position + 1
        raise InputError(f"not JSON: {message} at line {self._lines + lines + 1} column {column}") from None


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
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b".").replace(b"{}", b".").replace(b".", b"")
    # Few without a partner are another fault.
    if len(brackets) > MAX_DEPTH or b"[]" in brackets or b"{}" in brackets:
        raise LimitError(_TOO_DEEP)


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


_PARSERS = [
    json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys, parse_int=whole)
    for whole in (None, _whole)
]
