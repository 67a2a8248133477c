"""Memory of whole commands, as the system counts it: the largest process, workers included."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import launcher

from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.masks.mask import Mask

# A small process in between: a child's peak starts from the memory of the process that starts it.
WATCH = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def peak_megabytes(command: str, *arguments: object) -> int:
    words = [sys.executable, "-S", "-c", WATCH, *launcher(command), *map(str, arguments)]
    code, peak = subprocess.run(words, capture_output=True, check=True).stdout.split()
    assert code == b"0"
    return int(peak)


def heatmaps(folder: Path, images: int, size: tuple[int, int], kind: str = "smooth") -> Path:
    """Images with two heatmaps each, as a layer of 10 x 10 gives them, or noise at the network's input."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    side = 10 if kind == "smooth" else 320
    for i in range(images):
        maps = {task: rng.random((side, side), np.float32) for task in ("Edema", "Cardiomegaly")}
        write_npz(folder / f"patient{i}.npz", Heatmaps(f"patient{i}", size, maps, input_size=(320, 320), method="m"))
    return folder


def test_a_worker_on_the_largest_x_rays_stays_below_300_mb(tmp_path):
    """Also for noise, the worst case, and where every pixel is made to be smoothed."""
    for kind, options in (("smooth", []), ("noise", []), ("smooth", ["--smooth", "9"])):
        folder = heatmaps(tmp_path / f"{kind}{len(options)}", 2, (3056, 2544), kind)
        assert peak_megabytes("chex-segment", folder, "-q", "-j", "1", *options) < 300


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    few = peak_megabytes("chex-segment", heatmaps(tmp_path / "few", 20, (300, 400)), "-q")
    many = peak_megabytes("chex-segment", heatmaps(tmp_path / "many", 400, (300, 400)), "-q")
    assert many < few + 5  # ids and file names are all that may stay


def ragged(folder: Path, images: int) -> tuple[Path, Path, Path]:
    """Empty predictions, and a truth of masks that are noise, 0.1 MB each: as JSON Lines, and as the study's JSON."""
    folder.mkdir()
    noise = Mask.from_array(np.random.default_rng(0).random((300, 400)) < 0.5).to_rle()
    empty = Mask.empty((300, 400)).to_rle()
    truth = {f"patient{k}": {"Edema": noise} for k in range(images)}
    for name, masks in (("lines", truth), ("empty", dict.fromkeys(truth, {"Edema": empty}))):
        lines = (json.dumps({"id": identifier, "masks": mask}) + "\n" for identifier, mask in masks.items())
        (folder / name).write_text("".join(lines))
    (folder / "study").write_text(json.dumps(truth))
    return folder / "empty", folder / "lines", folder / "study"


def test_memory_does_not_grow_with_the_masks_of_the_truth(tmp_path):
    """Nor with the length of the one document that the study writes."""
    few, many = ragged(tmp_path / "few", 2), ragged(tmp_path / "many", 250)
    at_least = peak_megabytes("chex-eval", few[0], "--truth", few[1], "-q", "--replicates", "2")
    for form in (1, 2):
        peak = peak_megabytes("chex-eval", many[0], "--truth", many[form], "-q", "--replicates", "2")
        assert peak < at_least + 12  # of 15 MB
