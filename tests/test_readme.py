"""README says what is so: its commands are the ones that run."""

from __future__ import annotations

import os
import re
import subprocess

from conftest import COMMANDS, ROOT

from chextools.tasks import STUDY

README = (ROOT / "README.md").read_text()


def block(holding: str) -> str:
    """The script in README that holds this."""
    return next(b for b in re.findall(r"^```sh\n(.*?)^```", README, re.M | re.S) if holding in b)


def numbers(cell: str) -> tuple[float, ...]:
    """Mean, lower and upper of a cell."""
    return tuple(map(float, re.findall(r"[0-9.]+", cell)))


def table(lines: list[str]) -> dict[tuple[str, str], dict[str, tuple[float, ...]]]:
    """The cells of chex-report's table by (metric, task) and run."""
    head, *rows = (re.split(r"  +", line.strip()) for line in lines)
    assert head == ["metric", "task", "classifier", "gradcam", "random", "centre", "reader"]
    return {(row[0], row[1]): dict(zip(head[2:], map(numbers, row[2:]))) for row in rows}


def test_the_demo_is_the_pipeline():
    assert block("chex-phantom") in (ROOT / "tests/demo.sh").read_text()


def test_ci_runs_the_second_command():
    (command,) = [line.strip() for line in README.splitlines() if line.endswith("pytest tests")]
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_every_command_and_page_is_named_and_there():
    commands = README.partition("## The commands\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(chex-[a-z]+)` \|", commands, re.M)) == COMMANDS
    pages = {f"{name}.{section}" for name, section in re.findall(r"`(chextools(?:-[a-z]+)?)\((7)\)`", README)}
    assert pages == {path.name for path in (ROOT / "man/man7").iterdir()}


def test_the_demo_runs(path):
    result = subprocess.run(
        ["sh", ROOT / "tests/demo.sh"], capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    assert result.returncode == 0, result.stderr
    made = table(result.stdout.splitlines())
    shown = table(re.findall(r"^    ((?:metric|iou|hit|auroc)  .*)$", README, re.M))
    for key, cells in shown.items():
        for run, cell in cells.items():
            if run in ("random", "centre", "reader"):  # no network: the same everywhere
                assert made[key][run] == cell, (key, run)
            elif (
                cell and key[1] == "Average"
            ):  # training takes other roundings on another CPU, within README's interval
                assert cell[1] - 0.01 <= made[key][run][0] <= cell[2] + 0.01, (key, run)
    # What it teaches: unseen patients are told apart, and Grad-CAM finds most findings, but a reader finds more
    hits = {task: of for (metric, task), of in made.items() if metric == "hit" and task != "Average"}
    assert list(hits) == list(STUDY)
    assert made["auroc", "Average"]["classifier"][0] >= 0.9
    off_centre = {task: of for task, of in hits.items() if of["centre"][0] < 1}  # the heart is always in the middle
    above = [t for t, of in off_centre.items() if of["gradcam"][1] > max(of["random"][2], of["centre"][2])]
    assert len(off_centre) >= 8 and len(above) > len(off_centre) / 2
    assert all(of["reader"][0] > of["gradcam"][0] for of in hits.values())
