"""Speed of chex-prep --pack against a plain Pillow loop on the same cores: open, convert("L"), resize.

    python tests/bench/bench_prep.py IMAGE [--images N] [--runs N] [--jobs N]

IMAGE is a full-size CXR; N shifted copies of it at JPEG qualities from 75 to 95 are the work. Runs alternate, so that a
busy machine slows both; prints the least wall and processor seconds of each, start-up included, and the ratios.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PLAIN = """
import sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from PIL import Image

def work(path):
    return np.asarray(Image.open(path).convert("L").resize((320, 320)))

jobs, paths = int(sys.argv[1]), sys.argv[2:]
with ProcessPoolExecutor(jobs) as pool:
    np.stack(list(pool.map(work, paths, chunksize=4) if jobs > 1 else map(work, paths)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = copies(options.image, Path(folder, "in"), options.images)
        command = [sys.executable, Path(__file__).parents[2] / "bin/chex-prep"]
        ours = [*command, f"{folder}/in", "--pack", f"{folder}/pack", "-f", "-q", "-j"]
        print("| processes | chex-prep | plain Pillow | wall ratio | processor ratio |\n|---|---|---|---|---|")
        for jobs in sorted({1, options.jobs}):
            both = ([*ours, jobs], [sys.executable, "-c", PLAIN, jobs, *paths])
            seconds = [[measure(words) for words in both] for _ in range(options.runs)]
            (wall, cpu), (plain_wall, plain_cpu) = ([min(x) for x in zip(*runs)] for runs in zip(*seconds))
            cells = (f"{wall:.2f} s", f"{plain_wall:.2f} s", f"{plain_wall / wall:.1f}x", f"{plain_cpu / cpu:.1f}x")
            print(f"| {jobs} | " + " | ".join(cells) + " |", flush=True)


def copies(image: Path, folder: Path, count: int) -> list[Path]:
    from PIL import Image, ImageChops

    source = Image.open(image).convert("L")
    paths = [folder / f"patient{k:05d}/study1/view1_frontal.jpg" for k in range(count)]
    for k, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        ImageChops.offset(source, 7 * k, 3 * k).save(path, quality=75 + k % 21)
    return paths


def measure(words: list) -> tuple[float, float]:
    """(wall, processor) seconds of a command and its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, sum(after[:2]) - sum(before[:2])


if __name__ == "__main__":
    main()
