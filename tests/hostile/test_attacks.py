"""Text made to hurt, over every reader of text: no traceback, no hang, no gigabytes, nothing written outside.

An attack ends with exit 0 or 1, in short lines on stderr; which of both is for the readers' own tests to say.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from forks import DEVNULL, Forks

TRUTH = {f"p{k}": {"img_size": [9, 9], "Edema": [[[1, 1], [5, 1], [5, 5]]]} for k in range(3)}
MASK = {"size": [9, 9], "counts": "9Q1"}
MODULES = "segment eval features tune view prep compare regress report".split()
CPU_SECONDS = 60  # a hang: on a busy machine no attack takes a tenth
LIMITS = {"CPU": CPU_SECONDS, "AS": 3 * 2**30}  # libraries map more than they use
STDERR_BYTES = 200_000
OUTSIDE = f"/tmp/chextools-outside-{os.getpid()}"
MEGABYTES = 1024
SECONDS = 120  # until an answer: a hang


def jsonl(*values) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def record(**more) -> bytes:
    return jsonl({"id": "p0", **more})


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "1" + closing * depth


def label_studio(codes: list, side: float) -> dict:
    """A task of Label Studio with a brush."""
    value = {"format": "rle", "rle": codes, "brushlabels": ["Edema"]}
    result = {"type": "brushlabels", "original_width": side, "original_height": side, "value": value}
    return {"data": {"image": "p0.png"}, "annotations": [{"result": [result]}]}


def png_of(side: int) -> bytes:
    """A PNG that says it has side x side pixels, and holds few."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 10**6))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*chunks, (b"IEND", b"")]
    )


def png64(side: int) -> str:
    return base64.b64encode(png_of(side)).decode()


# What any reader may be given, and what it is called: the name says CSV where a command tells by it.
ANYTHING: dict[str, tuple[str, Callable[[], bytes]]] = {
    "empty": ("x.jsonl", lambda: b""),
    "blank lines": ("x.jsonl", lambda: b"\n \r\n\t\n" * 1000),
    "no text": ("x.jsonl", lambda: bytes(range(256)) * 100),
    "nul bytes": ("iou_x.csv", lambda: b"\0" * 100_000),
    "lists 500 deep": ("x.jsonl", lambda: b'{"id": "a", "masks": %s}\n' % nested(500).encode()),
    "lists 200,000 deep": ("x.json", lambda: nested(200_000).encode()),
    "objects 10^5 deep": ("x.json", lambda: nested(10**5, '{"a":', "}").encode()),
    "lists that never end": ("x.json", lambda: b"[" * 10**7),
    "40,000 keys, one twice": (
        "x.jsonl",
        lambda: ('{"id": "a", ' + ", ".join(f'"{k}": 1' for k in range(40_000)) + ', "7": 1}\n').encode(),
    ),
    "4 million empty lists": ("x.json", lambda: b"[" + b"[]," * (2**22 + 1) + b"1]"),
    "number of 10^6 digits": ("x.jsonl", lambda: b'{"id": "a", "scores": {"Edema": %s}}\n' % (b"9" * 10**6)),
    "1e999": ("x.jsonl", lambda: b'{"id": "a", "scores": {"Edema": 1e999}, "size": [1e999, 1]}\n'),
    "NaN": ("x.jsonl", lambda: b'{"id": "a", "scores": {"Edema": NaN}}\n'),
    "half of a character": ("x.jsonl", lambda: b'{"id": "\\ud800"}\n{"id": "a\\udc80"}\n'),
    "id of 10^6 letters": ("x.jsonl", lambda: record(id="x" * 10**6)),
    "id that is a path": (
        "x.jsonl",
        lambda: jsonl(*({"id": i, "image": "x"} for i in ("../../x", OUTSIDE, "..", "a/b"))),
    ),
    "task that is a path": (
        "x.jsonl",
        lambda: record(masks={"../../x": MASK, OUTSIDE: MASK, "a\nb": MASK}, size=[9, 9]),
    ),
    "5,000 tasks": ("x.jsonl", lambda: record(scores={f"task {k}": 0.5 for k in range(5000)})),
    "line of 70 MB": ("x.jsonl", lambda: b'{"id": "' + b"a" * (70 * 2**20)),
    "100 MB without a line end": ("iou_x.csv", lambda: b"a" * (100 * 2**20)),
    "200,000 lines of CR": ("iou_x.csv", lambda: b"a\r" * 200_000),
    "half a unit of UTF-16": ("iou_x.csv", lambda: "Edema,img_id\n1,p0\n".encode("utf-16")[:-1]),
    "UTF-16 of JSON": ("x.jsonl", lambda: record(scores={"Edema": 0.5}).decode().encode("utf-16")),
    "gzip, its header cut": ("iou_x.csv", lambda: b"\x1f\x8b\x08\x08\0\0\0\0\0\0" + b"n" * 10**6),
    "gzip, its end cut": ("x.jsonl", lambda: gzip.compress(record(size=[9, 9]) * 1000)[:-9]),
    "gzip of zeros": ("iou_x.csv", lambda: bomb(b"0" * 2**20)),
    "gzip of lists": ("x.json", lambda: bomb(b"[" + b"[]," * 2**19)),
    "gzip of rows": ("iou_x.csv", lambda: bomb(b"Edema,img_id\n" + b"1,p0\n" * 2**17)),
    "10^5 columns": ("iou_x.csv", lambda: columns(100_000)),
    "10^5 columns of labels": (
        "x.csv",
        lambda: b"Path," + b",".join(b"t%d" % k for k in range(10**5)) + b"\nx.png" + b",1" * 10**5 + b"\n",
    ),
    "10^5 tasks": (
        "x.jsonl",
        lambda: record(**{key: {f"t{k}": k % 2 for k in range(10**5)} for key in ("labels", "scores")}),
    ),
    "10^5 columns of one name": ("iou_x.csv", lambda: b"img_id" + b",a" * 100_000 + b"\n"),
    "10^6 columns": ("iou_x.csv", lambda: b"img_id" + b"," * 10**6 + b"\n"),
    "cell of 200,000 bytes": ("iou_x.csv", lambda: b"Edema,img_id\n1," + b"x" * 200_000 + b"\n"),
    "quote that never closes": ("iou_x.csv", lambda: b'Edema,img_id\n"1,p0\n' + b"2,p1\n" * 100_000),
    "rows of other lengths": ("iou_x.csv", lambda: b"Edema,img_id\n1\n1,2,3\n,\n,,,,\n"),
    "values that are none": (
        "iou_x.csv",
        lambda: b"Edema,img_id\n9,a\n-1,b\nx,c\ninf,d\n1e999,e\n" + b"9" * 10**5 + b",f\n",
    ),
    "points of strings": ("x.json", lambda: jsonl({"p0": {"Edema": [["1", "2"]]}, "p1": {"Edema": [[1, 2]]}})),
    "points of three": ("x.json", lambda: jsonl({"p0": {"Edema": [[1, 2]]}, "p1": {"Edema": [[1, 2, 3]]}})),
    "points beyond all": (
        "x.json",
        lambda: jsonl({"p0": {"Edema": [[1, 2]]}, "p1": {"Edema": [[10**400, -(10**400)]]}}),
    ),
    "points of nothing": ("x.json", lambda: jsonl({"p0": {"Edema": [None, [], {}]}, "p1": {"Edema": {"a": 1}}})),
    "outlines without size": ("x.jsonl", lambda: record(outlines={"Edema": [[[1, 1], [5, 1], [5, 5]]]})),
    "outlines of null size": ("x.json", lambda: jsonl({"p0": {"img_size": None, "Edema": [[[1, 1], [5, 1], [5, 5]]]}})),
    "outlines of odd things": (
        "x.json",
        lambda: jsonl({"p0": {"img_size": [9, 9], "Edema": [[["a", 1], [10**400, 1], [None, 2]]], "Mass": 5}}),
    ),
    "sizes that are none": (
        "x.jsonl",
        lambda: jsonl(
            *({"id": f"p{k}", "size": s} for k, s in enumerate([[10**400, 1], [-1, 1], ["9", 9], 5, [2**30] * 2]))
        ),
    ),
    "masks that are none": (
        "x.jsonl",
        lambda: jsonl(
            *(
                {"id": f"p{k}", "masks": {"Edema": m}}
                for k, m in enumerate(
                    [5, {}, {"size": [2**30, 2**30], "counts": "0"}, {"size": [9, 9], "counts": "~" * 999}]
                )
            )
        ),
    ),
    "values of results that are none": (
        "x.jsonl",
        lambda: jsonl(
            *({"id": f"p{k}", "iou": {"Edema": v}} for k, v in enumerate(["1", [1], {"a": 1}, True, 10**400, 9]))
        ),
    ),
    "replicates that are none": (
        "x.jsonl",
        lambda: jsonl(
            *({"metric": "iou", "replicate": r, "means": {"Edema": 1}} for r in ("a", [1], -1, 10**400, True))
        ),
    ),
    "rows that are none": (
        "x.jsonl",
        lambda: jsonl(
            *(
                {"metric": m, "task": "Edema", "mean": v, "lower": [1], "upper": 10**400}
                for m in ("iou", 1, ["a"])
                for v in ("a", 1)
            )
        ),
    ),
    "labels that are none": ("t.csv", lambda: b"Path,Age,Edema\na.jpg,\xc2\xb2\xc2\xb3,2\nb.jpg,1,x\n\0,1,1\n"),
    "path of 10,000 parts": ("t.csv", lambda: b"Path,Edema\n" + b"patient/" * 10_000 + b"x.jpg,1\n"),
    "path of patients": ("t.csv", lambda: b"Path,Edema\n" + b"patient1" * 100_000 + b".jpg,1\n"),
    "paths out of the folder": ("t.csv", lambda: b"Path,Edema\n../../../etc/passwd,1\n/etc/passwd,1\n/dev/zero,1\n"),
    "XML of entities": (
        "x.xml",
        lambda: (
            b'<!DOCTYPE a [<!ENTITY a "aaaaaaaa">%s]><annotations>&z;</annotations>'
            % b"".join(b'<!ENTITY %c "%s">' % (k + 1, b"&%c;" % k * 9) for k in range(97, 122))
        ),
    ),
    "XML 10^6 deep": ("x.xml", lambda: b"<annotations>" * 10**6),
    "XML of another file": ("x.xml", lambda: b'<!DOCTYPE a SYSTEM "file:///dev/zero"><annotations/>'),
    "CVAT of a huge image": (
        "x.xml",
        lambda: (
            b'<annotations><image name="p0" width="23170" height="23170"><mask label="Edema" rle="536848900" '
            b'left="0" top="0" width="23170" height="23170"/><polygon label="Mass" points="-9,0;9,0;9,9"/>'
            b"</image></annotations>"
        ),
    ),
    "brush that claims 2^32 values": (
        "x.json",
        lambda: jsonl([label_studio([255] * 4 + [57, 27, 63] + [255] * 100_000, 23170)]),
    ),
    "brush of another size": ("x.json", lambda: jsonl([label_studio([0, 0, 0, 4] * 9, 2), label_studio(["a"], 1e999)])),
    "boxes of odd numbers": (
        "x.csv",
        lambda: (
            b"patientId,x,y,width,height,Target\n"
            + b"".join(
                b"p%d,%s,1,%s,9,1\n" % (k, v, v) for k, v in enumerate([b"1e999", b"NaN", b"-9", b"", b"1" * 9999])
            )
        ),
    ),
    "20,000 boxes on one image": (
        "x.csv",
        lambda: (
            b"patientId,x,y,width,height,Target\n"
            + b"".join(b"p0,%d,%d,9,9,1\n" % (k % 900, k // 900) for k in range(20_000))
        ),
    ),
    "runs of a huge image": (
        "x.csv",
        lambda: b"image_id,Left Lung,Right Lung,Heart,Height,Width\np0,1 536848900,1 5 3 9,9 9 9,23170,23170\n",
    ),
    "runs that are none": ("x.csv", lambda: b"ImageId,EncodedPixels\np0," + b"9" * 10**5 + b" 1\np1,1 2 3\np2,-1 -1\n"),
    "PNG of a huge size": ("p0_Edema.png", lambda: png_of(23170)),
    "PNG that is none": ("p0_Edema.png", lambda: png_of(9)[:40] + b"\xff" * 99),
    "LabelMe of odd things": (
        "x.json",
        lambda: jsonl(
            {
                "imagePath": "../../p0",
                "imageHeight": 99,
                "imageWidth": 99,
                "shapes": [
                    5,
                    {"label": "Edema", "points": [[1, 1], [9, 9]], "shape_type": "mask", "mask": png64(23170)},
                    {"label": "../../x", "points": [[1e999, 1]] * 3},
                    {"label": None, "shape_type": [1]},
                ],
            }
        ),
    ),
    "VIA of odd things": (
        "x.json",
        lambda: jsonl({"p": {"filename": OUTSIDE, "regions": [{"shape_attributes": {"name": "circle", "r": 1e9}}, 5]}}),
    ),
    "readers that are none": (
        "x.jsonl",
        lambda: jsonl(
            *(
                {"id": f"p{k}", "masks": {"Edema": MASK}, "readers": r, "kind": r, "instances": r}
                for k, r in enumerate([5, [], {"a": 5}, {"a": {"Edema": 5}, "b": {"Edema": MASK}}, {"": {}}])
            )
        ),
    ),
    "COCO of odd things": (
        "x.json",
        lambda: jsonl({"images": [{"id": 1}, {"id": [1]}, 5], "annotations": [{"image_id": {}}], "categories": {}}),
    ),
}

# What is done with it: arguments, with FILE for the file and TRUTH for a truth of three X-rays
COMMANDS = {
    "segment": ["FILE"],
    "eval": ["FILE", "--truth", "TRUTH"],
    "eval of scores": ["FILE", "--metric", "auroc"],
    "eval by a truth": ["TRUTH", "--truth", "FILE"],
    "features": ["FILE", "--truth", "TRUTH"],
    "tune": ["FILE", "--truth", "TRUTH", "--for", "threshold"],
    "tune of scores": ["FILE", "--for", "score"],
    "view": ["FILE", "-o", "pictures"],
    "prep": ["FILE"],
    "compare": ["FILE", "FILE"],
    "regress": ["FILE", "--scores", "FILE"],
    "report": ["FILE", "-o", "page.html"],
    "segment by thresholds": ["TRUTH", "--threshold", "FILE"],
    "segment of stdin": [],
}


def bomb(block: bytes) -> bytes:
    """About a gigabyte as gzip of a megabyte: a member for each block."""
    return gzip.compress(block) * (2**30 // len(block))


def columns(count: int) -> bytes:
    names = ",".join(f"task {k}" for k in range(count))
    return f"{names},img_id\n{',1' * count},p0\n".encode()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A function that runs a command in a fork with limits, and says what is wrong with how it ended, if anything."""
    scratch = tmp_path_factory.mktemp("attacked") / "stderr"
    forks = Forks(*(f"chextools.cli.{name}" for name in MODULES), "numpy", "PIL.Image", "chextools.inputs.inputs")

    def attack(command: str, arguments: list[str], stdin: str, folder: Path) -> str | None:
        with open(stdin, "rb") as given, scratch.open("wb") as err:
            streams = {"stdin": given, "stdout": DEVNULL, "stderr": err}
            process = forks.start(command, *arguments, **streams, cwd=folder, limits=LIMITS, abrupt=True)
            code = process.wait(SECONDS)
        with scratch.open("rb") as err:
            return problem(code, err.read(STDERR_BYTES).decode("utf-8", "replace"), process.megabytes)

    yield attack
    forks.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], Path]:
    """A function that makes the file of an attack, once."""
    folder = tmp_path_factory.mktemp("attacks")
    (folder / "truth.json").write_text(json.dumps(TRUTH))

    def make(name: str) -> Path:
        file, content = ANYTHING[name]
        path = folder / f"{list(ANYTHING).index(name)}" / file
        if not path.exists():
            path.parent.mkdir()
            path.write_bytes(content())
        return path

    return make


def problem(code: int, said: str, megabytes: int) -> str | None:
    """What is wrong with how a command ended."""
    if code not in (0, 1) or "Traceback" in said or "Error:" in said:
        return f"exit {code}: {said[-2000:]}"
    if max(map(len, said.splitlines()), default=0) > 4500:
        return f"a long line: {said[:300]}"
    return f"{megabytes} MB" if megabytes > MEGABYTES else None


@pytest.mark.parametrize("name", ANYTHING)
def test_attacks_on_every_reader(attacked, made, tmp_path, name):
    path = made(name)
    wrongs: dict[str, str] = {}
    outside = set(tmp_path.parent.iterdir())
    for title, words in COMMANDS.items():
        folder = tmp_path / title / "in" / "here"
        folder.mkdir(parents=True)
        named = {"FILE": str(path), "TRUTH": str(path.parent.parent / "truth.json")}
        stdin = str(path) if "stdin" in title else os.devnull
        arguments = [named.get(word, word) for word in words]
        if wrong := attacked(f"chex-{title.split()[0]}", arguments, stdin, folder):
            wrongs[title] = wrong
        assert [p.name for p in (tmp_path / title).iterdir()] == ["in"]
    assert not wrongs
    assert set(tmp_path.parent.iterdir()) == outside and not Path(OUTSIDE).exists()


def test_a_pipe_in_a_folder_is_not_waited_for(attacked, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("x.jpg", "p1.npz", "x_Edema_map.pkl", "iou_results_per_cxr.csv", "area_ratio.csv", "x.json", "x.xml"):
        os.mkfifo(folder / name)
    (tmp_path / "iou_x.csv").write_text("Edema,img_id\n1,p0\n")
    (tmp_path / "truth.json").write_text(json.dumps(TRUTH))
    for words in (
        ["prep", "folder"],
        ["segment", "folder"],
        ["eval", "folder", "--truth", "truth.json"],
        ["eval", "truth.json", "--truth", "folder"],
        ["report", "folder", "-o", "page.html"],
        ["regress", "iou_x.csv", "--features", "folder"],
        ["view", "folder", "-o", "pictures"],
    ):
        assert attacked(f"chex-{words[0]}", words[1:], os.devnull, tmp_path) is None, words


def test_there_are_enough():
    assert len(ANYTHING) * len(COMMANDS) > 500
