"""chex-eval: options to `chextools.evaluate`."""

from __future__ import annotations

import click

from chextools.cli import base, options

EXAMPLE = """
chex-segment gradcam_maps_val | chex-eval --truth gt_segmentations_val.json --format table
chex-eval gradcam_maps_val --metric hit --truth gt_segmentations_val.json > hits.jsonl
chex-eval human_points.json --human --truth gt_annotations.json --csv results
"""

COLUMNS = ("metric", "task", "mean", "lower", "upper", "n", "count", "positives", "misses_as_0", "dice", "pooled_iou",
           "failed")  # fmt: skip


@base.command("chex-eval", EXAMPLE)
@options.inputs("[PRED]...")
@click.option("--truth", required=True, metavar="GT", help="What radiologists outlined: masks or annotations.")
@click.option("--metric", "metrics", multiple=True, type=click.Choice(["iou", "hit", "pixel", "count"]),
              help="What to measure; may be repeated. [default: what PRED allows]")
@click.option("--slice", "slice_", type=click.Choice(["positive", "full"]), default="positive", show_default=True,
              help="IoU over CXRs where truth and prediction have a mask, or where either has.")
@options.replicates()
@click.option("--resample", type=click.Choice(["cxr", "patient"]), default="cxr", show_default=True,
              help="What the bootstrap draws.")
@options.seed()
@options.tasks()
@click.option("--human", is_flag=True, help="PRED is the human benchmark: --csv names its files so.")
@click.option("--per-image", metavar="FILE", help="Write each CXR's values (JSON Lines).")
@click.option("--replicate-table", metavar="FILE", help="Write each replicate's means (JSON Lines).")
@click.option("--csv", "csv_folder", metavar="DIR", help="Write the files that the study's scripts write.")
@options.output_format(["jsonl", "csv", "table"], "Rows as JSON Lines, CSV, or a table to look at.")
@options.output("the rows")
@options.force()
@options.jobs()
@options.fail_fast()
@click.pass_context
def command(context, inputs, truth, metrics, slice_, replicates, resample, seed, tasks, human, per_image,
            replicate_table, csv_folder, output_format, output, force, jobs, fail_fast):  # fmt: skip
    """Measure how well masks, heatmaps or points localise what radiologists outlined.

    PRED: mask records, heatmap records, the study's mask JSON, COCO, a folder of heatmaps, or a points JSON (- for
    stdin). GT: mask records, the study's mask JSON, COCO, or an annotations JSON. All are told apart by content.
    Writes a row per metric and task: its mean over bootstrap replicates, as the study, with a 95% interval.
    """
    inputs = base.default_inputs(context, inputs)

    from chextools import evaluate, files, study_csv, tables
    from chextools.inputs import read_all, read_some
    from chextools.parallel import default_jobs
    from chextools.records import dumps
    from chextools.tasks import choose
    from chextools.truth import read_truth

    if truth == "-" and "-" in inputs:
        raise click.UsageError("PRED and --truth cannot both be stdin")
    for path in filter(None, (output, per_image, replicate_table)):
        files.check_target(path, force)
    if csv_folder:
        study_csv.check(csv_folder, study_csv.evaluation_names(metrics or evaluate.METRICS, human), force)
    tally = base.Tally(fail_fast)
    known = read_truth(read_all([truth], base.stdin()), truth)
    for _ in tally.passing(known.failures):
        pass
    chosen = choose(tasks, known.tasks, truth)
    first, items = read_some(inputs, base.stdin())
    settings = evaluate.Settings(frozenset(metrics) or evaluate.metrics_of(first), tuple(chosen), slice_, replicates,
                                 seed, resample)  # fmt: skip
    measured = evaluate.measure(items, known, settings, jobs or default_jobs())
    rows = [record["row"] for record in tally.passing(base.progress(measured, "CXRs"))]
    result = evaluate.summarise(rows, known, settings, tally.skipped)

    if per_image:
        with base.output(per_image, force) as write:
            write("".join(dumps(record) + "\n" for record in evaluate.per_image(result)))
    if replicate_table:
        with base.output(replicate_table, force) as write:
            write("".join(dumps(row) + "\n" for row in evaluate.replicate_rows(result)))
    if csv_folder:
        study_csv.write(csv_folder, study_csv.evaluation_files(result, human), force)
    with base.output(output, force) as write:
        write(tables.write(result.summary, output_format, COLUMNS))
    tally.finish()


def main() -> None:
    base.run(command)
