"""Writing the study's ID_TASK_map.pkl, byte for byte the same for the same map.

A dict of "map" (tensor [1, 1, H, W] at the network's input), "prob", "task", "gt", "cxr_img" (tensor [3, H, W] in
[0, 1]) and "cxr_dims" (width, height), with tensors as torch pickles them: in its format of before version 1.6, which
any torch reads. torch itself writes a storage's address in memory into such files, so that no two are alike.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from typing import BinaryIO

import numpy as np
import torch

from chextools.errors import InputError

PROTOCOL = 3  # the study's

_MAGIC, _VERSION = 0x1950A86A20F9469CFC6C, 1001
_SYSTEM = {
    "protocol_version": _VERSION,
    "little_endian": sys.byteorder == "little",
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def file_name(identifier: str, task: str) -> str:
    """ID_TASK_map.pkl. Raises InputError for a task that such a name cannot hold."""
    check_task(task)
    return f"{identifier}_{task}_map.pkl"


def check_task(task: str) -> None:
    if not task or "_" in task or "/" in task or any(ord(c) < 32 for c in task) or len(task.encode()) > 40:
        raise InputError(f"task {task!r} cannot be in the name of a pickle ID_TASK_map.pkl; use --format npz")


def write(
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
        arguments = (_Storage(values), 0, values.shape, strides, False, OrderedDict())
        return torch._utils._rebuild_tensor_v2, arguments


class _Storage:
    def __init__(self, values: np.ndarray):
        self.values = values

    def __reduce__(self) -> tuple:
        content = io.BytesIO()
        for head in (_MAGIC, _VERSION, _SYSTEM):
            pickle.dump(head, content, 2)
        _Pickler(content, 2).dump(_Kept(self.values.size))
        pickle.dump(["0"], content, 2)
        content.write(self.values.size.to_bytes(8, "little") + self.values.tobytes())
        return torch.storage._load_from_bytes, (content.getvalue(),)


class _Kept:
    """A storage whose bytes stand after the pickle that names it."""

    def __init__(self, count: int):
        self.count = count


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> tuple | None:
        return ("storage", torch.FloatStorage, "0", "cpu", value.count, None) if isinstance(value, _Kept) else None
