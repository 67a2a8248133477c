"""An image's id, from its path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePath

_EXTENSION = re.compile(r"\.(jpe?g|png|dcm|dicom|tiff?|npz|pkl|gz|json)$")
_PATIENT = re.compile(r"patient\d+")


def id_of_path(path: str) -> str:
    """An image's id: its path's parts from the first `patientNNN` on, else all of it, joined by `_`, no extension."""
    pure = PurePath(path)
    if pure.name and not pure.suffix[1:].isdigit():  # a DICOM UID such as 1.2.840 has no extension
        pure = pure.with_suffix("")
    parts = [part for part in pure.parts if part not in ("/", ".")]
    start = next((i for i, part in enumerate(parts) if _PATIENT.match(part)), 0)
    return "_".join(parts[start:])


def near_miss(ids: Iterable[str], known: Iterable[str]) -> str:
    """A suggestion such as ` (is 'a.jpg' meant to be 'a'?)` for the first id that is almost one of those known."""
    by_fold = {_folded(each): each for each in known}
    for each in ids if by_fold else ():
        found = by_fold.get(_folded(each))
        if found is not None and found != each:
            return f" (is {each!r} meant to be {found!r}?)"
    return ""


def _folded(identifier: str) -> str:
    """An id less what people write in more ways than one: case, extension, folders joined by other than `_`."""
    return id_of_path(_EXTENSION.sub("", identifier.casefold().replace("\\", "/"))).replace("-", "_").replace(" ", "_")
