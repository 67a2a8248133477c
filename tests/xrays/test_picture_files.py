"""What files of Pillow's formats say of themselves, by their own bytes: PNG chunks, TIFF tags, JPEG markers."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image
from xray_files import png as write_png
from xray_files import png_chunk, png_header
from xray_files import tiff as write_tiff

from chextools.errors import InputError, LimitError
from chextools.xrays import header, jpeg, pictures, png, tiff
from chextools.xrays.pictures import Picture

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (24, 40), np.uint8)


def stream(path) -> io.BytesIO:
    return io.BytesIO(path.read_bytes())


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    found = io.BytesIO()
    image.save(found, kind, **options)
    found.seek(0)
    return found


# PNG


@pytest.mark.parametrize("colour, channels, deep", [(0, 1, False), (2, 3, True), (4, 2, True), (6, 4, True)])
def test_png_facts(tmp_path, colour, channels, deep):
    """Of 16 bits, Pillow keeps those of gray alone."""
    samples = RNG.integers(0, 65536, (3, 4, channels))
    facts = png.read_facts(stream(write_png(tmp_path / "x.png", samples, colour)))
    assert (facts.bits, facts.colour, facts.transparent, facts.exif) == (16, colour, None, b"")
    assert facts.is_deep is deep
    assert not png.read_facts(stream(write_png(tmp_path / "y.png", samples % 256, colour, 8))).is_deep


def test_png_facts_stand_before_and_after_the_pixels(tmp_path):
    key = png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 65535))
    path = write_png(tmp_path / "x.png", np.zeros((2, 2, 3), int), 2, before=key, after=png_chunk(b"eXIf", b"II*\0"))
    facts = png.read_facts(stream(path))
    assert (facts.transparent, facts.exif) == ((1, 2, 65535), b"II*\0")
    indexed = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 3, 0, 0, 0))
    assert png.read_facts(io.BytesIO(indexed + png_chunk(b"tRNS", b"\0\1"))).transparent is None  # opacities, no colour


def test_png_that_is_cut_within_a_chunk_tells_what_stands_before(tmp_path):
    """Also within a second head or colour, where Pillow, which stops at the pixels, does not look."""
    whole = write_png(tmp_path / "x.png", GRAY[..., None], 0).read_bytes()
    for name, data in ((b"IHDR", b"\0" * 13), (b"tRNS", b"\0\1")):
        for missing in range(5, len(data) + 8):
            found = io.BytesIO(whole[:-12] + png_chunk(name, data)[:-missing])
            assert png.read_facts(found) == png.Facts(16, 0)


def test_png_chunks_are_bounded(monkeypatch):
    monkeypatch.setattr(png, "_MAX_CHUNKS", 3)
    with pytest.raises(InputError, match="more than 3 chunks"):
        png.read_facts(io.BytesIO(b"\x89PNG\r\n\x1a\n" + png_chunk(b"tEXt", b"a\0b") * 4))


def test_png_of_16_bits_keeps_both_bytes(tmp_path):
    colours = np.array([[[256, 257, 511], [65535, 0, 1], [300, 300, 300]]])
    alpha = np.array([[[65535], [65535], [13107]]])  # the last a fifth
    weights = np.array([0.299, 0.587, 0.114])
    expected = colours @ weights
    found = stream(write_png(tmp_path / "x.png", colours, 2))
    np.testing.assert_allclose(png.deep_gray(found, png.read_facts(found)), expected, rtol=1e-6)
    found = stream(write_png(tmp_path / "y.png", np.dstack([colours, alpha]), 6))
    np.testing.assert_allclose(png.deep_gray(found, png.read_facts(found)), expected * [1, 1, 0.2], rtol=1e-6)
    found = stream(write_png(tmp_path / "z.png", np.dstack([colours[..., :1], alpha]), 4))
    np.testing.assert_allclose(png.deep_gray(found, png.read_facts(found)), [[256, 65535, 60]], rtol=1e-6)


# TIFF


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "i1", "i2", "u4", "i4", "f4", "f8"])
def test_tiff_samples_are_read_as_they_are_stored(tmp_path, kind, order):
    low, high = (-1e6, 1e6) if kind[0] == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    values = np.linspace(low, high, 12).astype(kind).reshape(3, 4, 1)
    found = stream(write_tiff(tmp_path / "x.tif", values, 1, order))
    facts = tiff.read_facts(found)
    assert (facts.size, facts.samples, facts.frames, facts.photometric) == ((3, 4), 1, 1, 1)
    assert facts.bits == 8 * values.itemsize == 8 * facts.bytes_per_pixel
    assert facts.is_deep is (kind != "u1")
    np.testing.assert_array_equal(tiff.deep_gray(found, facts), values[..., 0])


def test_tiff_where_white_is_zero_is_turned_over(tmp_path):
    """Unsigned about their range, signed about -1/2, floats about the middle of what is there."""
    for values, expected in (
        (np.array([0, 1, 65535], np.uint16), [65535, 65534, 0]),
        (np.array([-32768, 0, 32767], np.int16), [32767, -1, -32768]),
        (np.array([0, 0.25, 1], np.float32), [1, 0.75, 0]),
    ):
        found = stream(write_tiff(tmp_path / "x.tif", values.reshape(1, 3, 1), 0))
        assert tiff.deep_gray(found, tiff.read_facts(found)).tolist() == [expected]


def test_tiff_of_12_bits_is_unpacked(tmp_path):
    """0xABC and 0x123 are the bytes AB C1 23; each row begins a byte."""
    packed = np.array([[0xAB, 0xC1, 0x23, 0x45, 0x60], [0, 0xF0, 0x01, 0xFF, 0xF0]], np.uint8)
    path = write_tiff(tmp_path / "x.tif", packed[..., None], 1, t256=3, t258=12)
    found = stream(path)
    assert tiff.deep_gray(found, tiff.read_facts(found)).tolist() == [[0xABC, 0x123, 0x456], [0x00F, 0x001, 0xFFF]]


def test_tiff_of_24_bits(tmp_path):
    for order, number in (("<", [1, 2, 3]), (">", [3, 2, 1])):
        path = write_tiff(
            tmp_path / "x.tif", np.array([[number]], np.uint8).reshape(1, 3, 1), 1, order, t256=1, t258=24
        )
        found = stream(path)
        assert tiff.deep_gray(found, tiff.read_facts(found)).tolist() == [[0x030201]]


def test_tiff_facts(tmp_path):
    turned = write_tiff(tmp_path / "x.tif", GRAY[..., None], 1, t274=6)
    assert tiff.read_facts(stream(turned)).orientation == 6
    frames = [Image.fromarray(GRAY), Image.fromarray(GRAY[:10])]
    facts = tiff.read_facts(saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    assert (facts.frames, facts.size) == (2, (24, 40))


@pytest.mark.parametrize(
    "tags, reason",
    [
        ({"t277": 17}, "17 samples a pixel"),
        ({"t258": (16, 8, 16)}, "different numbers of bits"),
        ({"t259": 6}, "compression 6"),
        ({"t262": 32803}, "photometric interpretation 32803"),
        ({"t258": (128,) * 3}, "samples of 128 bits|truncated"),
    ],
)
def test_tiff_that_cannot_be_read_says_why(tmp_path, tags, reason):
    found = stream(write_tiff(tmp_path / "x.tif", np.zeros((2, 2, 3), np.uint16), 2, **tags))
    with pytest.raises((InputError, OSError), match=reason):
        tiff.deep_gray(found, tiff.read_facts(found))


# JPEG


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=lambda o: str([*o]))
def test_a_jpeg_is_whole_or_cut(mode, options):
    image = Image.fromarray(GRAY).resize((160, 120)).convert(mode)
    data = saved(image, "JPEG", quality=90, **options).getvalue()
    assert not jpeg.is_cut(io.BytesIO(data))
    assert not jpeg.is_cut(io.BytesIO(data + b"\0" * 20))  # what follows the end is no pixel
    for share in (0.7, 0.95):
        assert jpeg.is_cut(io.BytesIO(data[: int(len(data) * share)] + b"\xff\xd9"))
    assert jpeg.is_cut(io.BytesIO(data[:-2]))


def test_a_jpeg_without_one_of_its_intervals_is_cut():
    data = saved(Image.fromarray(GRAY).resize((64, 64)), "JPEG", restart_marker_blocks=8).getvalue()
    assert sum(data.count(bytes([0xFF, 0xD0 + n])) for n in range(8)) == 7  # between 8 rows of blocks
    last = data.rfind(b"\xff\xd6")
    assert not jpeg.is_cut(io.BytesIO(data)) and jpeg.is_cut(io.BytesIO(data[:last] + b"\xff\xd9"))


# All of them


@pytest.mark.parametrize("kind", pictures.FORMATS)
def test_every_format_is_told_by_its_content(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    found = Picture(saved(Image.fromarray(GRAY), kind, **options))
    assert found.header == header.Header((24, 40), kind)
    gray, box = found.gray()
    assert (gray.mode, gray.size, box) == ("L", (40, 24), None)
    assert np.abs(np.asarray(gray).astype(int) - GRAY).max() <= (2 if kind == "JPEG" else 1 if kind == "WEBP" else 0)


def test_a_large_jpeg_is_decoded_no_smaller_than_asked():
    found = Picture(saved(Image.fromarray(GRAY).resize((800, 400)), "JPEG"))
    gray, box = found.gray((150, 70))
    assert gray.size == (200, 100) and box == (0, 0, 200, 100)
    assert found.header.size == (400, 800)


@pytest.mark.parametrize("orientation, turn", [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (8, np.rot90)])
def test_the_header_has_the_size_as_it_is_shown(orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = Picture(saved(Image.fromarray(GRAY), "PNG", exif=exif))
    assert found.orientation == orientation and found.header.size == turn(GRAY).shape
    np.testing.assert_array_equal(np.asarray(found.turned(found.gray()[0])), turn(GRAY))


def test_memory_is_bounded_before_a_pixel_is_decoded(monkeypatch):
    assert header.MAX_BYTES == 805306368  # 3/4 GiB
    with pytest.raises(LimitError, match=r"30000 x 17000 in RGB needs 2.4 GiB; at most 0.75"):
        Picture(io.BytesIO(png_header(30000, 17000, colour=2)))
    monkeypatch.setattr(pictures, "MAX_BYTES", GRAY.size)
    assert Picture(saved(Image.fromarray(GRAY), "PNG")).header.size == (24, 40)
    with pytest.raises(LimitError, match="40 x 24 in RGB needs"):
        Picture(saved(Image.fromarray(GRAY).convert("RGB"), "PNG"))


def test_a_header_knows_nothing_unless_told():
    first, second = header.Header((1, 2), "PNG"), header.Header((1, 2), "PNG")
    first.about["patient"] = "p1"
    assert second.about == {} and second.frames == 1
