"""What is distributed: an sdist that is a whole checkout, and launchers with the names of the installed scripts."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import tarfile

import pytest
from conftest import COMMANDS, ROOT


def tracked() -> list[str]:
    found = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a checkout")
    return found.stdout.splitlines()


def test_console_scripts_are_the_launchers():
    """What an installation provides and what a checkout provides have the same names."""
    scripts = importlib.metadata.distribution("chextools").entry_points
    assert sorted(script.name for script in scripts) == COMMANDS


def test_visible_top_level_is_fixed():
    visible = {name.split("/")[0] for name in tracked() if not name.startswith(".")}
    assert visible == {"bin", "chextools", "man", "tests", "setup.py", "README.md", "LICENSE"}


def test_an_sdist_holds_all_that_a_checkout_shows(tmp_path):
    names = [name for name in tracked() if not name.startswith(".") or name.startswith(".ci/")]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run([sys.executable, "setup.py", "-q", "sdist"], cwd=tmp_path, check=True, capture_output=True)
    (archive,) = (tmp_path / "dist").iterdir()
    with tarfile.open(archive) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert sorted(set(names) - inside) == []
