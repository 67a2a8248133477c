"""Thresholds by task: from either kind of file, or a line that says where and why."""

import gzip
import json

import pytest

from chextools.errors import InputError
from chextools.results import thresholds


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_csv_and_json_lines_say_the_same(tmp_path, pack):
    path = tmp_path / "t"
    for text in ("threshold,task\n0.25,Lung Opacity\n", '{"task": "Lung Opacity", "threshold": 0.25}\n'):
        path.write_bytes(pack(text.encode()))
        assert thresholds.read_thresholds(str(path)) == {"Airspace Opacity": 0.25}


def test_the_best_cutoff_is_chosen_and_one_without_miou_is_not(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("prob_threshold,mIoU,task\n0.1,,Edema\n0.2,0.3,Edema\n0.4,0.3,Edema\n0.9,,Mass\n")
    assert thresholds.read_cutoffs(str(path)) == {"Edema": 0.2, "Mass": 0.9}


@pytest.mark.parametrize("value", ["0.5x", [0.5], {"a": 1}, True, None, 10**400, 1.5, -0.1, "x" * 10**6, "", "nan"])
def test_a_value_that_is_none_is_named_by_line(tmp_path, value):
    path = tmp_path / "t.jsonl"
    path.write_text("\n" + json.dumps({"task": "Edema", "threshold": value}))
    with pytest.raises(InputError) as error:
        thresholds.read_thresholds(str(path))
    assert str(error.value).startswith(f"{path}:2: ") and len(str(error.value)) < len(str(path)) + 150


@pytest.mark.parametrize(
    "text", ["", "\n", "a,b\n1,2\n", "threshold,task\n", "threshold,task\n1\n", "{}", "[]", '{"task": 1}']
)
def test_a_file_that_holds_none_is_an_error(tmp_path, text):
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(InputError, match=str(path)):
        thresholds.read_thresholds(str(path))
