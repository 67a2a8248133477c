"""chextools-tutorial(7): Table 1 by one make target, run as it stands, killed halfway and run again."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess

import manual
from conftest import ROOT, need_tool

(RECIPE,) = [text for text in manual.examples(ROOT / "man/man7/chextools-tutorial.7") if "SEEN =" in text]
(AUDIT,) = [text for text in manual.examples(ROOT / "man/man7/chextools-audit.7") if "METHODS =" in text]
KILLS = """#!/bin/sh
test -e killed && exec {command} "$@"
touch killed
printf '{{"id": "half a rec'
kill -9 0
"""


def test_killed_halfway_it_makes_only_the_rest(tmp_path, path):
    """What chex-cam had written when all was killed counts for nothing; what was there before is not made again."""
    make = need_tool("make")
    for name, recipe in (("table1.mk", RECIPE), ("audit.mk", AUDIT)):
        (tmp_path / name).write_text(recipe)
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin/chex-cam"
    shim.write_text(KILLS.format(command=shutil.which("chex-cam", path=path)))
    shim.chmod(0o755)
    made = "table1/phantoms"
    given = [f"MODEL={made}/RUN/best.pt", f"IMAGES={made}/unseen/test.csv", "METHODS=", "FLOORS=random", "FOLLOWS="]
    given += [f"TRUTH={made}/unseen/gt_annotations_test.json", "SEEN=20", "UNSEEN=20", "LOOKS=iou hit energy"]
    given += ["LEARN=--arch resnet18 --size 32 --steps 1 -q"]

    def run(*options: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PATH": f"{shim.parent}:{path}", "OMP_NUM_THREADS": "1"}
        command = [make, "-f", "table1.mk", *given, *options]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=environment, start_new_session=True
        )

    first = run()
    assert first.returncode == -9 and "chex-train" in first.stdout
    assert not list((tmp_path / made).glob("*.maps.jsonl"))
    second = run()
    assert second.returncode == 0, second.stderr
    assert "chex-cam" in second.stdout
    assert not any(f"{command} " in second.stdout for command in ("chex-phantom", "chex-train"))
    assert second.stdout.count("chex-predict ") == 1  # of the real X-rays: that of the phantoms was done
    for part, columns in (("phantoms", {"random mean", "human lower"}), ("real", {"random mean", "random n"})):
        head, *rows = csv.reader((tmp_path / "table1" / part / "table.csv").open())
        assert columns <= set(head) and {"iou", "hit", "energy", "auroc"} <= {row[0] for row in rows}
        assert (tmp_path / "table1" / part / "table.txt").read_text() in second.stdout
    assert "chex-" not in run().stdout
    planned = run("-n", "METHODS=gradcam ig").stdout
    assert "--method gradcam --layer layer3" in planned and "--method ig --steps 8" in planned


def test_a_recipe_copied_from_the_rendered_page_has_its_tabs(tmp_path):
    """By the line that each page gives for it."""
    (tmp_path / "bin").mkdir()
    man = tmp_path / "bin/man"
    man.write_text(f'#!/bin/sh\nexec {need_tool("mandoc")} "{ROOT}/man/man7/$1.7"\n')
    man.chmod(0o755)
    need_tool("col")
    environment = os.environ | {"PATH": f"{man.parent}:{os.environ['PATH']}"}
    pages = {name: ROOT / f"man/man7/chextools-{name}.7" for name in ("audit", "looking", "tutorial")}
    for page in pages.values():
        lines = [line for text in manual.examples(page) for line in text.splitlines() if line.startswith("man ")]
        assert lines
        for line in lines:
            subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, env=environment)
    found = {path.name: path.read_text() for path in tmp_path.glob("*.mk")}
    assert found.keys() == {"audit.mk", "looking.mk", "table1.mk"}
    for name, text in found.items():
        page = pages[name.removesuffix(".mk").replace("table1", "tutorial")]
        assert _tight(text) in map(_tight, manual.examples(page))


def _tight(recipe: str) -> list[str]:
    """The lines without empty ones, and without how far those that go on are moved in."""
    lines = [line.rstrip() for line in recipe.splitlines() if line.strip()]
    on = [False, *(line.endswith("\\") for line in lines)]
    return [line.lstrip() if goes_on else line for line, goes_on in zip(lines, on)]
