"""Which part of an AUROC a shortcut explains: the rule, the words and the tables of the page."""

from __future__ import annotations

import pytest
from report_data import eval_rows, write

from chextools import report
from chextools.reporting import trust
from chextools.reporting.runs import Run


def row(by: str = "view", task: str = "Average", **numbers) -> dict:
    start = {"metric": "shortcut", "task": task, "by": by, "mean": 0.7, "lower": 0.6, "upper": 0.8, "auroc": 0.8}
    start |= {"explained": 0.33, "explained_lower": 0.1, "explained_upper": 0.5, "floor": None, "spearman": None}
    return start | {"pairs": 0.5, "n": 90} | numbers


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({}, trust.PART),
        ({"lower": 0.49}, trust.ALL),
        ({"explained_lower": -0.1}, trust.NONE),
        ({"explained_lower": 0.0}, trust.NONE),
        ({"lower": 0.4, "explained_lower": -0.1}, trust.NONE),  # an AUROC that is itself not sure
        ({"lower": None, "upper": None}, trust.UNKNOWN),
        ({"auroc": 0.54, "explained": 13.3}, trust.UNKNOWN),
        ({"auroc_lower": 0.49}, trust.UNKNOWN),
        ({"auroc_lower": 0.51}, trust.PART),
    ],
)
def test_the_rule(numbers, said):
    assert trust.explains(row(**numbers)) == said


def test_a_sentence_on_a_run():
    run = Run("net")
    run.rows["shortcut"] = [
        row("view", "Edema", explained=0.9),
        row("view"),
        row("filesize", lower=0.45, floor=0.85),
        row("exposure", explained_lower=-1, floor=0.5),
    ]
    assert trust.sentence(run) == (
        "AUROC 0.80: filesize may explain all of it, view (33%) explains part of it, that exposure explains any is not "
        "shown, "
        "filesize alone reaches as much"
    )
    run.rows["shortcut"] = [row("view", auroc=0.505, explained=-13.3)]
    assert trust.sentence(run) == "AUROC 0.51: too near 0.5 for a shortcut to explain"
    assert trust.sentence(Run("none")) == ""


def test_the_tables_of_the_page(tmp_path):
    rows = [row("view", "Edema"), row("view", "Mass", mean=0.65), row("view"), row("filesize", floor=0.75)]
    rows += eval_rows(0.5, ["Edema", "Mass"], ("auroc",))
    border = {"metric": "border", "task": "Average", "mean": 0.6, "lower": 0.5, "upper": 0.7, "n": 9, "border": 0.1}
    paths = [write(tmp_path / "net.jsonl", rows), write(tmp_path / "cam.jsonl", [border | {"chance": 0.36}])]
    read = report.read_runs(list(map(str, paths)), None)
    assert not read.runs[0].failed  # two shortcuts of one task are no duplicates
    (section,) = [s for s in report.build(read.runs).sections if s.id == "trust"]
    whole, by_task, elsewhere = section.tables
    assert [cells[:2] for cells in whole.rows] == [["view", 0.8], ["filesize", 0.8]]
    assert [c.key for c in whole.columns][:3] == ["by", "auroc", "floor"]
    assert [cells[0] for cells in by_task.rows] == ["Edema", "Mass"]
    assert elsewhere.rows == [["cam", "in the border of 10%", 0.6, 0.5, 0.7, 0.36, 9, trust.THERE]]
    (figure,) = section.figures
    assert "the shortcut alone" in str(figure.drawing)


def test_a_share_of_next_to_nothing_is_left_out(tmp_path):
    near = row("view", auroc=0.505, explained=-13.3, explained_lower=-40.0, explained_upper=40.0)
    path = write(tmp_path / "net.jsonl", [near, row("filesize")])
    (section,) = [s for s in report.build(report.read_runs([str(path)], None).runs).sections if s.id == "trust"]
    (table, *_) = section.tables
    cells = [dict(zip([column.key for column in table.columns], cells)) for cells in table.rows]
    assert [one["explained"] for one in cells] == [None, pytest.approx(33)]
    assert [one["reason"] for one in cells] == [trust.NEAR, None]
    assert f"below {trust.LEAST}" in section.notes[0]


def test_rows_of_csv_are_the_same(cli, tmp_path):
    from chextools.results import tables

    (tmp_path / "net.csv").write_text(tables.write([row("view"), row("filesize")], "csv", ["metric", "task", "by"]))
    read = report.read_runs([str(tmp_path / "net.csv")], None)
    assert [found["by"] for found in trust.whole(read.runs[0])] == ["view", "filesize"]
