"""chex-prep: records of X-rays that are there and whole, patients on one side, packs that survive a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from conftest import DATA, launcher, need_shared, run
from PIL import Image
from xray_files import RAMP, dicom, png_header

from chextools import prep
from chextools.masks.mask import Mask
from chextools.xrays import images, packs

CXRS = DATA / "cxr"


def lines(text: str | bytes) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def rated(err: str) -> list[str]:
    """The lines on stderr but for the rate, which comes last of the warnings."""
    said = err.splitlines()
    rates = [line for line in said if line.endswith("images a second")]
    assert len(rates) == 1
    return [line for line in said if line not in rates]


def x_rays(folder, count: int, size: int = 40):
    rng = np.random.default_rng(0)
    for k in range(count):
        path = folder / f"patient{k:03d}/study1/view1_frontal.jpg"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (size, size + k % 3), np.uint8)).save(path)
    return folder


def files(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Records


def test_a_csv_from_its_folder_is_the_same_by_name_and_on_stdin(cli, monkeypatch):
    monkeypatch.chdir(CXRS)
    named = cli("chex-prep", "valid.csv", "--split", "0.5,0.3,0.2")
    assert named.code == 0 and rated(named.err) == []
    piped = cli("chex-prep", "-", "--split", "0.5,0.3,0.2", stdin=(CXRS / "valid.csv").read_bytes())
    assert piped.out == named.out and len(lines(piped.out)) == 8
    assert cli("chex-prep", "-", stdin=named.out.encode()).out == named.out  # records stay what they are


def test_records_of_real_x_rays(cli):
    sample = need_shared("data/chexlocalize-sample")
    (record,) = lines(cli("chex-prep", sample / "valid.csv").out)
    assert (record["id"], record["size"]) == ("patient64541_study1_view1_frontal", [2320, 2828])
    assert record["labels"]["Airspace Opacity"] == 1 and len(record["labels"]) == 14
    nih = lines(cli("chex-prep", need_shared("data/nih") / "train.csv").out)
    assert len(nih) == 373 and {tuple(r["size"]) for r in nih} == {(512, 512)}
    assert Counter(r["labels"]["Airspace Opacity"] for r in nih)[1] == 145


def test_paths_on_stdin_ended_by_nul(cli):
    paths = sorted(str(path) for path in CXRS.rglob("*.png"))
    by_line = cli("chex-prep", stdin="".join(p + "\n" for p in paths).encode())
    assert cli("chex-prep", "-0", stdin="\0".join(paths).encode()).out == by_line.out
    assert [r["image"] for r in lines(by_line.out)] == paths


def test_what_is_no_image_or_not_whole_is_named_and_the_rest_go_on(cli, tmp_path):
    good = (CXRS / "valid/patient00001/study1/view1_frontal.jpg").read_bytes()
    (tmp_path / "a.png").write_bytes(good)  # the content decides
    (tmp_path / "cut.jpg").write_bytes(good[:-100])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    result = cli("chex-prep", tmp_path)
    assert result.code == 1 and [r["id"] for r in lines(result.out)] == ["a"]
    assert rated(result.err) == [
        f"chex-prep: warning: {tmp_path}/cut.jpg: truncated; skipped",
        f"chex-prep: warning: {tmp_path}/empty.jpg: an empty file; skipped",
        f"chex-prep: warning: {tmp_path}/page.jpg: not an image of a known kind; skipped",
        "chex-prep: error: 3 of 4 records failed",
    ]
    missing = cli("chex-prep", stdin=b"Path,Edema\nno/such.jpg,1\n")
    assert missing.err.startswith("chex-prep: warning: stdin:2: no/such.jpg: No such file or directory; skipped\n")


def test_verify_finds_damage_inside(cli, tmp_path):
    data = bytearray((CXRS / "valid/patient00004/study1/view1_frontal.png").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "x.png").write_bytes(data)
    assert cli("chex-prep", tmp_path).code == 0
    assert "x.png: cannot be decoded" in cli("chex-prep", tmp_path, "--verify").err


def test_warnings_of_libraries_are_not_seen(tmp_path):
    """Only ours: Pillow warns of images that may be bombs, too."""
    frames = [Image.new("L", (9, 9), k) for k in (0, 255)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "large.png").write_bytes(png_header(25_000, 25_000))
    result = run("chex-prep", tmp_path, "--pack", tmp_path.parent / f"{tmp_path.name}-pack", "--size", "8")
    too_large = "the image's size 25000 x 25000 is more than 536870912 pixels"
    assert rated(result.stderr.decode()) == [
        f"chex-prep: warning: {tmp_path}/large.png: {too_large}; skipped",
        f"chex-prep: warning: {tmp_path}/x.gif: 2 frames; the first counts",
        "chex-prep: error: 1 of 2 records failed",
    ]


def test_dicom_tells_patient_and_view(cli, tmp_path):
    for name, patient in (("1.2.3", "A"), ("1.2.4", "A"), ("1.2.5", "B")):
        dicom(tmp_path / name, RAMP, bits=12, PatientID=patient, ViewPosition="PA")
    records = lines(cli("chex-prep", tmp_path, "--split", "0.5,0.5").out)
    assert [(r["id"], r["patient"], r["projection"]) for r in records] == [
        ("1.2.3", "A", "PA"),
        ("1.2.4", "A", "PA"),
        ("1.2.5", "B", "PA"),
    ]
    assert records[0]["split"] == records[1]["split"] == prep.split_of("A", (0.5, 0.5), 0)


def test_what_dicom_says_of_pixels_is_packed_and_becomes_mm(cli, tmp_path):
    """From files of 0.2 x 0.1 mm pixels to a distance: eight rows between two dots."""
    (tmp_path / "in").mkdir()
    dicom(tmp_path / "in/1.2.3", RAMP, bits=12, PixelSpacing=[0.2, 0.1])
    (direct,) = lines(cli("chex-prep", tmp_path / "in").out)
    (packed,) = lines(cli("chex-prep", tmp_path / "in", "--pack", tmp_path / "pack", "--size", "8").out)
    (again,) = lines(cli("chex-prep", tmp_path / "pack").out)
    assert direct["spacing"] == packed["spacing"] == again["spacing"] == [0.2, 0.1]
    dots = [np.zeros((16, 16), bool) for _ in range(2)]
    dots[0][2, 3] = dots[1][10, 3] = True
    pred, truth = ({"id": direct["id"], "masks": {"Edema": Mask.from_array(dot).to_rle()}} for dot in dots)
    (tmp_path / "gt").write_text(json.dumps(truth) + "\n")

    def distance(record, *more):
        stdin = json.dumps(record | pred).encode()
        return json.loads(
            cli("chex-eval", "--truth", tmp_path / "gt", "--metric", "hd95", *more, stdin=stdin).out.splitlines()[0]
        )

    row = distance(again)
    assert (row["mean"], row["unit"], row["spacing"]) == (pytest.approx(1.6), "mm", "record")
    row = distance(again, "--spacing", "px")
    assert (row["mean"], row["unit"], "spacing" in row) == (8, "px", False)
    del again["spacing"]
    assert distance(again)["unit"] == "px"


def test_dicom_without_pydicom_is_one_line(tmp_path):
    (tmp_path / "pydicom.py").write_text("raise ImportError\n")
    (tmp_path / "in").mkdir()
    for name in "abc":
        dicom(tmp_path / "in" / name, RAMP)
    result = run("chex-prep", tmp_path / "in", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.decode() == (
        f"chex-prep: error: {tmp_path}/in/a: DICOM needs pydicom: pip install 'chextools[dicom]'\n"
    )


# Splits


def test_split_shares_and_independence():
    patients = [f"patient{k:05d}" for k in range(20_000)]
    sides = [prep.split_of(p, (0.8, 0.1, 0.1), 0) for p in patients]
    counts = Counter(sides)
    for name, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert abs(counts[name] / 20_000 - share) < 4 * np.sqrt(share * (1 - share) / 20_000)
    other = [prep.split_of(p, (0.8, 0.1, 0.1), 1) for p in patients]
    both = sum(a == b == "train" for a, b in zip(sides, other)) / 20_000
    assert abs(both - 0.64) < 0.02  # another seed is another split
    assert all(prep.split_of(p, (0.0, 1.0), 0) == "valid" for p in patients[:100])


def test_a_patient_is_on_one_side_however_the_list_is_cut(cli, tmp_path):
    for k in range(30):
        for study in (1, 2):
            path = tmp_path / f"patient{k}/study{study}/x.png"
            path.parent.mkdir(parents=True)
            Image.new("L", (2, 2)).save(path)
    whole = lines(cli("chex-prep", tmp_path, "--split", "0.5,0.5", "--seed", 3).out)
    sides = {}
    for record in whole:
        assert sides.setdefault(record["patient"], record["split"]) == record["split"]
    assert set(sides.values()) == {"train", "valid"}
    half = "".join(f"{r['image']}\n" for r in whole[::-3]).encode()
    for record in lines(cli("chex-prep", "--split", "0.5,0.5", "--seed", 3, stdin=half).out):
        assert record["split"] == prep.split_of(record["patient"], (0.5, 0.5), 3) == sides[record["patient"]]


def test_images_of_no_known_patient_are_counted(cli, tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "x.png")
    assert "1 images of no known patient: each is split on its own" in cli("chex-prep", tmp_path, "--split", "1,0").err


@pytest.mark.parametrize("split", ["0.8", "0.8,0.1", "0.9,0.2,-0.1", "a,b", "0.25,0.25,0.25,0.25"])
def test_shares_that_make_no_whole(cli, split):
    result = cli("chex-prep", CXRS, "--split", split)
    assert result.code == 2 and "shares that add up to 1" in result.err


# Packs


def test_a_pack_is_what_decoding_gives(cli, tmp_path):
    plain = cli("chex-prep", CXRS / "valid.csv", "--split", "0.5,0.5")
    packed = cli("chex-prep", CXRS / "valid.csv", "--split", "0.5,0.5", "--pack", tmp_path / "p", "--size", 24, "-j", 2)
    assert packed.out == plain.out
    pack = packs.open_pack(tmp_path / "p")
    for record, image in zip(pack.records, pack.take(range(8))):
        np.testing.assert_array_equal(image, images.load(record["image"], 24))
    again = cli("chex-prep", tmp_path / "p")  # a pack is an input, too
    assert again.out == plain.out


def test_shards_of_a_pack_are_the_whole(cli, tmp_path):
    whole = cli("chex-prep", CXRS / "valid.csv", "--pack", tmp_path / "whole", "--size", 24)
    shards = [
        cli("chex-prep", CXRS / "valid.csv", "--pack", tmp_path / "p", "--size", 24, "--shard", f"{i}/3")
        for i in (3, 1, 2)
    ]
    assert sorted("".join(s.out for s in shards).splitlines()) == sorted(whole.out.splitlines())
    one, many = packs.open_pack(tmp_path / "whole"), packs.open_pack(tmp_path / "p")
    assert [r["id"] for r in one.records] == [r["id"] for r in many.records]
    np.testing.assert_array_equal(one.take(range(8)), many.take(range(8)))


def test_kill_9_and_resume_is_the_same(tmp_path):
    """Killed after one, two, ... records on stdout, over and over, until nothing is left to do."""
    source = x_rays(tmp_path / "in", 12)
    expected = run("chex-prep", source, "--pack", tmp_path / "whole", "--size", 24).stdout
    words = [*launcher("chex-prep"), str(source), "--pack", str(tmp_path / "p"), "--size", "24", "-q", "--resume"]
    for seen in (1, 4, 9):
        with subprocess.Popen([*words, "-j", "2"], stdout=subprocess.PIPE) as process:
            for _ in range(seen):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
    assert subprocess.run(words, stdout=subprocess.PIPE).stdout == expected
    assert files(tmp_path / "p") == files(tmp_path / "whole")


def test_sigterm_while_packing_is_75(tmp_path):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*launcher("chex-prep"), "-j", "1", "--pack", str(tmp_path / "p")], **pipes) as process:
        paths = sorted(CXRS.rglob("*.png"))
        process.stdin.write(b"".join(os.fsencode(path) + b"\n" for path in [*paths, *CXRS.rglob("*.jpg")]))
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 75
        assert process.stderr.read().endswith(b"chex-prep: warning: stopped early; --resume goes on\n")


def test_resume_computes_nothing_twice_but_writes_it_again(cli, tmp_path):
    source = x_rays(tmp_path / "in", 3)
    options = ("--pack", tmp_path / "p", "--size", 24)
    first = cli("chex-prep", source, *options)
    for path in sorted(source.rglob("*.jpg"))[:2]:
        path.write_bytes(b"gone")
    again = cli("chex-prep", source, *options, "--resume")
    assert (again.code, again.out) == (0, first.out)


def test_resume_with_another_list(cli, tmp_path):
    options = ("--pack", tmp_path / "p", "--size", 24)
    (tmp_path / "t.csv").write_bytes((CXRS / "valid.csv").read_bytes())
    cli("chex-prep", tmp_path / "t.csv", "--root", CXRS, *options)
    changed = (CXRS / "valid.csv").read_text().replace("AP,1.0,0.0,-1.0", "AP,0.0,0.0,-1.0", 1)
    (tmp_path / "t.csv").write_text("\n".join(changed.splitlines()[:-1]) + "\n")
    result = cli("chex-prep", tmp_path / "t.csv", "--root", CXRS, *options, "--resume")
    assert result.code == 1 and len(lines(result.out)) == 6
    assert "packed with another 'labels': {'Cardiomegaly': 1," in result.err
    assert "the pack also holds 1 CXR (patient00008_study1_view1_frontal) not in this list" in result.err
    other = cli("chex-prep", tmp_path / "t.csv", "--root", CXRS, "--pack", tmp_path / "p", "--size", 25, "--resume")
    assert "was packed with size 24, not 25; --force replaces it" in other.err


def test_what_failed_is_added_by_the_next_run(cli, tmp_path):
    source = x_rays(tmp_path / "in", 4)
    cli("chex-prep", source, "--pack", tmp_path / "whole", "--size", 24)
    broken = source / "patient001/study1/view1_frontal.jpg"
    data = broken.read_bytes()
    broken.write_bytes(data[:-50])
    assert cli("chex-prep", source, "--pack", tmp_path / "p", "--size", 24).code == 1
    broken.write_bytes(data)
    assert cli("chex-prep", source, "--pack", tmp_path / "p", "--size", 24, "--resume").code == 0
    one, other = packs.open_pack(tmp_path / "whole"), packs.open_pack(tmp_path / "p")
    assert [r["id"] for r in one.records] == [r["id"] for r in other.records]
    np.testing.assert_array_equal(one.take(range(4)), other.take(range(4)))


@pytest.mark.parametrize(
    "options, said",
    [
        (["--resume"], "--resume goes on with a --pack"),
        (["--size", "9"], "--size is that of a --pack"),
        (["-0"], "--null is about paths on stdin"),
        (["--map", "Edema"], "is not OLD=NEW"),
    ],
)
def test_options_that_mean_nothing_here(cli, options, said):
    result = cli("chex-prep", CXRS, *options)
    assert result.code == 2 and said in result.err


def test_a_full_disk_leaves_a_pack_to_resume(cli, tmp_path):
    source = x_rays(tmp_path / "in", 12)
    words = " ".join(f"'{word}'" for word in [*launcher("chex-prep"), source, "--pack", tmp_path / "p", "-q"])
    script = f"trap '' XFSZ; ulimit -f 500; {words}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60)
    assert result.returncode == 1 and b"Traceback" not in result.stderr and result.stderr.count(b"\n") == 1
    assert f"{tmp_path}/p/images-1-of-1.u8: File too large".encode() in result.stderr
    assert cli("chex-prep", source, "--pack", tmp_path / "p", "--resume").code == 0
    assert cli("chex-prep", source, "--pack", tmp_path / "whole").code == 0
    assert files(tmp_path / "p") == files(tmp_path / "whole")


def test_prep_never_imports_torch():
    script = "import sys, chextools.prep, chextools.inputs.image_lists; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize("pack", [False, True])
def test_verify_finds_a_jpeg_that_was_cut_before_its_end_marker(cli, tmp_path, pack):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.jpg")
    data = (tmp_path / "x.jpg").read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    more = ["--pack", tmp_path / "pack", "--size", 16] if pack else []
    result = cli("chex-prep", tmp_path / "x.jpg", "--verify", *more)
    assert result.code == 1 and "truncated: pixels are missing before the end marker" in result.err


def test_of_many_absent_images_a_few_are_named(cli, tmp_path):
    (tmp_path / "t.csv").write_text("Path,Edema\n" + "".join(f"{k}.png,1\n" for k in range(50)))
    result = cli("chex-prep", tmp_path / "t.csv")
    assert result.code == 1
    warnings = result.err.splitlines()
    assert len(warnings) == 5 and "50 files are absent, of which the first 3 are named" in warnings[3]
    assert warnings[4] == "chex-prep: error: 50 of 50 records failed"


def test_a_split_by_a_column_keeps_its_values_together(cli, tmp_path):
    for k in range(40):
        Image.new("L", (4, 4), k).save(tmp_path / f"{k}.png")
    (tmp_path / "t.csv").write_text("Path,site,Edema\n" + "".join(f"{k}.png,s{k % 5},1\n" for k in range(40)))
    records = lines(cli("chex-prep", tmp_path / "t.csv", "--split", "0.5,0.5", "--split-by", "site").out)
    sides = {r["id"]: r["split"] for r in records}
    assert all(len({sides[str(k)] for k in range(site, 40, 5)}) == 1 for site in range(5))
    assert len(set(sides.values())) == 2 and "split_by" not in records[0]
