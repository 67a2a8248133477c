"""DICOM X-rays as they are meant to be shown, through pydicom (the extra `dicom`); used by `images`."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing, pixel_array

from chextools.errors import InputError, LimitError
from chextools.records.sizes import check_size
from chextools.xrays.images import MAX_BYTES, Header, scaled

_TABLE = 2**16  # values for which the way from stored to shown is worked out once, not per pixel


def header(stream: BinaryIO) -> Header:
    """What stands before the pixels."""
    return _header(_parsed(stream, stop_before_pixels=True))


def check(stream: BinaryIO, decode: bool) -> Header:
    """The header, if the pixels are whole: uncompressed ones by their number of bytes, others by decoding them."""
    data = _parsed(stream)
    found = _header(data)
    expected = data.Rows * data.Columns * data.get("SamplesPerPixel", 1) * data.BitsAllocated // 8
    if decode or data.file_meta.TransferSyntaxUID.is_compressed:
        _stored(data)
    elif len(_pixel_data(data)) < expected:
        raise InputError(f"truncated: {len(_pixel_data(data))} of {expected} bytes of pixels")
    return found


def read(stream: BinaryIO) -> tuple[Header, np.ndarray]:
    """(header, uint8 [height, width]): black 0, white 255, as a viewer shows it at first.

    Stored values go through the modality LUT or rescale, then the VOI LUT or window (the first of several), whose
    output range becomes 0..255. Without either, the least and the greatest value do; padding does not count.
    MONOCHROME1 is inverted, colour becomes gray.
    """
    data = _parsed(stream)
    found = _header(data)
    stored = _stored(data)
    if stored.ndim == 3:
        from PIL import Image

        return found, np.asarray(Image.fromarray(scaled(stored, *_colour_range(stored))).convert("L"))
    padding = data.get("PixelPaddingValue")
    low, high = int(stored.min()), int(stored.max())
    if high - low < _TABLE:
        position = stored.astype(np.int32 if stored.dtype.itemsize <= 2 else np.int64) - low
        values = np.arange(low, high + 1)
        used = np.bincount(position.ravel(), minlength=len(values)) > 0
        shown = _shown(values, used & (values != padding), data)
        shown[values == padding] = 0
        return found, shown[position]
    return found, _shown(stored, np.ones(stored.shape, bool), data)


def _shown(values: np.ndarray, used: np.ndarray, data: Dataset) -> np.ndarray:
    """Grey levels, uint8, of stored values; `used` are those that the image holds."""
    rescaled = apply_modality_lut(values, data)
    if data.get("VOILUTSequence"):
        if rescaled.dtype.kind == "f":  # a table is looked up by whole numbers
            rescaled = np.rint(rescaled).astype(np.int64)
        levels = apply_voi_lut(rescaled, data, prefer_lut=True)
        table = np.asarray(apply_voi_lut(np.arange(-(2**17), 2**17), data, prefer_lut=True))
        low, high = float(table.min()), float(table.max())
    elif "WindowWidth" in data and "WindowCenter" in data:
        with np.errstate(over="ignore"):
            levels = apply_windowing(rescaled, data)
            low, high = sorted(float(v) for v in apply_windowing(np.array([-1e12, 1e12]), data))
    else:
        levels = rescaled
        among = levels[used] if used.any() else levels
        low, high = float(among.min()), float(among.max())
    gray = scaled(np.asarray(levels), low, high)
    return 255 - gray if data.PhotometricInterpretation == "MONOCHROME1" else gray


def _parsed(stream: BinaryIO, **options) -> Dataset:
    data = pydicom.dcmread(stream, force=True, **options)
    if "TransferSyntaxUID" not in data.file_meta:  # no preamble: DICOM's default
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    return data


def _header(data: Dataset) -> Header:
    if "Rows" not in data or "Columns" not in data:
        raise InputError("a DICOM file without an image")
    size = check_size((data.Rows, data.Columns), "the image's size")
    if size[0] * size[1] * int(data.get("BitsAllocated", 16)) * int(data.get("SamplesPerPixel", 1)) // 8 > MAX_BYTES:
        raise LimitError(f"{size[1]} x {size[0]} needs more than 1 GiB")
    about = {"patient": str(data.get("PatientID", "")).strip(), "sex": _SEX.get(data.get("PatientSex"), "")}
    about["projection"] = str(data.get("ViewPosition", "")).strip()
    return Header(size, "DICOM", int(data.get("NumberOfFrames") or 1), {k: v for k, v in about.items() if v})


_SEX = {"M": "Male", "F": "Female"}


def _stored(data: Dataset) -> np.ndarray:
    """Stored values of the first frame: [height, width], or RGB [height, width, 3]."""
    _pixel_data(data)
    array = pixel_array(data, index=0)
    if data.PhotometricInterpretation == "PALETTE COLOR":
        array = pydicom.pixels.apply_color_lut(array, data)
    return array[0] if array.ndim == 4 else array


def _pixel_data(data: Dataset) -> bytes:
    if "PixelData" not in data:
        raise InputError("a DICOM file without pixels, or truncated before them")
    return data.PixelData


def _colour_range(stored: np.ndarray) -> tuple[float | None, float | None]:
    return (0.0, 255.0) if stored.dtype == np.uint8 else (None, None)
