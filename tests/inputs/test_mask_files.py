"""Masks as images and as DICOM Segmentations, each by its own reader: names, values, palettes, frames and fractions."""

from __future__ import annotations

import io
from pathlib import PurePath

import numpy as np
import pytest
from conftest import need_module
from PIL import Image

from chextools.errors import InputError
from chextools.inputs import dicom_seg, foreign, mask_images, words
from chextools.records.record import DRAWING
from chextools.records.records import Failure

MASK = np.zeros((6, 5), bool)
MASK[1:4, 2:5] = True


def picture(array: np.ndarray, kind: str = "PNG", **options) -> io.BytesIO:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **options)
    return stream


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(
    "pixels",
    [MASK, MASK * np.uint8(255), MASK * np.uint8(1), MASK * np.uint16(40000), np.dstack([MASK * np.uint8(9)] * 3)],
    ids=["1 bit", "255", "1", "16 bits", "colour"],
)
def test_a_mask_has_two_values(pixels, kind):
    np.testing.assert_array_equal(mask_images.mask_in(picture(pixels, kind), "it").to_array(), MASK)


def test_what_is_transparent_is_outside():
    red = np.zeros((6, 5, 4), np.uint8)
    red[MASK] = 255, 0, 0, 255
    red[~MASK] = 255, 0, 0, 0
    np.testing.assert_array_equal(mask_images.mask_in(picture(red), "it").to_array(), MASK)
    black = red * np.array([0, 0, 0, 1], np.uint8)  # drawn in black on nothing
    np.testing.assert_array_equal(mask_images.mask_in(picture(black), "it").to_array(), MASK)


def test_black_is_outside_wherever_it_stands_in_the_palette():
    image = Image.fromarray(np.where(MASK, 1, 2).astype(np.uint8), "P")
    image.putpalette([9, 9, 9, 255, 0, 0, 0, 0, 0])
    stream = io.BytesIO()
    image.save(stream, "PNG")
    np.testing.assert_array_equal(mask_images.mask_in(stream, "it").to_array(), MASK)


def test_an_empty_mask_and_a_full_one():
    assert mask_images.mask_in(picture(np.zeros((6, 5), np.uint8)), "it").area == 0
    assert mask_images.mask_in(picture(np.full((6, 5), 255, np.uint8)), "it").area == 30


@pytest.mark.parametrize(
    "stream, reason",
    [
        (picture(np.arange(6, dtype=np.uint8).reshape(2, 3)), r"it holds 6 values, \[0, 1, 2, 3, \.\.\.\]"),
        (picture(np.array([[3, 7]], np.uint8)), r"it holds 2 values, \[3, 7\]: a mask has two, 0 and one"),
        (picture(np.array([[[0, 0, 0], [1, 0, 0], [0, 0, 1]]], np.uint8)), "it holds 3 values"),  # two colours
        (picture(np.array([[0, np.nan]], np.float32), "TIFF"), "values that are no numbers"),
        (picture(MASK, "TIFF", save_all=True, append_images=[Image.fromarray(MASK)]), "it holds 2 images"),
        (picture(MASK * np.uint8(255), "JPEG"), "it is no PNG or TIFF"),
        (io.BytesIO(b""), "it is no PNG or TIFF"),
    ],
)
def test_what_is_no_mask(stream, reason):
    with pytest.raises(InputError, match=reason):
        mask_images.mask_in(stream, "it")


def test_values_are_found_block_by_block(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 1000, (40, 50))
    monkeypatch.setattr(mask_images, "_BLOCK", 7)
    assert mask_images.values_in(pixels) == np.unique(pixels).tolist()


# Names


@pytest.mark.parametrize("suffix", words.PICTURES)
@pytest.mark.parametrize(
    "name, identifier, task",
    [
        ("p_1_Pleural_Effusion", "p_1", "Pleural Effusion"),
        ("p1_left lung", "p1", "left lung"),
        ("a_b_Mass", "a_b", "Mass"),
    ],
)
def test_a_single_mask_says_its_image_and_task(tmp_path, name, identifier, task, suffix):
    path = tmp_path / (name + suffix)
    Image.fromarray(MASK).save(path)
    assert mask_images.is_mask_file(str(path))
    record = mask_images.record_of_file(str(path))
    assert record["id"] == identifier and record["size"] == [6, 5]
    np.testing.assert_array_equal(record[DRAWING].mask(task).to_array(), MASK)
    assert [found["id"] for found in foreign.of_file(str(path))] == [identifier]


@pytest.mark.parametrize("name", ["p1_Mass.jpg", "p1.png", "Mass.png.txt"])
def test_what_is_no_single_mask_by_its_name(name):
    assert not mask_images.is_mask_file(name)


@pytest.mark.parametrize("task", ["Mass", "Nodule/Mass", "..", "_x", "Ödem", "a%b", "x:y*z"])
def test_every_task_has_a_folder_of_its_own_that_says_it(task, tmp_path):
    """Also one that a stamp does not say, as other programs drop it."""
    folder = mask_images.folder_of(task)
    assert "/" not in folder and folder[0] not in "._"
    (tmp_path / folder).mkdir()
    Image.fromarray(MASK).save(tmp_path / folder / "p1.png")
    (record,) = mask_images.records_of(str(tmp_path), [PurePath(folder, "p1.png")])
    assert record["id"] == "p1" and record[DRAWING].names == [task]


def test_a_stamp_counts_before_the_name(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(*mask_images.stamp_of("other_id", "Rare task"))
    Image.fromarray(MASK).save(tmp_path / "p1_Mass.png", pnginfo=info)
    (record,) = mask_images.records_of(str(tmp_path), [PurePath("p1_Mass.png")])
    assert record["id"] == "other_id" and record[DRAWING].names == ["Rare task"]


def test_label_images_and_their_table(tmp_path):
    labels = np.where(MASK, 7, 0).astype(np.uint8)
    labels[0, 0] = 1
    Image.fromarray(labels).save(tmp_path / "a.png")
    Image.fromarray(labels * 2).save(tmp_path / "b.png")
    (tmp_path / "t.csv").write_text("task,value\nMass,7\nEdema,1\nNodule,3\n")
    found = list(mask_images.records_of(str(tmp_path), [PurePath(name) for name in ("a.png", "b.png", "t.csv")]))
    (failure,) = [item for item in found if isinstance(item, Failure)]
    assert failure.where == "b.png" and "the value 2 is not in the table" in failure.reason
    (record,) = [item for item in found if not isinstance(item, Failure)]
    assert {task: record[DRAWING].mask(task).area for task in record[DRAWING].names} == {
        "Mass": 9,
        "Edema": 1,
        "Nodule": 0,
    }
    (tmp_path / "u.csv").write_text("x")
    with pytest.raises(InputError, match="of 2 tables none can be chosen"):
        list(mask_images.records_of(str(tmp_path), [PurePath(name) for name in ("a.png", "t.csv", "u.csv")]))


@pytest.mark.parametrize("text, reason", [("", "no header of a CSV"), ("a,b\nc,d\n", "no table of values and tasks")])
def test_a_table_that_says_no_value(text, reason, tmp_path):
    Image.fromarray(MASK).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=f"t.csv: {reason}"):
        list(mask_images.records_of(str(tmp_path), [PurePath("a.png"), PurePath("t.csv")]))


# DICOM Segmentations


@pytest.fixture
def segmentation(tmp_path):
    """Write one of frames [n, h, w], each of segment 1 or 2, and give its path."""
    pydicom = need_module("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    def write(frames: np.ndarray, kind: str, segments=(1,), storage=dicom_seg.SEGMENTATION[0]) -> str:
        data = Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = storage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        data.Rows, data.Columns, data.NumberOfFrames = *frames.shape[1:], len(frames)
        data.SamplesPerPixel, data.PixelRepresentation, data.PhotometricInterpretation = 1, 0, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.SegmentationType, data.MaximumFractionalValue = kind, 200
        data.SegmentSequence = [Dataset(), Dataset()]
        for number, (item, name) in enumerate(zip(data.SegmentSequence, ("Mass", "Edema")), 1):
            item.SegmentNumber, item.SegmentLabel = number, name
        data.PerFrameFunctionalGroupsSequence = []
        for number in segments:
            group, which = Dataset(), Dataset()
            which.ReferencedSegmentNumber = number
            group.SegmentIdentificationSequence = [which]
            data.PerFrameFunctionalGroupsSequence.append(group)
        data.PixelData = frames.astype(np.uint8).tobytes()
        path = tmp_path / "p1.dcm"
        pydicom.dcmwrite(path, data, enforce_file_format=True)
        return str(path)

    return write


def test_fractions_count_from_half_of_their_maximum(segmentation):
    path = segmentation(np.array([[[0, 99, 100, 200]]]), "FRACTIONAL")
    assert dicom_seg.is_segmentation(path)
    (record,) = dicom_seg.records_of(path)
    assert record["id"] == "p1" and record["size"] == [1, 4]  # it names no X-ray: its own name
    assert record[DRAWING].mask("Mass").to_array().tolist() == [[False, False, True, True]]
    assert record[DRAWING].mask("Edema").area == 0


def test_frames_of_one_segment_are_united(segmentation):
    frames = np.array([[[1, 0, 0]], [[0, 1, 0]], [[0, 0, 1]]])
    (record,) = dicom_seg.records_of(segmentation(frames, "BINARY", (1, 2, 1)))
    assert record[DRAWING].mask("Mass").to_array().tolist() == [[True, False, True]]
    assert record[DRAWING].mask("Edema").to_array().tolist() == [[False, True, False]]


def test_a_label_map_has_a_value_per_segment(segmentation):
    path = segmentation(np.array([[[0, 1, 2, 2]]]), "LABELMAP", storage=dicom_seg.SEGMENTATION[1])
    assert dicom_seg.is_segmentation(path)
    (record,) = dicom_seg.records_of(path)
    assert {task: record[DRAWING].mask(task).area for task in ("Mass", "Edema")} == {"Mass": 1, "Edema": 2}
    with pytest.raises(InputError, match="the value 3 is no segment"):
        list(dicom_seg.records_of(segmentation(np.array([[[3]]]), "LABELMAP")))


def test_a_frame_of_a_segment_that_is_not_there(segmentation):
    with pytest.raises(InputError, match="frame 1 is of segment 5, which is not there"):
        list(dicom_seg.records_of(segmentation(np.ones((1, 2, 2)), "BINARY", (5,))))


def test_what_is_no_segmentation(tmp_path):
    path = tmp_path / "x.dcm"
    assert not dicom_seg.is_segmentation(str(path))  # not there
    path.write_bytes(b"\0" * 128 + b"DICM" + b"1.2.840.10008.5.1.4.1.1.1.1")
    assert not dicom_seg.is_segmentation(str(path))
    need_module("pydicom")
    with pytest.raises(InputError, match="no DICOM Segmentation that can be read"):
        list(dicom_seg.records_of(str(path)))
