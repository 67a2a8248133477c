"""The heatmaps that a record names: a file, or FOLDER#ID for an image in a folder of heatmaps."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from chextools.errors import InputError
from chextools.heatmaps.folders import open_folder
from chextools.heatmaps.heatmaps import Heatmaps, checked_sign
from chextools.heatmaps.npz import read_npz
from chextools.heatmaps.study_pickles import SUFFIX, read_study_pickle


def heatmaps_of(record: dict, tasks: Collection[str] | None = None) -> Heatmaps:
    """The heatmaps that a record names. Raises InputError if they are of another image or size than the record says."""
    if "heatmap" not in record:
        raise InputError('no "heatmap" key')
    if not isinstance(record["heatmap"], str):
        raise InputError('"heatmap" must be a path')
    loaded = open_heatmap(record["heatmap"], tasks)
    if loaded.id != record["id"]:
        raise InputError(f"{record['heatmap']} holds the heatmap of {loaded.id[:200]!r}")
    size = tuple(record.get("size") or loaded.size)
    if size != loaded.size:
        raise InputError(f"the record's size is {list(size)}, but {record['heatmap']} says {list(loaded.size)}")
    if record.get("sign") is not None:
        loaded.chosen_sign = checked_sign(record["sign"])
    return loaded


def open_heatmap(reference: str, tasks: Collection[str] | None = None) -> Heatmaps:
    """What a record's "heatmap" means: a file, or FOLDER#ID for an image in a folder of heatmaps.

    Paths are relative to the working directory. A file whose name holds "#" comes first. A folder is searched once
    per process.
    """
    if not os.path.isfile(reference):
        cuts = [(reference[: at.start()], reference[at.end() :]) for at in re.finditer("#", reference)]
        folders = [(open_folder(folder), identifier) for folder, identifier in cuts if os.path.isdir(folder)]
        for folder, identifier in folders:
            if identifier in folder or len(folders) == 1:
                return folder.read(identifier, tasks)
    return read_study_pickle(reference) if reference.endswith(SUFFIX) else read_npz(reference)
