"""Truth as public sets and annotation tools write it: the right pixels of each, whatever tells the files apart."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from conftest import need_module
from PIL import Image, ImageDraw

from chextools.errors import InputError
from chextools.inputs import inputs
from chextools.inputs.truth import TruthSettings, is_box, mask_of, read_truth
from chextools.masks.mask import Mask
from chextools.masks.shapes import text_of_runs
from chextools.records.records import Failure


def truth(path, **settings):
    return read_truth(str(path), io.BytesIO(), TruthSettings(**settings))


def pixels(record, task, size=None) -> np.ndarray:
    return mask_of(record, task, size).to_array()


def written(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text) if isinstance(text, bytes) else path.write_text(text)
    return path


def boxed(size, *boxes):
    """Pixels of boxes x, y, width, height in whole numbers."""
    expected = np.zeros(size, bool)
    for x, y, width, height in boxes:
        expected[y : y + height, x : x + width] = True
    return expected


# Boxes


NIH = """Image Index,Finding Label,Bbox [x,y,w,h],,,
00013118_008.png,Atelectasis,225.084745762712,547.019216763771,86.7796610169491,79.1864406779661,,,
00014716_007.png,Infiltrate,686,131,185,313,,,
00014716_007.png,Effusion,10,20,30,40,,,
"""


def test_nih_boxes_as_published(tmp_path):
    found = truth(written(tmp_path, "BBox_List_2017.csv", NIH)).records
    assert list(found) == ["00013118_008", "00014716_007"]
    first, second = found.values()
    assert (pixels(second, "Infiltration") == boxed((1024, 1024), (686, 131, 185, 313))).all()
    assert (pixels(second, "Pleural Effusion") == boxed((1024, 1024), (10, 20, 30, 40))).all()
    # Pixels whose centres lie in the box
    assert (pixels(first, "Atelectasis") == boxed((1024, 1024), (225, 547, 87, 79))).all()
    assert is_box(first, "Atelectasis")
    assert mask_of(first, "Infiltration") is None  # nobody says that it was looked for


def test_nih_boxes_are_scaled_only_when_that_is_asked_for(tmp_path):
    path = written(tmp_path, "boxes.csv", NIH)
    record = truth(path).records["00014716_007"]
    with pytest.raises(InputError, match="boxes are in an image of 1024 x 1024, this one has 512 x 512: --truth-size"):
        mask_of(record, "Infiltration", (512, 512))
    record = truth(path, size=(1024, 1024)).records["00014716_007"]
    assert (pixels(record, "Pleural Effusion", (512, 512)) == boxed((512, 512), (5, 10, 15, 20))).all()


def test_rsna_boxes_and_images_without_one(tmp_path):
    text = (
        "patientId,x,y,width,height,Target\na-0,,,,,0\nb-1,264.0,152.0,213.0,379.0,1\nb-1,562.0,152.0,256.0,453.0,1\n"
    )
    found = truth(written(tmp_path, "stage_2_train_labels.csv", text)).records
    assert not pixels(found["a-0"], "Pneumonia").any()
    expected = boxed((1024, 1024), (264, 152, 213, 379), (562, 152, 256, 453))
    assert (pixels(found["b-1"], "Pneumonia") == expected).all()


def test_a_bad_row_costs_its_image_alone(tmp_path):
    text = "patientId,x,y,width,height,Target\na,1,2,,4,1\nb,1,2,3,4,1\nc,1,2,3,4\nd,1,2,3,4,2\n"
    found = truth(written(tmp_path, "x.csv", text))
    assert set(found.records) == {"a", "b", "d"}
    for name, why in (("a", "x.csv:2: '' is no coordinate"), ("d", "x.csv:5: Target is 2")):
        with pytest.raises(InputError, match=why):
            mask_of(found.records[name], "Pneumonia")
    (failure,) = found.failures
    assert failure.where.endswith("x.csv:4")


VINDR = """image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max
a1,No finding,14,R11,,,,
a1,No finding,14,R12,,,,
a2,Cardiomegaly,3,R10,10.0,20.0,40.0,50.0
a2,Cardiomegaly,3,R8,12.0,22.0,42.0,52.0
a2,Pleural effusion,10,R8,1,1,5,5
a2,No finding,14,R9,,,,
"""


def test_vindr_has_readers_and_the_size_of_what_it_is_compared_with(tmp_path):
    path = written(tmp_path, "train.csv", VINDR)
    found = truth(path).records
    size = (60, 70)
    one, other = boxed(size, (10, 20, 30, 30)), boxed(size, (12, 22, 30, 30))
    assert (pixels(found["a2"], "Cardiomegaly", size) == (one & other)).all()  # two of three
    assert not pixels(found["a2"], "Pleural Effusion", size).any()
    assert not pixels(found["a1"], "Cardiomegaly", size).any()
    united = truth(path, consensus="union").records["a2"]
    assert (pixels(united, "Cardiomegaly", size) == (one | other)).all()
    assert not pixels(truth(path, consensus="intersection").records["a2"], "Cardiomegaly", size).any()
    with pytest.raises(InputError, match="does not say the image's size"):
        mask_of(found["a2"], "Cardiomegaly")


@pytest.mark.parametrize("reader", ["rad_id,", ""], ids=["train", "test"])
def test_vindr_as_on_physionet(reader, tmp_path):
    columns = f"image_id,{reader}class_name,x_min,y_min,x_max,y_max"
    cells = {
        "image_id": "a",
        "rad_id": "R1",
        "class_name": "Lung Opacity",
        "x_min": 1,
        "y_min": 2,
        "x_max": 4,
        "y_max": 8,
    }
    row = ",".join(str(cells[column]) for column in columns.split(","))
    record = truth(written(tmp_path, "annotations.csv", f"{columns}\n{row}\n"), size=(10, 10)).records["a"]
    assert (pixels(record, "Airspace Opacity") == boxed((10, 10), (1, 2, 3, 6))).all()


def test_a_csv_of_labels_is_no_truth(tmp_path):
    with pytest.raises(InputError, match="a CSV of labels: it says what is there, but not where"):
        truth(written(tmp_path, "x.csv", "Path,Edema\na.jpg,1\n"))


# Run lengths


def relative(mask: np.ndarray) -> str:
    """SIIM-ACR's own encoder, of its mask_functions.py in short: columns first, starts from the last run's end."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [0]])
    edges = np.flatnonzero(np.diff(flat)).tolist()
    words, end = [], 0
    for start, stop in zip(edges[0::2], edges[1::2]):
        words += [start - end, stop - start]
        end = stop
    return " ".join(map(str, words))


def siim_like() -> np.ndarray:
    """252 runs and an area of 30,859 at 1024 x 1024, as an image of the real file has."""
    mask = np.zeros((1024, 1024), bool)
    lengths = np.full(252, 30859 // 252)
    lengths[: 30859 - lengths.sum()] += 1
    for column, length in enumerate(lengths):
        top = 300 + column // 2
        mask[top : top + length, 400 + column] = True
    return mask


def test_siim_runs_are_relative(tmp_path):
    mask = siim_like()
    code = relative(mask)
    assert len(code.split()) == 2 * 252
    corner = boxed((1024, 1024), (3, 5, 2, 4))
    lines = ["ImageId, EncodedPixels", "1.2.276.0.1, -1", f"1.2.276.0.2,{code}", f"1.2.276.0.2, {relative(corner)}"]
    found = truth(written(tmp_path, "train-rle.csv", "\n".join(lines))).records
    assert not pixels(found["1.2.276.0.1"], "Pneumothorax").any()
    assert mask_of(found["1.2.276.0.2"], "Pneumothorax").area == 30859 + 8
    assert (pixels(found["1.2.276.0.2"], "Pneumothorax") == (mask | corner)).all()


def test_absolute_runs_under_the_same_header_are_told_by_their_area(tmp_path):
    mask = siim_like()
    text = f"ImageId,EncodedPixels\na.png,{text_of_runs(Mask.from_array(mask))}\n"
    record = truth(written(tmp_path, "x.csv", text), size=(1024, 1024)).records["a"]
    assert (pixels(record, "Pneumothorax") == mask).all()


def test_runs_that_could_be_of_either_form_are_refused(tmp_path):
    text = "ImageId,EncodedPixels\na,10 3 61 3\n"
    with pytest.raises(InputError, match="could be SIIM-ACR's relative ones or Kaggle's absolute ones"):
        truth(written(tmp_path, "x.csv", text))
    for form, starts in (("relative", (10, 74)), ("absolute", (9, 60))):
        named = text.replace("EncodedPixels", f"EncodedPixels {form}")
        record = truth(written(tmp_path, "x.csv", named), size=(20, 30)).records["a"]
        assert mask_of(record, "Pneumothorax").starts.tolist() == list(starts)


@pytest.mark.parametrize("code", ["10 3 61", "10 x", "5 3 -1 2", "1048570 9"])
def test_a_run_that_is_none_costs_its_image(code, tmp_path):
    text = f"ImageId, EncodedPixels\n1.2.1,{code}\n1.2.2,10 3 61 3 61 3\n"
    found = truth(written(tmp_path, "x.csv", text)).records
    assert mask_of(found["1.2.2"], "Pneumothorax").area == 9
    with pytest.raises(InputError):
        mask_of(found["1.2.1"], "Pneumothorax")


def test_chexmask_goes_row_by_row(tmp_path):
    rng = np.random.default_rng(0)
    mask = rng.random((40, 30)) < 0.5
    flat = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel().astype(int), [0]])))
    code = " ".join(f"{start + 1} {stop - start}" for start, stop in zip(flat[0::2], flat[1::2]))
    header = "image_id,Dice RCA (Max),Dice RCA (Mean),Landmarks,Left Lung,Right Lung,Heart,Height,Width"
    text = f'{header}\nx1,0.9,0.8,"1,2,3",{code},1 5,,40,30\n'
    record = truth(written(tmp_path, "VinDr-CXR.csv", text)).records["x1"]
    assert (pixels(record, "Left Lung") == mask).all()
    assert (pixels(record, "Right Lung") == boxed((40, 30), (0, 0, 5, 1))).all()
    assert not pixels(record, "Heart").any()


# Masks as images


def png(array, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG", **options)
    return stream.getvalue()


MASK = boxed((12, 10), (2, 3, 4, 5))


def palette_png() -> bytes:
    image = Image.fromarray(np.where(MASK, 0, 1).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 0])  # red first, black second: black is outside
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def tiff() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(MASK.astype(np.uint16) * 65535).save(stream, "TIFF")
    return stream.getvalue()


@pytest.mark.parametrize(
    "name, data",
    [
        ("a_Pleural Effusion.png", png(MASK.astype(np.uint8) * 255)),
        ("a_Pleural_Effusion.png", png(MASK.astype(np.uint8))),
        ("Pleural Effusion/a.png", png(MASK)),
        ("a/Pleural_Effusion.tif", tiff()),
        ("a_Pleural Effusion.png", palette_png()),
        ("a_Pleural Effusion.png", png(np.dstack([MASK * 255, MASK * 0, MASK * 0, MASK * 255]).astype(np.uint8))),
    ],
    ids=["255", "1", "1-bit", "16-bit TIFF", "palette", "RGBA"],
)
def test_masks_as_images(name, data, tmp_path):
    written(tmp_path, f"masks/{name}", data)
    ((identifier, record),) = truth(tmp_path / "masks").records.items()
    assert identifier == "a"
    assert (pixels(record, "Pleural Effusion") == MASK).all()


@pytest.mark.parametrize(
    "name, table",
    [
        ("labels.csv", "value,task\n0,background\n1,Edema\n7,Mass\n"),
        ("labels.json", '{"Edema": 1, "Mass": 7}'),
        ("labels.txt", '# ITK-SNAP\n0 0 0 0 0 0 0 "Clear Label"\n1 255 0 0 1 1 1 "Edema"\n7 0 255 0 1 1 1 "Mass"\n'),
        ("colours.ctbl", "# Slicer\n0 Background 0 0 0 0\n1 Edema 128 174 128 255\n7 Mass 0 1 2 255\n"),
    ],
)
def test_label_images_with_a_table_of_values(name, table, tmp_path):
    labels = np.where(MASK, 7, 0).astype(np.uint8)
    labels[0, 0] = 1
    written(tmp_path, "masks/a.png", png(labels))
    written(tmp_path, f"masks/{name}", table)
    record = truth(tmp_path / "masks").records["a"]
    assert (pixels(record, "Mass") == MASK).all()
    assert mask_of(record, "Edema").area == 1


def test_a_picture_is_no_mask(tmp_path):
    written(tmp_path, "m/a_Edema.png", png(np.arange(120, dtype=np.uint8).reshape(12, 10)))
    written(tmp_path, "m/b_Edema.png", png(MASK))
    found = truth(tmp_path / "m")
    assert list(found.records) == ["b"]
    assert "it holds 120 values" in found.failures[0].reason


def test_a_task_that_nobody_knows_is_the_last_word(tmp_path):
    written(tmp_path, "m/case_007_Cavity.png", png(MASK))
    written(tmp_path, "m/case_007_Edema.png", png(~MASK))
    ((identifier, record),) = truth(tmp_path / "m").records.items()
    assert identifier == "case_007"
    assert (pixels(record, "Cavity") == MASK).all() and (pixels(record, "Edema") == ~MASK).all()


def test_a_mask_that_does_not_say_its_task(tmp_path):
    written(tmp_path, "m/a.png", png(MASK))
    with pytest.raises(InputError, match="a.png does not say which task it is a mask of"):
        truth(tmp_path / "m")


# Annotation tools


def drawn(size, points):
    """As Pillow, LabelMe and the study draw an outline."""
    image = Image.new("1", size[::-1])
    ImageDraw.Draw(image).polygon([tuple(p) for p in points], outline=1, fill=1)
    return np.asarray(image)


TRIANGLE = [[5, 5], [30, 8], [12, 25]]


def test_labelme(tmp_path):
    inner = png(np.array([[1, 0], [1, 1]], bool))
    shapes = [
        {"label": "edema", "points": TRIANGLE, "shape_type": "polygon"},
        {"label": "Mass", "points": [[40, 30], [20, 10]], "shape_type": "rectangle"},
        {"label": "Nodule", "points": [[20, 20], [20, 25]], "shape_type": "circle"},
        {"label": "Hernia", "points": [[3, 4], [4, 5]], "shape_type": "mask", "mask": base64.b64encode(inner).decode()},
        {"label": "Fibrosis", "points": [[1, 1], [2, 2]], "shape_type": "line"},
    ]
    document = {"version": "5", "flags": {}, "shapes": shapes, "imagePath": "..\\imgs\\p1.jpg", "imageData": None}
    document |= {"imageHeight": 40, "imageWidth": 50}
    for path in (written(tmp_path, "one/p1.json", json.dumps(document, indent=2)), tmp_path / "one"):
        record = truth(path).records["p1"]
        assert (pixels(record, "Edema") == drawn((40, 50), TRIANGLE)).all()
        assert (pixels(record, "Mass") == boxed((40, 50), (20, 10, 20, 20))).all()
        assert is_box(record, "Mass") and not is_box(record, "Edema")
        assert abs(mask_of(record, "Nodule").area - np.pi * 25) < 4
        assert np.argwhere(pixels(record, "Hernia")).tolist() == [[4, 3], [5, 3], [5, 4]]
        with pytest.raises(InputError, match="a 'line' has no area"):
            mask_of(record, "Fibrosis")


REGIONS = [
    {
        "shape_attributes": {"name": "rect", "x": 2, "y": 3, "width": 4, "height": 5},
        "region_attributes": {"label": "Mass"},
    },
    {
        "shape_attributes": {"name": "polygon", "all_points_x": [5, 30, 12], "all_points_y": [5, 8, 25]},
        "region_attributes": {"finding": {"Edema": True, "Mass": False}},
    },
]


@pytest.mark.parametrize("form", ["project", "export", "version 1", "csv"])
def test_via(form, tmp_path):
    file = {"filename": "p1.jpg", "size": 1234, "regions": REGIONS, "file_attributes": {}}
    if form == "version 1":
        file["regions"] = dict(enumerate(REGIONS))
    text = json.dumps({"p1.jpg1234": file})
    if form == "project":
        text = json.dumps({"_via_settings": {}, "_via_img_metadata": {"p1.jpg1234": file}, "_via_attributes": {}})
    if form == "csv":
        import csv

        stream = io.StringIO()
        names = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
        rows = csv.writer(stream)
        rows.writerow(names.split(","))
        for number, region in enumerate(REGIONS):
            rows.writerow(["p1.jpg", 1234, "{}", 2, number, *map(json.dumps, region.values())])
        text = stream.getvalue()
    record = truth(written(tmp_path, "via", text)).records["p1"]
    assert (pixels(record, "Mass", (40, 50)) == boxed((40, 50), (2, 3, 4, 5))).all()
    assert (pixels(record, "Edema", (40, 50)) == drawn((40, 50), TRIANGLE)).all()


def rle_pack(values: np.ndarray) -> list[int]:
    """Label Studio's encoder in short: runs of up to 2^16 values, of 8 bits each."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    edges = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]])
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist()):
        while start < stop:
            run = min(stop - start, 2**16)
            value = int(values[start])
            bits += f"000000{value:08b}" if run == 1 else f"111{run - 1:016b}{value:08b}"
            start += run
    bits += "0" * (8 - len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def region(kind, value, label):
    return {"type": kind, "value": value | {kind: [label]}, "original_width": 50, "original_height": 40}


def label_studio(*results, person=1):
    return {"id": 7, "completed_by": person, "result": list(results)}


def test_label_studio(tmp_path):
    rng = np.random.default_rng(0)
    brushed = rng.random((40, 50)) < 0.3
    results = [
        region("rectanglelabels", {"x": 4, "y": 10, "width": 20, "height": 50, "rotation": 0}, "Mass"),
        region("polygonlabels", {"points": [[x * 2, y * 2.5] for x, y in TRIANGLE]}, "Edema"),
        region("ellipselabels", {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 0}, "Nodule"),
        region("brushlabels", {"format": "rle", "rle": rle_pack(np.repeat(brushed.ravel() * 255, 4))}, "Hernia"),
        {"type": "choices", "value": {"choices": ["normal"]}},
    ]
    task = {"id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-p1.png"}, "annotations": [label_studio(*results)]}
    record = truth(written(tmp_path, "x.json", json.dumps([task]))).records["p1"]
    assert (pixels(record, "Mass") == boxed((40, 50), (2, 4, 10, 20))).all()
    assert (pixels(record, "Edema") == drawn((40, 50), TRIANGLE)).all()
    assert (pixels(record, "Hernia") == brushed).all()
    assert abs(mask_of(record, "Nodule").area - np.pi * 10 * 4) < 4


def test_label_studio_has_readers(tmp_path):
    boxes = [{"x": x, "y": 0, "width": 20, "height": 20, "rotation": 0} for x in (0, 10)]
    people = [label_studio(region("rectanglelabels", box, "Mass"), person={"id": n}) for n, box in enumerate(boxes)]
    path = written(tmp_path, "x.json", json.dumps([{"id": 1, "data": {"image": "a.png"}, "annotations": people}]))
    areas = {rule: mask_of(truth(path, consensus=rule).records["a"], "Mass").area for rule in ("union", "intersection")}
    assert areas == {"union": 15 * 8, "intersection": 5 * 8}


def test_cvat(tmp_path):
    xml = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta/>
    <image id="0" name="images/p1.png" width="50" height="40">
      <box label="Mass" xtl="2.0" ytl="3.0" xbr="6.0" ybr="8.0" occluded="0"/>
      <polygon label="Edema" points="5,5;30,8;12,25"/>
      <ellipse label="Nodule" cx="25" cy="20" rx="10" ry="4"/>
      <mask label="Hernia" rle="1, 2, 2, 1" left="7" top="9" width="3" height="2"/>
      <points label="Edema" points="1,2"/>
    </image><image id="1" name="images/p2.png" width="50" height="40"/></annotations>"""
    found = truth(written(tmp_path, "annotations.xml", xml)).records
    record = found["images_p1"]
    assert (pixels(record, "Mass") == boxed((40, 50), (2, 3, 4, 5))).all()
    assert (pixels(record, "Edema") == drawn((40, 50), TRIANGLE)).all()
    assert np.argwhere(pixels(record, "Hernia")).tolist() == [[9, 8], [9, 9], [10, 9]]
    assert abs(mask_of(record, "Nodule").area - np.pi * 40) < 4
    assert not pixels(found["images_p2"], "Mass").any()


def test_pascal_voc(tmp_path):
    xml = """<annotation><folder>x</folder><filename>p1.jpg</filename>
    <size><width>50</width><height>40</height><depth>1</depth></size>
    <object><name>Mass</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>50</xmax><ymax>3</ymax></bndbox></object>
    </annotation>"""
    written(tmp_path, "voc/p1.xml", xml)
    record = truth(tmp_path / "voc").records["p1"]
    assert (pixels(record, "Mass") == boxed((40, 50), (0, 1, 50, 2))).all()  # both ends, counted from 1


@pytest.mark.parametrize(
    "xml, said",
    [
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotations>&x;</annotations>', "document type or entities"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', "document type or entities"),
        ("<a>" * 100, "nested more than 50 deep"),
        ("<annotations><image", "not XML"),
        ("<svg/>", "neither CVAT's (annotations) nor Pascal VOC's"),
    ],
)
def test_xml_that_is_refused(xml, said, tmp_path):
    with pytest.raises(InputError) as error:
        truth(written(tmp_path, "x.xml", xml))
    assert said in str(error.value)


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL"])
def test_dicom_segmentation(kind, tmp_path):
    pydicom = need_module("pydicom")
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.pixels import pack_bits
    from pydicom.sequence import Sequence
    from pydicom.uid import ExplicitVRLittleEndian

    def item(**values):
        dataset = Dataset()
        for key, value in values.items():
            setattr(dataset, key, Sequence([value]) if isinstance(value, Dataset) else value)
        return dataset

    masks = np.stack([MASK, ~MASK])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = item(
        SOPClassUID=meta.MediaStorageSOPClassUID, SOPInstanceUID="1.2.3", Modality="SEG", Rows=12, Columns=10
    )
    dataset.file_meta = meta
    dataset.NumberOfFrames, dataset.SamplesPerPixel, dataset.PixelRepresentation = 2, 1, 0
    dataset.PhotometricInterpretation, dataset.SegmentationType = "MONOCHROME2", kind
    bits = 1 if kind == "BINARY" else 8
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.MaximumFractionalValue = bits - 1, 100
    dataset.SegmentSequence = Sequence(
        [item(SegmentNumber=n, SegmentLabel=name) for n, name in ((1, "Mass"), (2, "Edema"))]
    )
    dataset.ReferencedSeriesSequence = Sequence(
        [item(ReferencedInstanceSequence=item(ReferencedSOPInstanceUID="1.2.840.77"))]
    )
    dataset.PerFrameFunctionalGroupsSequence = Sequence(
        [item(SegmentIdentificationSequence=item(ReferencedSegmentNumber=n)) for n in (1, 2)]
    )
    values = (
        pack_bits(masks.ravel().astype(np.uint8)) if bits == 1 else np.where(masks, 50, 49).astype(np.uint8).tobytes()
    )
    dataset.PixelData = values
    path = tmp_path / "seg.dcm"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    record = truth(path).records["1.2.840.77"]
    assert (pixels(record, "Mass") == MASK).all() and (pixels(record, "Edema") == ~MASK).all()


def test_files_in_a_folder_fail_alone(tmp_path):
    written(tmp_path, "x/bad.xml", "<annotations>")
    good = '<annotation><filename>g.png</filename><object><name>Mass</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object></annotation>'  # fmt: skip  # noqa: E501
    written(tmp_path, "x/good.xml", good)
    failure, record = inputs.read(str(tmp_path / "x"), io.BytesIO())
    assert isinstance(failure, Failure) and "not XML" in failure.reason
    assert record.record["id"] == "g"
