"""TIFF by its own tags: more than 8 bits, signed and floating-point samples, white as zero, transparency.

Pillow makes 8 bits of most of these, or nothing. Here it only undoes the compression: the file is presented to it with
a directory that calls every byte a pixel, and what the bytes mean is read from the true one. TIFF 6.0, sections 3 to
14 and 18 to 19; floating-point predictor: Adobe Photoshop TIFF Technical Note 3.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, TiffImagePlugin

from chextools.errors import InputError
from chextools.xrays.levels import luminance

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL, _OFFSETS, _ORIENTATION = (
    256,
    257,
    258,
    259,
    262,
    266,
    273,
    274,
)
_SAMPLES, _ROWS, _COUNTS, _PLANAR, _PREDICTOR = 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4}
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_BYTEWISE = (1, 5, 8, 32773, 32946, 34925, 50000)  # none, LZW, deflate, PackBits, deflate, LZMA, Zstandard
_PREDICTING = (5, 8, 32946, 34925, 50000)  # other compressions pass over the predictor's tag
_MAX_FRAMES = 2**12


@dataclass(frozen=True)
class Facts:
    """What the tags of the first image say: size (height, width) as stored; bits and format of a sample."""

    prefix: str
    tags: dict
    size: tuple[int, int]
    bits: int
    format: int
    samples: int
    photometric: int
    frames: int

    @property
    def is_deep(self) -> bool:
        """Whether Pillow would not keep the values as they are."""
        return self.bits > 8 or self.format not in (_UNSIGNED, _UNDEFINED)

    @property
    def orientation(self) -> int:
        return _first(self.tags.get(_ORIENTATION, 1))

    @property
    def bytes_per_pixel(self) -> float:
        return self.samples * self.bits / 8


def read_facts(stream: BinaryIO) -> Facts:
    """Facts of a TIFF. Raises InputError for tags that make no sense."""
    stream.seek(0)
    head = stream.read(16)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head if head[2:3] in b"\x2b\0" and 43 in head[2:4] else head[:8])
    starts: list[int] = []
    tags: dict = {}
    while directory.next and directory.next not in starts and len(starts) < _MAX_FRAMES:
        starts.append(directory.next)
        stream.seek(directory.next)
        directory.load(stream)
        tags = tags or dict(directory)
    try:
        samples = int(_first(tags.get(_SAMPLES, 1)))
        bits = set(_several(tags.get(_BITS, 1))[:samples])
        formats = set(_several(tags.get(_FORMAT, _UNSIGNED))[:samples])
        size = int(tags[_HEIGHT]), int(tags[_WIDTH])
        photometric = int(_first(tags.get(_PHOTOMETRIC, 0)))
    except (KeyError, TypeError, ValueError, IndexError):
        raise InputError("a TIFF without the size of its image") from None
    if not 1 <= samples <= 16:
        raise InputError(f"a TIFF of {samples} samples a pixel")
    if len(bits) != 1 or len(formats) != 1:
        if max(bits, default=0) <= 8:
            return Facts("", tags, size, 8, _UNSIGNED, samples, photometric, len(starts))
        raise InputError("a TIFF whose samples have different numbers of bits")
    order = "<" if head[:2] == b"II" else ">"
    return Facts(order, tags, size, int(bits.pop()), int(formats.pop()), samples, photometric, len(starts))


def deep_gray(stream: BinaryIO, facts: Facts) -> np.ndarray:
    """[h, w] as stored, not yet turned: numbers of which a greater one is brighter; where it is transparent 0.

    Raises InputError for a kind that is not supported.
    """
    if facts.photometric not in _COLOURS:
        raise InputError(f"a TIFF of {facts.bits} bits with photometric interpretation {facts.photometric}")
    compression = _first(facts.tags.get(_COMPRESSION, 1))
    if compression not in _BYTEWISE:
        raise InputError(f"a TIFF of {facts.bits} bits with compression {compression}")
    values = _values(stream, facts, compression)
    colours = _COLOURS[facts.photometric]
    if facts.samples < colours:
        raise InputError(f"a TIFF of {facts.samples} samples where its colours need {colours}")
    most = float(2**facts.bits - 1) if facts.format in (_UNSIGNED, _UNDEFINED) else 1.0
    extra = _several(facts.tags.get(_EXTRA, ()))
    alpha = values[..., colours] if facts.samples > colours and extra[:1] in ((1,), (2,)) else None
    if facts.photometric == _WHITE_IS_ZERO:
        values = _inverted(values[..., :1], most if facts.format in (_UNSIGNED, _UNDEFINED) else None)
    if facts.photometric == _CMYK:
        ink = values[..., :4].astype(np.float32) / most
        values, most = (1 - ink[..., :3]) * (1 - ink[..., 3:]), 1.0
        return luminance(values)
    if alpha is None and colours == 1:
        return values[..., 0]
    return luminance(values[..., :colours], alpha if extra[:1] == (2,) else None, most)


def _inverted(values: np.ndarray, most: float | None) -> np.ndarray:
    if most is not None:
        return values.dtype.type(most) - values
    if values.dtype.kind == "i":
        return -1 - values  # no overflow at the least
    finite = values[np.isfinite(values)]
    return (float(finite.max(initial=0)) + float(finite.min(initial=0))) - values


def _values(stream: BinaryIO, facts: Facts, compression: int) -> np.ndarray:
    """[h, w, samples] numbers as stored."""
    stream.seek(0)
    data = stream.read()
    planar = _first(facts.tags.get(_PLANAR, 1)) == 2 and facts.samples > 1
    together = 1 if planar else facts.samples
    planes = [
        _numbers(plane, facts, together, step) for plane, step in _planes(data, facts, compression, together, planar)
    ]
    return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)


def _planes(
    data: bytes, facts: Facts, compression: int, together: int, planar: bool
) -> Iterator[tuple[np.ndarray, int]]:
    """(uint8 [h, bytes a row], pixels after which prediction begins anew) of each plane."""
    height, width = facts.size
    tags = facts.tags
    tiled = _TILE_OFFSETS in tags
    offsets = _several(tags.get(_TILE_OFFSETS if tiled else _OFFSETS, ()))
    counts = _several(tags.get(_TILE_COUNTS if tiled else _COUNTS) or tags.get(_COUNTS, ()))
    if not counts and compression == 1:
        counts = tuple(len(data) - offset for offset in offsets)
    step = int(_first(tags[_TILE_WIDTH])) if tiled else width
    rows = int(_first(tags.get(_TILE_HEIGHT if tiled else _ROWS, height)))
    if not (step > 0 and rows > 0) or step > 2**17:
        raise InputError("a TIFF whose tiles have no size")
    across = -(-width // step)
    per_plane = across * -(-height // rows)
    planes = facts.samples if planar else 1
    if len(offsets) < per_plane * planes or len(counts) < per_plane * planes:
        raise InputError("truncated")
    row_bytes = -(-step * together * facts.bits // 8)
    for plane in range(planes):
        mine = slice(plane * per_plane, (plane + 1) * per_plane)
        entries: dict[int, int | tuple] = {
            _WIDTH: row_bytes * across,
            _HEIGHT: height,
            _BITS: 8,
            _COMPRESSION: compression,
            _PHOTOMETRIC: 1,
        }
        entries |= {_SAMPLES: 1, _FILL: int(_first(tags.get(_FILL, 1)))}
        if tiled:
            entries |= {_TILE_WIDTH: row_bytes, _TILE_HEIGHT: rows}
            entries |= {_TILE_OFFSETS: offsets[mine], _TILE_COUNTS: counts[mine]}
        else:
            entries |= {_OFFSETS: offsets[mine], _ROWS: min(rows, height), _COUNTS: counts[mine]}
        yield _decompressed(data, entries), step


def _decompressed(data: bytes, entries: dict) -> np.ndarray:
    """uint8 [h, bytes a row]: the file's bytes under another directory, through Pillow."""
    directory, values = b"", b""
    base = len(data) + len(data) % 2
    for tag in sorted(entries):
        value = _several(entries[tag])
        if max(value) >= 2**32:
            raise InputError("a TIFF of more than 4 GiB")
        if len(value) == 1:
            field = struct.pack("<I", value[0])
        else:
            field = struct.pack("<I", base + 2 + 12 * len(entries) + 4 + len(values))
            values += struct.pack(f"<{len(value)}I", *value)
        directory += struct.pack("<HHI", tag, 4, len(value)) + field
    ifd = struct.pack("<H", len(entries)) + directory + b"\0\0\0\0" + values
    file = io.BytesIO(b"II*\0" + struct.pack("<I", base) + data[8:] + b"\0" * (base - len(data)) + ifd)
    image = Image.OPEN["TIFF"][0](file, "")
    image.load()
    return np.asarray(image)


def _numbers(rows: np.ndarray, facts: Facts, together: int, step: int) -> np.ndarray:
    """[h, w, together] of the bytes of a plane, prediction undone."""
    height, width = facts.size
    predictor = _predictor(facts)
    bits = facts.bits
    if bits % 8:
        return _unpacked(rows, facts, together, width)
    if facts.format == _FLOAT and predictor == 3:
        rows = _float_predicted(rows, together, bits // 8, step)
        order = ">"
    else:
        order = facts.prefix
    if bits == 24 and facts.format != _FLOAT:
        three = rows.reshape(height, -1, 3).astype(np.uint32)
        low, high = (0, 2) if order == "<" else (2, 0)
        values = three[..., low] | three[..., 1] << 8 | three[..., high] << 16
        if facts.format == _SIGNED:
            values = (values.astype(np.int32) ^ 0x800000) - 0x800000
    else:
        kind = {_SIGNED: "i", _FLOAT: "f"}.get(facts.format, "u")
        if bits not in (8, 16, 32, 64) or (kind == "f" and bits == 8):
            raise InputError(f"a TIFF with samples of {bits} bits")
        values = np.ascontiguousarray(rows).view(f"{order}{kind}{bits // 8}")
        values = values.astype(values.dtype.newbyteorder("="))
    values = values.reshape(height, -1, together)
    if predictor == 2:
        whole = values.view(f"u{values.dtype.itemsize}") if values.dtype.kind in "if" else values
        for start in range(0, whole.shape[1], step):
            part = whole[:, start : start + step]
            np.cumsum(part, axis=1, dtype=whole.dtype, out=part)
        if bits == 24:
            values &= 0xFFFFFF
    elif predictor not in (1, 3):
        raise InputError(f"a TIFF with predictor {predictor}")
    return values[:, :width]


def _predictor(facts: Facts) -> int:
    compressed = _first(facts.tags.get(_COMPRESSION, 1)) in _PREDICTING
    return _first(facts.tags.get(_PREDICTOR, 1)) if compressed else 1


def _float_predicted(rows: np.ndarray, together: int, size: int, step: int) -> np.ndarray:
    """Big-endian bytes of rows whose bytes were sorted by significance and differenced."""
    length = step * together * size
    tiles = rows.reshape(len(rows), -1, length // together, together)
    sums = np.cumsum(tiles, axis=2, dtype=np.uint8).reshape(len(rows), -1, size, length // size)
    return np.ascontiguousarray(sums.swapaxes(2, 3)).reshape(len(rows), -1)


def _unpacked(rows: np.ndarray, facts: Facts, together: int, width: int) -> np.ndarray:
    """Samples of 9 to 15 bits, the high bit first, each row from a whole byte on."""
    if facts.bits > 16 or facts.format == _FLOAT or _predictor(facts) != 1:
        raise InputError(f"a TIFF with samples of {facts.bits} bits")
    out = np.empty((len(rows), width, together), np.uint16)
    weights = 1 << np.arange(facts.bits - 1, -1, -1)
    for start in range(0, len(rows), 16):
        bits = np.unpackbits(rows[start : start + 16], axis=1)[:, : width * together * facts.bits]
        out[start : start + 16] = (bits.reshape(-1, width, together, facts.bits) @ weights).astype(np.uint16)
    if facts.format == _SIGNED:
        half = 1 << (facts.bits - 1)
        return (out.astype(np.int32) ^ half) - half
    return out


def _first(value: Any) -> int:
    return value[0] if isinstance(value, tuple) else value


def _several(value: object) -> tuple:
    return value if isinstance(value, tuple) else (value,)
