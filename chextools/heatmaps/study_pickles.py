"""The study's ID_TASK_map.pkl, one map each: read without executing anything, and written byte for byte the same.

A dict of "map" (tensor [1, 1, H, W] at the network's input), "prob", "task", "gt", "cxr_img" (tensor [3, H, W] in
[0, 1]) and "cxr_dims" (width, height). Reading them needs no torch, and cannot ask for more memory than the file holds.
Tensors are written as torch pickles them in its format of before version 1.6, which any torch reads. torch itself
writes a storage's address in memory into such files, so that no two are alike.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from chextools import tasks
from chextools.errors import InputError
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.plumbing.pickles import read_pickle
from chextools.records.sizes import check_size

SUFFIX = "_map.pkl"
PROTOCOL = 3  # the study's

_KEYS = ("map", "prob", "task", "gt", "cxr_dims")
_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_SYSTEM = {
    "protocol_version": _VERSION,
    "little_endian": sys.byteorder == "little",
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def split_name(path: str | os.PathLike) -> tuple[str, str] | None:
    """(id, task) from the name ID_TASK_map.pkl; None for another name."""
    name = Path(path).name
    if not name.endswith(SUFFIX):
        return None
    identifier, _, task = name[: -len(SUFFIX)].rpartition("_")
    return (identifier, tasks.canonical(task)) if identifier and task else None


def read_study_pickle(path: str | os.PathLike) -> Heatmaps:
    """Read one ID_TASK_map.pkl: the map of one task, with its score and label where it has them."""
    named = split_name(path)
    if named is None:
        raise InputError(f"{path}: the name is not ID_TASK_map.pkl")
    found = read_pickle(path, _KEYS)
    try:
        return _from_study(*named, found)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None


def _from_study(identifier: str, task: str, found: dict[str, Any]) -> Heatmaps:
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
    size = check_size(
        _numbers(dims)[::-1],  # type: ignore[arg-type]  # which it checks
        "cxr_dims, as size,",
    )
    heatmaps = Heatmaps(identifier, size, reference=True)
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


def file_name(identifier: str, task: str) -> str:
    """ID_TASK_map.pkl. Raises InputError for a task that such a name cannot hold."""
    check_task(task)
    return f"{identifier}_{task}{SUFFIX}"


def check_task(task: str) -> None:
    if not task or "_" in task or "/" in task or any(ord(c) < 32 for c in task) or len(task.encode()) > 40:
        raise InputError(f"task {task!r} cannot be in the name of a pickle ID_TASK_map.pkl; use --format npz")


def write_study_pickle(
    stream: BinaryIO,
    heatmap: np.ndarray,
    task: str,
    score: float,
    label: int | None,
    image: np.ndarray,
    size: tuple[int, int],
) -> None:
    """Write one map, float32 [H, W]; image: uint8 [H, W], the network's input; size: (height, width) of the X-ray."""
    gray = image.astype(np.float32) / np.float32(255)
    _Pickler(stream, PROTOCOL).dump(
        {
            "map": _Tensor(heatmap.astype(np.float32)[None, None]),
            "prob": score,
            "task": task,
            "gt": label,
            "cxr_img": _Tensor(np.broadcast_to(gray, (3, *gray.shape))),
            "cxr_dims": (size[1], size[0]),
        }
    )


class _Tensor:
    """A float32 array that is pickled as torch pickles a tensor."""

    def __init__(self, values: np.ndarray):
        self.values = np.ascontiguousarray(values, "<f4")

    def __reduce__(self) -> tuple:
        values = self.values
        strides = tuple(step // values.itemsize for step in values.strides)
        import torch

        hooks: OrderedDict = OrderedDict()
        rebuild = torch._utils._rebuild_tensor_v2  # noqa: SLF001  what pickles of tensors name
        return rebuild, (_Storage(values), 0, values.shape, strides, False, hooks)


class _Storage:
    def __init__(self, values: np.ndarray):
        self.values = values

    def __reduce__(self) -> tuple:
        import torch

        content = io.BytesIO()
        for head in (_MAGIC, _VERSION, _SYSTEM):
            pickle.dump(head, content, 2)
        _Pickler(content, 2).dump(_Kept(self.values.size))
        pickle.dump(["0"], content, 2)
        content.write(self.values.size.to_bytes(8, "little") + self.values.tobytes())
        load = torch.storage._load_from_bytes  # noqa: SLF001  what pickles of tensors name
        return load, (content.getvalue(),)


class _Kept:
    """A storage whose bytes stand after the pickle that names it."""

    def __init__(self, count: int):
        self.count = count


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> tuple | None:
        if not isinstance(value, _Kept):
            return None
        import torch

        return "storage", torch.FloatStorage, "0", "cpu", value.count, None
