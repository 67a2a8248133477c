"""Whether a JPEG that ends as it should also holds all of its pixels: a decoder makes the rest of a cut one grey."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

import numpy as np

_END = b"\xff\xd9"
_FILLER = bytes(range(1, 255)) * 4  # no 0xff, which would be a marker
_RESTARTS = tuple(bytes([0xFF, 0xD0 + n]) for n in range(8))


def is_cut(stream: BinaryIO) -> bool:
    """Whether pixels are missing before the end marker.

    Bytes put before the marker of a whole image come after its last pixel, and a decoder passes over them. In one that
    is cut they are taken for pixels, so that the image becomes another. An image in intervals is told by their number.
    """
    stream.seek(0)
    data = stream.read()
    end = data.rfind(_END)
    if end < 0:
        return True
    expected = _expected_restarts(data)
    if expected is not None and sum(map(data.count, _RESTARTS)) < expected:
        return True
    return not np.array_equal(_small(data), _small(data[:end] + _FILLER + data[end:]))


def _small(data: bytes) -> np.ndarray:
    from PIL.JpegImagePlugin import jpeg_factory

    image = jpeg_factory(io.BytesIO(data), "")
    if not image.info.get("progressive"):  # of which the last bytes are of details
        image.draft("L", (1, 1))
    return np.asarray(image)


def _expected_restarts(data: bytes) -> int | None:
    """How many restart markers the one scan of a baseline image needs; None where it has none, or several scans."""
    at, interval, units = 2, 0, 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        body = data[at + 4 : at + 2 + length]
        if marker == 0xDD and len(body) >= 2:
            interval = struct.unpack_from(">H", body)[0]
        elif marker in (0xC0, 0xC1) and len(body) >= 6:
            height, width, parts = struct.unpack_from(">HHB", body, 1)
            sampling = [(body[6 + 3 * k + 1] >> 4, body[6 + 3 * k + 1] & 15) for k in range(parts)]
            wide, high = (max(s[k] for s in sampling) if parts > 1 else 1 for k in (0, 1))
            units = -(-width // (8 * wide)) * -(-height // (8 * high)) if wide and high else 0
        elif marker == 0xDA:
            several = data.find(b"\xff\xda", at + 2) >= 0
            return -(-units // interval) - 1 if interval and units and not several else None
        at += 2 + length
    return None
