"""What many images cost: seconds and memory of chex-prep, chex-segment and chex-eval against their number.

    python tests/bench/bench_scale.py [--counts 2000 20000 200000] [--jobs N] [--folder DIR]

X-rays of 64 x 64 pixels (prep reads headers only), heatmaps of two tasks with 8 x 8 values, one file per image, as
chex-cam writes them. Whole commands, start-up included; memory is the largest process's. The truth is JSON Lines, or
one JSON as the study writes it. Last, the bootstrap of a table of so many rows and 14 tasks, and what so many files are
to the file system.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
TASKS = ("Cardiomegaly", "Edema")
SIDE = 64
FOLDERS = 1000  # images in each
EVALUATE = ["chex-eval", "masks.jsonl", "--truth"]
METRICS = ["--metric", "iou", "--metric", "hit", "--metric", "pixel"]
MASK = {"size": [SIDE, SIDE], "counts": "Xd0P1P10000000000000000000000000000000000000hS2"}  # a rectangle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[2000, 20_000, 200_000])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--folder", help="Where to work; the file system counts.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print("| work | images | seconds | images a second | peak MB |\n|---|---|---|---|---|")
        for count in options.counts:
            at = Path(folder, str(count))
            at.mkdir()
            report("(make the images and heatmaps)", count, *clocked(lambda at=at, n=count: make(at, n)))
            for words, out in (
                (["chex-prep", "images.jsonl", "-j", options.jobs], "prep.jsonl"),
                (["chex-segment", "maps", "-j", options.jobs], "masks.jsonl"),
                ([*EVALUATE, "truth.jsonl", "--metric", "iou"], "iou.jsonl"),
                ([*EVALUATE, "truth.json", "--metric", "iou"], "iou.jsonl"),
                ([*EVALUATE, "truth.json", *METRICS, "-j", options.jobs], "all.jsonl"),
            ):
                said = " ".join(word for word in words[1:] if str(word).startswith("truth") or word in METRICS[1::2])
                report(f"`{words[0]}` {said}".rstrip(), count, *run(at, words, out))
            report("(list the heatmaps)", count, *clocked(lambda at=at: sum(1 for _ in os.scandir(at / "maps"))))
            used = sum(entry.stat().st_blocks * 512 for entry in os.scandir(at / "maps")) / 2**20
            bundle = (at / "masks.jsonl").stat().st_size / 2**20
            report("(remove them)", count, *clocked(lambda at=at: shutil.rmtree(at)))
            print(f"{count} heatmap files take {used:.0f} MiB; their masks, one file, {bundle:.0f} MiB", flush=True)
        bootstrap(max(options.counts))


def make(folder: Path, count: int) -> None:
    """images.jsonl with its images, maps, and the truth as records and as the study's one JSON."""
    from PIL import Image

    from chextools.heatmaps.heatmaps import Heatmaps
    from chextools.heatmaps.npz import write_npz

    random = np.random.default_rng(0)
    values = random.normal(size=(64, len(TASKS), 8, 8)).astype(np.float32)
    picture = Image.fromarray(random.integers(0, 255, (SIDE, SIDE), np.uint8).astype(np.uint8))
    (folder / "maps").mkdir()
    with open(folder / "images.jsonl", "w") as images, open(folder / "truth.jsonl", "w") as truth:
        for k, identifier in enumerate(ids(count)):
            place = folder / f"images/{k // FOLDERS}"
            place.mkdir(parents=True, exist_ok=True)
            picture.save(place / f"{identifier}.png")
            images.write(json.dumps({"id": identifier, "image": f"images/{k // FOLDERS}/{identifier}.png"}) + "\n")
            found = Heatmaps(
                identifier,
                (SIDE, SIDE),
                dict(zip(TASKS, values[k % 64])),
                dict.fromkeys(TASKS, 0.5),
                input_size=(SIDE, SIDE),
                method="gradcam",
                model="0" * 64,
            )
            write_npz(folder / f"maps/{identifier}.npz", found)
            truth.write(json.dumps({"id": identifier, "masks": dict.fromkeys(TASKS, MASK)}) + "\n")
    (folder / "truth.json").write_text(json.dumps(dict.fromkeys(ids(count), dict.fromkeys(TASKS, MASK))))


def ids(count: int) -> Iterator[str]:
    return (f"patient{k:06}_study1_view1_frontal" for k in range(count))


def run(folder: Path, words: list, out: str) -> tuple[float, float]:
    """Seconds, and MB of the largest process, of a command."""
    start = time.perf_counter()
    with open(folder / out, "wb") as stream:
        process = subprocess.Popen(
            [sys.executable, ROOT / "bin" / words[0], "-q", *map(str, words[1:])], cwd=folder, stdout=stream
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{words}: exit {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def clocked(work: Callable[[], object]) -> tuple[float, float]:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bootstrap(count: int) -> None:
    from chextools.metrics import bootstrap

    table = np.random.default_rng(0).random((count, 14))
    report("bootstrap, 14 tasks, 1000 replicates", count, *clocked(lambda: bootstrap.means(table, 1000, 0)))


def report(work: str, count: int, seconds: float, megabytes: float) -> None:
    print(f"| {work} | {count} | {seconds:.2f} | {count / seconds:.0f} | {megabytes:.0f} |", flush=True)


if __name__ == "__main__":
    main()
