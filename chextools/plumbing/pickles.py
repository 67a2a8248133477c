"""Read dicts of tensors from pickles and torch files, without torch and without executing anything.

A pickle is a program for a small stack machine, and pickle.load lets that program call any function. The machine here
knows only the opcodes and functions of which tensors, arrays, numbers and strings are made (as Python's pickletools
and torch's serialization.py describe them) and refuses everything else by name. Bytes are never copied, and not
read before they are needed: a tensor is a description of a part of the file until someone asks for its key (three
quarters of the study's pickles are an X-ray, for which hardly anybody does). What a file can cost is bounded by its
size: no length is used before it is compared with what is left of the file.

Four forms are read, each in protocols 2 to 5, little-endian only: a plain pickle, whose tensors hold the bytes of a
small torch file each (as the study wrote its heatmaps), and what torch.save writes, as zip archive and as legacy file.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

import numpy as np

from chextools.errors import InputError, LimitError
from chextools.plumbing.zips import Content, in_ascii, opened, zip_members

MAX_OPCODES = 200_000  # the study's pickles have 250; each may make an object of up to about 100 bytes
MAX_DEPTH = 32  # of lists, tuples and dicts in a value
MAX_DIMENSIONS = 16
_AHEAD = 2**14  # bytes that are read at once, unless more are asked for
ONLY = "only tensors, arrays, numbers and strings are read"


def read_pickle(path: str | os.PathLike, keys: Iterable[str]) -> dict[str, Any]:
    """The values under those of `keys` that the pickled dict in the file has.

    Values are None, bool, int, float, str, lists, tuples and dicts of them, and for tensors and arrays numpy arrays
    (read-only views of the file's bytes, which stay in memory with them; bfloat16 becomes float32). Of the rest of the
    file the pickle is checked, but nothing is built, nor are the bytes of tensors read. InputError, with the path and
    one reason, for any file that is not such a pickle.
    """
    try:
        with opened(path) as content:
            size = len(content.memory)
            found = _load(content.memory, _Budget(size), content)
            if type(found) is not dict:
                raise InputError("the pickle holds no dict")
            budget = _Budget(size)
            return {key: _value(found[key], budget) for key in keys if key in found}
    except InputError as error:
        raise type(error)(f"{path}: {error}") from None


# What the machine makes in place of tensors and arrays


class _Budget:
    """What is left to a file of `size` bytes: of opcodes, and of bytes to unpack or go through again."""

    __slots__ = ("bytes", "steps")

    def __init__(self, size: int):
        self.steps = MAX_OPCODES
        self.bytes = 4 * size

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise LimitError(f"refused: more than {MAX_OPCODES} values or opcodes")

    def spend(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise LimitError("refused: the pickle unpacks to many times its size")


class _Bytes:
    """Bytes in the file, read when somebody asks for them; or elsewhere, where there is no `content`."""

    __slots__ = ("content", "data", "start")

    def __init__(self, data: memoryview, content: Content | None = None, start: int = 0):
        self.data, self.content, self.start = data, content, start

    def read(self) -> memoryview:
        if self.content:
            self.data = self.content.read(self.start, self.start + len(self.data))
            self.content = None
        return self.data


class _Nested:
    """A torch file in the pickle, not opened before somebody asks for what it holds."""

    __slots__ = ("content", "found", "is_open")

    def __init__(self, content: _Bytes):
        self.content, self.is_open = content, False

    def opened(self, budget: _Budget) -> Any:
        if not self.is_open:
            budget.spend(len(self.content.data))
            self.found, self.is_open = _load(self.content.read(), budget, nested=True), True
        return self.found


class _Storage:
    """A run of numbers in the file; a torch file gives its bytes after all its pickles."""

    __slots__ = ("count", "data", "type")

    def __init__(self, kind: str, count: int):
        self.type, self.count = kind, count
        self.data: memoryview = memoryview(b"")

    @property
    def nbytes(self) -> int:
        return self.count * _ITEM[self.type].itemsize


class _Tensor(NamedTuple):
    """torch's tensor: `offset` and `stride` count items of the storage."""

    storage: _Storage | _Nested
    type: str | None  # None: the storage's
    offset: int
    size: tuple
    stride: tuple

    def array(self, budget: _Budget) -> np.ndarray:
        storage = self.storage.opened(budget) if isinstance(self.storage, _Nested) else self.storage
        if type(storage) is not _Storage:
            raise InputError("damaged: a tensor without storage, size and stride")
        kind = self.type or storage.type
        data, item = storage.data, _ITEM[kind]
        lengths = (self.offset, *self.size, *self.stride)
        if len(self.size) != len(self.stride) or len(self.size) > MAX_DIMENSIONS or not all(map(_natural, lengths)):
            raise InputError("damaged: a tensor without a proper offset, size and stride")
        room, count = len(data) // item.itemsize, math.prod(self.size)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride))
        # Also what a view might repeat is bounded: an expanded scalar can claim any number of items.
        if count > room or (count and last >= room):
            raise InputError(f"refused: a tensor claims {count} numbers up to item {last} of the {room} in its storage")
        if not count:
            return np.empty(self.size, np.float32 if kind == "bfloat16" else item)
        strides = [step * item.itemsize for step in self.stride]
        array = np.ndarray(self.size, item, data, self.offset * item.itemsize, strides)
        if kind == "bfloat16":
            budget.spend(8 * count)
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array


class _Array:
    """numpy's array, whose contents follow in a BUILD opcode."""

    __slots__ = ("state",)

    def __init__(self, state: Any = None):
        self.state = state

    def array(self, _budget: _Budget) -> np.ndarray:
        _, shape, dtype, fortran, data = self.state
        lengths_fit = type(shape) is tuple and len(shape) <= MAX_DIMENSIONS and all(map(_natural, shape))
        if not lengths_fit or type(data) is not _Bytes or not isinstance(dtype, np.dtype):
            raise InputError("damaged: an array without a proper shape, type and data")
        if math.prod(shape) * dtype.itemsize != len(data.data):
            raise InputError(f"damaged: an array of {math.prod(shape)} items in {len(data.data)} bytes")
        return np.ndarray(shape, dtype, data.read(), order="F" if fortran else "C")


def _value(value: Any, budget: _Budget, depth: int = 0) -> Any:
    """What the machine made, with arrays for tensors; always a tree, however the pickle shares or repeats its parts."""
    budget.step()
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind in (_Tensor, _Array):
        return _guarded(value.array, budget)
    if kind is _Nested:
        return _value(value.opened(budget), budget, depth + 1)
    if depth > MAX_DEPTH:
        raise InputError(f"refused: values nested more than {MAX_DEPTH} deep")
    if kind in (list, tuple):
        return kind([_value(item, budget, depth + 1) for item in value])
    if kind is dict:
        return {key: _value(item, budget, depth + 1) for key, item in value.items()}
    raise InputError(f"refused: a value that is {'bytes' if kind is _Bytes else 'no value'}; {ONLY}")


def _natural(number: Any) -> bool:
    return type(number) is int and number >= 0


# The functions and types that a pickle may name


class _Known(NamedTuple):
    """A global that may occur: a function with `call`, a type of numbers with `type`."""

    name: str
    call: Callable | None = None
    type: str | None = None


_ITEM = {
    name: np.dtype(item)
    for name, item in {
        "float16": "<f2",
        "float32": "<f4",
        "float64": "<f8",
        "bfloat16": "<u2",
        "bool": "|b1",
        "int8": "|i1",
        "int16": "<i2",
        "int32": "<i4",
        "int64": "<i8",
        "uint8": "|u1",
        "uint16": "<u2",
        "uint32": "<u4",
        "uint64": "<u8",
    }.items()
}
_STORAGES = {
    "HalfStorage": "float16",
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "CharStorage": "int8",
    "ShortStorage": "int16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ByteStorage": "uint8",
}
_NUMPY_TYPES = {item.str[1:]: item for name, item in _ITEM.items() if name != "bfloat16"}


def _load_from_bytes(machine: _Machine, data: _Bytes) -> _Nested:
    if machine.nested:
        raise InputError("refused: torch.storage._load_from_bytes within itself")
    if type(data) is not _Bytes:
        raise InputError("damaged: torch.storage._load_from_bytes without bytes")
    return _Nested(data)


def _rebuild_tensor(
    _machine: _Machine, storage: Any, offset: Any, size: Any, stride: Any, _requires_grad: Any, _hooks: Any, *more: Any
) -> _Tensor:
    """`more`: metadata in _rebuild_tensor_v2; type, metadata in _v3."""
    typed = bool(more) and type(more[0]) is _Known
    kind = more[0].type if typed else None
    is_storage = type(storage) in (_Storage, _Nested)
    if not is_storage or type(size) is not tuple or type(stride) is not tuple or (typed and kind is None):
        raise InputError("damaged: a tensor without storage, size and stride")
    return _Tensor(storage, kind, offset, size, stride)


def _encode(machine: _Machine, text: str, encoding: str) -> _Bytes:
    """How protocol 2 writes bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise InputError("refused: _codecs.encode of other than bytes as latin1")
    machine.budget.spend(len(text))
    return _Bytes(memoryview(text.encode("latin1")))


def _dtype(_machine: _Machine, name: str, *_flags: Any) -> np.dtype:
    if type(name) is not str:
        raise TypeError
    if name not in _NUMPY_TYPES:
        raise InputError(f"refused: an array of type {in_ascii(name)}; {ONLY}")
    return _NUMPY_TYPES[name]


def _scalar(machine: _Machine, dtype: np.dtype, data: _Bytes) -> bool | int | float:
    return _Array((1, (), dtype, False, data)).array(machine.budget).item()


def _known() -> dict[tuple[str, ...], _Known]:
    functions: dict[str, Callable[..., Any] | None] = {
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_tensor_v3": _rebuild_tensor,
        "torch._utils._rebuild_parameter": lambda _machine, data, _requires_grad, _hooks: data,
        "torch.storage._load_from_bytes": _load_from_bytes,
        "collections.OrderedDict": lambda _machine: {},
        "_codecs.encode": _encode,
        "__builtin__.bytes": lambda _machine: _Bytes(memoryview(b"")),
        "numpy.dtype": _dtype,
        "numpy.ndarray": None,
    }
    for core in ("numpy.core", "numpy._core"):
        functions[f"{core}.multiarray._reconstruct"] = lambda _machine, _kind, _shape, _code: _Array()
        functions[f"{core}.multiarray.scalar"] = _scalar
        functions[f"{core}.numeric._frombuffer"] = lambda _machine, data, dtype, shape, order: _Array(
            (1, shape, dtype, order == "F", data)
        )
    types = {f"torch.{name}": kind for name, kind in _STORAGES.items()}
    types |= {f"torch.{name}": name for name in _ITEM}
    types["torch.storage.UntypedStorage"] = "uint8"
    known = [_Known(name, call) for name, call in functions.items()] + [_Known(n, None, t) for n, t in types.items()]
    return {tuple(each.name.rsplit(".", 1)): each for each in known}


_KNOWN = _known()


# The machine


class _Machine:
    """Runs the pickles that follow one another in `data`.

    content: what reads the data when they are needed, if they are not in memory.
    storages: those of the torch file whose pickle this is. nested: whether that is in a pickle.
    """

    __slots__ = ("budget", "content", "data", "marks", "memo", "nested", "position", "stack", "storages", "there")

    def __init__(
        self,
        data: memoryview,
        budget: _Budget,
        content: Content | None = None,
        storages: dict[str, _Storage] | None = None,
        nested: bool = False,
    ):
        self.data, self.budget, self.content, self.storages, self.nested = data, budget, content, storages, nested
        self.position = 0
        self.there = 0 if content else len(data)  # up to where they are read

    def load(self) -> Any:
        """The value of the pickle that starts here."""
        return _guarded(self._run)

    def _run(self) -> Any:
        self.stack: list[Any] = []
        self.marks: list[Any] = []
        self.memo: dict[int, Any] = {}
        opcodes, step = _OPCODES, self.budget.step
        while True:
            if self.position >= len(self.data):
                raise InputError("truncated: the pickle has no end")
            code = self.byte()
            step()
            if code == 0x2E:  # STOP
                return self.stack.pop()
            opcode = opcodes[code]
            if opcode is None:
                self.refuse(code)
            opcode(self)

    def look(self, count: int) -> None:
        """Have the next `count` bytes in memory, and some more."""
        self.check(count)
        if self.content:
            self.there = min(self.position + max(count, _AHEAD), len(self.data))
            self.content.read(self.position, self.there)

    def check(self, count: int) -> None:
        """Raise InputError unless there are `count` more bytes."""
        left = len(self.data) - self.position
        if count > left:
            raise InputError(f"truncated: the pickle claims {count} bytes where {left} are left")

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        start = self.position
        if start + count > self.there:
            self.look(count)
        self.position = start + count
        return self.data[start : start + count]

    def bytes(self, count: int) -> None:
        """Push the next `count` bytes."""
        start = self.position
        if start + count <= self.there:
            self.stack.append(_Bytes(self.take(count)))
            return
        self.check(count)
        self.position += count
        self.stack.append(_Bytes(self.data[start : start + count], self.content, start))

    def byte(self) -> int:
        position = self.position
        if position >= self.there:
            self.look(1)
        self.position = position + 1
        return self.data[position]

    def number(self, width: int) -> int:
        """The next `width` bytes as an unsigned number."""
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        """The next line, a name."""
        start = self.position
        if start + 256 > self.there:
            self.look(min(256, len(self.data) - start))
        end = bytes(self.data[start : start + 256]).find(b"\n")
        if end < 0:
            raise InputError("truncated or damaged: a name has no end")
        self.position += end + 1
        return str(self.data[start : start + end], "utf-8", "replace")

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def to_mark(self) -> list:
        """Everything above the last mark, taken from the stack."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def marked_tuple(self) -> None:
        items = self.to_mark()  # which changes the stack
        self.stack.append(tuple(items))

    def tuple(self, count: int) -> None:
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise IndexError
        self.stack[-count:] = [items]

    def protocol(self) -> None:
        if not 2 <= self.byte() <= 5:
            raise InputError("not a pickle of protocol 2 to 5")

    def frame(self) -> None:
        """A frame only announces the length of what follows."""
        self.check(self.number(8))

    def long(self) -> None:
        width = self.byte()
        if width > 16:
            raise InputError(f"refused: an integer of {width} bytes")
        self.stack.append(int.from_bytes(self.take(width), "little", signed=True))

    def text(self, count: int) -> None:
        self.stack.append(str(self.take(count), "utf-8", "surrogatepass"))

    def extend(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(items)

    def update(self, items: list) -> None:
        target, keys = self.stack[-1], items[::2]
        if type(target) is not dict or len(items) % 2:
            raise TypeError
        # To hash a deeply nested tuple overflows C's stack, and large numbers can be made to collide.
        if not all(type(key) is str or (type(key) is int and abs(key) < 2**31) for key in keys):
            raise InputError("refused: a dict key that is neither a string nor a small integer")
        target.update(zip(keys, items[1::2]))

    def name(self, module: str, name: str) -> None:
        """Push what the pickle calls module.name, if it is known."""
        if type(module) is not str or type(name) is not str:
            raise TypeError
        known = _KNOWN.get((module, name))
        if known is None:
            raise InputError(f"refused: the pickle calls {in_ascii(f'{module}.{name}')}; {ONLY}")
        self.stack.append(known)

    def reduce(self) -> None:
        """Call a known function."""
        arguments, known = self.stack.pop(), self.stack.pop()
        if type(known) is not _Known or type(arguments) is not tuple:
            raise TypeError
        if known.call is None:
            raise InputError(f"refused: the pickle calls {known.name}; {ONLY}")
        self.stack.append(known.call(self, *arguments))

    def build(self) -> None:
        """Give numpy's arrays and types their state: nothing else has one."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is _Array and type(state) is tuple:
            target.state = state
        elif isinstance(target, np.dtype):
            if state[1] not in ("<", "=", "|"):
                raise InputError("refused: big-endian numbers; only little-endian ones are read")
        else:
            raise InputError(f"refused: the pickle sets an object's state (BUILD); {ONLY}")

    def persistent(self) -> None:
        """Push a storage, to which a torch file refers as ("storage", type, key, device, count)."""
        if self.storages is None:
            raise InputError("refused: a persistent id outside a torch file")
        kind, known, key, _, count, *view = self.stack.pop()
        if kind != "storage" or type(known) is not _Known or type(key) is not str or not _natural(count) or any(view):
            raise InputError("refused: a persistent id that is no storage")
        storage = self.storages.setdefault(key, _Storage(known.type or "", count))
        if (storage.type, storage.count) != (known.type, count) or storage.type not in _ITEM:
            raise InputError(f"damaged: storage {in_ascii(key)} has two types or none")
        self.stack.append(storage)

    def refuse(self, code: int) -> NoReturn:
        import pickletools  # here, since it is slow to import and a good file never needs it

        opcode = next((each for each in pickletools.opcodes if each.code == chr(code)), None)
        if opcode is None:
            raise InputError(f"damaged: byte {self.position - 1} of the pickle is no opcode")
        if opcode.name == "INST":
            self.name(self.line(), self.line())
        raise InputError(f"refused: the pickle uses the opcode {opcode.name}; {ONLY}")


def _guarded(function: Callable, *arguments: Any) -> Any:
    """Call a function on what a pickle says, whose mistakes show as operands that are missing or of a wrong kind."""
    try:
        return function(*arguments)
    except InputError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, struct.error):
        raise InputError("damaged: the pickle makes no sense") from None


_KNOWN_OPCODES: dict[str, Callable[[_Machine], Any]] = {
    "\x80": _Machine.protocol,
    "\x95": _Machine.frame,
    "(": _Machine.mark,
    "0": lambda m: m.stack.pop() if m.stack else m.to_mark(),  # POP takes a mark, too
    "1": _Machine.to_mark,
    "2": lambda m: m.stack.append(m.stack[-1]),
    # numbers
    "N": lambda m: m.stack.append(None),
    "\x88": lambda m: m.stack.append(True),
    "\x89": lambda m: m.stack.append(False),
    "J": lambda m: m.stack.append(int.from_bytes(m.take(4), "little", signed=True)),
    "K": lambda m: m.stack.append(m.byte()),
    "M": lambda m: m.stack.append(m.number(2)),
    "\x8a": _Machine.long,
    "G": lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0]),
    # strings and bytes
    "\x8c": lambda m: m.text(m.byte()),
    "X": lambda m: m.text(m.number(4)),
    "\x8d": lambda m: m.text(m.number(8)),
    "C": lambda m: m.bytes(m.byte()),
    "B": lambda m: m.bytes(m.number(4)),
    "\x8e": lambda m: m.bytes(m.number(8)),
    "\x96": lambda m: m.bytes(m.number(8)),
    # containers
    "]": lambda m: m.stack.append([]),
    "}": lambda m: m.stack.append({}),
    ")": lambda m: m.stack.append(()),
    "t": _Machine.marked_tuple,
    "\x85": lambda m: m.tuple(1),
    "\x86": lambda m: m.tuple(2),
    "\x87": lambda m: m.tuple(3),
    "a": lambda m: m.extend([m.stack.pop()]),
    "e": lambda m: m.extend(m.to_mark()),
    "s": lambda m: m.update([m.stack.pop(-2), m.stack.pop()]),
    "u": lambda m: m.update(m.to_mark()),
    # memo
    "q": lambda m: m.memo.__setitem__(m.byte(), m.stack[-1]),
    "r": lambda m: m.memo.__setitem__(m.number(4), m.stack[-1]),
    "\x94": lambda m: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "h": lambda m: m.stack.append(m.memo[m.byte()]),
    "j": lambda m: m.stack.append(m.memo[m.number(4)]),
    # objects
    "c": lambda m: m.name(m.line(), m.line()),
    "\x93": lambda m: m.name(m.stack.pop(-2), m.stack.pop()),
    "R": _Machine.reduce,
    "b": _Machine.build,
    "Q": _Machine.persistent,
}
_OPCODES = [_KNOWN_OPCODES.get(chr(code)) for code in range(256)]


# Files


def _load(data: memoryview, budget: _Budget, content: Content | None = None, nested: bool = False) -> Any:
    """The value in the bytes of a pickle or torch file. content: what reads them, if they are not in memory yet."""
    if content:
        content.read(0, min(4, len(data)))
    if bytes(data[:4]) == b"PK\3\4":
        return _load_zip(content.read(0, len(data)) if content else data, budget, nested)
    if not data or data[0] != 0x80:
        raise InputError("not a pickle of protocol 2 to 5, nor a torch file")
    machine = _Machine(data, budget, content, nested=nested)
    value = machine.load()
    return _guarded(_load_legacy, machine) if type(value) is int and value == 0x1950A86A20F9469CFC6C else value


def _load_legacy(machine: _Machine) -> Any:
    """torch's legacy file, after its magic number: version, system, value, the storages' keys, the storages."""
    version, system = machine.load(), machine.load()
    if version != 1001:
        raise InputError("damaged: not version 1001 of torch's legacy format")
    if system["little_endian"] is not True:
        raise InputError("refused: big-endian numbers; only little-endian ones are read")
    storages: dict[str, _Storage] = {}
    machine.storages = storages
    value = machine.load()
    keys = machine.load()
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        raise InputError("damaged: the torch file does not list its storages")
    for key in keys:
        storage = storages[key]
        if machine.number(8) != storage.count:
            raise InputError(f"damaged: storage {in_ascii(key)} has two sizes")
        storage.data = machine.take(storage.nbytes)
    return value


def _load_zip(data: memoryview, budget: _Budget, nested: bool) -> Any:
    """torch's zip archive: NAME/data.pkl, the storages in NAME/data/KEY, and NAME/byteorder, which old ones lack."""
    members = zip_members(data)

    def stored(name: str) -> memoryview:
        if name not in members:
            raise InputError(f"damaged: the torch file has no {in_ascii(name)}")
        member = members[name]
        if member.method != 0 or member.size != len(member.data):
            raise InputError(f"refused: {in_ascii(name)} is compressed, which torch never does")
        return member.data

    pickled = [name for name in members if name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise InputError("a zip archive, but not one that torch.save writes")
    folder = pickled[0][: -len("data.pkl")]
    if f"{folder}byteorder" in members and stored(f"{folder}byteorder") != b"little":
        raise InputError("refused: big-endian numbers; only little-endian ones are read")
    storages: dict[str, _Storage] = {}
    machine = _Machine(stored(pickled[0]), budget, storages=storages, nested=nested)
    value = machine.load()
    for key, storage in storages.items():
        storage.data = stored(f"{folder}data/{key}")
        if len(storage.data) != storage.nbytes:
            raise InputError(f"damaged: storage {in_ascii(key)} has two sizes")
    return value
