"""Heatmaps: npz files keep what they are given, the study's pickles say what torch says, folders lose nothing."""

import io
import os
import pickle
import shutil
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from conftest import DATA

from chextools import tasks
from chextools.errors import InputError, LimitError
from chextools.heatmaps.folders import HeatmapFolder, index_folder
from chextools.heatmaps.heatmaps import NOT_FINITE, Heatmaps
from chextools.heatmaps.npz import read_npz, write_npz
from chextools.heatmaps.reading import heatmaps_of, open_heatmap
from chextools.heatmaps.study_pickles import read_study_pickle
from chextools.records.sizes import MAX_PIXELS

ORACLE = DATA / "oracle-small" / "maps"
RAMP = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def study_pickle(folder, name="p1_Edema", **changes):
    """Write a pickle as the study's are; a change to None removes the key."""
    values = {"map": RAMP[None, None], "prob": 0.25, "task": name.rpartition("_")[2], "gt": 1, "cxr_dims": (40, 30)}
    values = {key: value for key, value in (values | changes).items() if value is not None}
    path = folder / f"{name}_map.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(values))
    return path


def example(**changes):
    values = {
        "id": "p1",
        "size": (30, 40),
        "maps": {"Edema": RAMP, "Fracture": -RAMP},
        "scores": {"Edema": 0.1},
        "input_size": (320, 320),
        "method": "gradcam",
        "model": "abc",
    }
    return Heatmaps(**(values | changes))


def write(path, heatmaps):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, heatmaps)
    return path


def arrays(**changes):
    """What numpy.savez needs for a file of heatmaps; a change to None removes the key."""
    values = {
        "maps": np.stack([RAMP, -RAMP]),
        "tasks": np.array(["Edema", "Fracture"]),
        "input_size": np.array([320, 320]),
        "id": np.array("p1"),
        "size": np.array([30, 40]),
        "scores": np.array([0.1, np.nan]),
    }
    return {key: value for key, value in (values | changes).items() if value is not None}


def refused(function, path):
    """The reason for which a file is refused."""
    with pytest.raises(InputError) as caught:
        function(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)[len(f"{path}: ") :]


# npz


def test_npz_gives_back_what_it_was_given(tmp_path):
    heatmaps = example()
    found = read_npz(write(tmp_path / "p1.npz", heatmaps))
    for task, heatmap in heatmaps.maps.items():
        np.testing.assert_array_equal(found.maps[task], heatmap)
        assert found.maps[task].dtype == np.float32
    assert list(found.maps) == ["Edema", "Fracture"]
    found.maps = heatmaps.maps
    assert found == heatmaps


def test_npz_without_method_and_model_and_with_any_text(tmp_path):
    heatmaps = example(id="Rö 胸 \udcff", method=None, model=None)
    found = read_npz(write(tmp_path / "p1.npz", heatmaps))
    assert (found.id, found.method, found.model) == ("Rö 胸 \udcff", None, None)


def test_npz_is_what_numpy_reads(tmp_path):
    with np.load(write(tmp_path / "p1.npz", example()), allow_pickle=False) as found:
        np.testing.assert_array_equal(found["maps"], np.stack([RAMP, -RAMP]))
        assert found["maps"].dtype == np.float32
        assert found["tasks"].tolist() == ["Edema", "Fracture"]
        assert (found["id"].item(), found["method"].item(), found["model"].item()) == ("p1", "gradcam", "abc")
        assert (found["size"].tolist(), found["input_size"].tolist()) == ([30, 40], [320, 320])
        np.testing.assert_array_equal(found["scores"], [0.1, np.nan])


def test_delta_and_sign_come_back_from_a_file(tmp_path):
    read = read_npz(write(tmp_path / "a.npz", example(delta={"Fracture": 0.25}, chosen_sign="abs")))
    assert (read.delta, read.chosen_sign, read.sign) == ({"Fracture": 0.25}, "abs", "abs")
    read = read_npz(write(tmp_path / "b.npz", example()))
    assert (read.delta, read.chosen_sign, read.sign) == ({}, None, "positive")
    record = {"id": "p1", "heatmap": str(tmp_path / "b.npz")}
    assert heatmaps_of(record | {"sign": "raw"}).sign == "raw"
    with pytest.raises(InputError, match="^\"sign\" is 'up', not one of positive, abs, raw$"):
        heatmaps_of(record | {"sign": "up"})


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_that_numpy_writes(tmp_path, save, kind, order):
    save(tmp_path / "p1.npz", **arrays(maps=np.stack([RAMP, -RAMP]).astype(kind, order=order)))
    found = read_npz(tmp_path / "p1.npz")
    np.testing.assert_array_equal(found.maps["Edema"], RAMP.astype(kind).astype("f4"))
    assert found.scores == {"Edema": 0.1}


def test_npz_of_equal_heatmaps_are_equal_bytes(tmp_path):
    first, second = io.BytesIO(), io.BytesIO()
    write_npz(first, example())
    write_npz(second, example())
    assert first.getvalue() == second.getvalue() == write(tmp_path / "p1.npz", example()).read_bytes()
    assert {member.date_time for member in zipfile.ZipFile(first).infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_alias_is_read_as_the_task(tmp_path):
    np.savez(tmp_path / "p1.npz", **arrays(tasks=np.array(["Lung Opacity", "Edema"])))
    assert list(read_npz(tmp_path / "p1.npz").maps) == ["Airspace Opacity", "Edema"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_map_that_is_not_finite_fails_alone(tmp_path, bad):
    broken = RAMP.copy()
    broken[1, 2] = bad
    found = read_npz(write(tmp_path / "p1.npz", example(maps={"Edema": broken, "Fracture": RAMP})))
    assert list(found.maps) == ["Fracture"]
    assert found.failed == {"Edema": "the map holds NaN or infinity"}


def test_a_float64_map_beyond_float32_is_not_finite(tmp_path):
    np.savez(tmp_path / "p1.npz", **arrays(maps=np.full((2, 3, 4), 1e300)))
    assert read_npz(tmp_path / "p1.npz").failed == dict.fromkeys(["Edema", "Fracture"], NOT_FINITE)


def test_a_flat_map_is_flagged(tmp_path):
    found = read_npz(write(tmp_path / "p1.npz", example(maps={"Edema": RAMP * 0 + 2, "Fracture": RAMP})))
    assert found.flags == {"Edema": "flat"}
    assert (found.maps["Edema"] == 2).all()


NPZ_FAULTS = {
    "no maps key": ({"maps": None}, "no 'maps', which an npz of heatmaps has"),
    "no id": ({"id": None}, "no 'id', which"),
    "no size": ({"size": None}, "no 'size', which"),
    "no input_size": ({"input_size": None}, "no 'input_size', which"),
    "integers": ({"maps": np.ones((2, 3, 4), int)}, "maps is int64 [2, 3, 4], which is not what heatmaps have"),
    "one map": ({"maps": RAMP}, "maps is float32 [3, 4], which is not"),
    "two of three": ({"tasks": np.array(["a", "b", "c"])}, "2 maps, 3 tasks and 2 scores"),
    "scores": ({"scores": np.ones(3)}, "2 maps, 2 tasks and 3 scores"),
    "deltas": ({"delta": np.ones(1)}, "2 maps and 1 deltas"),
    "sign": ({"sign": np.array("negative")}, "\"sign\" is 'negative', not one of positive, abs, raw"),
    "one task twice": ({"tasks": np.array(["Edema", "Edema"])}, "two maps of Edema"),
    "a task and its alias": ({"tasks": np.array(["Lung Opacity", "Airspace Opacity"])}, "two maps of Airspace"),
    "no pixels": ({"maps": np.ones((2, 0, 4), "f4")}, "the maps are empty"),
    "no map": ({"maps": np.ones((0, 3, 4), "f4"), "tasks": np.array([], "U1"), "scores": np.ones(0)}, "the maps are"),
    "size 0": ({"size": np.array([0, 40])}, "size must be [height, width] in pixels, not "),
    "three sizes": ({"size": np.array([30, 40, 3])}, "size must be [height, width] in pixels, not "),
    "large input_size": ({"input_size": np.array([6000, 6000])}, "input_size 6000 x 6000 is more than 33554432 pixels"),
    "input_size": ({"input_size": np.array([-1, 40])}, "input_size must be [height, width] in pixels, not "),
    "pickled": ({"id": np.array(["p1"], object)}, "id is not an array of numbers or text as numpy writes it"),
    "big-endian": ({"maps": np.ones((2, 3, 4), ">f4")}, "maps is not an array of numbers or text as numpy"),
    "bytes": ({"id": np.array(b"p1")}, "id is not an array of numbers or text as numpy writes it"),
    "structure": ({"size": np.zeros(2, "i4,i4")}, "size is not an array of numbers or text as numpy writes it"),
}


@pytest.mark.parametrize("fault", NPZ_FAULTS)
def test_npz_with_a_fault(tmp_path, fault):
    changes, reason = NPZ_FAULTS[fault]
    np.savez(tmp_path / "p1.npz", **arrays(**changes))
    assert refused(read_npz, tmp_path / "p1.npz").startswith(reason)


def test_a_size_of_a_terapixel(tmp_path):
    np.savez(tmp_path / "p1.npz", **arrays(size=np.array([10**6, 10**6])))
    with pytest.raises(LimitError, match=f"1000000 x 1000000 is more than {MAX_PIXELS} pixels"):
        read_npz(tmp_path / "p1.npz")


def archive_of(path, method=zipfile.ZIP_STORED, **members):
    """An npz whose members are given as bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def header(descr, shape):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": descr, "fortran_order": False, "shape": shape})
    return content.getvalue()


BOMBS = {
    "deflated zeros": (zipfile.ZIP_DEFLATED, header("<f4", (1, 10**4, 10**4)) + bytes(4 * 10**8), "zip bomb: maps "),
    "header of 10^12": (zipfile.ZIP_STORED, header("<f4", (10**6, 10**3, 10**3)) + bytes(64), "damaged: maps says "),
    "items of no bytes": (zipfile.ZIP_STORED, header("<U0", (10**9,)), "maps is not an array of numbers"),
    "parentheses": (zipfile.ZIP_STORED, b"\x93NUMPY\1\0\x10\x27" + b"(" * 10_000, "maps is not an array of numbers"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_zip_bombs_are_not_unpacked(tmp_path, bomb):
    method, content, reason = BOMBS[bomb]
    path = archive_of(tmp_path / "p1.npz", method, maps=content)
    tracemalloc.start()
    assert refused(read_npz, path).startswith(reason)
    assert tracemalloc.get_traced_memory()[1] < 2 * path.stat().st_size + 300_000
    tracemalloc.stop()


def test_a_member_that_unpacks_to_more_than_it_claims(tmp_path):
    content = header("<f4", (1, 1000, 1000)) + bytes(4_000_000)
    path = archive_of(tmp_path / "p1.npz", zipfile.ZIP_DEFLATED, maps=content)
    data = path.read_bytes()
    small = len(content) - 3_999_000
    path.write_bytes(data.replace(len(content).to_bytes(4, "little"), small.to_bytes(4, "little")))
    tracemalloc.start()
    assert refused(read_npz, path) == "damaged: maps is not what its checksum says"
    assert tracemalloc.get_traced_memory()[1] < 500_000
    tracemalloc.stop()


def test_maps_that_take_what_they_are_have_no_other_bound(tmp_path, monkeypatch):
    """What chex-cam wrote can be read: of large inputs and many tasks it is larger than what may be unpacked."""
    monkeypatch.setattr("chextools.heatmaps.npz.MAX_MAPS", 50)
    path = write(tmp_path / "p1.npz", example())
    assert read_npz(path).maps
    with monkeypatch.context() as patch:
        patch.setattr("chextools.heatmaps.npz.MAX_FILE", 2**20)
        with pytest.raises(LimitError, match="more than a file may have"):
            write(tmp_path / "p2.npz", example())
    np.savez_compressed(path, **arrays())
    assert refused(read_npz, path).startswith("zip bomb: maps ")


def test_a_flipped_bit_is_noticed(tmp_path):
    path = write(tmp_path / "p1.npz", example())
    data = bytearray(path.read_bytes())
    data[data.index(RAMP.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    assert refused(read_npz, path) == "damaged: maps is not what its checksum says"


def test_text_that_is_no_text(tmp_path):
    content = header("<U1", ()) + b"\xff\xff\xff\xff"
    path = write(tmp_path / "p1.npz", example())
    np.savez(path, **arrays(id=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("id.npy", content)
    assert refused(read_npz, path) == "id holds no text"


def test_npz_truncated_at_every_byte(tmp_path):
    whole = write(tmp_path / "p1.npz", example()).read_bytes()
    for length in range(0, len(whole), 5):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        reason = refused(read_npz, tmp_path / "cut.npz")
        assert "truncated" in reason or length < 2


def test_files_that_are_no_npz(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"\x80\x04N.")
    assert refused(read_npz, tmp_path / "x.npz") == "not an npz"
    assert refused(read_npz, tmp_path / "none.npz") == "No such file or directory"
    archive_of(tmp_path / "lzma.npz", zipfile.ZIP_LZMA, maps=bytes(100))
    assert refused(read_npz, tmp_path / "lzma.npz") == "maps is compressed in a way that numpy does not use"


def test_deflated_rubbish(tmp_path):
    path = archive_of(tmp_path / "p1.npz", zipfile.ZIP_DEFLATED, maps=bytes(1000))
    data = path.read_bytes()
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(bytes(1000)) + packer.flush()
    path.write_bytes(data.replace(packed, b"\xff" * len(packed)))
    assert refused(read_npz, path) == "damaged: maps cannot be unpacked"


def test_what_cannot_be_written(tmp_path):
    for heatmaps in (example(maps={}), example(maps={"a": RAMP, "b": RAMP[:2]}), example(input_size=None)):
        with pytest.raises(InputError, match="p1: an npz "):
            write_npz(tmp_path / "p1.npz", heatmaps)
    with pytest.raises(LimitError, match="input_size 8000 x 8000 is more than"):  # which nobody could read
        write_npz(tmp_path / "p1.npz", example(input_size=(8000, 8000)))


# The study's pickles


def test_the_study_gives_width_before_height(tmp_path):
    found = read_study_pickle(study_pickle(tmp_path, "patient1_study1_view1_frontal_Pleural Effusion"))
    np.testing.assert_array_equal(found.maps["Pleural Effusion"], RAMP)
    found.maps = {}
    assert found == Heatmaps(
        "patient1_study1_view1_frontal",
        size=(30, 40),
        scores={"Pleural Effusion": 0.25},
        labels={"Pleural Effusion": 1},
        reference=True,
    )


@pytest.mark.parametrize("path", sorted(ORACLE.glob("*.pkl"))[::9], ids=lambda path: path.name)
def test_the_oracles_as_torch_reads_them(path):
    pytest.importorskip("torch")
    expected = pickle.loads(path.read_bytes())
    found = read_study_pickle(path)
    task = expected["task"]
    np.testing.assert_array_equal(found.maps[task], expected["map"][0, 0].numpy())
    assert found.scores == {task: expected["prob"]}
    assert found.labels == {task: expected["gt"]}
    assert found.size == expected["cxr_dims"][::-1]


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4), (1, 1, 3, 4)])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_shapes_and_types_of_maps(tmp_path, shape, kind):
    found = read_study_pickle(study_pickle(tmp_path, map=RAMP.reshape(shape).astype(kind))).maps["Edema"]
    np.testing.assert_array_equal(found, RAMP.astype(kind).astype("f4"))
    assert (found.shape, found.dtype, found.flags.writeable) == ((3, 4), np.dtype("f4"), True)


FOURTEEN = [i / 14 for i in range(14)]


@pytest.mark.parametrize("task", tasks.STUDY_SCORES)
@pytest.mark.parametrize("wrap", [list, np.array, lambda scores: np.array([scores], "f8")])
def test_a_score_among_fourteen_is_in_the_study_s_order(tmp_path, task, wrap):
    found = read_study_pickle(study_pickle(tmp_path, f"p1_{task}", prob=wrap(FOURTEEN)))
    assert found.scores == {task: tasks.STUDY_SCORES.index(task) / 14}


def test_the_study_s_order_is_not_chexpert_s(tmp_path):
    for task, place in (("Lung Lesion", 3), ("Airspace Opacity", 4), ("Edema", 5)):
        assert read_study_pickle(study_pickle(tmp_path, f"p1_{task}", prob=FOURTEEN)).scores[task] == place / 14


def test_a_score_in_a_tensor(tmp_path):
    torch = pytest.importorskip("torch")
    for prob in (torch.tensor(0.5), torch.tensor([0.5]), torch.full((14,), 0.5), torch.full((1, 14), 0.5)):
        assert read_study_pickle(study_pickle(tmp_path, prob=prob)).scores == {"Edema": 0.5}


@pytest.mark.parametrize("prob", [float("nan"), float("inf"), None, "0.5", [[0.5]], np.zeros(0)])
def test_without_a_finite_score_there_is_none(tmp_path, prob):
    assert read_study_pickle(study_pickle(tmp_path, prob=prob)).scores == {}


@pytest.mark.parametrize(("gt", "labels"), [(1, {"Edema": 1}), (0, {"Edema": 0}), (-1, {"Edema": -1}), (2, {})])
@pytest.mark.parametrize("wrap", [int, float, np.int64, np.array])
def test_labels(tmp_path, gt, labels, wrap):
    assert read_study_pickle(study_pickle(tmp_path, gt=wrap(gt))).labels == labels


@pytest.mark.parametrize("dims", [[40, 30], np.array([40, 30]), (np.array([40]), np.array([30]))])
def test_dimensions_as_list_array_or_batch(tmp_path, dims):
    assert read_study_pickle(study_pickle(tmp_path, cxr_dims=dims)).size == (30, 40)


def test_lung_opacity_is_airspace_opacity(tmp_path):
    found = read_study_pickle(study_pickle(tmp_path, "p1_Lung Opacity", prob=FOURTEEN))
    assert found.scores == {"Airspace Opacity": 4 / 14}
    assert list(found.maps) == ["Airspace Opacity"]


STUDY_FAULTS = {
    "no map": ({"map": None}, "no 'map', which the study's pickles have"),
    "no size": ({"cxr_dims": None}, "no 'cxr_dims', which the study's pickles have"),
    "another task": ({"task": "Fracture"}, "its task is 'Fracture', but its name says 'Edema'"),
    "a number as task": ({"task": 3}, "its task is '3', but"),
    "a list as map": ({"map": [[1.0, 2.0]]}, "the map is not a tensor or array of floats"),
    "integers as map": ({"map": np.ones((3, 4), int)}, "the map is not a tensor or array of floats"),
    "a batch": ({"map": np.ones((2, 1, 3, 4))}, "the map is [2, 1, 3, 4], not one map of [height, width]"),
    "a row": ({"map": np.ones(4)}, "the map is [4], not one map"),
    "an empty map": ({"map": np.ones((1, 1, 0, 4))}, "the map is [1, 1, 0, 4], not one map"),
    "five scores": ({"prob": [0.1] * 5}, "prob has 5 numbers, not one for the task nor one for each"),
    "size of three": ({"cxr_dims": (1, 2, 3)}, "cxr_dims is not [width, height] in pixels"),
    "size of fractions": ({"cxr_dims": (1.5, 2.0)}, "cxr_dims, as size, must be [height, width] in pixels"),
    "size of 10^12": ({"cxr_dims": (10**6, 10**6)}, "cxr_dims, as size, 1000000 x 1000000 is more than"),
}


@pytest.mark.parametrize("fault", STUDY_FAULTS)
def test_study_pickle_with_a_fault(tmp_path, fault):
    changes, reason = STUDY_FAULTS[fault]
    assert refused(read_study_pickle, study_pickle(tmp_path, **changes)).startswith(reason)


@pytest.mark.parametrize("name", ["p1.pkl", "Edema_map.pkl", "_Edema_map.pkl", "p1__map.pkl", "_map.pkl"])
def test_a_name_that_does_not_say_image_and_task(tmp_path, name):
    assert refused(read_study_pickle, tmp_path / name) == "the name is not ID_TASK_map.pkl"


# Folders


def test_a_folder_of_the_study_s_pickles():
    folder = index_folder(ORACLE)
    assert (folder.kind, len(folder), list(folder)) == ("pickle", 8, sorted(folder.ids))
    found = folder.read("patient64001_study1_view1_frontal")
    assert sorted(found.maps) == sorted(tasks.STUDY)
    assert (set(found.scores), set(found.labels), found.failed) == (set(tasks.STUDY), set(tasks.STUDY), {})


def test_subfolders_count_but_hidden_and_temporary_names_do_not(tmp_path):
    study_pickle(tmp_path / "b", "p2_Edema")
    study_pickle(tmp_path / "a" / "deep", "p1_Fracture")
    study_pickle(tmp_path, "p1_Edema")
    for name in (".p3_Edema", "_tmpp3_Edema", "_tmp/p3_Edema", ".cache/p3_Edema"):
        study_pickle(tmp_path, name)
    (tmp_path / "notes.pkl").write_text("other")
    (tmp_path / "p4.png").write_text("other")
    folder = index_folder(tmp_path)
    assert folder.files == {
        "p1": {"Edema": tmp_path / "p1_Edema_map.pkl", "Fracture": tmp_path / "a/deep/p1_Fracture_map.pkl"},
        "p2": {"Edema": tmp_path / "b/p2_Edema_map.pkl"},
    }
    assert "p1" in folder
    assert "p3" not in folder


def test_a_folder_of_npz(tmp_path):
    write(tmp_path / "b.npz", example(id="b"))
    write(tmp_path / "sub" / "a.b.npz", example(id="a.b"))
    folder = index_folder(tmp_path)
    assert (folder.kind, folder.ids) == ("npz", ["a.b", "b"])
    assert folder.read("a.b").id == "a.b"


def test_an_npz_under_another_name(tmp_path):
    path = write(tmp_path / "other.npz", example(id="p1"))
    assert refused(lambda _: index_folder(tmp_path).read("other"), path) == (
        "holds the heatmaps of 'p1', which its name does not say"
    )


def test_two_files_for_one_image(tmp_path):
    first, second = study_pickle(tmp_path / "a"), study_pickle(tmp_path / "b")
    with pytest.raises(InputError) as caught:
        index_folder(tmp_path)
    assert str(caught.value) == f"{second}: a second file for p1, Edema, beside {first}"
    shutil.rmtree(tmp_path / "b")
    study_pickle(tmp_path / "a", "p1_Lung Opacity")
    study_pickle(tmp_path / "a", "p1_Airspace Opacity")
    with pytest.raises(InputError, match="a second file for p1, Airspace Opacity"):
        index_folder(tmp_path)
    shutil.rmtree(tmp_path / "a")
    write(tmp_path / "a" / "p1.npz", example())
    write(tmp_path / "p1.npz", example())
    with pytest.raises(InputError, match=r"a/p1.npz: a second file for p1, beside .*/p1.npz"):
        index_folder(tmp_path)


def test_folders_that_cannot_be_used(tmp_path):
    assert refused(index_folder, tmp_path) == "no heatmaps (*.npz or ID_TASK_map.pkl) in folder"
    study_pickle(tmp_path)
    write(tmp_path / "p2.npz", example(id="p2"))
    assert refused(index_folder, tmp_path).startswith("a folder of both npz and pickles: ")
    assert refused(index_folder, tmp_path / "none") == "No such file or directory"
    assert refused(index_folder, tmp_path / "p2.npz") == "Not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    assert refused(lambda _: index_folder(tmp_path), tmp_path / "closed") == "Permission denied"


def test_a_pickle_that_cannot_be_read_fails_alone(tmp_path):
    study_pickle(tmp_path, "p1_Edema")
    broken = study_pickle(tmp_path, "p1_Fracture")
    broken.write_bytes(broken.read_bytes()[:50])
    study_pickle(tmp_path, "p1_Pneumonia", map=RAMP * np.nan)
    found = index_folder(tmp_path).read("p1")
    assert list(found.maps) == ["Edema"]
    assert set(found.failed) == {"Fracture", "Pneumonia"}
    assert found.failed["Fracture"].startswith(f"{broken}: truncated: ")
    assert found.failed["Pneumonia"] == "the map holds NaN or infinity"


def test_an_image_of_which_no_pickle_can_be_read(tmp_path):
    path = study_pickle(tmp_path)
    path.write_bytes(b"")
    assert refused(lambda _: index_folder(tmp_path).read("p1"), path) == "empty file"


def test_the_size_is_what_most_pickles_say(tmp_path):
    for task in ("Atelectasis", "Edema", "Fracture"):
        study_pickle(tmp_path, f"p1_{task}", cxr_dims=(99, 98) if task == "Atelectasis" else (40, 30))
    found = index_folder(tmp_path).read("p1")
    assert (found.size, list(found.maps), list(found.scores)) == (
        (30, 40),
        ["Edema", "Fracture"],
        ["Edema", "Fracture"],
    )
    (reason,) = found.failed.values()
    assert reason.endswith("p1_Atelectasis_map.pkl: size 98 x 99, but the image's others say 30 x 40")


def test_an_image_that_is_not_there():
    with pytest.raises(InputError, match="no heatmaps of nobody"):
        index_folder(ORACLE).read("nobody")


# What a record's "heatmap" means


def test_a_reference_to_a_file_or_to_an_image_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "maps" / "p1.npz", example())
    study_pickle(tmp_path / "pickles", "p1_Edema")
    study_pickle(tmp_path / "pickles", "p1_Fracture")
    assert open_heatmap("maps/p1.npz").method == "gradcam"
    assert open_heatmap("maps#p1").method == "gradcam"
    assert list(open_heatmap("pickles#p1").maps) == ["Edema", "Fracture"]
    assert list(open_heatmap("pickles/p1_Fracture_map.pkl").maps) == ["Fracture"]


def test_a_reference_with_more_than_one_hash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "maps#p1", example(id="a file"))
    study_pickle(tmp_path / "maps", "p1_Edema")
    study_pickle(tmp_path / "maps", "a#b_Edema")
    study_pickle(tmp_path / "maps#a", "b_Edema")
    study_pickle(tmp_path / "maps#a", "c_Edema")
    assert open_heatmap("maps#p1").id == "a file"
    assert open_heatmap("maps#a#b").id == "a#b"
    assert open_heatmap("maps#a#c").id == "c"


@pytest.mark.parametrize("reference", ["none.npz", "none#p1", "#p1", "", "a\0b"])
def test_a_reference_to_nothing(reference):
    with pytest.raises(InputError):
        open_heatmap(reference)


def test_a_folder_is_searched_once_per_process(tmp_path, monkeypatch):
    study_pickle(tmp_path, "p1_Edema")
    study_pickle(tmp_path, "p2_Edema")
    open_heatmap(f"{tmp_path}#p1")
    monkeypatch.setattr(os, "walk", None)
    assert open_heatmap(f"{tmp_path}#p2").id == "p2"
    with pytest.raises(InputError, match="no heatmaps of p3"):
        open_heatmap(f"{tmp_path}#p3")


def test_a_folder_object_can_be_made_by_hand(tmp_path):
    folder = HeatmapFolder(tmp_path, "pickle", {"p1": {"Edema": study_pickle(tmp_path)}})
    assert folder.read("p1").scores == {"Edema": 0.25}
