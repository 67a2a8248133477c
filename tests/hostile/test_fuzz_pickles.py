"""Whatever the bytes, the readers of pickles and npz return or raise InputError, in bounded memory."""

import io
import pickle
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import DATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chextools.errors import InputError
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import read_npz, write_npz
from chextools.heatmaps.study_pickles import read_study_pickle

ORACLE = DATA / "oracle-small" / "maps"
ENOUGH = 3_000_000  # bytes; the seeds have some thousands, and an opcode may make an object of about a hundred

fuzz = settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))


def _npz(save=None):
    file = io.BytesIO()
    ramp = np.linspace(0, 1, 12, dtype="f4").reshape(3, 4)
    heatmaps = Heatmaps("p1", (30, 40), {"Edema": ramp, "Fracture": ramp}, {"Edema": 0.5}, input_size=(320, 320))
    write_npz(file, heatmaps)
    if save:
        file.seek(0)
        arrays = dict(np.load(file))
        file = io.BytesIO()
        save(file, **arrays)
    return file.getvalue()


def _pickles():
    value = {"map": np.linspace(0, 1, 12).reshape(3, 4), "prob": 0.5, "task": "Edema", "gt": 1, "cxr_dims": (40, 30)}
    seeds = [pickle.dumps(value, protocol) for protocol in (2, 3, 4, 5)]
    seeds.append(next(iter(sorted(ORACLE.glob("*_Edema_map.pkl")))).read_bytes())
    try:
        import torch
    except ImportError:
        return seeds
    value["map"] = torch.from_numpy(value["map"])
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save(value, file, _use_new_zipfile_serialization=zipped)
        seeds.append(file.getvalue())
    return seeds + [pickle.dumps(value, protocol) for protocol in (2, 3, 4)]


PICKLES = _pickles()
NPZS = [_npz(), _npz(np.savez), _npz(np.savez_compressed)]
OPCODES = [
    bytes([code]) for code in b"\x80\x95(012N\x88\x89JKM\x8aG\x8cX\x8dCB\x8e\x96]})t\x85\x86\x87aesuqr\x94hjc\x93RbQ."
]
NUMBERS = [b"\xff\xff\xff\xff", b"\xff" * 8, b"\0\0\0\x80", b"\0\0\0\0\1\0\0\0", b"\xff\xff\xff\x7f", b"\0" * 4]


@st.composite
def mutated(draw, seeds):
    """One of the seeds with bytes replaced, inserted, repeated or cut out."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 8)))
        data[start:stop] = draw(
            st.one_of(
                st.binary(max_size=8), st.sampled_from(OPCODES + NUMBERS), st.just(bytes(data[start : start + 200]) * 3)
            )
        )
    return bytes(data)


def programs():
    """Random sequences of known opcodes with plausible operands."""
    names = [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch.storage\n_load_from_bytes\n",
        b"ctorch\nFloatStorage\n",
        b"ccollections\nOrderedDict\n",
        b"c_codecs\nencode\n",
        b"cnumpy\ndtype\n",
        b"cnumpy\nndarray\n",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy.core.multiarray\nscalar\n",
        b"cnumpy._core.numeric\n_frombuffer\n",
        b"\x8c\x02f4",
        b"\x8c\x06latin1",
        b"\x8c\x03map",
        b"\x8c\x08cxr_dims",
        b"K\1",
        b"C\4abcd",
        b"h\0",
        b"h\1",
        b"q\0",
        b"q\1",
    ]
    return st.lists(st.sampled_from(names + OPCODES), max_size=60).map(lambda ops: b"\x80\x04" + b"".join(ops) + b".")


def check(read, data, name):
    """Read bytes; anything but InputError and more memory than `ENOUGH` fails the test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data)
        tracemalloc.start()
        try:
            found = read(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
        else:
            assert all(np.isfinite(heatmap).all() for heatmap in found.maps.values())
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < ENOUGH


@pytest.mark.parametrize("data", PICKLES)
def test_pickle_seeds_are_valid(tmp_path, data):
    (tmp_path / "p1_Edema_map.pkl").write_bytes(data)
    assert list(read_study_pickle(tmp_path / "p1_Edema_map.pkl").maps) == ["Edema"]


@pytest.mark.parametrize("data", NPZS)
def test_npz_seeds_are_valid(tmp_path, data):
    (tmp_path / "p1.npz").write_bytes(data)
    assert list(read_npz(tmp_path / "p1.npz").maps) == ["Edema", "Fracture"]


@fuzz
@given(mutated(PICKLES))
def test_mutated_pickles(data):
    check(read_study_pickle, data, "p1_Edema_map.pkl")


@fuzz
@given(programs())
def test_random_programs(data):
    check(read_study_pickle, data, "p1_Edema_map.pkl")


@fuzz
@given(
    st.binary(max_size=300).flatmap(lambda tail: st.sampled_from([b"", b"\x80\x04", b"PK\3\4"]).map(lambda h: h + tail))
)
def test_random_bytes(data):
    check(read_study_pickle, data, "p1_Edema_map.pkl")
    check(read_npz, data, "p1.npz")


@fuzz
@given(mutated(NPZS))
def test_mutated_npz(data):
    check(read_npz, data, "p1.npz")
