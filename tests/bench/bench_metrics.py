"""What all metrics of where a map looks cost together, over hit and iou alone, from heatmaps to rows.

    python tests/bench/bench_metrics.py [--cxrs 24] [--runs 3]

The work is that of bench.py. Either way heatmaps become masks (chex-segment), and chex-eval runs once on masks and once
on heatmaps, each with one process. Prints processor seconds (the least of some runs) in Markdown, and their ratio.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OF_MASKS = ("iou", "dice", "hd95", "assd", "nsd", "lesion-recall", "lesion-precision")
OF_MAPS = ("hit", "energy", "rank", "pixel-auroc", "pixel-auprc", "best-iou", "froc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cxrs", type=int, default=24)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        subprocess.run([sys.executable, HERE / "benchset.py", work, str(options.cxrs), "7"], check=True)
        maps, masks = work / "maps", work / "masks.jsonl"
        truth = ["--truth", work / "gt_annotations.json", "-q", "-j", "1"]

        def seconds(*command: object) -> float:
            return min(processor(*command) for _ in range(options.runs))

        segment = seconds("chex-segment", maps, "-q", "-j", "1", "-f", "-o", masks)
        print("| | chex-segment | chex-eval of masks | chex-eval of heatmaps | together |\n|---|---|---|---|---|")
        totals = []
        for name, of_masks, of_maps in (("iou and hit", OF_MASKS[:1], OF_MAPS[:1]), ("all", OF_MASKS, OF_MAPS)):
            each = [segment]
            for source, metrics in ((masks, of_masks), (maps, of_maps)):
                each.append(seconds("chex-eval", source, *truth, *(f"--metric={metric}" for metric in metrics)))
            totals.append(sum(each))
            print(f"| {name} | " + " | ".join(f"{s:.2f}" for s in [*each, totals[-1]]) + " |")
        alone = (totals[1] - segment) / (totals[0] - segment)
        print(f"\nall {len(OF_MASKS) + len(OF_MAPS)} metrics: {totals[1] / totals[0]:.2f}x the cost of iou and hit")
        print(
            f"of chex-eval alone {alone:.2f}x: exact ranks need every pixel made and sorted, an IoU or a hit needs few"
        )


def processor(*command: object) -> float:
    """Processor seconds of a command, user's and system's."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    name, *arguments = map(str, command)
    subprocess.run([sys.executable, HERE.parents[1] / "bin" / name, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
