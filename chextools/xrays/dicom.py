"""DICOM X-rays as they are meant to be shown, through pydicom (the extra `dicom`); used by `images`.

What the numbers mean follows the standard: PS3.3 C.11.1 modality LUT, C.11.2 VOI LUT and window, C.11.6 presentation
LUT shape, C.7.5.1.1.2 padding, C.7.6.3.1 photometric interpretations and palettes. An attribute that is present but
empty counts as absent, and so does a window without width.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.filereader import read_preamble
from pydicom.pixels import apply_color_lut, pixel_array
from pydicom.pixels.utils import get_expected_length

from chextools.errors import InputError, LimitError
from chextools.records.sizes import check_size, is_spacing
from chextools.xrays.header import MAX_BYTES, Header
from chextools.xrays.levels import scaled

_TABLE = 2**16  # values for which the way from stored to shown is worked out once, not per pixel
_PER_BYTE = 4  # bytes in memory at once for each of the pixels as stored
_META = 2**20  # bytes that may stand beside the pixels
_SEX = {"M": "Male", "F": "Female"}


class Picture:
    """A DICOM file; `header_only` reads no pixels. Raises InputError for one without an image."""

    orientation = 1

    def __init__(self, stream: BinaryIO, header_only: bool = False):
        self.data = _parsed(stream, header_only)
        self.header = _header(self.data)

    def check(self) -> None:
        """Raise InputError unless the pixels are whole: their bytes are counted, or, compressed, they are decoded."""
        held = len(_pixel_data(self.data))
        if self.data.file_meta.TransferSyntaxUID.is_encapsulated:
            _stored(self.data)
        elif held < (expected := get_expected_length(self.data)):
            raise InputError(f"truncated: {held} of {expected} bytes of pixels")

    def gray(self, _size: tuple[int, int] | None = None) -> tuple[Image.Image, None]:
        """Mode L, black 0, white 255, as a viewer shows it at first; always all of it, whatever the size asked for.

        Stored values go through the modality LUT or rescale, then the VOI LUT or window (the first of several), whose
        output range becomes 0..255. Without either, the least and the greatest value do; padding does not count, and
        is black. What is inverted by its photometric interpretation or presentation LUT is. Colour becomes gray.
        """
        return Image.fromarray(self._levels()), None

    def turned(self, image: Image.Image) -> Image.Image:
        return image

    def _levels(self) -> np.ndarray:
        data = self.data
        stored = _stored(data)
        if stored.ndim == 3:
            return _colour_levels(stored, data)
        padding = _padding(data)
        low, high = int(np.nanmin(stored)), int(np.nanmax(stored))
        if stored.dtype.kind == "f" or high - low >= _TABLE:
            return _shown(stored, _is_padding(stored, padding), data)
        # Every value once, not every pixel
        values = np.arange(low, high + 1)
        used = np.zeros(len(values), bool)
        position = np.empty(stored.shape, np.uint16)
        for row in range(0, len(stored), 256):
            part = stored[row : row + 256].astype(np.int64) - low
            position[row : row + 256] = part
            used[part.ravel()] = True
        return _shown(values, _is_padding(values, padding), data, used)[position]


def _shown(values: np.ndarray, padded: np.ndarray, data: Dataset, used: np.ndarray | None = None) -> np.ndarray:
    """Grey levels, uint8, of stored values; `used` are those that the image holds, None for all."""
    counted = ~padded if used is None else used & ~padded
    rescaled = _after_modality(values, data)
    window = _window(data)
    if table := _table_of(data, "VOILUTSequence"):
        levels = table.look_up(np.rint(rescaled).astype(np.int64))
        gray = scaled(levels, 0, table.most)
    elif window:
        gray = scaled(_windowed(rescaled, window), 0.0, 1.0)
    else:
        among = rescaled[counted] if counted.any() else rescaled
        gray = scaled(rescaled, float(np.nanmin(among)), float(np.nanmax(among)))
    if _is_inverted(data):
        gray = 255 - gray
    gray[padded] = 0
    return gray


def _after_modality(values: np.ndarray, data: Dataset) -> np.ndarray:
    """Values after the modality LUT, or rescaled."""
    if table := _table_of(data, "ModalityLUTSequence"):
        return table.look_up(values)
    slope, intercept = _number(data, "RescaleSlope"), _number(data, "RescaleIntercept")
    if not slope and not intercept:  # a slope of 0 would make all one grey
        return values
    return values.astype(np.float64) * (slope or 1.0) + (intercept or 0.0)


@dataclass(frozen=True)
class _Window:
    center: float
    width: float
    function: str


def _window(data: Dataset) -> _Window | None:
    """The first window that can be one."""
    function = str(data.get("VOILUTFunction") or "LINEAR").strip().upper()
    centers, widths = (_numbers(data, name) for name in ("WindowCenter", "WindowWidth"))
    for center, width in zip(centers, widths):
        if center is not None and width is not None and (width >= 1 or (width > 0 and function != "LINEAR")):
            return _Window(center, width, function)
    return None


def _windowed(values: np.ndarray, window: _Window) -> np.ndarray:
    """float64 in 0..1: C.11.2.1.2.1 and C.11.2.1.3."""
    c, w = window.center, window.width
    if window.function == "SIGMOID":
        with np.errstate(over="ignore"):
            return 1 / (1 + np.exp(-4 * (values - c) / w))
    if window.function == "LINEAR_EXACT":
        return np.clip((values - c) / w + 0.5, 0, 1)
    if w == 1:
        return (values > c - 0.5).astype(np.float64)
    return np.clip((values - (c - 0.5)) / (w - 1) + 0.5, 0, 1)


@dataclass(frozen=True)
class _Table:
    """A lookup table: entries, the value that the first is for, and the greatest value that its bits can say."""

    entries: np.ndarray
    first: int
    most: int

    def look_up(self, values: np.ndarray) -> np.ndarray:
        place = values.astype(np.int64) - self.first
        return self.entries[np.clip(place, 0, len(self.entries) - 1)].astype(np.int64)


def _table_of(data: Dataset, name: str) -> _Table | None:
    """The first table of a sequence, None where there is none. Raises InputError for one that makes no sense."""
    sequence = data.get(name)
    if not sequence or sequence[0].get("LUTDescriptor") is None or sequence[0].get("LUTData") is None:
        return None
    try:
        count, first, bits = (int(v) for v in sequence[0].LUTDescriptor)
    except (TypeError, ValueError):
        raise InputError(f"{name} has no usable descriptor") from None
    if not 1 <= bits <= 16:
        raise InputError(f"{name} has entries of {bits} bits")
    count = count or 2**16
    entries = _entries(sequence[0].LUTData, count, data)
    if not len(entries):
        raise InputError(f"{name} is empty")
    # The first value is signed where the values are, though some write it as unsigned
    signed = data.get("PixelRepresentation") == 1 or (_number(data, "RescaleIntercept") or 0) < 0
    return _Table(entries, first - 2**16 if signed and first >= 2**15 else first, 2**bits - 1)


def _entries(value: Any, count: int, data: Dataset) -> np.ndarray:
    """Entries of a table given as numbers, as words, or as bytes where they have 8 bits."""
    order = "<" if data.original_encoding[1] is not False else ">"
    if isinstance(value, bytes):
        if len(value) >= 2 * count:
            return np.frombuffer(value, f"{order}u2")[:count]
        if order == ">":  # words of two entries each
            value = np.frombuffer(value[: len(value) // 2 * 2], ">u2").astype("<u2").tobytes()
        return np.frombuffer(value, np.uint8)[:count]
    entries = np.array(value, dtype=np.int64).ravel() & 0xFFFF
    if len(entries) < count and len(entries) * 2 >= count:
        entries = entries.astype("<u2").view(np.uint8)
    return entries[:count]


def _is_inverted(data: Dataset) -> bool:
    """The shape says so where there is one: what is MONOCHROME1 and INVERSE is inverted once."""
    shape = str(data.get("PresentationLUTShape") or "").strip().upper()
    if shape in ("IDENTITY", "INVERSE"):
        return shape == "INVERSE"
    return data.PhotometricInterpretation == "MONOCHROME1"


def _padding(data: Dataset) -> tuple[int, int] | None:
    """The least and the greatest stored value that is padding."""
    value, limit = data.get("PixelPaddingValue"), data.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return None
    limit = limit if isinstance(limit, int) else value
    span = 2 ** int(data.get("BitsAllocated", 16))
    if data.get("PixelRepresentation") == 1:
        ends = [v - span if v >= span // 2 else v for v in (value, limit)]
    else:
        ends = [v % span for v in (value, limit)]
    return min(ends), max(ends)


def _is_padding(values: np.ndarray, padding: tuple[int, int] | None) -> np.ndarray:
    if padding is None:
        return np.zeros(values.shape, bool) if values.dtype.kind != "f" else ~np.isfinite(values)
    return (values >= padding[0]) & (values <= padding[1])


def _colour_levels(stored: np.ndarray, data: Dataset) -> np.ndarray:
    """Luminance of RGB: of 8 bits as it is, of a palette over the range of its entries, else from least to greatest."""
    if stored.dtype != np.uint8:
        whole = data.PhotometricInterpretation == "PALETTE COLOR"
        stored = scaled(stored[..., :3], 0.0, float(np.iinfo(stored.dtype).max)) if whole else scaled(stored)
    return np.asarray(Image.fromarray(np.ascontiguousarray(stored[..., :3])).convert("L"))


# Reading


def _parsed(stream: BinaryIO, header_only: bool) -> Dataset:
    stream, bounded = _inflated(stream)
    data = pydicom.dcmread(stream, force=True, stop_before_pixels=header_only)
    if bounded is not None:
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    elif "TransferSyntaxUID" not in data.file_meta:
        implicit, little = data.original_encoding
        kind = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else kind
    return data


def _inflated(stream: BinaryIO) -> tuple[BinaryIO, int | None]:
    """The stream, of a deflated file inflated: pydicom does that without a limit."""
    start = stream.tell()
    head = stream.read(2**16)
    stream.seek(start)
    if b"1.2.840.10008.1.2.1.99" not in head or head[128:132] != b"DICM":
        return stream, None
    read_preamble(stream, force=True)
    meta = pydicom.filereader.read_dataset(
        stream, is_implicit_VR=False, is_little_endian=True, stop_when=_is_after_meta
    )
    if meta.get("TransferSyntaxUID") != pydicom.uid.DeflatedExplicitVRLittleEndian:
        stream.seek(start)
        return stream, None
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    body = machine.decompress(stream.read(), MAX_BYTES // _PER_BYTE + _META)
    if machine.unconsumed_tail:
        raise LimitError(f"inflates to more than {(MAX_BYTES // _PER_BYTE + _META) >> 20} MiB")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file = pydicom.filebase.DicomBytesIO()
    file.write(b"\0" * 128 + b"DICM")
    pydicom.filewriter.write_file_meta_info(file, pydicom.dataset.FileMetaDataset(meta), enforce_standard=False)
    file.write(body)
    file.seek(0)
    return cast(BinaryIO, file), len(body)


def _is_after_meta(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


def _header(data: Dataset) -> Header:
    if data.get("Rows") is None or data.get("Columns") is None:
        raise InputError("a DICOM file without an image")
    size = check_size((data.Rows, data.Columns), "the image's size")
    needed = size[0] * size[1] * int(data.get("BitsAllocated") or 16) * int(data.get("SamplesPerPixel") or 1) // 8
    if needed * _PER_BYTE > MAX_BYTES:
        raise LimitError(f"{size[1]} x {size[0]} of {needed >> 20} MiB needs more memory than is allowed")
    about = {"patient": str(data.get("PatientID", "")).strip(), "sex": _SEX.get(data.get("PatientSex"), "")}
    about["projection"] = str(data.get("ViewPosition", "")).strip()
    known: dict[str, object] = {key: value for key, value in about.items() if value}
    return Header(size, "DICOM", int(data.get("NumberOfFrames") or 1), known | _spacing(data))


def _spacing(data: Dataset) -> dict[str, list[float]]:
    """The key "spacing", [height, width] of a pixel in mm, where the file says it.

    PixelSpacing is that in the patient where somebody calibrated it, else that at the detector, as ImagerPixelSpacing
    always is (PS3.3 10.7.1.3): a projection is larger there than the patient. Of a film it is that of the scanner.
    """
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        sides = [side for side in _numbers(data, name) if side is not None and is_spacing(side)]
        if len(sides) == 2:
            return {"spacing": sides}
    return {}


def _stored(data: Dataset) -> np.ndarray:
    """Stored values of the first frame: [height, width], or RGB [height, width, 3]."""
    _pixel_data(data)
    if "PixelRepresentation" not in data and "PixelData" in data:
        data.PixelRepresentation = 0
    shift = _below(data)
    if shift:  # which pydicom does not know of
        data.BitsStored += shift
    array = pixel_array(data, index=0)
    array = array[0] if array.ndim == 4 else array
    array = array >> shift if shift else array
    return apply_color_lut(array, data) if data.PhotometricInterpretation == "PALETTE COLOR" else array


def _below(data: Dataset) -> int:
    """How many bits stand below the value's; decoders of compressed pixels give the value alone."""
    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax != pydicom.uid.RLELossless or not data.get("BitsStored"):
        return 0
    high, stored = data.get("HighBit"), int(data.BitsStored)
    return max(0, int(high) + 1 - stored) if isinstance(high, int) and high < int(data.BitsAllocated) else 0


def _pixel_data(data: Dataset) -> bytes:
    for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if data.get(name):
            return data[name].value
    raise InputError("a DICOM file without pixels, or truncated before them")


def _number(data: Dataset, name: str) -> float | None:
    return _numbers(data, name)[0]


def _numbers(data: Dataset, name: str) -> list[float | None]:
    """Values of an attribute that may be absent, empty, one or several."""
    value = data.get(name)
    several = value if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]
    found: list[float | None] = []
    for each in several:
        try:
            found.append(float(each))
        except (TypeError, ValueError):
            found.append(None)
    return found or [None]
