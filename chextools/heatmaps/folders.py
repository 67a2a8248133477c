"""Folders of heatmaps: files found by name, and read when asked for."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from chextools.errors import InputError
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import read_npz
from chextools.heatmaps.study_pickles import SUFFIX, read_study_pickle, split_name
from chextools.plumbing.files import walk


class HeatmapFolder:
    """The heatmaps under a folder, found by name and read when asked for.

    kind: "npz" or "pickle".
    files: id -> task -> file, sorted by id and task; of an npz, whose tasks only reading tells, "" -> file.
    """

    __slots__ = ("files", "kind", "path")

    def __init__(self, path: Path, kind: str, files: dict[str, dict[str, Path]]):
        self.path, self.kind, self.files = path, kind, files

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __contains__(self, identifier: object) -> bool:
        return identifier in self.files

    @property
    def ids(self) -> list[str]:
        return list(self.files)

    def reference(self, identifier: str) -> str:
        """What a record's "heatmap" holds to name this image's heatmaps; `open_heatmap` reads it."""
        return str(*self.files[identifier].values()) if self.kind == "npz" else f"{self.path}#{identifier}"

    def read(self, identifier: str, tasks: Collection[str] | None = None) -> Heatmaps:
        """The heatmaps of an image. Of pickles, those that cannot be used are in `failed`, unless that is all.

        tasks: what is needed, if not everything: other pickles are not opened where there are some of these.
        """
        if identifier not in self.files:
            raise InputError(f"{self.path}: no heatmaps of {identifier}")
        if self.kind == "npz":
            (path,) = self.files[identifier].values()
            heatmaps = read_npz(path)
            if heatmaps.id != identifier:
                raise InputError(f"{path}: holds the heatmaps of {heatmaps.id[:200]!r}, which its name does not say")
            return heatmaps
        paths = self.files[identifier]
        return _merged(identifier, {task: path for task, path in paths.items() if task in (tasks or ())} or paths)


def _merged(identifier: str, paths: dict[str, Path]) -> Heatmaps:
    """The heatmaps of one image from its pickles. The size that most of them give is the image's."""
    single, failed = {}, {}
    for task, path in paths.items():
        try:
            single[task] = read_study_pickle(path)
        except InputError as error:
            failed[task] = str(error)
    if not single:
        raise InputError(next(iter(failed.values())))
    (size, _), *_ = Counter(each.size for each in single.values()).most_common(1)
    merged = Heatmaps(identifier, size, failed=failed, reference=True)
    for task, each in single.items():
        if each.size != size:
            said = "{} x {}".format(*each.size)
            merged.failed[task] = f"{paths[task]}: size {said}, but the image's others say {size[0]} x {size[1]}"
            continue
        for part in ("maps", "scores", "labels", "failed", "flags"):
            getattr(merged, part).update(getattr(each, part))
    return merged


def index_folder(path: str | os.PathLike) -> HeatmapFolder:
    """Find the heatmaps in a folder and its subfolders; names that start with "." or "_tmp" do not count.

    Pickles of an image that has an npz are copies of it, from chex-cam --format pickles, and do not count. InputError
    if there are none, npz of some images and pickles of others, or two for one image and task.
    """
    root = Path(path)
    found: dict[str, dict[str, dict[str, Path]]] = {"npz": {}, "pickle": {}}
    for file in walk(root):
        named = split_name(file)
        if named:
            kind, (identifier, task) = "pickle", named
        elif file.suffix == ".npz" and file.stem:
            kind, identifier, task = "npz", file.stem, ""
        else:
            continue
        paths = found[kind].setdefault(identifier, {})
        if task in paths:
            what = f"{identifier}, {task}" if task else identifier
            raise InputError(f"{file}: a second file for {what}, beside {paths[task]}")
        paths[task] = file
    if found["npz"]:
        found["pickle"] = {name: paths for name, paths in found["pickle"].items() if name not in found["npz"]}
    if not any(found.values()):
        raise InputError(f"{root}: no heatmaps (*.npz or ID_TASK{SUFFIX}) in folder")
    if all(found.values()):
        one, other = (next(iter(next(iter(files.values())).values())) for files in found.values())
        raise InputError(f"{root}: a folder of both npz and pickles: {one} and {other}")
    kind = "npz" if found["npz"] else "pickle"
    files = {name: dict(sorted(paths.items())) for name, paths in sorted(found[kind].items())}
    return HeatmapFolder(root, kind, files)


@functools.lru_cache(maxsize=8)
def _indexed(path: str, _absolute: str) -> HeatmapFolder:
    return index_folder(path)


def open_folder(path: str) -> HeatmapFolder:
    """`index_folder`, done once per process."""
    return _indexed(path, os.path.abspath(path))
