"""Image files of Pillow's formats, by their own bits and photometry: opened, then decoded to gray.

More than 8 bits: the least value of the image becomes 0 and the greatest 255, as such files rarely use their whole
range (a 12-bit detector in a 16-bit PNG shifted by 8 would be black).
"""

from __future__ import annotations

import importlib
import struct
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from chextools.errors import InputError, LimitError
from chextools.records.sizes import check_size
from chextools.xrays import png, tiff
from chextools.xrays.header import MAX_BYTES, Header
from chextools.xrays.levels import luminance, scaled

# EPS is not among them: reading it would run another program.
FORMATS = ("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "JPEG2000")
_PLUGINS = {name: f"PIL.{name.title()}ImagePlugin" for name in FORMATS}
_PLUGINS |= {"JPEG2000": "PIL.Jpeg2KImagePlugin", "WEBP": "PIL.WebPImagePlugin"}
JPEG = ("JPEG", "MPO")  # MPO: several JPEG

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Bytes per pixel that decoding to gray takes at once, by Pillow's mode
_BYTES = {"1": 2, "L": 1, "P": 2, "I;16": 6, "I;16L": 6, "I;16B": 6, "RGB": 5, "RGBX": 5, "CMYK": 9, "YCbCr": 9}
_MOST = 13
_KEYED = 8  # where one colour is transparent
_DEEP = 24  # samples of 16 bits with colour or transparency


class Picture:
    """An image file, nothing of it decoded. `reduced`: a large JPEG will be, which bounds its memory.

    Raises InputError for what is no image or would need too much memory.
    """

    def __init__(self, stream: BinaryIO, reduced: bool = True):
        self.stream = stream
        self.image: Image.Image | None = None
        self.png: png.Facts | None = None
        self.tiff: tiff.Facts | None = None
        self.orientation = 1
        self.pixels_at = 0  # where the header ends
        kind = _kind(stream)
        frames, size = 1, (0, 0)
        if kind == "TIFF":
            self.tiff = tiff.read_facts(stream)
            size, frames = self.tiff.size, self.tiff.frames
        if self.tiff and self.tiff.is_deep:
            per_pixel = 4 * self.tiff.bytes_per_pixel + 8
            self.orientation = self.tiff.orientation
        else:
            self.image = _opened(stream, kind)
            kind = self.image.format or kind
            self.pixels_at = stream.tell()
            size, frames = (self.image.height, self.image.width), getattr(self.image, "n_frames", 1)
            self.png = png.read_facts(stream) if kind == "PNG" else None
            self.orientation = _orientation(self.image, self.png.exif if self.png else b"")
            per_pixel = _DEEP if self.png and self.png.is_deep else _BYTES.get(self.image.mode, _MOST)
            if self.png and self.png.transparent:
                per_pixel = max(per_pixel, _KEYED)
            if reduced and kind in JPEG:  # but of a progressive one, all coefficients are held at full size
                per_pixel = 2 * len(self.image.getbands()) if self.image.info.get("progressive") else 0
        height, width = check_size(size, "the image's size")
        if height * width * per_pixel > MAX_BYTES:
            mode = self.image.mode if self.image else f"{self.tiff.bits if self.tiff else 0} bits"
            needed = height * width * per_pixel / 2**30
            raise LimitError(f"{width} x {height} in {mode} needs {needed:.1f} GiB; at most {MAX_BYTES / 2**30}")
        self.header = Header((width, height) if self.orientation >= 5 else (height, width), kind, frames)

    def gray(self, size: tuple[int, int] | None = None) -> tuple[Image.Image, tuple | None]:
        """(mode L, the box of it where the image lies, None for all), not yet turned.

        size: (width, height), of which a JPEG is decoded no smaller, and not much larger. Where the image lies in what
        was decoded is a box: at 1/4 the last column may be a quarter of a pixel.
        """
        reduced = None
        if self.image is not None and self.header.kind in JPEG:
            reduced = self.image.draft("L", size)
        return self._gray(), reduced and size and reduced[1]

    def turned(self, image: Image.Image) -> Image.Image:
        return image.transpose(_TURNS[self.orientation]) if self.orientation in _TURNS else image

    def _gray(self) -> Image.Image:
        if self.image is None:
            assert self.tiff is not None
            return Image.fromarray(scaled(tiff.deep_gray(self.stream, self.tiff)))
        if self.png and self.png.is_deep:
            return Image.fromarray(scaled(png.deep_gray(self.stream, self.png)))
        if self.header.kind == "PPM" and (deep := _deep_ppm(self.stream)) is not None:
            return Image.fromarray(scaled(luminance(deep)))
        if self.header.kind == "JPEG2000":
            _refuse_deep_colour(self.stream, self.image)
        self.image.load()
        if self.png and self.png.transparent:
            return _with_key(self.image, self.png, self.png.transparent)
        return _gray(self.image)


def _kind(stream: BinaryIO) -> str:
    """The format by its first bytes, in Pillow's words."""
    stream.seek(0)
    prefix = stream.read(16)
    for name in FORMATS:
        importlib.import_module(_PLUGINS[name])
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        if accept is not None and accept(prefix) is True:
            return name
    raise UnidentifiedImageError


def _opened(stream: BinaryIO, kind: str) -> Image.Image:
    """Pillow's image of a format. Image.open has a limit of its own, which is everybody's; ours is `check_size`."""
    stream.seek(0)
    try:
        return Image.OPEN[kind][0](stream, "")
    except (SyntaxError, IndexError, TypeError, struct.error) as error:
        raise UnidentifiedImageError from error


def _orientation(image: Image.Image, exif: bytes) -> int:
    """EXIF's, 1 where there is none; Pillow itself turns TIFF. Unlike getexif this decodes nothing of a PNG."""
    found = exif or image.info.get("exif")
    if image.format == "TIFF" or not found:
        return 1
    values = Image.Exif()
    try:
        values.load(found)
        turn = values.get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block is no reason to refuse the image
        return 1
    return turn if turn in _TURNS else 1


def _gray(image: Image.Image) -> Image.Image:
    """A decoded image in mode L; what is transparent lies on black."""
    if image.mode == "P":
        return _of_palette(image)
    if image.mode in ("LA", "La"):
        return image.convert("La").getchannel(0)
    if image.mode in ("RGBA", "RGBa"):  # colours times opacity are what lies on black
        return Image.merge("RGB", image.convert("RGBa").split()[:3]).convert("L")
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(scaled(np.asarray(image)))
    return image if image.mode == "L" else image.convert("L")


def _of_palette(image: Image.Image) -> Image.Image:
    """Every colour once, not every pixel."""
    colours = Image.frombytes("P", (256, 1), bytes(range(256)))
    colours.putpalette(image.im.getpalette("RGB", "RGB"))
    if "transparency" in image.info:
        colours.info["transparency"] = image.info["transparency"]
        table = _gray(colours.convert("RGBA"))
    else:
        table = colours.convert("L")
    return Image.fromarray(np.asarray(table)[0][np.asarray(image)])


def _with_key(image: Image.Image, facts: png.Facts, key: tuple[int, ...]) -> Image.Image:
    """Gray in which the one colour that is transparent is black."""
    values = np.array(image.convert("L") if image.mode == "1" else image)
    if values.ndim == 3:
        clear = (values == np.array(key[:3], values.dtype)).all(axis=2)
    else:
        step = 255 // (2**facts.bits - 1) if facts.bits < 8 else 1
        clear = values == key[0] * step
    gray = np.array(_gray(image)) if values.ndim == 3 else values
    gray[clear] = 0
    return Image.fromarray(gray if gray.dtype == np.uint8 else scaled(gray))


def _deep_ppm(stream: BinaryIO) -> np.ndarray | None:
    """uint16 [h, w, 3] of a colour PPM of more than 8 bits, of which Pillow keeps 8."""
    stream.seek(0)
    if stream.read(2) != b"P6":
        return None
    words: list[bytes] = []
    while len(words) < 3:
        line = stream.readline(2**10)
        if not line:
            return None
        words += line.split(b"#")[0].split()
    if len(words) != 3 or int(words[2]) < 256:
        return None
    width, height = int(words[0]), int(words[1])
    data = stream.read(width * height * 6)
    if len(data) < width * height * 6:
        raise InputError("truncated")
    return np.frombuffer(data, ">u2").reshape(height, width, 3)


def _refuse_deep_colour(stream: BinaryIO, image: Image.Image) -> None:
    """Raise InputError for JPEG 2000 of which Pillow gives only the high 8 bits. ISO/IEC 15444-1 A.5.1."""
    stream.seek(0)
    head = stream.read(2**16)
    start = head.find(b"\xff\x4f\xff\x51")
    bits = (head[start + 42] & 0x7F) + 1 if 0 <= start < len(head) - 42 else 8
    if bits > 8 and image.mode in ("RGB", "RGBA", "LA"):
        raise InputError(f"JPEG 2000 of {bits} bits in colour or with transparency cannot be read in full")
