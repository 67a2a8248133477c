"""What a PNG says of itself and Pillow does not pass on: bits, the transparent colour, what stands after the pixels.

Portable Network Graphics (PNG) Specification, third edition: 11.2.1 IHDR, 11.3.1.1 tRNS, 11.3.3.8 eXIf.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from chextools.errors import InputError
from chextools.xrays.levels import luminance

_SIGNATURE = 8
_MAX_CHUNKS = 2**18  # Pillow and other writers cut pixels into chunks of 2**13 to 2**16 bytes
_RGB, _GRAY_ALPHA, _RGBA = 2, 4, 6  # colour types with several samples a pixel


@dataclass(frozen=True)
class Facts:
    """bits: of a sample. colour: the colour type. transparent: the samples of tRNS, in the file's bits. exif: eXIf."""

    bits: int
    colour: int
    transparent: tuple[int, ...] | None = None
    exif: bytes = b""

    @property
    def is_deep(self) -> bool:
        """Whether Pillow would keep the high byte alone."""
        return self.bits == 16 and self.colour in (_RGB, _GRAY_ALPHA, _RGBA)


def read_facts(stream: BinaryIO) -> Facts:
    """Facts of a PNG, by its chunks' heads; no pixel is read."""
    stream.seek(_SIGNATURE)
    found: dict = {"bits": 8, "colour": 0}
    for _ in range(_MAX_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            return Facts(**found)
        length, name = struct.unpack(">I4s", head)
        if name == b"IEND":
            return Facts(**found)
        if name in (b"IHDR", b"tRNS", b"eXIf") and length < 2**16:
            data = stream.read(length)
            if len(data) < length:
                return Facts(**found)  # cut: whoever decodes it will find that
            if name == b"IHDR" and length == 13:
                found |= {"bits": data[8], "colour": data[9]}
            elif name == b"tRNS" and found["colour"] in (0, _RGB):
                found["transparent"] = struct.unpack(f">{length // 2}H", data[: length // 2 * 2])
            elif name == b"eXIf":
                found["exif"] = data
            length -= len(data)
        stream.seek(length + 4, 1)
    raise InputError(f"a PNG of more than {_MAX_CHUNKS} chunks")


def deep_gray(stream: BinaryIO, facts: Facts) -> np.ndarray:
    """float32 [h, w] in 0..65535 of 16-bit samples: luminance, where it is transparent black.

    Pillow unpacks the high bytes of such samples; told that their bytes stand the other way round, the low ones.
    """
    if facts.colour == _GRAY_ALPHA:
        raw = _unpacked(stream, "RGBA").view(">u2").astype(np.uint16)
        return luminance(raw[..., :1], raw[..., 1], 65535)
    mode = "RGB" if facts.colour == _RGB else "RGBA"
    samples = _unpacked(stream, f"{mode};16B").astype(np.uint16)
    samples <<= 8
    samples |= _unpacked(stream, f"{mode};16L")
    if mode == "RGBA":
        return luminance(samples[..., :3], samples[..., 3], 65535)
    gray = luminance(samples)
    if facts.transparent and len(facts.transparent) == 3:
        gray[(samples == np.array(facts.transparent, np.uint16)).all(axis=2)] = 0
    return gray


def _unpacked(stream: BinaryIO, raw: str) -> np.ndarray:
    from PIL.PngImagePlugin import PngImageFile

    stream.seek(0)
    image = PngImageFile(stream, "")
    image.tile = [tile._replace(args=raw) for tile in image.tile]
    image.load()
    return np.array(image)
