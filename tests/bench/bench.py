"""Speed of whole commands, as ratios: to a plain numpy and Pillow pipeline in the same run, and to the study's scripts.

    python tests/bench/bench.py [--reference CHECKOUT [--reference-python PYTHON]] [--runs N] [--only WORK]

The work is 24 X-rays of real sizes with 10 heatmaps each (seed 7): smooth ones, and fine ones that are noise between
pixels. Prints README's table in Markdown, under the machine's name: seconds (median), seconds of all processors, items
a second, peak memory of the largest process, and how many times faster than each rival; by processor seconds with
--cpu, which others on the machine disturb less. With --reference, a checkout of the study's code (cheXlocalize), its
scripts are run on the same files, once each, by a Python that has what they need (torch, pandas, opencv). Our modules
are compiled to bytecode first, as pip compiles what it installs, theirs among it.
--attributions FOLDER adds real DeepLIFT and integrated gradients of its X-rays.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent  # nothing large is imported here: a child's peak memory starts from its parent's
ROOT = HERE.parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", type=Path, help="a checkout of the study's code")
    parser.add_argument("--reference-python", default=sys.executable)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", help="only the work whose name holds this")
    parser.add_argument("--cxrs", type=int, default=24)
    parser.add_argument("--cpu", action="store_true", help="ratios of processor seconds")
    parser.add_argument("--attributions", type=Path, metavar="FOLDER", help="X-rays to explain: needs torch")
    options = parser.parse_args()
    compileall.compile_dir(ROOT / "chextools", quiet=1)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        subprocess.run([sys.executable, HERE / "benchset.py", work, str(options.cxrs), "7"], check=True)
        command("chex-segment", work / "gt_annotations.json", "--format", "chexlocalize", "-o", work / "gt.json")
        command("chex-segment", work / "maps", "--format", "chexlocalize", "-o", work / "otsu.json", "-q")
        tasks = json.loads((work / "gt.json").read_text()).popitem()[1]
        (work / "tuned.csv").write_text("threshold,task\n" + "".join(f"0.4,{task}\n" for task in tasks))
        rows = spine(work, 10 * options.cxrs)
        if options.attributions:
            code = "import benchset, sys, pathlib; benchset.attributions(*map(pathlib.Path, sys.argv[1:]))"
            subprocess.run([sys.executable, "-c", code, work, options.attributions], check=True, cwd=HERE)
            rows += [of_maps(work / method, f", {method}") for method in ("deeplift", "ig")]
        print(f"{machine()}: {options.cxrs} X-rays x 10 tasks, medians of {options.runs} runs\n")
        print("| work | seconds | CPU s | items/s | peak MB | against numpy | against the study |")
        print("|---|---|---|---|---|---|---|")
        for name, items, ours, rival, script in rows:
            if options.only and options.only not in name:
                continue
            seconds, cpu, peak = measure(ours, options.runs)
            theirs = study = None
            if rival:
                theirs = measure(rival, max(1, options.runs // 2))
            if options.reference and script:
                with contextlib.suppress(subprocess.CalledProcessError):  # said on stderr; the rest is measured
                    study = measure([options.reference_python, options.reference / script[0], *script[1:]], 1)
            cells = [f"{seconds:.2f}", f"{cpu:.2f}", f"{items / seconds:.0f}" if items else "", f"{peak:.0f}"]
            for other in (theirs, study):
                ratio = other and (other[1] / cpu if options.cpu else other[0] / seconds)
                cells.append(f"{ratio:.1f}x" if ratio else "")
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        print(f"\nRatios of {'processor' if options.cpu else 'wall'} seconds; load {os.getloadavg()[0]:.1f}.")


def machine() -> str:
    """The processor's name, how many of it are ours, and the versions that matter."""
    import numpy

    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        with open("/proc/cpuinfo") as lines:
            model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, Python {platform.python_version()}, NumPy {numpy.__version__}"


def spine(work: Path, masks: int) -> list[tuple]:
    """(name, items, our command, the plain rival's command, the study's script and arguments)."""
    maps, fine, gt, otsu = work / "maps", work / "fine", work / "gt.json", work / "otsu.json"
    evaluate = ["chex-eval", otsu, "--truth", gt, "-q"]

    def start_up(*command: str) -> tuple:
        return (f"{command[0]} {command[1]}", 0, list(command), [sys.executable, "-c", "import click"], None)

    single = work / "single"
    single.mkdir()
    first = sorted(maps.iterdir())[0]
    (single / first.name).symlink_to(first)
    segmented = ["heatmap_to_segmentation.py", "--map_dir", maps, "--output_path", work / "study_seg.json"]
    return [
        ("segment, Otsu", masks, ["chex-segment", maps, "-q"], plainly("otsu", maps), segmented),
        ("segment, Otsu, -j 1", masks, ["chex-segment", maps, "-q", "-j", "1"], None, None),
        (
            "segment, tuned",
            masks,
            ["chex-segment", maps, "-q", "--threshold", work / "tuned.csv"],
            plainly("tuned", maps),
            [*segmented, "--threshold_path", work / "tuned.csv"],
        ),
        (
            "segment, annotations",
            0,
            ["chex-segment", work / "gt_annotations.json"],
            plainly("annotations", work / "gt_annotations.json"),
            [
                "annotation_to_segmentation.py",
                "--ann_path",
                work / "gt_annotations.json",
                "--output_path",
                work / "study_gt.json",
            ],
        ),
        (
            "eval iou",
            masks,
            [*evaluate, "--metric", "iou"],
            plainly("iou", otsu, gt),
            ["eval.py", "--metric", "iou", "--gt_path", gt, "--pred_path", otsu, "--save_dir", work],
        ),
        (
            "eval hit",
            masks,
            ["chex-eval", maps, "--truth", gt, "--metric", "hit", "-q"],
            plainly("hit", maps, gt),
            ["eval.py", "--metric", "hitmiss", "--gt_path", gt, "--pred_path", maps, "--save_dir", work],
        ),
        (
            "eval pixel",
            masks,
            [*evaluate, "--metric", "pixel"],
            plainly("pixel", otsu, gt),
            [
                "precision_recall_specificity.py",
                "--gt_path",
                gt,
                "--pred_seg_path",
                otsu,
                "--hb_seg_path",
                otsu,
                "--save_dir",
                work,
            ],
        ),
        (
            "tune, threshold",
            0,
            ["chex-tune", maps, "--truth", gt, "--for", "threshold", "-q"],
            None,
            ["tune_heatmap_threshold.py", "--map_dir", maps, "--gt_path", gt, "--save_dir", work],
        ),
        (
            "tune, cutoff",
            0,
            ["chex-tune", maps, "--truth", gt, "--for", "cutoff", "-q"],
            None,
            ["tune_probability_threshold.py", "--map_dir", maps, "--gt_path", gt, "--save_dir", work],
        ),
        (
            "features",
            0,
            ["chex-features", work / "gt_annotations.json", "--truth", gt, "-q"],
            None,
            [
                "compute_pathology_features.py",
                "--gt_ann",
                work / "gt_annotations.json",
                "--gt_seg",
                gt,
                "--save_dir",
                work,
            ],
        ),
        of_maps(fine, ", fine"),
        (
            "eval hit, fine",
            masks,
            ["chex-eval", fine, "--truth", gt, "--metric", "hit", "-q"],
            plainly("hit", fine, gt),
            ["eval.py", "--metric", "hitmiss", "--gt_path", gt, "--pred_path", fine, "--save_dir", work],
        ),
        (
            "eval energy, fine",
            masks,
            ["chex-eval", fine, "--truth", gt, "--metric", "energy", "--sign", "positive", "-q"],
            plainly("energy", fine, gt),
            None,
        ),
        (
            "tune threshold, fine",
            0,
            ["chex-tune", fine, "--truth", gt, "--for", "threshold", "-q"],
            None,
            ["tune_heatmap_threshold.py", "--map_dir", fine, "--gt_path", gt, "--save_dir", work],
        ),
        ("segment, one map", 1, ["chex-segment", single], None, None),
        start_up("chex-segment", "--help"),
        start_up("chex-eval", "--help"),
    ]


def of_maps(folder: Path, suffix: str) -> tuple:
    """The segmentation of a folder of the study's pickles."""
    script = ["heatmap_to_segmentation.py", "--map_dir", folder, "--output_path", folder.parent / "study_seg.json"]
    command = ["chex-segment", folder, "-q"]
    return (f"segment, Otsu{suffix}", len(list(folder.glob("*.pkl"))), command, plainly("otsu", folder), script)


def plainly(*arguments: object) -> list:
    return [sys.executable, HERE / "plain.py", *arguments]


def command(name: str, *arguments: object) -> None:
    subprocess.run(resolve([name, *arguments]), check=True, stdout=subprocess.DEVNULL)


def resolve(words: list) -> list[str]:
    """A chex command as this Python's, from this checkout."""
    words = [str(word) for word in words]
    return [sys.executable, str(ROOT / "bin" / words[0]), *words[1:]] if words[0].startswith("chex-") else words


def measure(words: list, runs: int) -> tuple[float, float, float]:
    """Median wall and processor seconds after a warm-up, and MB of the largest process."""
    seconds, cpu, peak = [], [], 0.0
    for run in range(runs + (runs > 1)):
        start = time.perf_counter()
        process = subprocess.Popen(resolve(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if run or runs == 1:
            seconds.append(time.perf_counter() - start)
            cpu.append(usage.ru_utime + usage.ru_stime)  # with the children it has waited for
        peak = max(peak, usage.ru_maxrss / 1024)
        if status:
            print("failed:", *resolve(words), file=sys.stderr)
            raise subprocess.CalledProcessError(status, resolve(words))
    return statistics.median(seconds), statistics.median(cpu), peak


if __name__ == "__main__":
    main()
