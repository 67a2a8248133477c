"""X-ray images whatever file they are in: measured without decoding, and decoded to 8-bit gray.

JPEG, PNG, TIFF, GIF, BMP, WebP, PPM and JPEG 2000 through Pillow, DICOM through the extra `dicom`; content decides,
not the file's name. The orientation that a file states is applied, transparency lies on black, of several frames the
first counts. More than 8 bits: the least value of the image becomes 0 and the greatest 255; DICOM says by its window
what to show.

Header and pixels come from one opened picture: what is measured and checked here is what is read.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from chextools.errors import InputError, LimitError, MissingExtra
from chextools.records.sizes import MAX_PIXELS
from chextools.xrays import jpeg
from chextools.xrays.header import Header
from chextools.xrays.pictures import JPEG, Picture

if TYPE_CHECKING:
    from chextools.xrays import dicom

HEAD = 132  # bytes from the start that tell an image from anything else

# What ends a file that is whole; the search goes this far back, for what some devices append.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"\0\0\0\0IEND\xaeB`\x82"}
_TAIL = 2**16
_CHECKED = 320  # side at which an image is decoded to see that it can be

_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"GIF8", b"BM", b"P5", b"P6", b"\0\0\0\x0cjP  ")


def measure(path: str | os.PathLike) -> Header:
    """The header alone. Raises InputError, which names the file, unless it is an image."""
    with _reading(path) as stream:
        return _opened(stream, header_only=True).header


def check(path: str | os.PathLike, decode: bool = False, quick: bool = False) -> Header:
    """The header, if the file is whole. Raises InputError for a truncated file.

    A JPEG or PNG with its end marker is whole, any other file when all of its pixels decode; `decode` decodes them all
    as `load` does, which also finds damage inside, and a JPEG that was cut before its end marker. `quick`: of a file of
    another kind the header is enough.
    """
    with _reading(path) as stream:
        picture = _opened(stream, header_only=quick)
        kind = picture.header.kind
        if decode:
            _square(picture, (_CHECKED, _CHECKED))
            _refuse_cut(stream, kind)
        elif not isinstance(picture, Picture):
            if not quick:
                picture.check()
        elif not (_has_end(stream, picture) or (quick and kind not in _ENDS)):
            _square(picture, (1, 1))
        return picture.header


def load(path: str | os.PathLike, size: int) -> np.ndarray:
    """The whole image as a square: uint8 [size, size], gray, its aspect not kept, as in the study.

    The same file gives the same bytes. Raises InputError, which names the file, for what is no image or not whole.

    Resized bilinearly with antialiasing. A large JPEG is first decoded at the smallest scale (1/2, 1/4, 1/8) that is
    not below `size`: on full-size CXRs at 320 pixels it differs by 0.3 grey levels on average from decoding all of it,
    where another filter would differ by 0.5 or more.
    """
    return decode(path, size)[1]


def decode(path: str | os.PathLike, size: int, verify: bool = False) -> tuple[Header, np.ndarray]:
    """(header, `load`) in one reading; `verify`: a JPEG that was cut before its end marker is an InputError, too."""
    with _reading(path) as stream:
        picture = _opened(stream)
        pixels = _square(picture, (size, size))
        if verify:
            _refuse_cut(stream, picture.header.kind)
        return picture.header, pixels


def shrink(path: str | os.PathLike, longest: int) -> tuple[Header, np.ndarray]:
    """(header, the whole image in its own proportions, its longer side `longest` pixels): uint8 [height, width], gray.

    Made as by `load`, also larger than the image is. Raises InputError as it does.
    """
    with _reading(path) as stream:
        picture = _opened(stream)
        return picture.header, _square(picture, _proportional(picture.header.size, longest))


def read(path: str | os.PathLike) -> np.ndarray:
    """The image at its own size: uint8 [height, width], gray. Raises InputError, which names the file."""
    with _reading(path) as stream:
        picture = _opened(stream, reduced=False)
        return np.asarray(picture.turned(picture.gray()[0]))


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
            said = f"cannot be decoded: {said[:200]}"
        raise InputError(f"{os.fspath(path)}: {said}") from None


def _opened(stream: BinaryIO, reduced: bool = True, header_only: bool = False) -> Picture | dicom.Picture:
    """The image, nothing of it decoded."""
    return _dicom().Picture(stream, header_only) if is_dicom(stream) else Picture(stream, reduced)


def _square(picture: Picture | dicom.Picture, size: tuple[int, int]) -> np.ndarray:
    """uint8 of (width, height) `size` as shown; a JPEG is decoded no larger than needed."""
    swapped = picture.orientation >= 5
    size = (size[1], size[0]) if swapped else size
    image, box = picture.gray(size)
    resized = image.resize(size, Image.Resampling.BILINEAR, box, reducing_gap=3.0)
    return np.asarray(picture.turned(resized))


def _refuse_cut(stream: BinaryIO, kind: str) -> None:
    if kind in JPEG and jpeg.is_cut(stream):
        raise InputError("truncated: pixels are missing before the end marker")


def _proportional(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height) of an image of (height, width) `size` when its longer side has `longest` pixels."""
    scale = longest / max(size)
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))


def _has_end(stream: BinaryIO, picture: Picture | dicom.Picture) -> bool:
    """Whether the end marker stands in the last bytes, after the header: a thumbnail in there has one, too."""
    kind = picture.header.kind
    if kind not in _ENDS or not isinstance(picture, Picture):
        return False
    end = stream.seek(0, io.SEEK_END)
    stream.seek(max(picture.pixels_at, end - _TAIL))
    return _ENDS[kind] in stream.read()


def _dicom() -> ModuleType:
    try:
        from chextools.xrays import dicom
    except ImportError:
        raise MissingExtra("DICOM needs pydicom: pip install 'chextools[dicom]'") from None
    return dicom
