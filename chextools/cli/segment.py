"""chex-segment: options to `chextools.segment`."""

from __future__ import annotations

import click

from chextools.cli import base, options
from chextools.results.words import MASKS

EXAMPLE = """
chex-cam test.csv --checkpoint RUN/best.pt -o maps | chex-segment > masks.jsonl
chex-segment gradcam_maps_val --threshold tuning_results.csv --format chexlocalize -o masks.json
"""


@base.command("chex-segment", EXAMPLE)
@options.inputs("[INPUT]...")
@options.threshold()
@click.option(
    "--cutoff",
    metavar="FILE",
    help="Empty masks where a score is below its task's cutoff: "
    "FILE from chex-tune, or probability_tuning_results.csv.",
)
@options.smooth()
@options.sign()
@options.tasks()
@options.truth_settings()
@options.renamed()
@options.output_format(
    MASKS,
    "Records, the study's JSON by image and task, a COCO data set, results with scores for it, Kaggle's run lengths, "
    "or an image per mask, TASK/ID.png in the folder that -o names.",
)
@click.option(
    "--like",
    metavar="COCO",
    help="For --format coco-results: the data set beside which COCOeval reads them. [default: one of --format coco]",
)
@options.output("the masks")
@options.force()
@options.jobs()
@options.shard()
@options.fail_fast()
@click.pass_context
def command(
    context,
    inputs,
    threshold,
    cutoff,
    smooth,
    sign,
    tasks,
    truth_settings,
    renamed,
    output_format,
    like,
    output,
    force,
    jobs,
    shard,
    fail_fast,
):
    """Turn heatmaps, or radiologists' outlines, into masks.

    INPUT: records with heatmaps (JSON Lines, - for stdin); a folder, searched recursively, of .npz heatmaps or of the
    study's ID_TASK_map.pkl; or truth in any form of chextools-formats(7), from boxes of NIH to DICOM Segmentation. Told
    apart by content. Writes the records with "masks" (COCO RLE).
    """
    inputs = base.default_inputs(context, inputs)
    if like and output_format != "coco-results":
        raise click.UsageError("--like is for --format coco-results")

    from chextools import segment
    from chextools.plumbing import files
    from chextools.results import formats
    from chextools.tasks import canonical

    settings = segment.SegmentationSettings(
        threshold=threshold,
        cutoff=cutoff,
        smooth=smooth,
        sign=sign,
        tasks=tasks,
        truth_settings=truth_settings,
        renamed=dict(renamed),
        shard=shard,
        jobs=jobs,
    )
    tally = base.tally(fail_fast)
    if output_format == "png":
        if output is None:
            raise click.UsageError("--format png needs -o FOLDER")
        folder = str(files.check_folder(output))
        for _ in formats.write_png(segment.run(inputs, settings, stdin=base.stdin(), tally=tally), folder, force):
            pass
        tally.finish()
        return
    with base.output(output, force) as write:
        masks = segment.run(inputs, settings, stdin=base.stdin(), tally=tally)
        for text in formats.write(masks, output_format, frozenset(map(canonical, tasks)) or None, like):
            write(text)
    tally.finish()


def main() -> None:
    base.run(command)
