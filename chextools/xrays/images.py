"""X-ray images whatever file they are in: measured without decoding, and decoded to 8-bit gray.

JPEG, PNG, TIFF, GIF, BMP, WebP, PPM and JPEG 2000 through Pillow, DICOM through the extra `dicom`; content decides,
not the file's name. EXIF orientation is applied, transparency lies on black, of several frames the first counts.

More than 8 bits: the least value of the image becomes 0 and the greatest 255, as such files rarely use their whole
range (a 12-bit detector in a 16-bit PNG shifted by 8 would be black). DICOM says by its window what to show.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from chextools.errors import InputError, LimitError, MissingExtra
from chextools.records.sizes import MAX_PIXELS, check_size

# EPS is not among them: reading it would run another program.
FORMATS = ("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "JPEG2000")
HEAD = 132  # bytes from the start that tell an image from anything else
MAX_BYTES = 2**30  # of pixels, once decoded: gray of 20,000 x 20,000, also with 16 bits

# MPO: several JPEG. What ends a file that is whole; the search goes this far back, for what some devices append.
_JPEG = ("JPEG", "MPO")
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"\0\0\0\0IEND\xaeB`\x82"}
_TAIL = 2**16

_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"GIF8", b"BM", b"P5", b"P6", b"\0\0\0\x0cjP  ")
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
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2}  # per pixel, in Pillow; 4 otherwise

# Pillow's own limit guards what we have not measured yet. Warnings of both libraries would be several lines each, on
# stderr: what matters in them is said by InputError.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", module=r"(PIL|pydicom)\b")


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its image before any pixel is decoded.

    size: (height, width) in pixels as it is shown, after EXIF orientation.
    kind: Pillow's name of the format, or "DICOM".
    frames: how many images the file holds; the first counts.
    about: record keys that the file itself knows, such as a DICOM's "patient".
    """

    size: tuple[int, int]
    kind: str
    frames: int = 1
    about: dict = field(default_factory=dict)


def measure(path: str | os.PathLike) -> Header:
    """The header alone. Raises InputError, which names the file, unless it is an image."""
    with _reading(path) as stream:
        return _dicom().header(stream) if is_dicom(stream) else _header(_opened(stream))


def check(path: str | os.PathLike, decode: bool = False, quick: bool = False) -> Header:
    """The header, if the file is whole. Raises InputError for a truncated file.

    A JPEG or PNG with its end marker is whole, any other file when all of its pixels decode; `decode` decodes them all,
    which also finds damage inside. `quick`: of a file of another kind the header is enough.
    """
    with _reading(path) as stream:
        if is_dicom(stream):
            return _dicom().header(stream) if quick else _dicom().check(stream, decode)
        image = _opened(stream)
        header = _header(image)
        if decode or not (_has_end(stream, header.kind) or (quick and header.kind not in _ENDS)):
            if header.kind in _JPEG:
                image.draft("L", (1, 1))
            image.load()
        return header


def load(path: str | os.PathLike, size: int) -> np.ndarray:
    """The whole image as a square: uint8 [size, size], gray, its aspect not kept, as in the study.

    The same file gives the same bytes. Raises InputError, which names the file, for what is no image or not whole.

    Resized bilinearly with antialiasing. A large JPEG is first decoded at the smallest scale (1/2, 1/4, 1/8) that is
    not below `size`: on full-size CXRs at 320 pixels it differs by 0.3 grey levels on average from decoding all of it,
    where another filter would differ by 0.5 or more.
    """
    return decode(path, size)[1]


def decode(path: str | os.PathLike, size: int) -> tuple[Header, np.ndarray]:
    """(header, `load`) in one reading."""
    with _reading(path) as stream:
        if is_dicom(stream):
            header, pixels = _dicom().read(stream)
            return header, np.asarray(_resized(Image.fromarray(pixels), (size, size)))
        image = _opened(stream)
        return _header(image), np.asarray(_decoded(image, (size, size)))


def shrink(path: str | os.PathLike, longest: int) -> tuple[Header, np.ndarray]:
    """(header, the whole image in its own proportions, its longer side `longest` pixels): uint8 [height, width], gray.

    Made as by `load`, also larger than the image is. Raises InputError as it does.
    """
    with _reading(path) as stream:
        if is_dicom(stream):
            header, pixels = _dicom().read(stream)
            return header, np.asarray(_resized(Image.fromarray(pixels), _proportional(header.size, longest)))
        image = _opened(stream)
        header = _header(image)
        width, height = _proportional(header.size, longest)
        return header, np.asarray(_decoded(image, (height, width) if _orientation(image) >= 5 else (width, height)))


def read(path: str | os.PathLike) -> np.ndarray:
    """The image at its own size: uint8 [height, width], gray. Raises InputError, which names the file."""
    with _reading(path) as stream:
        if is_dicom(stream):
            return _dicom().read(stream)[1]
        image = _opened(stream, reduced=False)
        if image.format in _JPEG:
            image.draft("L", None)
        return np.asarray(_turned(_gray(image), _orientation(image)))


def is_image(head: bytes) -> bool:
    """Whether a file that starts like this is meant to be an image."""
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(_STARTS) or webp or head[128:132] == b"DICM"


def is_dicom(stream: BinaryIO) -> bool:
    """Whether a stream at its start is DICOM; a file named .dcm may lack the preamble."""
    head = stream.read(HEAD)
    stream.seek(0)
    named = str(getattr(stream, "name", "")).lower().endswith((".dcm", ".dicom"))
    return head[128:132] == b"DICM" or (named and head[:1] in (b"\x02", b"\x08") and head[1:2] == b"\0")


def scaled(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Values of any type to uint8: `low`, the least, becomes 0 and `high`, the greatest, 255. Constant values: 0."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        low = float(finite.min(initial=np.inf)) if low is None else low
        high = float(finite.max(initial=-np.inf)) if high is None else high
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:  # a table: no array of floats at full size
        limits = np.iinfo(values.dtype)
        table = _levels(np.arange(limits.min, limits.max + 1, dtype=np.float64), low, high)
        return np.roll(table, limits.min)[values.view(f"u{values.dtype.itemsize}")]
    levels = np.empty(values.shape, np.uint8)
    for row in range(0, len(values), 256):
        levels[row : row + 256] = _levels(values[row : row + 256].astype(np.float64), low, high)
    return levels


def _levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((np.clip(values, low, high) - low) * (255 / (high - low))).astype(np.uint8)


@contextlib.contextmanager
def _reading(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """The file, open; whatever goes wrong in the block is one line that names it."""
    try:
        if not stat.S_ISREG((found := os.stat(path)).st_mode):
            raise InputError("not a regular file" if not stat.S_ISDIR(found.st_mode) else "a folder, not an image")
        if not found.st_size:
            raise InputError("an empty file")
        with open(path, "rb") as stream:
            yield stream
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{os.fspath(path)}: not an image of a known kind") from None
    except (LimitError, MissingExtra) as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from None
    except Image.DecompressionBombError:
        raise LimitError(f"{os.fspath(path)}: more than {MAX_PIXELS} pixels") from None
    except InputError as error:
        raise InputError(f"{os.fspath(path)}: {error}") from None
    except Exception as error:  # decoders of a stranger's bytes raise nearly anything
        said = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        if "truncated" in said.lower():
            said = "truncated"
        elif not isinstance(error, OSError) or error.errno is None:
            said = f"cannot be decoded: {said}"
        raise InputError(f"{os.fspath(path)}: {said}") from None


def _opened(stream: BinaryIO, reduced: bool = True) -> Image.Image:
    """The image, nothing of it decoded. A large JPEG will be decoded `reduced`, which bounds its memory."""
    image = Image.open(stream, formats=FORMATS)
    height, width = check_size((image.height, image.width), "the image's size")
    needed = width * height * _BYTES.get(image.mode, 4)
    if reduced and image.format in _JPEG:  # but of a progressive one, all coefficients are held at full size
        needed = width * height * 2 * len(image.getbands()) if image.info.get("progressive") else 0
    if needed > MAX_BYTES:
        raise LimitError(f"{width} x {height} in {image.mode} needs {needed / 2**30:.1f} GiB; at most 1")
    return image


def _header(image: Image.Image) -> Header:
    turned = _orientation(image) >= 5
    size = (image.width, image.height) if turned else (image.height, image.width)
    return Header(size, image.format, getattr(image, "n_frames", 1))


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 where there is none; Pillow itself turns TIFF. Unlike getexif this decodes nothing of a PNG."""
    if image.format == "TIFF" or not image.info.get("exif"):
        return 1
    exif = Image.Exif()
    try:
        exif.load(image.info["exif"])
        found = exif.get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block is no reason to refuse the image
        return 1
    return found if found in _TURNS else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _decoded(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image at a size (width, height), which is that before it is turned; a JPEG is decoded no larger than needed.

    Where the image lies in what was decoded is a box: at 1/4 the last column may be a quarter of a pixel.
    """
    reduced = image.draft("L", size) if image.format in _JPEG else None
    return _turned(_resized(_gray(image), size, reduced and reduced[1]), _orientation(image))


def _resized(image: Image.Image, size: tuple[int, int], box: tuple | None = None) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=3.0)


def _proportional(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height) of an image of (height, width) `size` when its longer side has `longest` pixels."""
    scale = longest / max(size)
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))


def _gray(image: Image.Image) -> Image.Image:
    """The image decoded to mode L."""
    image.load()
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "La"):
        return image.convert("La").getchannel(0)
    if image.mode in ("RGBA", "RGBa"):  # colours times opacity are what lies on black
        return Image.merge("RGB", image.convert("RGBa").split()[:3]).convert("L")
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(scaled(np.asarray(image)))
    return image if image.mode == "L" else image.convert("L")


def _has_end(stream: BinaryIO, kind: str) -> bool:
    """Whether the end marker stands in the last bytes, after the header: a thumbnail in there has one, too."""
    if kind not in _ENDS:
        return False
    header_end = stream.tell()
    end = stream.seek(0, io.SEEK_END)
    stream.seek(max(header_end, end - _TAIL))
    found = _ENDS[kind] in stream.read()
    stream.seek(header_end)
    return found


def _dicom():
    try:
        from chextools.xrays import dicom
    except ImportError:
        raise MissingExtra("DICOM needs pydicom: pip install 'chextools[dicom]'") from None
    return dicom
