"""Images of any kind are measured, checked and decoded to the same gray, or refused in one line."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from conftest import need_shared
from PIL import Image
from xray_files import RAMP, dicom, png_header, stretched

from chextools.errors import InputError, LimitError
from chextools.xrays import images, levels

RNG = np.random.default_rng(0)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (6, 8), np.uint8)).resize((80, 60), Image.Resampling.BICUBIC))


def save(path, image, **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(path, **options)
    return path


# Kinds


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP", "WEBP", "PPM"])
def test_a_gray_image_of_any_kind_has_its_own_values(tmp_path, kind):
    path = save(tmp_path / "x.bin", SMOOTH, format=kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert images.measure(path) == images.check(path, decode=True) == images.Header((60, 80), kind)
    assert np.abs(images.read(path).astype(int) - SMOOTH).max() <= (1 if kind == "WEBP" else 0)  # WebP holds RGB only


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "CMYK", "1"])
def test_modes_are_the_same_gray(tmp_path, mode):
    source = Image.fromarray(SMOOTH if mode != "1" else np.where(SMOOTH > 99, 255, 0).astype(np.uint8))
    path = save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"), source.convert(mode))
    assert np.abs(images.read(path).astype(int) - np.asarray(source)).max() <= 1
    assert images.load(path, 32).shape == (32, 32)


def test_a_cmyk_jpeg_of_adobe_is_not_inverted(tmp_path):
    path = save(tmp_path / "x.jpg", Image.fromarray(SMOOTH).convert("CMYK"), quality=95)
    assert np.abs(images.read(path).astype(int) - SMOOTH).mean() < 3


def test_what_is_transparent_is_black(tmp_path):
    colours = np.dstack([np.full((4, 4, 3), 200, np.uint8), np.full((4, 4), 255, np.uint8)])
    colours[:, :2, 3] = 0
    rgba = images.read(save(tmp_path / "a.png", colours))
    la = images.read(save(tmp_path / "b.png", Image.fromarray(colours).convert("LA")))
    palette = Image.fromarray(np.repeat(np.array([[0, 0, 1, 1]], np.uint8), 4, 0)).convert("P")
    palette.putpalette([200, 200, 200] * 2)
    p = images.read(save(tmp_path / "c.png", palette, transparency=0))
    for gray in (rgba, la, p):
        assert gray.tolist() == [[0, 0, 200, 200]] * 4


@pytest.mark.parametrize("top", [4095, 65535])
def test_16_bits_are_scaled_from_the_least_to_the_greatest_value(tmp_path, top):
    """12 bits in a file of 16 look like 16: neither is black."""
    values = np.linspace(100, top, 64 * 64).astype(np.uint16).reshape(64, 64)
    expected = np.rint((values - 100.0) * 255 / (top - 100))
    for name in ("x.png", "x.tif"):
        gray = images.read(save(tmp_path / name, values))
        assert (gray.min(), gray.max()) == (0, 255)
        np.testing.assert_array_equal(gray, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_constant_and_tiny_images(tmp_path, dtype):
    path = save(tmp_path / "x.tif", np.full((5, 3), 7, dtype))
    assert (images.load(path, 16) == (7 if dtype == np.uint8 else 0)).all()
    one = save(tmp_path / "one.png", np.full((1, 1), 9, np.uint8))
    assert images.measure(one).size == (1, 1) and (images.load(one, 4) == 9).all()


def test_scaled_takes_any_numbers():
    for values in (np.array([-3, 0, 5], np.int16), np.array([-3, 0, 5], np.int32), np.array([-3.0, 0, 5])):
        assert levels.scaled(values).tolist() == [0, 96, 255]
    assert levels.scaled(np.array([1, 2, 3], ">u2")).tolist() == [0, 128, 255]
    assert levels.scaled(np.array([np.nan, -np.inf, 1, 2, np.inf])).tolist() == [0, 0, 0, 255, 255]
    assert levels.scaled(np.array([np.nan, np.nan])).tolist() == [0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
def test_exif_orientation(tmp_path, kind, orientation):
    """What is stored is turned as a viewer turns it, and so is the size."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"x.{kind}", SMOOTH, exif=exif, **({"quality": 95} if kind == "jpg" else {}))
    with path.open("rb") as stream, Image.open(stream) as stored:  # by its path, Pillow 13 garbles a turned TIFF
        shown = ImageOps.exif_transpose(stored).convert("L")
    assert images.measure(path).size == (shown.height, shown.width)
    np.testing.assert_array_equal(images.read(path), np.asarray(shown))
    square = shown.resize((24, 24), Image.Resampling.BILINEAR)
    assert np.abs(images.load(path, 24).astype(int) - np.asarray(square)).max() <= 8  # JPEG: decoded at half the size


def test_a_broken_exif_block_does_not_matter(tmp_path):
    path = save(tmp_path / "x.jpg", SMOOTH, exif=b"Exif\0\0nonsense")
    assert images.measure(path).size == (60, 80)


def test_of_several_frames_the_first_counts(tmp_path):
    frames = [Image.fromarray(SMOOTH), Image.fromarray(255 - SMOOTH)]
    for name in ("x.gif", "x.png", "x.tif", "x.webp"):
        options = {"lossless": True} if name == "x.webp" else {}
        path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **options)
        assert images.measure(path).frames == 2
        assert np.abs(images.read(path).astype(int) - SMOOTH).max() <= 1


# Decoding


def test_a_real_x_ray_is_the_same_as_decoded_in_full():
    """Reduced decoding differs by 0.3 grey levels on average from resizing all pixels; by a real CXR."""
    path = need_shared("data/chexlocalize-sample/valid/patient64541/study1/view1_frontal.jpg")
    assert images.measure(path).size == (2320, 2828)
    ours = images.load(path, 320)
    with Image.open(path) as image:
        whole = np.asarray(image.convert("L").resize((320, 320), Image.Resampling.BILINEAR))
    difference = np.abs(ours.astype(int) - whole)
    assert difference.mean() < 0.35
    assert ours.dtype == np.uint8 and ours.shape == (320, 320)
    np.testing.assert_array_equal(images.load(path, 320), ours)


def test_an_odd_size_is_not_shifted_by_reduced_decoding(tmp_path):
    """A ramp stays a ramp: 1/8 of 1001 columns is 126 columns, of which the last stands for one."""
    ramp = np.tile(np.linspace(0, 255, 1001).astype(np.uint8), (1001, 1))
    ours = images.load(save(tmp_path / "x.jpg", ramp, quality=100), 100).astype(int)
    whole = np.asarray(Image.fromarray(ramp).resize((100, 100), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours - whole).max() <= 2


def test_decode_is_measure_and_load(tmp_path):
    path = save(tmp_path / "x.jpg", SMOOTH)
    header, pixels = images.decode(path, 20)
    assert header == images.measure(path)
    np.testing.assert_array_equal(pixels, images.load(path, 20))


# What cannot be used


def test_truncated_files_are_found_without_decoding_them(tmp_path):
    noise = RNG.integers(0, 256, (64, 64), np.uint8)
    thumbnail = io.BytesIO()
    Image.fromarray(SMOOTH).save(thumbnail, "JPEG")
    for name, options in (
        ("a.jpg", {"quality": 95}),
        ("b.jpg", {"quality": 95, "progressive": True}),
        ("c.jpg", {"exif": b"Exif\0\0" + thumbnail.getvalue()}),  # an end marker before the image's data
        ("d.png", {}),
        ("e.tif", {"compression": "tiff_deflate"}),
        ("f.gif", {}),
        ("g.webp", {}),
    ):
        path = save(tmp_path / name, noise, **options)
        data = path.read_bytes()
        assert images.check(path).size == (64, 64)
        for cut in (len(data) - 20, len(data) - 1 if name[0] in "abcd" else len(data) * 3 // 4, len(data) // 2, 30):
            path.write_bytes(data[:-cut])
            for use in (images.check, lambda p: images.load(p, 64)):
                with pytest.raises(InputError, match=name) as error:
                    use(path)
                assert "\n" not in str(error.value)


def test_bytes_after_the_end_do_no_harm(tmp_path):
    for name in ("a.jpg", "b.png"):
        path = save(tmp_path / name, SMOOTH)
        before = images.load(path, 30)
        for extra in (b"\0" * 100, RNG.bytes(100_000)):
            path.write_bytes(path.read_bytes() + extra)
            assert images.check(path).size == (60, 80)
            np.testing.assert_array_equal(images.load(path, 30), before)


def test_damage_inside_is_found_by_decoding(tmp_path):
    path = save(tmp_path / "x.png", RNG.integers(0, 256, (64, 64), np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    images.check(path)
    with pytest.raises(InputError, match="x.png: cannot be decoded"):
        images.check(path, decode=True)


@pytest.mark.parametrize(
    "name, data, reason",
    [
        ("empty.jpg", b"", "an empty file"),
        ("text.jpg", b"hello, world\n" * 20, "not an image of a known kind"),
        ("heart.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known kind"),
        ("bomb.png", png_header(100_000, 100_000), "more than 536870912 pixels"),
        ("larger.png", png_header(25_000, 25_000), "is more than 536870912 pixels"),
        ("colour.png", png_header(20_000, 20_000, colour=2), "20000 x 20000 in RGB needs 1.9 GiB; at most 0.75"),
        ("none.png", png_header(0, 10), "not an image of a known kind"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, name, data, reason):
    path = tmp_path / name
    path.write_bytes(data)
    for use in (images.check, lambda p: images.load(p, 8), images.read):
        with pytest.raises(InputError) as error:
            use(path)
        assert str(error.value).startswith(f"{path}: ") and reason in str(error.value)
        assert "\n" not in str(error.value)


def test_no_file_a_folder_and_a_device(tmp_path):
    for path, reason in ((tmp_path / "no", "No such file"), (tmp_path, "a folder"), ("/dev/null", "not a regular")):
        with pytest.raises(InputError, match=reason):
            images.measure(path)


def test_a_huge_gray_jpeg_is_decoded_in_little_memory(tmp_path):
    """20,000 x 20,000 pixels would be 400 MB; the file is built from one block's code, as flat images are."""
    path = tmp_path / "x.jpg"
    flat = io.BytesIO()
    Image.new("L", (20_000, 8), 77).save(flat, "JPEG", restart_marker_rows=1)
    data = flat.getvalue()
    start = data.index(b"\xff\xda") + 10
    head = bytearray(data[:start])
    frame = head.index(b"\xff\xc0")
    head[frame + 5 : frame + 7] = (20_000).to_bytes(2, "big")
    row = data[start:-2]
    rows = b"".join(row + bytes([0xFF, 0xD0 + k % 8]) for k in range(2499)) + row
    path.write_bytes(bytes(head) + rows + b"\xff\xd9")
    assert images.check(path).size == (20_000, 20_000)
    script = f"""
import resource, sys
from chextools.xrays import images, levels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert abs(int(images.load({str(path)!r}, 320).mean()) - 77) <= 1
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    grown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 60


def test_a_limit_is_an_input_error():
    assert issubclass(LimitError, InputError)


# DICOM


def test_dicom_without_a_window_uses_the_range_of_the_image(tmp_path):
    path = dicom(tmp_path / "x", RAMP, bits=12, PatientID="P7", PatientSex="F", ViewPosition="PA")
    header = images.check(path)
    assert (header.size, header.kind, header.frames) == ((16, 16), "DICOM", 1)
    assert header.about == {"patient": "P7", "sex": "Female", "projection": "PA"}
    np.testing.assert_array_equal(images.read(path), stretched(RAMP, 0, 4080))
    assert images.measure(path) == header
    np.testing.assert_array_equal(images.load(path, 16), images.read(path))


def test_dicom_says_how_large_a_pixel_is(tmp_path):
    """Height, then width, as PixelSpacing has them: that in the patient first, then that at the detector or scanner."""

    def spacing(**said):
        return images.measure(dicom(tmp_path / "x", RAMP, bits=12, **said)).about.get("spacing")

    patient, detector, scanner = [0.139, 0.168], ["0.15", "0.15"], [0.2, 0.2]
    assert spacing(PixelSpacing=patient, ImagerPixelSpacing=detector) == patient
    assert spacing(ImagerPixelSpacing=detector, NominalScannedPixelSpacing=scanner) == [0.15, 0.15]
    assert spacing(PixelSpacing=None, ImagerPixelSpacing=[0, 0], NominalScannedPixelSpacing=scanner) == scanner
    assert spacing() is spacing(PixelSpacing=[-1, 0.1]) is spacing(PixelSpacing=0.1) is None


def test_monochrome1_is_inverted(tmp_path):
    plain = images.read(dicom(tmp_path / "a", RAMP, bits=12))
    inverted = images.read(dicom(tmp_path / "b", RAMP, "MONOCHROME1", bits=12))
    np.testing.assert_array_equal(inverted, 255 - plain)


def test_dicom_window(tmp_path):
    """PS3.3 C.11.2.1.2: linear from center - 0.5 - (width - 1) / 2 to center - 0.5 + (width - 1) / 2."""
    path = dicom(tmp_path / "x", RAMP, bits=12, WindowCenter=[2048, 1], WindowWidth=[1024, 1])
    assert np.abs(images.read(path).astype(int) - stretched(RAMP, 2047.5 - 511.5, 2047.5 + 511.5)).max() <= 1
    wide = images.read(dicom(tmp_path / "y", RAMP, bits=12, WindowCenter=2048, WindowWidth=8192))
    assert (wide.min(), wide.max()) == (64, 191)  # a window wider than the image keeps its greys apart from the ends


def test_dicom_rescale_and_signed_values(tmp_path):
    stored = (RAMP.astype(np.int32) - 2000).astype(np.int16)
    options = {"RescaleSlope": 2, "RescaleIntercept": -10, "WindowCenter": -10, "WindowWidth": 2001}
    path = dicom(tmp_path / "x", stored, **options)
    assert np.abs(images.read(path).astype(int) - stretched(stored * 2.0 - 10, -1010.5, 989.5)).max() <= 1
    negative = dicom(tmp_path / "y", stored, RescaleSlope=-1, RescaleIntercept=0)
    np.testing.assert_array_equal(images.read(negative), stretched(-stored.astype(int), -2080, 2000))


def test_dicom_voi_lut(tmp_path):
    from pydicom.dataset import Dataset

    item = Dataset()
    item.LUTDescriptor = [256, 0, 16]
    item.add_new("LUTData", "OW", np.linspace(65535, 0, 256).astype(np.uint16).tobytes())
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = dicom(tmp_path / "x", stored, VOILUTSequence=[item], WindowCenter=5, WindowWidth=2)
    np.testing.assert_array_equal(images.read(path), 255 - stored)  # the table comes before the window


def test_dicom_padding_does_not_count(tmp_path):
    stored = RAMP.copy() // 8 + 100
    stored[0] = 4095
    gray = images.read(dicom(tmp_path / "x", stored, bits=12, PixelPaddingValue=4095))
    assert (gray[0] == 0).all() and gray[1:].max() == 255


def test_dicom_frames_and_colour(tmp_path):
    several = np.stack([RAMP, RAMP[::-1]])
    path = dicom(tmp_path / "x", several, bits=12, NumberOfFrames=2)
    assert images.check(path).frames == 2
    np.testing.assert_array_equal(images.read(path), stretched(RAMP, 0, 4080))
    colours = RNG.integers(0, 256, (9, 7, 3), np.uint8)
    gray = images.read(dicom(tmp_path / "y", colours, "RGB"))
    np.testing.assert_array_equal(gray, np.asarray(Image.fromarray(colours).convert("L")))


def test_dicom_compressed_without_loss(tmp_path):
    from pydicom.uid import RLELossless

    path = dicom(tmp_path / "x", RAMP, bits=12, compress=RLELossless)
    assert images.check(path).size == (16, 16)
    np.testing.assert_array_equal(images.read(path), stretched(RAMP, 0, 4080))


def test_dicom_of_jpeg_2000(tmp_path):
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    pixels = io.BytesIO()
    Image.fromarray(SMOOTH).save(pixels, "JPEG2000", irreversible=False, no_jp2=True)
    path = dicom(tmp_path / "x", SMOOTH)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = encapsulate([pixels.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    np.testing.assert_array_equal(images.read(path), levels.scaled(SMOOTH))


def test_dicom_without_a_preamble_needs_its_name(tmp_path):
    whole = dicom(tmp_path / "x.dcm", RAMP, bits=12)
    expected = images.read(whole)
    data = pydicom.dcmread(whole)
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    pydicom.filewriter.write_dataset(buffer, data)
    bare = tmp_path / "bare.dcm"
    bare.write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(images.read(bare), expected)


@pytest.mark.parametrize("cut", [135, 400, -1, -200])
def test_truncated_dicom(tmp_path, cut):
    path = dicom(tmp_path / "x.dcm", RAMP, bits=12)
    path.write_bytes(path.read_bytes()[:cut])
    for use in (images.check, images.read):
        with pytest.raises(InputError) as error:
            use(path)
        assert "x.dcm: " in str(error.value) and "\n" not in str(error.value)


def test_dicom_that_asks_for_too_much(tmp_path):
    path = dicom(tmp_path / "x", RAMP, Rows=65535, Columns=65535)
    with pytest.raises(LimitError, match="is more than 536870912 pixels"):
        images.measure(path)


def test_without_pydicom_the_error_names_the_extra(tmp_path, monkeypatch):
    path = dicom(tmp_path / "x", RAMP)
    monkeypatch.setitem(sys.modules, "chextools.xrays.dicom", None)
    monkeypatch.delattr("chextools.xrays.dicom", raising=False)
    with pytest.raises(InputError, match=r"x: DICOM needs pydicom: pip install 'chextools\[dicom\]'"):
        images.measure(path)
