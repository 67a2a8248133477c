"""Tensors out of any file of torch.save or safetensors, running nothing of it.

A pickled nn.Module, a Lightning checkpoint with callbacks and hyper-parameters of classes of one's own: each class that
is not a tensor's is an inert record of what the pickle says of it. Nothing is imported for it, and nothing called.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from chextools.errors import InputError, LimitError

log = logging.getLogger(__name__)

MAX_FILE = 2**35
MAX_OPCODES = 20_000_000
MAX_DEPTH = 200  # of modules in modules
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "module")
_SAFE_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Inert:
    """An object of a class that is not ours to run: what the pickle says of it, as data."""

    kind = ""
    args: tuple
    state: Any
    items: dict
    members: list

    def __new__(cls, *args: object, **_: object) -> Inert:
        found = object.__new__(cls)
        vars(found).update(args=args, state=None, items={}, members=[])
        return found

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        vars(self)["state"] = state

    def __setitem__(self, key: object, value: object) -> None:
        vars(self)["items"][key if isinstance(key, (str, int)) else repr(type(key))] = value

    def append(self, value: object) -> None:
        vars(self)["members"].append(value)

    def extend(self, values: object) -> None:
        vars(self)["members"].extend(values)

    def add(self, value: object) -> None:
        vars(self)["members"].append(value)


def state_dict(path: str) -> tuple[dict[str, Tensor], str]:
    """(tensors by key, the class of the pickled module or "") of a file.

    Of a checkpoint with several, the network's state dict; of a pickled module, what its state dict would be. Raises
    InputError, in one line, for a file without any.
    """
    value = _read(path)
    found = _state_of(value)
    if not found:
        keys = ", ".join(map(str, list(value)[:5])) if isinstance(value, Mapping) else type(value).__name__
        if isinstance(value, Mapping) and any("numpy" in getattr(each, "kind", "") for each in value.values()):
            raise InputError(f"{path}: holds arrays of numpy: save a state dict of tensors (torch.from_numpy)")
        raise InputError(f"{path}: no state dict in it; it has {keys or 'nothing'}")
    if isinstance(value, Mapping):
        _say_which(path, value, found)
    kind = value.kind if isinstance(value, Inert) else ""
    return {key: tensor.detach() for key, tensor in found.items()}, kind


def _read(path: str) -> Any:
    try:
        if not os.path.isfile(path):
            raise InputError(f"{path}: {'not a regular file' if os.path.exists(path) else 'No such file or directory'}")
        if os.path.getsize(path) > MAX_FILE:
            raise LimitError(f"{path}: more than {MAX_FILE} bytes")
        with open(path, "rb") as stream:
            start = stream.read(9)
        if start[8:9] == b"{":
            return _safetensors(path)
        return _pickled(path, start)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None


def _pickled(path: str, start: bytes) -> Any:
    if start[:4] == b"PK\3\4":
        _check_archive(path)
    else:
        with open(path, "rb") as stream:
            for _ in range(3 if start[:1] == b"\x80" else 0):  # a legacy file: a number, a version, what wrote it
                _check_opcodes(stream, path)
            if start[:1] != b"\x80":
                raise InputError(f"{path}: not a file of torch.save")
            _check_opcodes(stream, path)
    try:
        return torch.load(path, map_location="cpu", pickle_module=_inert_pickle(), weights_only=False)
    except (MemoryError, InputError):
        raise
    except Exception as error:  # a stranger's bytes: torch raises nearly anything
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: not a file of torch.save, or truncated ({said})") from None


def _check_archive(path: str) -> None:
    """Raise InputError for what torch.save would not write: compressed members, a pickle that asks for memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if any(name.endswith("constants.pkl") for name in names):
                raise InputError(
                    f"{path}: a TorchScript archive, which cannot be taken apart; "
                    "import the module it was made of, or its state dict"
                )
            if any(name.endswith((".pt2_archive", "models/model.json", "archive_format")) for name in names):
                raise InputError(f"{path}: a program of torch.export; name it *.pt2")
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise InputError(f"{path}: not as torch.save writes: something in it is compressed")
            for member in members:
                if member.filename.endswith("data.pkl"):
                    _check_opcodes(io.BytesIO(archive.read(member)), path)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError):
        raise InputError(f"{path}: a truncated or damaged file of torch.save") from None


def _check_opcodes(stream: Any, path: str) -> None:
    """Raise InputError for a pickle that is cut off, or would have Python allocate what it does not hold."""
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            large = (
                opcode.name in ("LONG_BINPUT", "PUT") and isinstance(argument, int) and argument > 10 * number + 1000
            )
            if number > MAX_OPCODES or large or opcode.name.startswith("EXT"):
                raise LimitError(f"{path}: a pickle that asks for more memory than it has bytes")
    except InputError:
        raise
    except Exception:  # pickletools raises nearly anything for bytes that are no pickle
        raise InputError(f"{path}: not a file of torch.save, or truncated") from None


_PLAIN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
}
_REBUILT = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")


def _inert_pickle() -> Any:
    """What torch.load takes for Python's pickle module."""
    known: dict[tuple[str, str], Any] = dict(_PLAIN)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module_name: str, global_name: str) -> Any:
            key = (module_name, global_name)
            if key not in known:
                known[key] = _inert(module_name, global_name)
            return known[key]

    def load(stream: Any, **options: Any) -> Any:
        return Unpickler(stream, **options).load()

    return SimpleNamespace(
        __name__="pickle",
        Unpickler=Unpickler,
        load=load,
        loads=lambda data, **options: load(io.BytesIO(data), **options),
        dumps=pickle.dumps,
    )


def _inert(module: str, name: str) -> Callable:
    """What stands for MODULE.NAME in a pickle: a tensor's own, or an inert class."""
    if module == "torch._utils" and name in _REBUILT:
        return getattr(torch._utils, name)  # noqa: SLF001 - what torch's own files name
    if module in ("torch", "torch.cuda", "torch.storage") and name.endswith("Storage"):
        found = getattr(torch, name, None) or getattr(torch.storage, name, None)
        if found is not None:
            return found
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return getattr(torch, name)
    return type(name, (Inert,), {"kind": f"{module}.{name}"})


def _state_of(value: Any, depth: int = 0) -> dict[str, Tensor]:
    """The tensors of a module, or of the first state dict among a checkpoint's values; none where there is none."""
    if depth > 4:
        return {}
    if isinstance(value, Inert):
        state = _attributes(value)
        return dict(_module_tensors(state)) if "_modules" in state else {}
    if not isinstance(value, Mapping):
        return {}
    tensors = {str(key): each for key, each in value.items() if isinstance(each, Tensor)}
    if len(tensors) >= max(len(value) / 2, 2):
        return tensors
    for key in _NESTED:
        if key in value and (found := _state_of(value[key], depth + 1)):
            return found
    for each in value.values():
        if isinstance(each, (Mapping, Inert)) and (found := _state_of(each, depth + 1)):
            return found
    return tensors


def _say_which(path: str, value: Mapping, found: Mapping[str, Tensor]) -> None:
    """Warn of a file with several networks, such as the moving average of one beside it."""
    first = next(iter(found.values()))
    states = {str(key): _state_of(each, 1) for key, each in value.items() if isinstance(each, (Mapping, Inert))}
    taken = [key for key, state in states.items() if any(each is first for each in state.values())]
    others = [key for key, state in states.items() if key not in taken and len(state) >= max(len(found) / 2, 2)]
    if taken and others:
        log.warning(
            "%s: holds several networks: %s is taken, not %s; to import another, save it alone",
            *(path, taken[0], ", ".join(others)),
        )


def _attributes(value: Inert) -> dict:
    state = value.state
    if isinstance(state, tuple):  # with __slots__: (dict, slots)
        state = next((each for each in state if isinstance(each, dict)), {})
    return state if isinstance(state, dict) else {}


def _module_tensors(state: dict, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """What a pickled module's state dict would hold."""
    if depth > MAX_DEPTH:
        raise InputError("a pickled module of modules without end")
    passing = state.get("_non_persistent_buffers_set") or ()
    for part in ("_parameters", "_buffers"):
        for name, tensor in _pairs(state.get(part)):
            if isinstance(tensor, Tensor) and not (part == "_buffers" and name in passing):
                yield prefix + name, tensor
    for name, child in _pairs(state.get("_modules")):
        if isinstance(child, Inert):
            yield from _module_tensors(_attributes(child), f"{prefix}{name}.", depth + 1)


def _pairs(value: Any) -> list[tuple[str, Any]]:
    found = value.items if isinstance(value, Inert) else value
    return [(str(key), each) for key, each in found.items()] if isinstance(found, dict) else []


def _safetensors(path: str) -> dict[str, Tensor]:
    """A file of safetensors: the length of a header in JSON, the header, numbers."""
    with open(path, "rb") as stream:
        data = stream.read()
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise InputError(f"{path}: a truncated safetensors file")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        raise InputError(f"{path}: neither a file of torch.save nor of safetensors") from None
    body, found = memoryview(data)[8 + length :], {}
    for key, about in header.items() if isinstance(header, dict) else ():
        if key == "__metadata__":
            continue
        try:
            dtype, shape, (start, stop) = _SAFE_TYPES[about["dtype"]], about["shape"], about["data_offsets"]
            if not 0 <= start <= stop <= len(body) or math.prod(shape) * dtype.itemsize != stop - start:
                raise ValueError
            found[key] = torch.frombuffer(bytearray(body[start:stop]), dtype=dtype).reshape(shape)
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise InputError(f"{path}: damaged: the tensor {key[:80]!r}") from None
    return found
