"""Masks written for other tools read back as they were."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chextools.inputs.truth import mask_of, read_truth
from chextools.masks.mask import Mask
from chextools.results import formats

TASKS = ("Edema", "Pleural Effusion", "Nodule/Mass", "Pleural_Thickening", "50%", "Ödem")
sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def records(draw):
    found = []
    for number in range(draw(st.integers(1, 3))):
        size = draw(sizes)
        tasks = draw(st.lists(st.sampled_from(TASKS), min_size=1, max_size=3, unique=True))
        masks = {task: Mask.from_array(draw(arrays(bool, size))).to_rle() for task in tasks}
        found.append({"id": f"p{number}_Edema", "size": list(size), "masks": masks})
    return found


def assert_equal(path, expected, exactly):
    """Every mask is there; what was not is None, or empty in formats that cannot leave a task out."""
    truth = read_truth(str(path), None)
    assert not truth.failures
    for record in expected:
        again = truth.records[record["id"]]
        for task in TASKS:
            mask = mask_of(again, task)
            if task in record["masks"]:
                assert mask == Mask.from_rle(record["masks"][task])
            elif exactly:
                assert mask is None
            else:
                assert mask is None or not mask.area


@pytest.mark.parametrize(
    "form, exactly", [("jsonl", True), ("csv-rle", True), ("coco", False), ("chexlocalize", False)]
)
@given(found=records())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text(form, exactly, found, tmp_path):
    path = tmp_path / form
    text = "".join(formats.write([dict(record) for record in found], form))
    path.write_text(text, encoding="utf-8")
    assert_equal(path, found, exactly)


@given(found=records())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_png(found, tmp_path):
    import tempfile

    folder = tempfile.mkdtemp(dir=tmp_path)
    for _ in formats.write_png(found, folder):
        pass
    assert_equal(folder, found, exactly=True)


def test_png_from_the_shell(cli, tmp_path):
    mask = Mask.from_array(np.eye(4, dtype=bool)).to_rle()
    line = json.dumps({"id": "a", "masks": {"Edema": mask}}).encode()
    assert cli("chex-segment", "--format", "png", stdin=line).code == 2
    assert cli("chex-segment", "--format", "png", "-o", tmp_path / "m", stdin=line).code == 0
    assert (tmp_path / "m/Edema/a.png").exists()
    again = cli("chex-segment", "--format", "png", "-o", tmp_path / "m", stdin=line)
    assert again.code == 1 and "exists; use --force" in again.err
    assert json.loads(cli("chex-segment", tmp_path / "m").out)["masks"] == {"Edema": mask}


def test_results_need_scores(cli):
    mask = Mask.from_array(np.eye(4, dtype=bool)).to_rle()
    line = json.dumps({"id": "a", "masks": {"Edema": mask}}).encode()
    result = cli("chex-segment", "--format", "coco-results", stdin=line)
    assert result.code == 1 and "a: Edema: no score, by which COCOeval orders" in result.err
