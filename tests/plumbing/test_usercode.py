"""FILE.py:NAME: what runs, and errors in one line that name the user's own."""

from __future__ import annotations

import pytest

from chextools.errors import InputError
from chextools.plumbing import usercode


def test_a_function_of_a_file_and_what_it_imports_from_its_folder(tmp_path):
    (tmp_path / "beside_it.py").write_text("FACTOR = 3\n")
    (tmp_path / "mine.py").write_text(
        "from beside_it import FACTOR\ndef times(x, plus=0):\n    return x * FACTOR + plus\n"
    )
    code, call = usercode.load_function(f"{tmp_path}/mine.py:times")
    assert call(2, plus=1) == 7 and code.name == "times" and len(code.sha256) == 64


@pytest.mark.parametrize(
    "text, name, said",
    [
        ("def f(:\n", "f", r"mine.py:1: SyntaxError"),
        ("import nothing_such\n", "f", r"mine.py:1: ModuleNotFoundError: No module named 'nothing_such'"),
        ("a = 1\n", "f", r"mine.py: has no f; it has a"),
        ("f = 1\n", "f", r"mine.py: f is of type int, not a function"),
        ("import sys\nsys.exit(4)\n", "f", r"mine.py:2: SystemExit: 4"),
        ("def f():\n    quit()\n", "f", r"mine.py:2: SystemExit"),
        ("def f(x):\n    pass\n", "f", r"mine.py: TypeError: f\(\) missing 1 required positional argument: 'x'"),
        ("def f():\n    x = 1\n    return x / 0\n", "f", r"mine.py:3: ZeroDivisionError: division by zero"),
    ],
)
def test_errors_are_one_line(tmp_path, text, name, said):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        usercode.load_function(f"{tmp_path}/mine.py:{name}")[1]()
    assert "\n" not in str(caught.value)


def test_what_is_not_a_name_in_a_file():
    assert usercode.is_user_code("a/b.py:build") and not usercode.is_user_code("densenet121")
    with pytest.raises(InputError, match="no such file"):
        usercode.load("nosuch.py:build")
