"""Progress on stderr: one bar in a pipeline, with the rate and the time left; nothing that is no terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT

from chextools import compare, report
from chextools.cli import pipeline, progress
from chextools.records.tally import Tally


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> _Terminal:
    """stderr as a terminal on which nothing waits."""
    screen = _Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=screen))
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)
    monkeypatch.setattr(progress, "_ASKED_EVERY", 0.0)
    monkeypatch.setattr(pipeline, "upstream", list)
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    progress.begin("chex-x", [])
    return screen


def test_a_bar_says_what_is_done_and_what_else_is_known(terminal):
    assert list(progress.shown(iter("abc"), "images", 3, lambda item: f"saw {item}")) == ["a", "b", "c"]
    text = terminal.getvalue()
    assert all(words in text for words in ("chex-x:", "1/3", "images/s"))
    assert text.endswith("\r")  # and is gone in the end


def test_a_step_stands_until_the_next_and_goes_at_the_end(terminal):
    with progress.steps() as step:
        step("reading")
        step("x" * 200)
        with progress.hidden():
            terminal.write("said\n")
    drawn = terminal.getvalue().replace("\r", "").split("\x1b[K")
    long = "chex-x: " + "x" * 71
    assert drawn == ["", "chex-x: reading", long, "said\n" + long, ""]  # one column is left, lest the line wraps


def test_no_terminal_gets_no_steps(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=screen))
    with progress.steps() as step:
        step("reading")
    assert screen.getvalue() == ""


def test_a_terminal_without_a_width_has_a_bar_as_well():
    """As script(1) and some containers make them: 0 columns, on which tqdm draws nothing by itself."""
    import pty

    ours, theirs = pty.openpty()
    show = "from chextools.cli import progress as p; p.SHOWN_AFTER = p._ASKED_EVERY = 0; list(p.shown('abc', 'images'))"
    made = subprocess.run([sys.executable, "-c", show], cwd=ROOT, stdin=subprocess.DEVNULL, stderr=theirs, timeout=60)
    os.close(theirs)
    assert made.returncode == 0 and b"1/3" in os.read(ours, 4096)
    os.close(ours)


def test_no_total_that_turns_out_too_small(terminal):
    list(progress.shown(range(5), "images", 3))
    assert "5/3" not in terminal.getvalue()


def test_who_is_fed_by_another_command_of_ours_shows_nothing(terminal, monkeypatch):
    monkeypatch.setattr(pipeline, "upstream", lambda: ["chex-prep"])
    assert list(progress.shown(range(5), "images", 5)) == [0, 1, 2, 3, 4]
    assert terminal.getvalue() == ""


def test_the_bar_passes_on_when_the_first_command_ends(terminal, monkeypatch):
    alive = [["chex-prep"], ["chex-prep"], [], []]
    monkeypatch.setattr(pipeline, "upstream", lambda: alive.pop(0) if alive else [])
    list(progress.shown(range(5), "images", 5))
    assert "3/5" in terminal.getvalue() and "1/5" not in terminal.getvalue()


def test_quick_work_shows_nothing(terminal, monkeypatch):
    monkeypatch.setattr(progress, "SHOWN_AFTER", 60.0)
    list(progress.shown(range(5), "images", 5))
    assert terminal.getvalue() == ""


def test_messages_and_the_bar_do_not_share_a_line(terminal):
    for number in progress.shown(range(3), "images", 3):
        if number == 2:
            with progress.hidden():
                terminal.write("MESSAGE\n")
    before, after = terminal.getvalue().split("MESSAGE\n")
    assert before.endswith("\r") and "/3" in after


def test_no_terminal_gets_a_line_a_minute(monkeypatch, caplog):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(pipeline, "upstream", list)
    caplog.set_level("WARNING", "chextools")
    list(progress.shown(range(2), "images"))
    assert [message.partition(",")[0] for message in caplog.messages] == ["1 images so far", "2 images so far"]


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("a.jsonl", '{"id": "a"}\n{"id": "b"}\n', 2),
        ("a.csv", "Path,Edema\na.jpg,1\nb.jpg,0\nc.jpg,0\n", 3),
        ("a.json", '{"a":\n {"Edema": []}}\n', None),
        ("a.json", "[\n]\n", None),
        ("a.jsonl", "", None),
        ("a.png", "\x89PNG\r\n\n\n", None),
    ],
)
def test_how_much_there_is_to_do_is_known_from_lines(tmp_path, name, content, count):
    (tmp_path / name).write_text(content, encoding="latin-1")
    assert progress.expected([str(tmp_path / name)]) == count


def test_heatmaps_of_a_folder_are_counted_and_inputs_added_up(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.npz").touch()
    assert progress.expected([str(tmp_path)]) == 3
    assert progress.expected([str(tmp_path), str(tmp_path)]) == 6
    assert progress.expected([str(tmp_path), str(tmp_path / "none")]) is None


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_our_commands_upstream_are_found_through_the_pipes():
    """Stand-ins with our commands' names wait while the last looks; another program between them cuts the chain."""
    wait = f"{sys.executable} -c 'import time; time.sleep(30)'"
    look = "import time; time.sleep(.3); from chextools.cli.pipeline import upstream; print(upstream())"
    script = f"""
    (exec -a chex-prep {wait}) | (exec -a chex-cam {wait}) | ({sys.executable} -c '{look}' >&3; kill 0)
    """
    run = ["bash", "-c", f"exec 3>&1; {script}"]
    found = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, start_new_session=True, timeout=60)
    assert found.stdout == "['chex-cam', 'chex-prep']\n"


def test_items_that_have_a_length_are_that_many(terminal):
    list(progress.shown(list("abcd"), "images"))
    assert "1/4" in terminal.getvalue()


def _results(path, count: int) -> str:
    path.write_text("".join(f'{{"id": "{k}", "iou": {{"Edema": {k / 9}}}}}\n' for k in range(count)))
    return str(path)


def test_a_comparison_shows_the_rows_of_both_sides(terminal, tmp_path):
    inputs = _results(tmp_path / "a.jsonl", 4), _results(tmp_path / "b.jsonl", 4)
    progress.begin("chex-compare", inputs)
    compare.run(inputs, tally=Tally(progress=progress.shown))
    text = terminal.getvalue()
    assert all(words in text for words in ("chex-compare:", "1/8", "rows/s"))
    assert text.endswith("\r")


def test_a_report_shows_the_rows_it_reads_and_the_figures_it_draws(terminal, tmp_path):
    rows = [
        {"metric": "iou", "task": task, "n": 9, "mean": 0.4, "lower": 0.3, "upper": 0.5} for task in ("Edema", "Mass")
    ]
    inputs = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    for path in inputs:
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    progress.begin("chex-report", inputs)
    made = report.build(report.read_runs(inputs, io.BytesIO(), progress=progress.shown).runs)
    assert "1/4" in terminal.getvalue() and "rows/s" in terminal.getvalue()
    assert report.plot_files(made, progress.shown).keys() == report.plot_files(made).keys()
    assert f"1/{len(made.drawings)}" in terminal.getvalue() and "figures/s" in terminal.getvalue()
