"""FILE.py:NAME: a user's own code, run because the user named it, its errors in one line with file and line."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chextools.errors import InputError

_ran: list[str] = []  # files

_SPEC = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class UserCode:
    """What `load` found: value is what NAME is, path the file, sha256 of its bytes."""

    spec: str
    path: str
    name: str
    value: Any
    sha256: str

    def call(self, *args: object, **kwargs: object) -> Any:
        """NAME(...). Raises InputError, naming the user's line, for whatever it raises."""
        with _in_one_line(self.path):
            return self.value(*args, **kwargs)


def is_user_code(text: str) -> bool:
    """Whether a text is FILE.py:NAME."""
    return _SPEC.fullmatch(text) is not None


def has_run() -> bool:
    """Whether any such code has been run in this process."""
    return bool(_ran)


def split(text: str) -> tuple[str, str]:
    """(file, name). Raises InputError unless the text is FILE.py:NAME and the file is there."""
    found = _SPEC.fullmatch(text)
    if found is None:
        raise InputError(f"{text}: expected FILE.py:NAME")
    if not os.path.isfile(found[1]):
        raise InputError(f"{found[1]}: no such file")
    return found[1], found[2]


def load(text: str) -> UserCode:
    """Run FILE.py and give what NAME in it is. Its folder can be imported from, as where `python FILE.py` runs.

    Raises InputError in one line for a file that does not run, and a name that it does not have.
    """
    path, name = split(text)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    folder = os.path.dirname(os.path.abspath(path))
    if folder not in sys.path:
        sys.path.append(folder)
    module_name = Path(path).stem
    if module_name in sys.modules and getattr(sys.modules[module_name], "__file__", None) != os.path.abspath(path):
        module_name = f"user_{hashlib.sha256(content).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, os.path.abspath(path))
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    _ran.append(path)
    sys.modules[module_name] = module  # as for any import: dataclasses and pickles look there
    with _in_one_line(path):
        spec.loader.exec_module(module)
    if not hasattr(module, name):
        known = [each for each in vars(module) if not each.startswith("_")]
        raise InputError(f"{path}: has no {name}; it has {', '.join(known[:10]) or 'nothing'}")
    return UserCode(text, path, name, getattr(module, name), hashlib.sha256(content).hexdigest())


def load_function(text: str) -> tuple[UserCode, Callable]:
    """The same where NAME must be something to call."""
    found = load(text)
    if not callable(found.value):
        raise InputError(f"{found.path}: {found.name} is of type {type(found.value).__name__}, not a function")
    return found, found.call


@contextmanager
def _in_one_line(path: str) -> Iterator[None]:
    try:
        yield
    except (InputError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # a stranger's code raises anything
        raise InputError(one_line(error, path)) from None


def one_line(error: BaseException, path: str) -> str:
    """FILE:LINE: what went wrong, at the last line of the user's file that took part; FILE where none did."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if os.path.abspath(frame.filename) == os.path.abspath(path):
            line = frame.lineno
    said = " ".join(str(getattr(error, "msg", None) or error).split())[:300]
    return f"{path}{f':{line}' if line else ''}: {type(error).__name__}{': ' if said else ''}{said}"
