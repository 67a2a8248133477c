"""chex-eval: options to `chextools.evaluate`."""

from __future__ import annotations

import click

from chextools.cli import base, options

EXAMPLE = """
chex-segment gradcam_maps_val | chex-eval --truth gt_segmentations_val.json --format table
chex-eval gradcam_maps_val --metric hit --truth gt_segmentations_val.json > hits.jsonl
chex-eval human_points.json --human --truth gt_annotations.json --csv results
chex-predict test.csv --checkpoint RUN/best.pt | chex-eval --metric auroc --resample patient
"""

OVERLAP = ["iou", "hit", "pixel", "count"]
SCORES = ["auroc", "auprc", "brier", "ece", "sensitivity", "specificity"]
AT_THRESHOLD = {"sensitivity", "specificity"}
OVERLAP_ONLY = ("slice_", "human", "csv_folder")
SCORES_ONLY = ("uncertain", "score_threshold")

COLUMNS = (
    "metric",
    "task",
    "mean",
    "lower",
    "upper",
    "chance",
    "n",
    "count",
    "positives",
    "misses_as_0",
    "dice",
    "pooled_iou",
    "score_threshold",
    "failed",
    "reason",
)


@base.command("chex-eval", EXAMPLE)
@options.inputs("[PRED]...")
@click.option(
    "--truth",
    metavar="GT",
    help="What radiologists outlined: masks or annotations. Of scores: a CSV of "
    "labels or records, instead of PRED's own labels.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    type=click.Choice(OVERLAP + SCORES),
    help="What to measure; may be repeated; auroc and those after it are of scores. [default: what PRED "
    "allows with GT]",
)
@click.option(
    "--slice",
    "slice_",
    type=click.Choice(["positive", "full"]),
    default="positive",
    show_default=True,
    help="IoU over CXRs where truth and prediction have a mask, or where either has.",
)
@click.option(
    "--score-threshold",
    metavar="NUMBER|FILE",
    help="Scores from which on a CXR counts as positive, for "
    "sensitivity and specificity: one for all tasks, or chex-tune's rows from another set.",
)
@click.option(
    "--uncertain",
    type=click.Choice(["ignore", "zeros", "ones"]),
    default="ignore",
    show_default=True,
    help="What uncertain labels count as, for metrics of scores.",
)
@options.replicates()
@click.option(
    "--resample",
    type=click.Choice(["cxr", "patient"]),
    default="cxr",
    show_default=True,
    help="What the bootstrap draws.",
)
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
def command(
    context,
    inputs,
    truth,
    metrics,
    slice_,
    score_threshold,
    uncertain,
    replicates,
    resample,
    seed,
    tasks,
    human,
    per_image,
    replicate_table,
    csv_folder,
    output_format,
    output,
    force,
    jobs,
    fail_fast,
):
    """Measure how well masks, heatmaps or points localise what radiologists outlined, or how well scores classify.

    PRED: mask records, heatmap records, the study's mask JSON, COCO, a folder of heatmaps, a points JSON, or records
    with scores and labels (- for stdin). GT: mask records, the study's mask JSON, COCO, or an annotations JSON. All are
    told apart by content. Writes a row per metric and task, with a 95% interval from bootstrap replicates.
    """
    inputs = base.default_inputs(context, inputs)

    from chextools import evaluate
    from chextools.inputs.inputs import read_all, read_some
    from chextools.inputs.truth import read_truth
    from chextools.metrics import scores
    from chextools.plumbing import files
    from chextools.plumbing.parallel import default_jobs
    from chextools.records.records import dumps
    from chextools.results import study_csv, tables
    from chextools.tasks import choose

    if truth == "-" and "-" in inputs:
        raise click.UsageError("PRED and --truth cannot both be stdin")
    of_scores = _check(context, truth, frozenset(metrics))
    files.check_targets((output, per_image, replicate_table), force)
    if csv_folder:
        study_csv.check(csv_folder, study_csv.evaluation_names(metrics or evaluate.METRICS, human), force)
    tally = base.tally(fail_fast)
    if of_scores:
        at = score_threshold and scores.threshold_of(score_threshold)
        settings = scores.Settings(frozenset(metrics), tuple(tasks), uncertain, at, replicates, seed, resample)
        labels = scores.read_labels(truth, base.stdin()) if truth else None
        _, items = read_some(inputs, base.stdin())
        rows = [record["row"] for record in tally.passing(scores.measure(items, settings, labels))]
        result = scores.summarise(rows, settings, tally.skipped)
    else:
        known = read_truth(read_all([truth], base.stdin()), truth)
        for _ in tally.passing(known.failures):
            pass
        chosen = choose(tasks, known.tasks, truth)
        first, items = read_some(inputs, base.stdin())
        settings = evaluate.Settings(
            evaluate.metrics_for(first, metrics), tuple(chosen), slice_, replicates, seed, resample
        )
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


def _check(context: click.Context, truth: str | None, metrics: frozenset[str]) -> bool:
    """Whether the metrics are of scores; options that mean nothing with them are refused."""
    given = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}
    of_scores = bool(metrics & set(SCORES))
    if of_scores and metrics & set(OVERLAP):
        raise click.UsageError("metrics of scores and of where a model looks are measured in two runs")
    if not truth and not of_scores:
        raise click.UsageError("Missing option '--truth'; only metrics of scores, such as --metric auroc, need none.")
    for parameter in context.command.params:
        if parameter.name in given & set(OVERLAP_ONLY if of_scores else SCORES_ONLY):
            raise click.UsageError(f"{parameter.opts[-1]} means nothing with these metrics")
    if metrics & AT_THRESHOLD and "score_threshold" not in given:
        raise click.UsageError(
            "sensitivity and specificity need --score-threshold, chosen on another set: see chex-tune --for score"
        )
    return of_scores


def main() -> None:
    base.run(command)
