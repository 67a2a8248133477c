"""Per-image results and replicates: the right value, or a line that says where and why."""

import io
import json
import math

import pytest

from chextools.errors import InputError
from chextools.records.records import Located
from chextools.results.measured import read_measured


def read(tmp_path, content, name="iou_x.csv", **options):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_measured(str(tmp_path / name), io.BytesIO(), **options))


def values(items):
    assert all(isinstance(item, Located) for item in items), items
    return [item.record["values"]["iou"] for item in items]


@pytest.mark.parametrize("first", ["", "Unnamed: 0", "index", "level_0", "Unnamed: 0_level_1"])
def test_an_index_column_is_no_task(tmp_path, first):
    clean = read(tmp_path, "Edema,img_id\n0.5,a\n,b\n")
    found = read(tmp_path, f"{first},Edema,img_id,Unnamed: 3\n0,0.5,a,\n1,,b,\n")
    assert str(values(found)) == str(values(clean)) == str([{"Edema": 0.5}, {"Edema": math.nan}])


@pytest.mark.parametrize(
    "name,cell",
    [
        ("iou", "1.01"),
        ("iou", "-0.1"),
        ("iou", "9"),
        ("iou", "inf"),
        ("iou", "1e999"),
        ("iou", "abc"),
        ("iou", "1" * 500),
    ]
    + [("hitmiss", "0.5"), ("hitmiss", "2"), ("hitmiss", "-1"), ("hitmiss", "yes")],
)
def test_a_value_that_the_metric_cannot_have_is_named_by_line(tmp_path, name, cell):
    fine, bad = read(tmp_path, f"Edema,img_id\n1,a\n{cell},b\n", f"{name}_x.csv")
    assert isinstance(fine, Located)
    assert bad.where == f"{tmp_path}/{name}_x.csv:3" and len(bad.reason) < 200


@pytest.mark.parametrize("value", ["0.5", [0.5], {"a": 1}, True, 10**400, 1.5, -1, "x" * 10**6])
@pytest.mark.parametrize("row", [{"id": "a", "iou": {}}, {"metric": "iou", "replicate": 0, "means": {}}])
def test_a_value_that_is_no_number_is_a_short_line(tmp_path, value, row):
    values = {"Edema": value}
    key = "iou" if "iou" in row else "means"
    (item,) = read(tmp_path, json.dumps(row | {key: values}), "x.jsonl")
    assert not isinstance(item, Located) and len(item.reason) < 200


@pytest.mark.parametrize(
    "row",
    [
        {"id": "a", "iou": v}
        for v in (None, 1, "a", [1], {"": 1}, {"Average": 1}, {"Lung Opacity": 1, "Airspace Opacity": 1})
    ]
    + [{"metric": "iou", "replicate": v, "means": {"Edema": 1}} for v in (-1, 1.5, "a", True, [1], 10**400)]
    + [{"metric": v, "replicate": 1, "means": {"Edema": 1}} for v in (1, None, ["iou"])]
    + [{"id": v, "iou": {"Edema": 1}} for v in (1, "", None, "../x", "a/b", "x" * 300, ["a"])]
    + [{}, {"id": "a"}],
)
def test_a_row_that_cannot_be_used_is_a_short_line(tmp_path, row):
    (item,) = read(tmp_path, json.dumps(row) + "\n", "x.jsonl")
    assert not isinstance(item, Located) and len(item.reason) < 300


def test_replicates_count_themselves_where_no_number_is_given(tmp_path):
    found = read(tmp_path, "Edema,Mass\n0.5,\n0.25,1\n")
    assert [item.record["replicate"] for item in found] == [0, 1]


def test_a_metric_that_the_name_denies_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds iou by its name, not hit"):
        read(tmp_path, "Edema,img_id\n", metric="hit")
    with pytest.raises(InputError, match="say --metric"):
        read(tmp_path, "Edema,img_id\n", "x.csv", need_metric=True)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_spreadsheets(tmp_path, encoding, delimiter):
    text = f"\r\nimg_id{delimiter} Pleural\xa0Effusion \r\na{delimiter}0.5\r\n"
    assert values(read(tmp_path, text.encode(encoding))) == [{"Pleural Effusion": 0.5}]


def test_what_chex_eval_writes_of_a_cxr_that_the_truth_lacks_has_no_values(tmp_path):
    lines = [
        {"id": "a", "patient": "a", "hit": {"Edema": 1.0}, "scores": {"Edema": 0.5}},
        {"id": "b", "patient": "b", "scores": {"Edema": 0.5}},
        {"id": "c", "scores": {"Edema": 0.5}, "image": "c.png"},  # a record of chex-predict, which is no result
    ]
    first, second, third = read(tmp_path, "".join(json.dumps(line) + "\n" for line in lines), "x.jsonl")
    assert isinstance(first, Located) and isinstance(second, Located)
    assert (first.record["values"], second.record["values"]) == ({"hit": {"Edema": 1.0}}, {})
    assert "not per-image results" in third.reason
