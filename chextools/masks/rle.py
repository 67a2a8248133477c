"""COCO's compressed run lengths: base 32, a sign bit in the last digit, ASCII from "0", each count but the first three
written as its difference to the last but one. Equal to pycocotools' byte for byte."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chextools.errors import InputError

_DIGIT_BITS = 5
_MAX_DIGITS = 7
_AT_ONCE = 2**15  # counts whose digits are made at once


def decompress_counts(texts: Sequence[str | bytes]) -> list[np.ndarray]:
    """COCO's compressed counts, int64. Each count is written in base 32 as the difference to the last but one."""
    if not texts:
        return []
    try:
        given = [text.encode("ascii") if isinstance(text, str) else text for text in texts]
    except UnicodeEncodeError:
        raise InputError("RLE counts hold a character outside COCO's alphabet") from None
    if not all(given):
        raise InputError("RLE counts are empty")
    digits = np.frombuffer(b"".join(given), np.uint8) - np.uint8(48)  # what lies below wraps around
    if digits.max() > 63:
        raise InputError("RLE counts hold a character outside COCO's alphabet")
    last = np.flatnonzero(digits < 32)
    ends = np.array([len(text) for text in given]).cumsum()
    stops = last.searchsorted(ends)  # numbers up to the end of each text
    if not last.size or not (last[stops - 1] == ends - 1).all():
        raise InputError("RLE counts are truncated")
    length = last.copy()
    length[0] += 1
    length[1:] -= last[:-1]
    if (longest := int(length.max())) > _MAX_DIGITS:
        raise InputError("RLE counts hold a number too large for any image")
    values = (digits[last] & 31).astype(np.int64)
    values -= (values & 16) << 1  # the last digit holds the sign
    for back in range(1, longest):
        longer = np.flatnonzero(length > back)
        values[longer] = (values[longer] << _DIGIT_BITS) + (digits[last[longer] - back] & 31)
    counts, start = [], 0
    for stop in stops.tolist():
        part = values[start:stop]
        part[1::2].cumsum(out=part[1::2])
        part[2::2].cumsum(out=part[2::2])  # the first count stands alone
        counts.append(part)
        start = stop
    return counts


def compress_counts(counts: np.ndarray) -> str:
    """The inverse of `decompress_counts` for one mask: int64 [n] of counts to COCO's string."""
    parts = []
    for start in range(0, counts.size, _AT_ONCE):
        values = counts[start : start + _AT_ONCE].astype(np.int64)
        late = max(0, 3 - start)  # the first three counts stand as they are
        values[late:] -= counts[max(1, start - 2) : start + _AT_ONCE - 2][: max(0, values.size - late)]
        parts.append(_digits(values))
    return b"".join(parts).decode("ascii")


def _digits(values: np.ndarray) -> bytes:
    columns = []
    more = np.ones(values.size, bool)
    while more.any():
        digit = values & 31
        values >>= _DIGIT_BITS
        following = more & np.where(digit & 16, values != -1, values != 0)
        columns.append(np.where(more, digit + 48 + 32 * following, 0).astype(np.uint8))
        more = following
    characters = np.stack(columns, axis=1).ravel()
    return characters[characters != 0].tobytes()
