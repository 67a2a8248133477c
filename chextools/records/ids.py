"""An image's id, from its path."""

from __future__ import annotations

import re
from pathlib import PurePath

_PATIENT = re.compile(r"patient\d+")


def id_of_path(path: str) -> str:
    """An image's id: its path's parts from the first `patientNNN` on, else all of it, joined by `_`, no extension."""
    pure = PurePath(path)
    if pure.name and not pure.suffix[1:].isdigit():  # a DICOM UID such as 1.2.840 has no extension
        pure = pure.with_suffix("")
    parts = [part for part in pure.parts if part not in ("/", ".")]
    start = next((i for i, part in enumerate(parts) if _PATIENT.match(part)), 0)
    return "_".join(parts[start:])
