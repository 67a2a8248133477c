"""The names of a checkpoint's layers, read from its file without torch, which takes seconds to import."""

from __future__ import annotations

import itertools
import json
import os
import pickletools
import re
import zipfile

MOST_BYTES = 4 << 20  # of the pickle within a checkpoint; a DenseNet-201's is a tenth of that
_PARAMETER = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
_OWN = {"weight", "bias", "running_mean", "running_var"}


def named_in(path: str | os.PathLike) -> list[str]:
    """The modules that have parameters, and those they are parts of, in the network's order.

    path: a checkpoint, or an ensemble.json, of which the first is read. Empty where nothing can be read: this is for
    those who type a name, and they are told what is wrong when they use it.
    """
    try:
        parameters = _parameters(path)
    except (OSError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile, RuntimeError):
        return []
    found: dict[str, None] = {}
    for name in parameters:
        parts = name.split(".")[:-1]
        found.update(dict.fromkeys(itertools.accumulate(parts, "{}.{}".format)))
    return list(found)


def _parameters(path: str | os.PathLike) -> list[str]:
    """The keys of the state dict: the strings of the pickle that look like some, none of which is executed."""
    if os.fspath(path).endswith(".json"):
        with open(path, encoding="utf-8") as stream:
            by_task = json.loads(stream.read(MOST_BYTES))["tasks"]
        first = [*by_task.values()][0][0]
        return _parameters(os.path.join(os.path.dirname(path), first))
    with zipfile.ZipFile(path) as archive:
        member = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(member) as stream:
            content = stream.read(MOST_BYTES)
    strings = (argument for _, argument, _ in pickletools.genops(content) if isinstance(argument, str))
    return [s for s in strings if _PARAMETER.fullmatch(s) and s.rpartition(".")[2] in _OWN]
