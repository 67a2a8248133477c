"""The house: what stands at the top of chextools/, and which way imports go (README, "The house")."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import COMMANDS, ROOT

PACKAGE = ROOT / "chextools"
# From the ground up: a row imports only rows before it; what stands in one row together does not import each other.
ROWS = (
    {"errors", "__init__"},
    {"tasks"},
    {"plumbing"},
    {"records"},
    {"xrays", "masks"},
    {"heatmaps"},
    {"inputs"},
    {"metrics"},
    {"results"},
    {"models"},
    {"saliency"},
    {"probing"},
    {"evaluation", "tuning", "training", "reporting", "viewing", "phantoms"},
    {"comparison"},
    {"commands"},
    {"cli"},
)
MODULE_OF = {"eval": "evaluate", "import": "importing"}  # names that Python keeps for itself
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def module_of(command: str) -> str:
    name = command.removeprefix("chex-")
    return MODULE_OF.get(name, name)


def room_of(path: Path) -> str:
    """The folder or module at the top of chextools/ that a file belongs to; all command modules are one room."""
    name = path.parts[0].removesuffix(".py")
    return "commands" if name in {module_of(command) for command in COMMANDS} else name


def row_of(room: str) -> int:
    found = [number for number, row in enumerate(ROWS) if room in row]
    assert found, f"{room} has no row: give it one in this test and in README"
    return found[0]


def imported(path: Path) -> set[Path]:
    """The files of chextools that a file imports, also inside functions and for types."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {target for name in names if (target := file_of(name)) is not None}
    return found - {path}


def file_of(name: str) -> Path | None:
    """`chextools.masks.runs.areas` to masks/runs.py."""
    parts = name.split(".")
    if parts[0] != "chextools":
        return None
    for count in range(len(parts), 0, -1):
        for path in (
            Path(*parts[1:count]).with_suffix(".py") if count > 1 else None,
            Path(*parts[1:count], "__init__.py"),
        ):
            if path in FILES:
                return path
    return None


def test_the_top_is_a_table_of_contents():
    modules = {path.stem for path in FILES if len(path.parts) == 1}
    assert modules == {"__init__", "errors", "tasks"} | {module_of(command) for command in COMMANDS}


def test_every_shared_module_has_facts_of_its_own():
    """Some test imports it by name, so that what it does is not held through commands alone."""
    shared = {path for path in FILES if len(path.parts) == 2 and path.parts[0] != "cli" and path.stem != "__init__"}
    used = set().union(*(imported(path) for path in (ROOT / "tests").rglob("test_*.py")))
    assert sorted(map(str, shared - used)) == []


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_one_way(path):
    room = room_of(path)
    upward = []
    for target in imported(path):
        other = room_of(target)
        same_room = other == room and room != "commands"
        if not same_room and row_of(other) >= row_of(room):
            upward.append(str(target))
    assert sorted(upward) == []


def test_imports_make_no_circle():
    graph = {path: imported(path) for path in FILES if path.name != "__init__.py"}

    def outside() -> list[Path]:
        """Files that import none of those left, or that none of those left imports: no circle goes through them."""
        targets = set().union(*graph.values())
        return [path for path, own in graph.items() if not own & graph.keys() or path not in targets]

    while found := outside():
        for path in found:
            del graph[path]
    assert {str(path): sorted(map(str, targets & graph.keys())) for path, targets in graph.items()} == {}


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=str)
def test_a_folder_says_what_it_knows(path):
    """An `__init__` is a docstring, but that of the package, which has the version."""
    body = ast.parse((PACKAGE / path).read_text()).body
    assert ast.get_docstring(ast.Module(body, []))
    allowed = (ast.Assign,) if path.parts == ("__init__.py",) else ()
    assert all(isinstance(node, allowed) for node in body[1:])


@pytest.mark.parametrize("path", FILES, ids=str)
def test_click_stays_in_cli_and_so_does_printing(path):
    if room_of(path) == "cli":
        return
    tree = ast.parse((PACKAGE / path).read_text())
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert calls.isdisjoint({"print", "exit", "quit"})
    names = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "click" not in names


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_function_is_called_as_its_module(path):
    tree = ast.parse((PACKAGE / path).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert path.stem not in functions
