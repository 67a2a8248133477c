"""Speed of whole commands, as ratios: to a plain numpy and Pillow pipeline in the same run, and to the study's scripts.

    python tests/bench/bench.py [--reference CHECKOUT [--reference-python PYTHON]] [--runs N] [--only WORK]

The work is 24 X-rays of real sizes with 10 heatmaps each (seed 7). Prints a table in Markdown: seconds (median), items
a second, peak memory of the largest process, and how many times faster than each rival. With --reference, a checkout
of the study's code (cheXlocalize), its scripts are run on the same files, once each, by a Python that has what they
need (torch, pandas, opencv).
"""

from __future__ import annotations

import argparse
import json
import os
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        subprocess.run([sys.executable, HERE / "benchset.py", work, str(options.cxrs), "7"], check=True)
        command("chex-segment", work / "gt_annotations.json", "--format", "chexlocalize", "-o", work / "gt.json")
        command("chex-segment", work / "maps", "--format", "chexlocalize", "-o", work / "otsu.json", "-q")
        tasks = json.loads((work / "gt.json").read_text()).popitem()[1]
        (work / "tuned.csv").write_text("threshold,task\n" + "".join(f"0.4,{task}\n" for task in tasks))
        rows = [row for row in spine(work, 10 * options.cxrs) if not options.only or options.only in row[0]]
        print(f"{options.cxrs} X-rays x 10 tasks, {os.cpu_count()} cores, medians of {options.runs} runs\n")
        print("| work | seconds | items/s | peak MB | against numpy | against the study |")
        print("|---|---|---|---|---|---|")
        for name, items, ours, rival, script in rows:
            seconds, peak = measure(ours, options.runs)
            theirs = measure(rival, max(1, options.runs // 2))[0] if rival else None
            study = None
            if options.reference and script:
                study = measure([options.reference_python, options.reference / script[0], *script[1:]], 1)[0]
            cells = [f"{seconds:.2f}", f"{items / seconds:.0f}" if items else "", f"{peak:.0f}"]
            cells += [f"{other / seconds:.1f}x" if other else "" for other in (theirs, study)]
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def spine(work: Path, masks: int) -> list[tuple]:
    """(name, items, our command, the plain rival's command, the study's script and arguments)."""
    maps, gt, otsu = work / "maps", work / "gt.json", work / "otsu.json"
    evaluate = ["chex-eval", otsu, "--truth", gt, "-q"]

    def plainly(*arguments: object) -> list:
        return [sys.executable, HERE / "plain.py", *arguments]

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
        ("segment, one map", 1, ["chex-segment", single], None, None),
        start_up("chex-segment", "--help"),
        start_up("chex-eval", "--help"),
    ]


def command(name: str, *arguments: object) -> None:
    subprocess.run(resolve([name, *arguments]), check=True, stdout=subprocess.DEVNULL)


def resolve(words: list) -> list[str]:
    """A chex command as this Python's, from this checkout."""
    words = [str(word) for word in words]
    return [sys.executable, str(ROOT / "bin" / words[0]), *words[1:]] if words[0].startswith("chex-") else words


def measure(words: list, runs: int) -> tuple[float | None, float]:
    """Median wall seconds after a warm-up, and peak memory in MB of the largest process; None if it fails."""
    seconds, peak = [], 0.0
    for run in range(runs + (runs > 1)):
        start = time.perf_counter()
        process = subprocess.Popen(resolve(words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if run or runs == 1:
            seconds.append(time.perf_counter() - start)
        peak = max(peak, usage.ru_maxrss / 1024)
        if status:
            print("failed:", *resolve(words), file=sys.stderr)
            return None, peak
    return statistics.median(seconds), peak


if __name__ == "__main__":
    main()
