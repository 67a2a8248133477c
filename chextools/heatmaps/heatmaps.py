"""Heatmaps of one image: our .npz files, the study's pickles, folders of either.

Both are read without executing anything, and neither can ask for more memory than its file holds.
"""

from __future__ import annotations

import functools
import io
import math
import os
import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from chextools import tasks
from chextools.errors import InputError, LimitError
from chextools.heatmaps.binarize import SIGNS
from chextools.masks.masks import check_size
from chextools.plumbing.files import walk
from chextools.plumbing.pickles import Member, read_bytes, read_pickle, zip_members

MAX_MAPS = 2**26  # bytes of all maps in an npz, unpacked: 26 maps of 800 x 800
MAX_OTHER = 2**20  # bytes of any other array in it
NOT_FINITE = "the map holds NaN or infinity"
NOT_COMPLETE = "the map does not sum to the change in logit: its completeness delta is {:.3g}"

_PICKLE = "_map.pkl"
_STUDY_KEYS = ("map", "prob", "task", "gt", "cxr_dims")


@dataclass(slots=True)
class Heatmaps:
    """The heatmaps of one image, raw and signed.

    size: (height, width) in pixels of the original image.
    maps: task -> float32 [h, w], finite.
    scores: task -> probability in [0, 1].
    labels: task -> 1 positive, 0 negative, -1 uncertain.
    input_size: (height, width) of the network's input, to which a map is first upsampled; None in the study's
        pickles, whose maps have been.
    model: sha256 of the checkpoints.
    failed: task -> why it has no map.
    flags: task -> "flat" where the whole map has one value.
    reference: whether this comes from the study's pickles.
    delta: task -> how far a map's sum is from the change in logit that it explains, of methods where that is 0.
    chosen_sign: which evidence counts (`binarize.SIGNS`) as chex-cam was told; None where it was not.
    """

    id: str
    size: tuple[int, int]
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    input_size: tuple[int, int] | None = None
    method: str | None = None
    model: str | None = None
    failed: dict[str, str] = field(default_factory=dict)
    flags: dict[str, str] = field(default_factory=dict)
    reference: bool = False
    delta: dict[str, float] = field(default_factory=dict)
    chosen_sign: str | None = None

    @property
    def sign(self) -> str:
        """Which evidence counts unless the user says otherwise (`binarize.SIGNS`): all of it in the study's pickles."""
        return self.chosen_sign or ("raw" if self.reference else "positive")

    def add(self, task: str, heatmap: np.ndarray) -> None:
        """Take a map [h, w] of floats: into `maps`, or into `failed` if it has values that are not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            heatmap = np.array(heatmap, np.float32, order="C")
        lowest, highest = heatmap.min(), heatmap.max()
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            known = math.isfinite(self.delta.get(task, math.nan))
            self.failed[task] = NOT_COMPLETE.format(self.delta[task]) if known else NOT_FINITE
            return
        self.maps[task] = heatmap
        if lowest == highest:
            self.flags[task] = "flat"


# Our npz


def write_npz(target: str | os.PathLike | BinaryIO, heatmaps: Heatmaps) -> None:
    """Write heatmaps, all of one shape, as npz to a path or binary file; equal heatmaps give equal bytes."""
    shapes = {heatmap.shape for heatmap in heatmaps.maps.values()}
    if len(shapes) != 1:
        raise InputError(f"{heatmaps.id}: an npz holds one or more maps of one shape, not {len(shapes)} shapes")
    if heatmaps.input_size is None:
        raise InputError(f"{heatmaps.id}: an npz needs the size of the network's input")
    arrays = {
        "maps": np.stack(list(heatmaps.maps.values())).astype("<f4"),
        "tasks": np.array(list(heatmaps.maps)),
        "input_size": np.array(heatmaps.input_size, "<i8"),
        "id": np.array(heatmaps.id),
        "size": np.array(heatmaps.size, "<i8"),
        "scores": np.array([heatmaps.scores.get(task, math.nan) for task in heatmaps.maps], "<f8"),
        "method": np.array(heatmaps.method or ""),
        "model": np.array(heatmaps.model or ""),
    }
    if heatmaps.delta:
        arrays["delta"] = np.array([heatmaps.delta.get(task, math.nan) for task in heatmaps.maps], "<f8")
    if heatmaps.chosen_sign:
        arrays["sign"] = np.array(heatmaps.chosen_sign)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # numpy.savez would write the time of day
            member.create_system, member.external_attr = 3, 0o644 << 16
            packed = io.BytesIO()
            np.lib.format.write_array(packed, array, version=(1, 0), allow_pickle=False)
            archive.writestr(member, packed.getvalue())
    if hasattr(target, "write"):
        target.write(content.getvalue())
    else:
        Path(target).write_bytes(content.getvalue())


def read_npz(path: str | os.PathLike) -> Heatmaps:
    """Read what write_npz writes; also compressed, and with maps of float16 or float64."""
    try:
        return _read_npz(memoryview(read_bytes(path)))
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None


def _read_npz(data: memoryview) -> Heatmaps:
    if bytes(data[:2]) != b"PK":
        raise InputError("not an npz")
    members = zip_members(data)

    def array(name: str, kinds: str, ndim: int, default: Any = None) -> Any:
        member = members.get(f"{name}.npy")
        if member is None:
            if default is None:
                raise InputError(f"no {name!r}, which an npz of heatmaps has")
            return default
        found = _npy(name, member)
        if found.ndim != ndim or found.dtype.kind not in kinds:
            raise InputError(f"{name} is {found.dtype.name} {list(found.shape)}, which is not what heatmaps have")
        return found

    def strings(name: str, ndim: int, default: str | None = None) -> Any:
        found = array(name, "U", ndim, None if default is None else np.array(default))
        if (found.ravel().view(np.uint32) > sys.maxunicode).any():
            raise InputError(f"{name} holds no text")
        return found.tolist()

    maps, names = array("maps", "f", 3), [tasks.canonical(name) for name in strings("tasks", 1)]
    scores, delta = (array(name, "f", 1, np.full(len(names), math.nan)) for name in ("scores", "delta"))
    if not maps.size:
        raise InputError("the maps are empty")
    if not len(maps) == len(names) == len(scores):
        raise InputError(f"{len(maps)} maps, {len(names)} tasks and {len(scores)} scores")
    if len(delta) != len(maps):
        raise InputError(f"{len(maps)} maps and {len(delta)} deltas")
    for name, times in Counter(names).items():
        if times > 1:
            raise InputError(f"two maps of {name}")
    heatmaps = Heatmaps(
        id=strings("id", 0),
        size=check_size(array("size", "iu", 1).tolist()),
        scores={name: float(score) for name, score in zip(names, scores) if math.isfinite(score)},
        input_size=check_size(array("input_size", "iu", 1).tolist(), "input_size"),
        method=strings("method", 0, "") or None,
        model=strings("model", 0, "") or None,
        delta={name: float(value) for name, value in zip(names, delta) if math.isfinite(value)},
        chosen_sign=strings("sign", 0, "") or None,
    )
    if heatmaps.chosen_sign is not None:
        checked_sign(heatmaps.chosen_sign)
    for name, heatmap in zip(names, maps):
        heatmaps.add(name, heatmap)
    return heatmaps


# What numpy writes before an array: nothing else is needed, and nothing is evaluated.
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)"
    rb"\{'descr': '(?P<dtype>[<|](?:f[248]|[iu][1248]|U[1-9]\d{0,5}))', 'fortran_order': (?P<fortran>False|True), "
    rb"'shape': \((?P<shape>|\d{1,9},|\d{1,9}(?:, \d{1,9}){1,3})\), \} *\n",
    re.DOTALL,
)


def _npy(name: str, member: Member) -> np.ndarray:
    """The array in a member of an npz, whose size is checked before it is unpacked."""
    limit = min(MAX_MAPS if name == "maps" else MAX_OTHER, 1032 * len(member.data))  # deflate's best is 1 to 1032
    if member.size > limit:
        raise LimitError(f"zip bomb: {name} claims {member.size} bytes, packed in {len(member.data)}")
    content = member.data
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            content = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1))
        except zlib.error:
            raise InputError(f"damaged: {name} cannot be unpacked") from None
    elif member.method != zipfile.ZIP_STORED:
        raise InputError(f"{name} is compressed in a way that numpy does not use")
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise InputError(f"damaged: {name} is not what its checksum says")
    head = _NPY.match(content)
    if not head or head.end() != 10 + int.from_bytes(head["length"], "little"):
        raise InputError(f"{name} is not an array of numbers or text as numpy writes it")
    dtype = np.dtype(head["dtype"].decode())
    shape = tuple(int(n) for n in re.findall(rb"\d+", head["shape"]))
    if math.prod(shape) * dtype.itemsize != len(content) - head.end():
        raise InputError(f"damaged: {name} says {list(shape)} of {dtype.name} in {len(content) - head.end()} bytes")
    return np.ndarray(shape, dtype, content, head.end(), order="F" if head["fortran"] == b"True" else "C")


# The study's pickles


def split_name(path: str | os.PathLike) -> tuple[str, str] | None:
    """(id, task) from the name ID_TASK_map.pkl; None for another name."""
    name = Path(path).name
    if not name.endswith(_PICKLE):
        return None
    id, _, task = name[: -len(_PICKLE)].rpartition("_")
    return (id, tasks.canonical(task)) if id and task else None


def read_study_pickle(path: str | os.PathLike) -> Heatmaps:
    """Read one ID_TASK_map.pkl: the map of one task, with its score and label where it has them."""
    named = split_name(path)
    if named is None:
        raise InputError(f"{path}: the name is not ID_TASK_map.pkl")
    found = read_pickle(path, _STUDY_KEYS)
    try:
        return _from_study(*named, found)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None


def _from_study(id: str, task: str, found: dict[str, Any]) -> Heatmaps:
    for key in ("map", "cxr_dims"):
        if key not in found:
            raise InputError(f"no {key!r}, which the study's pickles have")
    says = found.get("task", task)
    if type(says) is not str or tasks.canonical(says) != task:
        raise InputError(f"its task is {str(says)[:40]!r}, but its name says {task!r}")
    heatmap, dims = found["map"], found["cxr_dims"]
    if not isinstance(heatmap, np.ndarray) or heatmap.dtype.kind != "f":
        raise InputError("the map is not a tensor or array of floats")
    shape = heatmap.shape[-2:]
    if len(shape) < 2 or not heatmap.size or heatmap.size != math.prod(shape):
        raise InputError(f"the map is {list(heatmap.shape)}, not one map of [height, width]")
    if len(_numbers(dims)) != 2:
        raise InputError("cxr_dims is not [width, height] in pixels")
    size = check_size(_numbers(dims)[::-1], "cxr_dims, as size,")
    heatmaps = Heatmaps(id, size, reference=True)
    heatmaps.add(task, heatmap.reshape(shape))
    score, label = _score(found.get("prob"), task), _numbers(found.get("gt"))
    if score is not None:
        heatmaps.scores[task] = score
    if len(label) == 1 and label[0] in (-1, 0, 1):
        heatmaps.labels[task] = int(label[0])
    return heatmaps


def _score(prob: Any, task: str) -> float | None:
    """The task's own score, of one number or of the study's 14; None where there is none or it is not finite."""
    scores = _numbers(prob)
    if len(scores) == len(tasks.STUDY_SCORES) and task in tasks.STUDY_SCORES:
        scores = [scores[tasks.STUDY_SCORES.index(task)]]
    if len(scores) > 1:
        raise InputError(f"prob has {len(scores)} numbers, not one for the task nor one for each of the study's 14")
    return float(scores[0]) if scores and math.isfinite(scores[0]) else None


def _numbers(value: Any) -> list[int | float]:
    """The numbers in a number, an array, or a list or tuple of numbers and one-element arrays; else none."""
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.size <= len(tasks.STUDY_SCORES) else []
    if isinstance(value, (list, tuple)) and len(value) <= len(tasks.STUDY_SCORES):
        items = [_numbers(item) for item in value if not isinstance(item, (list, tuple))]
        return [item[0] for item in items if len(item) == 1] if len(items) == len(value) else []
    return [value] if isinstance(value, (int, float)) else []


# Folders


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

    def __contains__(self, id: object) -> bool:
        return id in self.files

    @property
    def ids(self) -> list[str]:
        return list(self.files)

    def reference(self, id: str) -> str:
        """What a record's "heatmap" holds to name this image's heatmaps; `open_heatmap` reads it."""
        return str(*self.files[id].values()) if self.kind == "npz" else f"{self.path}#{id}"

    def read(self, id: str, tasks: Collection[str] | None = None) -> Heatmaps:
        """The heatmaps of an image. Of pickles, those that cannot be used are in `failed`, unless that is all.

        tasks: what is needed, if not everything: other pickles are not opened where there are some of these.
        """
        if id not in self.files:
            raise InputError(f"{self.path}: no heatmaps of {id}")
        if self.kind == "npz":
            (path,) = self.files[id].values()
            heatmaps = read_npz(path)
            if heatmaps.id != id:
                raise InputError(f"{path}: holds the heatmaps of {heatmaps.id[:200]!r}, which its name does not say")
            return heatmaps
        paths = self.files[id]
        return _merged(id, {task: path for task, path in paths.items() if task in (tasks or ())} or paths)


def _merged(id: str, paths: dict[str, Path]) -> Heatmaps:
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
    merged = Heatmaps(id, size, failed=failed, reference=True)
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
            kind, (id, task) = "pickle", named
        elif file.suffix == ".npz" and file.stem:
            kind, id, task = "npz", file.stem, ""
        else:
            continue
        paths = found[kind].setdefault(id, {})
        if task in paths:
            what = f"{id}, {task}" if task else id
            raise InputError(f"{file}: a second file for {what}, beside {paths[task]}")
        paths[task] = file
    if found["npz"]:
        found["pickle"] = {id: paths for id, paths in found["pickle"].items() if id not in found["npz"]}
    if not any(found.values()):
        raise InputError(f"{root}: no heatmaps (*.npz or ID_TASK{_PICKLE}) in folder")
    if all(found.values()):
        one, other = (next(iter(next(iter(files.values())).values())) for files in found.values())
        raise InputError(f"{root}: a folder of both npz and pickles: {one} and {other}")
    kind = "npz" if found["npz"] else "pickle"
    files = {id: dict(sorted(paths.items())) for id, paths in sorted(found[kind].items())}
    return HeatmapFolder(root, kind, files)


# One heatmap of a record


@functools.lru_cache(maxsize=8)
def _indexed(path: str, absolute: str) -> HeatmapFolder:
    return index_folder(path)


def open_folder(path: str) -> HeatmapFolder:
    """`index_folder`, done once per process."""
    return _indexed(path, os.path.abspath(path))


def of_record(record: dict, tasks: Collection[str] | None = None) -> Heatmaps:
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


def checked_sign(sign: object) -> str:
    """A sign that a stranger has written. Raises InputError for one that there is not."""
    if sign not in SIGNS:
        raise InputError(f'"sign" is {str(sign)[:40]!r}, not one of {", ".join(SIGNS)}')
    return sign


def open_heatmap(reference: str, tasks: Collection[str] | None = None) -> Heatmaps:
    """What a record's "heatmap" means: a file, or FOLDER#ID for an image in a folder of heatmaps.

    Paths are relative to the working directory. A file whose name holds "#" comes first. A folder is searched once
    per process.
    """
    if not os.path.isfile(reference):
        cuts = [(reference[: hash.start()], reference[hash.end() :]) for hash in re.finditer("#", reference)]
        folders = [(open_folder(folder), id) for folder, id in cuts if os.path.isdir(folder)]
        for folder, id in folders:
            if id in folder or len(folders) == 1:
                return folder.read(id, tasks)
    return read_study_pickle(reference) if reference.endswith(_PICKLE) else read_npz(reference)
