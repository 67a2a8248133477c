"""Which sources of networks need an optional library: known, and checked, without importing any."""

from __future__ import annotations

import importlib.util
import os

from chextools.errors import InputError, MissingExtra
from chextools.plumbing import usercode

XRV, HF, TIMM = "xrv:", "hf:", "timm/"


def check_source(source: str, arch: str | None) -> None:
    """Raise InputError for what can be known to be wrong without torch."""
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
            need("transformers", "hf", text)
            if not os.path.isdir(text.removeprefix(HF)):
                raise InputError(f"{text.removeprefix(HF)}: no such folder")
        elif text.startswith(TIMM):
            need("timm", "timm", text)


def need(package: str, extra: str, what: str) -> None:
    """Raise MissingExtra, naming the extra of setup.py, where a package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(f"{what} needs {package}: pip install 'chextools[{extra}]'")
