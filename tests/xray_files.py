"""X-ray files of odd kinds, made here from the formats' own rules, and what they must show."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

RAMP = np.arange(0, 4096, 16, np.uint16).reshape(16, 16)  # 12 bits


def stretched(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """uint8: `low`, the least, becomes 0 and `high`, the greatest, 255."""
    values = values.astype(float)
    low, high = values.min() if low is None else low, values.max() if high is None else high
    return np.rint((np.clip(values, low, high) - low) * 255 / (high - low)).astype(np.uint8)


def png_header(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of zeros that may claim any size."""

    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(b"\0" * 100)) + png_chunk(b"IEND", b"")


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(path: Path, samples: np.ndarray, colour: int, bits: int = 16, before=b"", after=b"") -> Path:
    """A PNG of samples [h, w, channels] of 8 or 16 bits; chunks `before` and `after` the pixels."""
    height, width = samples.shape[:2]
    rows = samples.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + head + before + png_chunk(b"IDAT", packed) + after + png_chunk(b"IEND", b"")
    )
    return path


def tiff(path: Path, samples: np.ndarray, photometric: int, order: str = "<", **tags: int | tuple) -> Path:
    """An uncompressed TIFF in one strip of samples [h, w, channels] of any type; tags by number: `t338=2`."""
    height, width, channels = samples.shape
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    bits, kind = samples.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    entries = {256: width, 257: height, 258: (bits,) * channels, 259: 1, 262: photometric, 273: 8, 277: channels}
    entries |= {278: height, 279: len(data), 339: (kind,) * channels}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    fields, extra = b"", b""
    at = 8 + len(data) + 2 + 12 * len(entries) + 4
    for tag, value in sorted(entries.items()):
        value = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"{order}{len(value)}I", *value)
        fields += struct.pack(f"{order}HHI", tag, 4, len(value))
        fields += packed if len(value) == 1 else struct.pack(f"{order}I", at + len(extra))
        extra += packed if len(value) > 1 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    path.write_bytes(head + data + struct.pack(f"{order}H", len(entries)) + fields + b"\0\0\0\0" + extra)
    return path


def dicom(path, stored: np.ndarray, photometric="MONOCHROME2", bits=None, compress=None, **attributes):
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = stored.shape[-2:] if stored.ndim < 4 and stored.shape[-1] != 3 else stored.shape[-3:-1]
    data.SamplesPerPixel = 3 if photometric == "RGB" else 1
    if photometric == "RGB":
        data.PlanarConfiguration = 0
    data.PhotometricInterpretation = photometric
    data.BitsAllocated = stored.dtype.itemsize * 8
    data.BitsStored = bits or data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(stored.dtype.kind == "i")
    data.PixelData = stored.tobytes()
    for name, value in attributes.items():
        setattr(data, name, value)
    if compress:
        data.compress(compress)
    data.save_as(path, enforce_file_format=True)
    return path
