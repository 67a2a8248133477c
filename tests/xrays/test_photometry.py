"""A file's own bits and photometry say what is shown; values by the formulas of PNG, TIFF 6.0 and DICOM PS3.3."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from xray_files import RAMP, dicom, png, png_chunk, stretched, tiff

from chextools.errors import InputError, LimitError
from chextools.xrays import images

RNG = np.random.default_rng(5)
DEEP = RNG.integers(0, 4096, (24, 31, 1))  # 12 bits
COLOUR = RNG.integers(0, 4096, (24, 31, 3))
ALPHA = RNG.integers(0, 65536, (24, 31, 1))
LUMINANCE = COLOUR @ np.array([0.299, 0.587, 0.114])


def shown(path) -> np.ndarray:
    """What is read; its header, and a check that decodes it, agree."""
    found = images.read(path)
    assert images.check(path, decode=True).size == images.measure(path).size == found.shape
    side = max(found.shape)
    exact = np.asarray(Image.fromarray(found).resize((side, side), Image.Resampling.BILINEAR))
    assert np.abs(images.load(path, side).astype(int) - exact).max() <= 1
    return found.astype(int)


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return np.abs(found - expected.astype(int)).max() <= 1


# PNG


@pytest.mark.parametrize(
    "samples, colour, values",
    [
        (COLOUR, 2, LUMINANCE),
        (np.dstack([DEEP, ALPHA]), 4, (DEEP * (ALPHA / 65535))[..., 0]),
        (np.dstack([COLOUR, ALPHA]), 6, LUMINANCE * ALPHA[..., 0] / 65535),
    ],
    ids=["RGB", "LA", "RGBA"],
)
def test_png_of_16_bits_keeps_all_of_them(tmp_path, samples, colour, values):
    assert close(shown(png(tmp_path / "x.png", samples, colour)), stretched(values))


def test_png_transparent_colour_is_black(tmp_path):
    gray = np.array([[[10], [20], [30]]])
    rgb = np.repeat(gray, 3, axis=2)
    assert shown(png(tmp_path / "a.png", gray, 0, 8, png_chunk(b"tRNS", struct.pack(">H", 20)))).tolist() == [
        [10, 0, 30]
    ]
    clear = png_chunk(b"tRNS", struct.pack(">3H", 20, 20, 20))
    assert shown(png(tmp_path / "b.png", rgb, 2, 8, clear)).tolist() == [[10, 0, 30]]
    assert shown(
        png(tmp_path / "c.png", rgb * 100, 2, 16, png_chunk(b"tRNS", struct.pack(">3H", *[3000] * 3)))
    ).tolist() == [[128, 255, 0]]
    assert shown(png(tmp_path / "d.png", gray * 100, 0, 16, png_chunk(b"tRNS", struct.pack(">H", 3000)))).tolist() == [
        [128, 255, 0]
    ]


def test_png_orientation_counts_wherever_it_stands(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    block = png_chunk(b"eXIf", exif.tobytes()[6:])
    gray = np.arange(6).reshape(2, 3, 1) * 20
    for name, where in (("a.png", {"before": block}), ("b.png", {"after": block})):
        found = shown(png(tmp_path / name, gray, 0, 8, **where))
        assert found.tolist() == np.rot90(gray[..., 0], -1).tolist()


def test_a_palette_with_transparency(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8)).convert("P")
    image.putpalette([200, 200, 200, 100, 100, 100, 50, 50, 50])
    image.save(tmp_path / "x.png", transparency=bytes([255, 0, 128]))
    assert close(shown(tmp_path / "x.png"), np.array([[200, 0, 25]]))


# TIFF


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u2", "i2", "u4", "i4", "f4", "f8"])
@pytest.mark.parametrize("photometric", [0, 1], ids=["white is zero", "black is zero"])
def test_tiff_of_more_than_8_bits(tmp_path, dtype, photometric, order):
    values = DEEP - 2000 if dtype[0] != "u" else DEEP * (2**19 if dtype == "u4" else 1)
    expected = stretched(values[..., 0])
    found = shown(tiff(tmp_path / "x.tif", values.astype(dtype), photometric, order))
    assert close(found, expected if photometric else 255 - expected)


def test_tiff_of_16_bits_in_colour_and_with_transparency(tmp_path):
    def show(samples, photometric, **tags):
        return shown(tiff(tmp_path / "x.tif", samples.astype(np.uint16), photometric, **tags))

    assert close(show(COLOUR, 2), stretched(LUMINANCE))
    assert close(show(np.dstack([COLOUR, ALPHA]), 2, t338=2), stretched(LUMINANCE * ALPHA[..., 0] / 65535))
    assert close(show(np.dstack([COLOUR, ALPHA]), 2, t338=1), stretched(LUMINANCE))  # its colours are times alpha
    assert close(show(np.dstack([COLOUR, ALPHA]), 2, t338=0), stretched(LUMINANCE))  # what the sample is, is not said
    assert close(show(np.dstack([DEEP, ALPHA]), 1, t338=2), stretched((DEEP * (ALPHA / 65535))[..., 0]))
    ink = RNG.integers(0, 65536, (24, 31, 4))
    light = (1 - ink[..., :3] / 65535) * (1 - ink[..., 3:] / 65535)
    assert close(show(ink, 5), stretched(light @ np.array([0.299, 0.587, 0.114])))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_tiff_compressed_without_loss(tmp_path, compression, predictor):
    image = Image.fromarray(DEEP[..., 0].astype(np.uint16))
    image.save(tmp_path / "x.tif", compression=compression, tiffinfo={317: predictor, 278: 7})
    assert close(shown(tmp_path / "x.tif"), stretched(DEEP[..., 0]))


def test_tiff_in_planes_and_turned(tmp_path):
    planes = np.moveaxis(COLOUR, 2, 0)[..., None]
    height, width = DEEP.shape[:2]
    one = height * width * 2
    where = {"t273": tuple(8 + k * one for k in range(3)), "t279": (one,) * 3, "t284": 2}
    about = {"t257": height, "t277": 3, "t258": (16,) * 3, "t339": (1,) * 3, "t278": height, "t274": 6}
    path = tiff(tmp_path / "x.tif", planes.reshape(3 * height, width, 1).astype(np.uint16), 2, **where, **about)
    assert close(shown(path), np.rot90(stretched(LUMINANCE), -1))


def test_tiff_that_lies_is_one_line(tmp_path):
    values = DEEP.astype(np.uint16)
    for tags, reason in (
        ({"t277": 2**31}, "samples a pixel"),
        ({"t259": 7}, "compression 7"),
        ({"t262": 8}, "photometric"),
        ({"t273": 2**31}, "cannot be decoded|truncated"),
        ({"t256": 2**16, "t257": 2**13}, "pixels|GiB"),
        ({"t278": 0}, "no size"),
        ({"t322": 16, "t323": 16, "t324": 8}, "truncated"),
    ):
        path = tiff(tmp_path / "x.tif", values, 1, **tags)
        with pytest.raises(InputError, match=reason) as error:
            images.read(path)
        assert "\n" not in str(error.value)


def test_ppm_of_16_bits_in_colour(tmp_path):
    path = tmp_path / "x.ppm"
    path.write_bytes(b"P6\n# a comment\n31 24\n65535\n" + COLOUR.astype(">u2").tobytes())
    assert close(shown(path), stretched(LUMINANCE))


# JPEG


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 2}])
def test_a_jpeg_cut_before_its_end_marker_is_found_by_decoding(tmp_path, options):
    smooth = Image.fromarray(RNG.integers(0, 256, (30, 40, 3), np.uint8)).resize((320, 240), Image.Resampling.BICUBIC)
    path = tmp_path / "x.jpg"
    smooth.save(path, quality=90, **options)
    images.check(path, decode=True)
    data = path.read_bytes()
    for share in (0.6, 0.9, 0.99):
        path.write_bytes(data[: int(len(data) * share)] + b"\xff\xd9")
        with pytest.raises(InputError, match="pixels are missing before the end marker"):
            images.check(path, decode=True)


# DICOM

EMPTY = pydicom.dataelem.empty_value_for_VR("DS")


def table(entries: np.ndarray, first: int, bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", entries.tobytes() + b"\0" * (len(entries.tobytes()) % 2))
    return item


def test_what_is_present_but_empty_is_absent(tmp_path):
    plain = stretched(RAMP)
    for attributes in (
        {"RescaleSlope": EMPTY, "RescaleIntercept": EMPTY},
        {"WindowCenter": EMPTY, "WindowWidth": EMPTY},
        {"WindowCenter": 5, "WindowWidth": 0},
        {"WindowCenter": 5, "WindowWidth": EMPTY},
        {"WindowCenter": 5, "WindowWidth": -3, "VOILUTFunction": "LINEAR_EXACT"},
        {"VOILUTSequence": []},
        {"PixelPaddingValue": None},
        {"PresentationLUTShape": ""},
        {"NumberOfFrames": None},
    ):
        assert close(shown(dicom(tmp_path / "x", RAMP, bits=12, **attributes)), plain), attributes


@pytest.mark.parametrize("limits", [(0, 255), (255, 0)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_a_range_and_black(tmp_path, limits, photometric):
    value, limit = limits
    found = shown(dicom(tmp_path / "x", RAMP, photometric, 12, PixelPaddingValue=value, PixelPaddingRangeLimit=limit))
    assert (found[RAMP <= 255] == 0).all()
    expected = stretched(RAMP, 256, 4080)
    inside = RAMP > 255
    assert close(found[inside], (255 - expected if photometric == "MONOCHROME1" else expected)[inside])


def test_voi_functions(tmp_path):
    window = {"WindowCenter": 2000, "WindowWidth": 800}
    values = RAMP.astype(float)
    exact = np.clip((values - 2000) / 800 + 0.5, 0, 1) * 255
    assert close(shown(dicom(tmp_path / "x", RAMP, bits=12, VOILUTFunction="LINEAR_EXACT", **window)), np.rint(exact))
    sigmoid = 255 / (1 + np.exp(-4 * (values - 2000) / 800))
    assert close(shown(dicom(tmp_path / "x", RAMP, bits=12, VOILUTFunction="SIGMOID", **window)), np.rint(sigmoid))
    step = shown(dicom(tmp_path / "x", RAMP, bits=12, WindowCenter=2000, WindowWidth=1))
    assert (step == np.where(RAMP > 1999.5, 255, 0)).all()


def test_a_voi_lut_is_shown_over_the_range_of_its_bits(tmp_path):
    """Entries of 8 bits may be bytes in OW; entries that do not use their range are not stretched to it."""
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    bytes_ = np.arange(255, -1, -1).astype(np.uint8)
    assert close(shown(dicom(tmp_path / "x", stored, bits=12, VOILUTSequence=[table(bytes_, 0, 8)])), 255 - stored)
    words = bytes_.astype(np.uint16)
    assert close(shown(dicom(tmp_path / "x", stored, bits=12, VOILUTSequence=[table(words, 0, 8)])), 255 - stored)
    dim = table(words * 8, 0, 12)
    assert close(shown(dicom(tmp_path / "x", stored, bits=12, VOILUTSequence=[dim])), (255.0 - stored) * 8 * 255 / 4095)
    late = table(np.arange(100, dtype=np.uint16), 50, 8)
    assert close(
        shown(dicom(tmp_path / "x", stored, bits=12, VOILUTSequence=[late])), np.clip(stored.astype(int) - 50, 0, 99)
    )


def test_a_modality_lut(tmp_path):
    stored = np.arange(256, dtype=np.uint16).reshape(16, 16)
    squares = (np.arange(256, dtype=np.uint32) ** 2).astype(np.uint16)
    path = dicom(tmp_path / "x", stored, bits=12, ModalityLUTSequence=[table(squares, 0, 16)])
    assert close(shown(path), stretched(squares[stored]))


def test_the_presentation_lut_inverts_once(tmp_path):
    plain = stretched(RAMP)
    for photometric, shape, inverted in (
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
    ):
        found = shown(dicom(tmp_path / "x", RAMP, photometric, 12, PresentationLUTShape=shape))
        assert close(found, 255 - plain if inverted else plain)


def test_bits_beside_the_value_do_not_count(tmp_path):
    """An overlay in the high bits; a value in the high bits; a signed value of 12 bits."""
    assert close(shown(dicom(tmp_path / "x", RAMP | 0x8000, bits=12)), stretched(RAMP))
    assert close(shown(dicom(tmp_path / "x", RAMP << 4, bits=12, HighBit=15)), stretched(RAMP))
    signed = RAMP.astype(np.int16) - 2048
    path = dicom(tmp_path / "x", (signed & 0x0FFF).astype(np.int16), bits=12)
    assert close(shown(path), stretched(signed))


def test_a_palette_is_shown_over_the_range_of_its_entries(tmp_path):
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = dicom(tmp_path / "x", stored)
    data = pydicom.dcmread(path)
    data.PhotometricInterpretation = "PALETTE COLOR"
    entries = (np.arange(256) * 64).astype(np.uint16)  # at most a quarter of the range
    for colour in ("Red", "Green", "Blue"):
        data.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        data.add_new(f"{colour}PaletteColorLookupTableData", "OW", entries.tobytes())
    data.save_as(path)
    assert close(shown(path), entries[stored] / 257)


def test_native_ybr_full_422_is_whole(tmp_path):
    luma = np.repeat(np.arange(16, dtype=np.uint8)[None] * 16, 8, axis=0)
    pairs = np.stack([luma[:, ::2], luma[:, 1::2], *[np.full((8, 8), 128, np.uint8)] * 2], axis=2)
    path = dicom(tmp_path / "x", np.zeros((8, 16, 3), np.uint8), "RGB")
    data = pydicom.dcmread(path)
    data.PhotometricInterpretation, data.PixelData = "YBR_FULL_422", pairs.tobytes()
    data.save_as(path)
    images.check(path)
    assert close(shown(path), luma)


def test_planes_and_big_endian(tmp_path):
    colours = RNG.integers(0, 256, (9, 8, 3), np.uint8)
    path = dicom(tmp_path / "x", colours, "RGB")
    expected = shown(path)
    data = pydicom.dcmread(path)
    data.PlanarConfiguration, data.PixelData = 1, np.moveaxis(colours, 2, 0).tobytes()
    data.save_as(path)
    assert close(shown(path), expected)
    data = Dataset(pydicom.dcmread(dicom(tmp_path / "y", RAMP, bits=12)))
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    data.PixelData = RAMP.astype(">u2").tobytes()
    pydicom.dcmwrite(tmp_path / "z", data, little_endian=False, implicit_vr=False, enforce_file_format=True)
    assert close(shown(tmp_path / "z"), stretched(RAMP))


def deflated(path, body: bytes):
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    with open(path, "wb") as stream:
        stream.write(b"\0" * 128 + b"DICM")
        pydicom.filewriter.write_file_meta_info(stream, meta, enforce_standard=False)
        machine = zlib.compressobj(9, wbits=-15)
        stream.write(machine.compress(body) + machine.flush())
    return path


def test_a_deflated_file(tmp_path):
    data = pydicom.dcmread(dicom(tmp_path / "x", RAMP, bits=12))
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    pydicom.filewriter.write_dataset(buffer, data)
    assert close(shown(deflated(tmp_path / "y", buffer.getvalue())), stretched(RAMP))


def test_bombs_end_in_one_line_and_little_memory(tmp_path):
    """A deflated file that would become a gigabyte, and 16-bit pixels of zeros that a header makes as large."""
    deflated(tmp_path / "deflated", b"\0" * 2**28)
    zeros = dicom(tmp_path / "zeros", RAMP, bits=12, Rows=20000, Columns=20000)
    for path in (tmp_path / "deflated", zeros):
        with pytest.raises(LimitError):
            images.read(path)
    script = f"""
from chextools.errors import InputError
from chextools.xrays import images
for path in ({str(tmp_path / "deflated")!r}, {str(zeros)!r}):
    try:
        images.load(path, 64)
    except InputError:
        pass
with open("/proc/self/status") as status:  # of this program alone: getrusage counts what it was forked from
    print(next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM")))
"""
    used = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(used) < 600


def test_reading_images_leaves_pillow_and_warnings_alone():
    script = """
import warnings
from PIL import Image
most = Image.MAX_IMAGE_PIXELS
from chextools.xrays import dicom, images
assert Image.MAX_IMAGE_PIXELS == most
assert not [f for f in warnings.filters if "PIL" in str(f[3])]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_header_of_dicom_is_read_without_the_pixels_which_are_counted_when_asked_for(tmp_path):
    from chextools.xrays.dicom import Picture

    path = dicom(tmp_path / "x.dcm", DEEP[..., 0].astype(np.uint16), bits=12)
    path.write_bytes(path.read_bytes()[:-100])
    with path.open("rb") as stream:
        assert Picture(stream, header_only=True).header.size == DEEP.shape[:2]
    with path.open("rb") as stream, pytest.raises(InputError, match="truncated: 1388 of 1488 bytes of pixels"):
        Picture(stream).check()
