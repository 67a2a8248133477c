"""Our file of the heatmaps of one image: an npz that is complete in itself, read without executing anything.

It cannot ask for more memory than its bytes hold.
"""

from __future__ import annotations

import functools
import io
import math
import os
import re
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from chextools import tasks
from chextools.errors import InputError, LimitError
from chextools.heatmaps.heatmaps import Heatmaps, checked_sign
from chextools.plumbing.zips import DEFLATED, MAX_FILE, STORED, Member, read_bytes, zip_members
from chextools.records.sizes import MAX_INPUT, check_size

MAX_MAPS = 2**26  # bytes of all maps in an npz that are unpacked: 26 maps of 800 x 800
MAX_OTHER = 2**20  # bytes of any other array in it


def write_npz(target: str | os.PathLike | BinaryIO, heatmaps: Heatmaps) -> None:
    """Write heatmaps, all of one shape, as npz to a path or binary file; equal heatmaps give equal bytes."""
    shapes = {heatmap.shape for heatmap in heatmaps.maps.values()}
    if len(shapes) != 1:
        raise InputError(f"{heatmaps.id}: an npz holds one or more maps of one shape, not {len(shapes)} shapes")
    if heatmaps.input_size is None:
        raise InputError(f"{heatmaps.id}: an npz needs the size of the network's input")
    maps = np.stack(list(heatmaps.maps.values())).astype("<f4")
    if maps.nbytes > MAX_FILE - MAX_OTHER:
        raise LimitError(f"{heatmaps.id}: {maps.nbytes} bytes of heatmaps are more than a file may have: fewer --task")
    arrays = {
        "maps": maps,
        "tasks": np.array(list(heatmaps.maps)),
        "input_size": np.array(check_size(heatmaps.input_size, "input_size", MAX_INPUT), "<i8"),
        "id": np.array(heatmaps.id),
        "size": np.array(heatmaps.size, "<i8"),
        "scores": np.array([heatmaps.scores.get(task, math.nan) for task in heatmaps.maps], "<f8"),
        "method": np.array(heatmaps.method or ""),
        "model": np.array(heatmaps.model or ""),
    }
    for name, values in (("delta", heatmaps.delta), ("absorbed", heatmaps.absorbed)):
        if values:
            arrays[name] = np.array([values.get(task, math.nan) for task in heatmaps.maps], "<f8")
    if heatmaps.chosen_sign:
        arrays["sign"] = np.array(heatmaps.chosen_sign)
    import zipfile  # here, as most commands read only

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # numpy.savez would write the time of day
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, _npy_head(array.dtype, array.shape) + array.tobytes())
    if hasattr(target, "write"):
        target.write(content.getvalue())
    else:
        Path(target).write_bytes(content.getvalue())


@functools.lru_cache(256)
def _npy_head(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What numpy writes before an array; a folder of heatmaps has few kinds."""
    head = io.BytesIO()
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, about)
    return head.getvalue()


def read_npz(path: str | os.PathLike) -> Heatmaps:
    """Read what write_npz writes; also compressed, and with maps of float16 or float64."""
    try:
        return _read_npz(read_bytes(path))
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
    unknown = np.full(len(names), math.nan)
    scores, delta, absorbed = (array(name, "f", 1, unknown) for name in ("scores", "delta", "absorbed"))
    if not maps.size:
        raise InputError("the maps are empty")
    if not len(maps) == len(names) == len(scores):
        raise InputError(f"{len(maps)} maps, {len(names)} tasks and {len(scores)} scores")
    if not len(delta) == len(absorbed) == len(maps):
        raise InputError(f"{len(maps)} maps and {len(delta)} deltas")
    for name, times in Counter(names).items():
        if times > 1:
            raise InputError(f"two maps of {name}")
    heatmaps = Heatmaps(
        id=strings("id", 0),
        size=check_size(array("size", "iu", 1).tolist()),
        scores={name: float(score) for name, score in zip(names, scores) if math.isfinite(score)},
        input_size=check_size(array("input_size", "iu", 1).tolist(), "input_size", MAX_INPUT),
        method=strings("method", 0, "") or None,
        model=strings("model", 0, "") or None,
        delta={name: float(value) for name, value in zip(names, delta) if math.isfinite(value)},
        absorbed={name: float(value) for name, value in zip(names, absorbed) if math.isfinite(value)},
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
    most = MAX_OTHER if name != "maps" else MAX_FILE if member.method == STORED else MAX_MAPS
    limit = min(most, 1032 * len(member.data))  # deflate's best is 1 to 1032
    if member.size > limit:
        raise LimitError(f"zip bomb: {name} claims {member.size} bytes, packed in {len(member.data)}")
    content = member.data
    if member.method == DEFLATED:
        try:
            content = memoryview(zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, member.size + 1))
        except zlib.error:
            raise InputError(f"damaged: {name} cannot be unpacked") from None
    elif member.method != STORED:
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
