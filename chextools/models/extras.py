"""Which sources of networks need an optional library: known, and checked, without importing any."""

from __future__ import annotations

import importlib.util
import os

from chextools.errors import InputError, MissingExtra
from chextools.plumbing import usercode

XRV, HF, TIMM = "xrv:", "hf:", "timm/"


def check_source(source: str, arch: str | None, download: bool = False) -> None:
    """Raise InputError for what can be known to be wrong without torch; what is wrong whatever is installed first."""
    if arch is not None and arch.startswith(HF):
        raise InputError(f"{arch}: a folder that holds its weights: it is SOURCE itself, without --arch")
    for text in filter(None, (source, arch)):
        if usercode.is_user_code(text):
            usercode.split(text)
        elif text.endswith(".py"):
            raise InputError(f"{text}: name what builds the network in it: {text}:FUNCTION")
        elif text.startswith(XRV):
            need("torchxrayvision", "xrv", text)
        elif text.startswith(HF):
            if not os.path.isdir(text.removeprefix(HF)):
                raise InputError(f"{text.removeprefix(HF)}: no such folder")
            need("transformers", "hf", text)
        elif text.startswith(TIMM):
            if text == source:
                check_pretrained(text, download)
            need("timm", "timm", text)


def check_pretrained(name: str, download: bool) -> None:
    """Raise InputError where an architecture stands for a source, unless its library's own weights are wanted."""
    if not download:
        raise InputError(
            f"{name} is an architecture: name the file of its weights, with --arch {name}; "
            "--download takes its library's own weights"
        )


def need(package: str, extra: str, what: str) -> None:
    """Raise MissingExtra, naming the extra of setup.py, where a package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(f"{what} needs {package}: pip install 'chextools[{extra}]'")
