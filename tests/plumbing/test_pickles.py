"""Pickles: what is read equals what torch and pickle read; what could harm is refused in one line."""

import collections
import io
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from conftest import DATA

from chextools.errors import InputError
from chextools.plumbing import zips
from chextools.plumbing.pickles import MAX_DEPTH, MAX_OPCODES, read_pickle

ORACLE = DATA / "oracle-small" / "maps"
ONLY = "only tensors, arrays, numbers and strings are read"


@pytest.fixture
def read(tmp_path):
    """Read the value under "map" of the pickle in some bytes."""

    def read(data, key="map"):
        path = tmp_path / "x.pkl"
        path.write_bytes(data)
        return read_pickle(path, [key])[key]

    return read


@pytest.fixture
def reason(read, tmp_path):
    """The reason for which some bytes are refused."""

    def reason(data):
        with pytest.raises(InputError) as caught:
            read(data)
        path, _, text = str(caught.value).partition(": ")
        assert path == str(tmp_path / "x.pkl")
        assert "\n" not in text
        return text

    return reason


class Calls:
    """Pickled as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def under_map(program: bytes) -> bytes:
    """A pickle of {"map": what the opcodes of `program` leave}."""
    return b"\x80\x04}\x8c\x03map" + program + b"s."


def binbytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def load_from_bytes(data: bytes) -> bytes:
    """Opcodes that call torch's _load_from_bytes."""
    return b"ctorch.storage\n_load_from_bytes\n" + binbytes(data) + b"\x85R"


def legacy(value: bytes, keys: bytes = b"]", storages: bytes = b"", little: bytes = b"\x88") -> bytes:
    """torch's legacy file around the opcodes of its value and of its list of storage keys."""
    magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
    system = b"\x80\x02}\x8c\x0dlittle_endian" + little + b"s."
    return magic + b"\x80\x02M\xe9\x03." + system + b"\x80\x02" + value + b"." + b"\x80\x02" + keys + b"." + storages


def storage(count: bytes = b"K\x02", kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    """Opcodes of the persistent id of storage "0"."""
    return b"(\x8c\x07storage" + kind + b"\x8c\x010\x8c\x03cpu" + count + b"NtQ"


PAIR = legacy(storage(), b"]\x8c\x010a", struct.pack("<qff", 2, 0.25, -1))


def tensor(offset: bytes, size: bytes, stride: bytes, inner: bytes = PAIR) -> bytes:
    """A pickle of {"map": tensor} over two float32, 0.25 and -1, with the opcodes of its offset, size and stride."""
    arguments = b"(" + load_from_bytes(inner) + offset + size + stride + b"\x89N" + b"t"
    return under_map(b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R")


# What is read


@pytest.mark.parametrize("path", sorted(ORACLE.glob("*.pkl"))[::7], ids=lambda path: path.name)
def test_equals_what_pickle_and_torch_read(path):
    torch = pytest.importorskip("torch")
    expected = pickle.loads(path.read_bytes())
    found = read_pickle(path, expected)
    assert list(found) == list(expected)
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[key].dtype == value.numpy().dtype
            np.testing.assert_array_equal(found[key], value.numpy())
        else:
            assert found[key] == value
            assert type(found[key]) is type(value)


def test_only_what_is_asked_for_is_read(read, monkeypatch):
    seen = []
    read_some = zips.Content.read
    monkeypatch.setattr(zips.Content, "read", lambda self, *ends: seen.append(ends) or read_some(self, *ends))
    one = tensor(b"K\0", b"K\2\x85", b"K\1\x85", PAIR + bytes(100_000))
    other = one[:-1].replace(b"\x80\x04}\x8c\x03map", b"\x8c\x05other")
    assert read(one[:-1] + other + b".").tolist() == [0.25, -1]
    assert sum(stop - start for start, stop in seen) < 150_000  # of 200,000: "other" was skipped


def dumped(protocol):
    return lambda value: pickle.dumps(value, protocol)


def saved(zipped):
    def save(value):
        torch = pytest.importorskip("torch")
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=zipped)
        return file.getvalue()

    return save


FORMS = {f"protocol {n}": dumped(n) for n in (2, 3, 4, 5)} | {"torch zip": saved(True), "torch legacy": saved(False)}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "bfloat16", "int64", "uint8", "bool", "uint16"])
def test_tensors_of_every_type_and_form(read, form, kind):
    torch = pytest.importorskip("torch")
    values = torch.tensor([[0, 1, 2.5], [3, 4, 100]]).to(getattr(torch, kind))
    found = read(FORMS[form]({"map": values}))
    expected = values.float().numpy() if kind == "bfloat16" else values.numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", FORMS)
def test_views_are_cut_from_their_storage_and_share_it(read, form):
    torch = pytest.importorskip("torch")
    whole = torch.arange(24.0).reshape(4, 6)
    views = [whole, whole.T, whole[1:3, ::2], whole[2, 3], whole[:0], torch.nn.Parameter(whole[1:])]
    for found, view in zip(read(FORMS[form]({"map": views})), views, strict=True):
        np.testing.assert_array_equal(found, view.detach().numpy())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i8", "u1", "?"])
def test_numpy_arrays_and_scalars(read, form, kind):
    whole = np.arange(12).reshape(3, 4).astype(kind)
    arrays = [whole, whole.T, whole[:, ::2], whole[:0], np.array(1, kind)]
    found = read(FORMS[form]({"map": arrays + [whole[1, 1]]}))
    for array, expected in zip(found, arrays):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    assert found[-1] == whole[1, 1]
    assert type(found[-1]) in (bool, int, float)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values(read, protocol):
    value = {
        "none": None,
        "flags": [True, False],
        "numbers": (0, 255, 256, 65536, -1, 2**31, -(2**63), 0.1, -1e300),
        "text": "Rö 胸 \udcff",
        "long": "x" * 300,
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        7: {},
    }
    assert read(pickle.dumps({"map": value}, protocol)) == value
    assert read(pickle.dumps({"map": collections.OrderedDict(value)}, protocol)) == value


def test_a_torch_zip_file_within_a_pickle(read):
    torch = pytest.importorskip("torch")
    pairs = torch.tensor([0.25, -1.0])
    file = io.BytesIO()
    torch.save(pairs._typed_storage(), file)
    np.testing.assert_array_equal(read(tensor(b"K\0", b"K\2\x85", b"K\1\x85", file.getvalue())), pairs.numpy())


def test_only_requested_keys_that_exist(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": 1, "b": 2, "c": b"bytes"}))
    assert read_pickle(tmp_path / "x.pkl", ["b", "z"]) == {"b": 2}


def test_arrays_are_views_that_cannot_be_written(read):
    assert not read(tensor(b"K\0", b"K\2\x85", b"K\1\x85")).flags.writeable


def test_the_image_is_not_copied(tmp_path):
    image = np.zeros(2_000_000, np.uint8)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"img": image, "prob": 0.5}))
    tracemalloc.start()
    assert read_pickle(tmp_path / "x.pkl", ["prob"]) == {"prob": 0.5}
    assert tracemalloc.get_traced_memory()[1] < image.nbytes + 100_000  # the file, once
    tracemalloc.stop()


def test_neither_torch_nor_pillow_nor_scipy_is_imported():
    code = "import sys, chextools.plumbing.pickles; print({'torch', 'PIL', 'scipy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


# What is refused by name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_call_of_os_system(reason, protocol, tmp_path):
    data = pickle.dumps({"map": Calls(os.system, f"touch {tmp_path}/owned")}, protocol)
    assert reason(data) == f"refused: the pickle calls {os.system.__module__}.system; {ONLY}"
    assert not (tmp_path / "owned").exists()


def test_a_call_of_eval(reason):
    assert reason(pickle.dumps({"map": Calls(eval, "1")})) == f"refused: the pickle calls builtins.eval; {ONLY}"


ATTACKS = {
    "GLOBAL": (b"cos\nsystem\n", "the pickle calls os.system"),
    "STACK_GLOBAL": (b"\x8c\x02os\x8c\x06system\x93", "the pickle calls os.system"),
    "dotted name": (b"\x8c\x0dtorch.storage\x8c\x09os.system\x93", "the pickle calls torch.storage.os.system"),
    "dotted GLOBAL": (b"ctorch.storage\nos.system\n", "the pickle calls torch.storage.os.system"),
    "newline in name": (b"\x8c\x01a\x8c\x03b\nc\x93", "the pickle calls a.b\\nc"),
    "INST": (b"(ios\nsystem\n", "the pickle calls os.system"),
    "OBJ": (b"(ccollections\nOrderedDict\no", "the pickle uses the opcode OBJ"),
    "NEWOBJ": (b"ccollections\nOrderedDict\n)\x81", "the pickle uses the opcode NEWOBJ"),
    "NEWOBJ_EX": (b"ccollections\nOrderedDict\n)}\x92", "the pickle uses the opcode NEWOBJ_EX"),
    "EXT1": (b"\x82\x01", "the pickle uses the opcode EXT1"),
    "EXT2": (b"\x83\x01\x00", "the pickle uses the opcode EXT2"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "the pickle uses the opcode EXT4"),
    "BUILD": (b"}}b", "the pickle sets an object's state (BUILD)"),
    "BUILD of a global": (b"ctorch\nFloatStorage\n}b", "the pickle sets an object's state (BUILD)"),
    "a type called": (b"ctorch\nFloatStorage\n)R", "the pickle calls torch.FloatStorage"),
    "PERSID": (b"P0\n", "the pickle uses the opcode PERSID"),
    "set": (b"\x8f", "the pickle uses the opcode EMPTY_SET"),
    "buffer outside": (b"\x97", "the pickle uses the opcode NEXT_BUFFER"),
    "bytes": (b"C\x01x", "a value that is bytes"),
    "function": (b"ccollections\nOrderedDict\n", "a value that is no value"),
    "objects in an array": (b"cnumpy\ndtype\n\x8c\x02O8\x89\x88\x87R", "an array of type O8"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_no_value_is_refused_by_name(reason, attack):
    program, what = ATTACKS[attack]
    assert reason(under_map(program)) == f"refused: {what}; {ONLY}"


def test_a_call_within_load_from_bytes(reason):
    call = pickle.dumps(Calls(os.system, "true"), 2)
    name = f"refused: the pickle calls {os.system.__module__}.system; {ONLY}"
    assert reason(under_map(load_from_bytes(call))) == name
    assert reason(under_map(load_from_bytes(legacy(call[2:-1])))) == name
    assert reason(tensor(b"K\0", b"K\2\x85", b"K\1\x85", legacy(storage(), call[2:-1]))) == name


def test_a_call_under_a_key_that_nobody_asked_for(reason):
    assert "calls" in reason(pickle.dumps({"map": 1.0, "cxr_img": Calls(os.system, "true")}))


def test_a_call_within_a_torch_zip_file(reason):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"map": Calls(eval, "1")}))
    assert reason(file.getvalue()) == f"refused: the pickle calls builtins.eval; {ONLY}"


def test_load_from_bytes_within_itself(reason):
    inner = b"\x80\x02" + load_from_bytes(PAIR) + b"."
    assert reason(under_map(load_from_bytes(inner))) == "refused: torch.storage._load_from_bytes within itself"


@pytest.mark.parametrize(
    "pid", [b"K\x01Q", b"\x8c\x01xQ", b"(\x8c\x06modulectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x02tQ", b"(tQ", b"Q"]
)
def test_odd_persistent_ids(reason, pid):
    assert reason(under_map(pid)) == "refused: a persistent id outside a torch file"
    assert reason(under_map(load_from_bytes(legacy(pid)))).startswith(("refused", "damaged"))


def test_a_storage_with_two_types(reason):
    two = b"]" + storage() + b"a" + storage(kind=b"ctorch\nLongStorage\n") + b"a"
    assert reason(under_map(load_from_bytes(legacy(two)))) == "damaged: storage 0 has two types or none"


def test_big_endian_is_refused(reason):
    assert "only little-endian" in reason(pickle.dumps({"map": np.ones(2, ">f4")}))
    assert "only little-endian" in reason(under_map(load_from_bytes(legacy(b"N", little=b"\x89"))))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}))
        archive.writestr("a/byteorder", "big")
    assert "only little-endian" in reason(file.getvalue())


# What claims more than there is


CLAIMS = {
    "BINBYTES8": b"\x80\x04\x8e" + struct.pack("<Q", 2**40),
    "BINBYTES": b"\x80\x03B\xff\xff\xff\xff",
    "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 2**63),
    "BINUNICODE8": b"\x80\x04\x8d" + struct.pack("<Q", 2**64 - 1),
    "BINUNICODE": b"\x80\x02X\xff\xff\xff\x7f",
    "FRAME": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",
}


@pytest.mark.parametrize("opcode", CLAIMS)
def test_a_pickle_of_few_bytes_that_claims_gigabytes(reason, opcode):
    tracemalloc.start()
    assert reason(CLAIMS[opcode]).startswith("truncated: the pickle claims ")
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


def test_an_integer_that_claims_gigabytes(reason):
    assert reason(b"\x80\x02\x8b\xff\xff\xff\x7f") == f"refused: the pickle uses the opcode LONG4; {ONLY}"
    assert reason(b"\x80\x02\x8a\xff" + bytes(255) + b".") == "refused: an integer of 255 bytes"


def test_a_memo_index_of_four_billion_costs_one_entry(read):
    assert read(under_map(b"K\x05r\xff\xff\xff\xff0j\xff\xff\xff\xff")) == 5


@pytest.mark.parametrize("program", [b"h\x07", b"j\xff\xff\xff\xff", b"N\x940h\x01"])
def test_a_memo_index_that_holds_nothing(reason, program):
    assert reason(under_map(program)) == "damaged: the pickle makes no sense"


ZERO, MILLION = b"K\0", b"J\x40\x42\x0f\x00"
TRICKS = {
    "an expanded scalar of 10^12": (ZERO, MILLION * 2 + b"\x86", ZERO * 2 + b"\x86"),
    "past the end": (ZERO, b"K\2\x85", b"K\2\x85"),
    "offset past the end": (b"K\1", b"K\2\x85", b"K\1\x85"),
    "offset of 10^38": (b"\x8a\x10" + b"\xff" * 15 + b"\x7f", b"K\1\x85", b"K\1\x85"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_tensors_stay_within_their_storage(reason, trick):
    assert reason(tensor(*TRICKS[trick])).startswith("refused: a tensor claims ")


@pytest.mark.parametrize(
    "parts",
    [
        (b"J\xff\xff\xff\xff", b"K\1\x85", b"K\1\x85"),
        (ZERO, b"J\xff\xff\xff\xff\x85", b"K\1\x85"),
        (b"K\1", b"K\2\x85", b"J\xff\xff\xff\xff\x85"),
        (ZERO, b"K\2\x85", b"K\1K\1\x86"),
        (ZERO, b"K\2\x85", b")"),
        (ZERO, b"G" + bytes(8) + b"\x85", b"K\1\x85"),
        (ZERO, b"(" + b"K\1" * 99 + b"t", b"(" + b"K\1" * 99 + b"t"),
    ],
)
def test_tensors_with_impossible_offset_size_or_stride(reason, parts):
    assert reason(tensor(*parts)) == "damaged: a tensor without a proper offset, size and stride"


def test_a_storage_that_claims_more_than_the_file(reason):
    inner = legacy(storage(b"J\xff\xff\xff\x7f"), b"]\x8c\x010a", struct.pack("<q", 2**31 - 1))
    assert reason(tensor(ZERO, b"K\2\x85", b"K\1\x85", inner)).startswith("truncated: the pickle claims 8589934588 ")


def test_a_storage_that_the_file_does_not_list(reason):
    text = reason(tensor(ZERO, b"K\2\x85", b"K\1\x85", legacy(storage())))
    assert text == "damaged: the torch file does not list its storages"


def test_arrays_must_fill_their_bytes(reason):
    data = pickle.dumps({"map": np.ones((2, 3), "f4")}, 4)
    assert reason(data.replace(b"K\x02K\x03\x86", b"K\xffK\xff\x86")) == "damaged: an array of 65025 items in 24 bytes"


def test_deep_nesting(read, reason):
    nested = 0.5
    for _ in range(MAX_DEPTH):
        nested = [nested]
    assert read(pickle.dumps({"map": nested})) == nested
    assert "nested" in reason(under_map(b"]" * 50_000 + b"a" * 49_999))
    assert "nested" in reason(under_map(b"N" + b"\x85" * 100_000))


def test_lists_and_dicts_that_hold_themselves(reason):
    itself: list = []
    itself.append(itself)
    assert "nested" in reason(pickle.dumps({"map": itself}))
    knot: dict = {}
    knot["a"] = (knot,)
    assert "nested" in reason(pickle.dumps({"map": knot}))


def test_a_billion_laughs(reason):
    laughs: list = ["ha"]
    for _ in range(30):
        laughs = [laughs, laughs]
    start = time.perf_counter()
    assert reason(pickle.dumps({"map": laughs})) == f"refused: more than {MAX_OPCODES} values or opcodes"
    assert time.perf_counter() - start < 5


def test_a_long_program(reason):
    assert reason(under_map(b"N0" * MAX_OPCODES)) == f"refused: more than {MAX_OPCODES} values or opcodes"


def test_a_deep_tuple_as_key_is_not_hashed(reason):
    deep = b")" + b"\x85" * 150_000
    assert "dict key" in reason(under_map(b"}" + deep + b"Ns"))
    assert reason(under_map(b"cnumpy\ndtype\n" + deep + b"\x85R")) == "damaged: the pickle makes no sense"


@pytest.mark.parametrize("how", ["encode", "load"])
def test_bytes_unpacked_again_and_again(reason, how):
    if how == "encode":
        text = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000
        program = b"c_codecs\nencode\n\x940" + text + b"\x8c\x06latin1\x86\x940" + b"h\x00h\x01R0" * 1000
    else:
        data = PAIR + bytes(100_000)
        program = b"ctorch.storage\n_load_from_bytes\n\x940" + binbytes(data) + b"\x85\x940"
        program += b"ctorch._utils\n_rebuild_tensor_v2\n\x940"
        program += b"](" + b"h\x02(h\x00h\x01RK\0K\2\x85K\1\x85\x89NtR" * 1000 + b"e"
    assert reason(under_map(program)) == "refused: the pickle unpacks to many times its size"


# What is broken


def test_files_that_are_no_pickles(reason):
    for data in (b"x", b"hello world\n", b"\x89PNG\r\n\x1a\n", b"(dp0\n.", b'{"id": 1}', bytes(100)):
        assert reason(data) == "not a pickle of protocol 2 to 5, nor a torch file"
    assert reason(b"\x80\x09N.") == "not a pickle of protocol 2 to 5"
    assert reason(b"\x80\x04\xff\xfe") == "damaged: byte 2 of the pickle is no opcode"
    assert reason(b"") == "empty file"
    assert reason(pickle.dumps([1, 2])) == "the pickle holds no dict"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="none.pkl: No such file or directory"):
        read_pickle(tmp_path / "none.pkl", ["map"])
    with pytest.raises(InputError, match="Is a directory"):
        read_pickle(tmp_path, ["map"])
    with pytest.raises(InputError, match="null byte"):
        read_pickle("a\0b", ["map"])
    with pytest.raises(InputError, match="/dev/zero: not a regular file"):
        read_pickle("/dev/zero", ["map"])


def test_truncation_at_every_byte(reason):
    whole = tensor(ZERO, b"K\2\x85", b"K\1\x85")
    for length in range(1, len(whole)):
        text = reason(whole[:length])
        assert text.startswith("truncated"), (length, text)


@pytest.mark.parametrize("form", ["torch zip", "torch legacy"])
def test_torch_files_truncated_at_every_byte(reason, form):
    torch = pytest.importorskip("torch")
    whole = FORMS[form]({"map": torch.ones(3)})
    for length in range(1, len(whole), 7):
        assert "truncated" in reason(whole[:length]) or length < 15  # a legacy file starts with a whole pickle


def test_a_zip_archive_of_something_else(reason):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "text")
    assert reason(file.getvalue()) == "a zip archive, but not one that torch.save writes"


def test_a_compressed_torch_file_is_not_unpacked(reason):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + bytes(50_000_000))
    assert reason(file.getvalue()) == "refused: a/data.pkl is compressed, which torch never does"


def test_a_zip_archive_with_one_name_twice(reason):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"map": 1}))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", pickle.dumps({"map": 2}))
    assert reason(file.getvalue()) == "a/data.pkl is twice in the zip archive"
