"""chex-eval: options to `chextools.evaluate`."""

from __future__ import annotations

import click

from chextools.cli import base, options, types
from chextools.metrics.catalogue import AT_THRESHOLD, CLASSIFICATION, LESION_RULES, LOCALISATION, MASKS, SLICES
from chextools.results.words import ROWS

EXAMPLE = """
chex-segment gradcam_maps_val | chex-eval --truth gt_segmentations_val.json --format table
chex-eval gradcam_maps_val --metric hit --truth gt_segmentations_val.json > hits.jsonl
chex-eval human_points.json --human --truth gt_annotations.json --csv results
chex-predict test.csv --checkpoint RUN/best.pt | chex-eval --metric auroc --resample patient
chex-cam test.csv --checkpoint RUN/best.pt -o maps | chex-eval --metric border --metric outside --lungs CheXmask.csv
"""

OPTIONS_OF = {option for metric in LOCALISATION.values() for option in metric.options}
LOCALISATION_ONLY = ("slice", "sign", "human", "csv_folder", *OPTIONS_OF)
SCORES_ONLY = ("uncertain", "missing", "score_threshold", "shortcuts", "calibration")

READERS = frozenset({"iou", "dice", "hit"})
COLUMNS = (
    "metric task compared mean lower upper chance floor n count positives misses_as_0 dice pooled_iou area "
    "recall_at_1 score_threshold by strata pairs auroc auroc_lower auroc_upper explained "
    "explained_lower explained_upper spearman truth readers failed reason"
).split()


@base.command("chex-eval", EXAMPLE)
@options.inputs("[PRED]...")
@click.option(
    "--truth",
    multiple=True,
    metavar="GT",
    help="What radiologists outlined, in any form; may be repeated, each file being a reader. Of scores: a CSV of "
    "labels or records, instead of PRED's own labels.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    type=click.Choice([*LOCALISATION, *CLASSIFICATION]),
    help="What to measure; may be repeated; auroc and those after it are of scores. [default: iou, hit, pixel and "
    "count, as far as PRED allows them]",
)
@click.option(
    "--slice",
    type=click.Choice(SLICES),
    default="positive",
    show_default=True,
    help="Metrics of masks over CXRs where truth and prediction have one, or where either has; nsd and lesion-recall "
    "over all with a truth.",
)
@options.sign()
@click.option(
    "--tolerance",
    type=types.Real(min=0),
    default=0.0,
    metavar="PIXELS",
    help="Count as a hit what is at most this far from the truth; the literature has 15. [default: 0]",
)
@click.option(
    "--tolerance-size",
    type=click.IntRange(min=1),
    metavar="N",
    help="Pixels of the longer side of the image that --tolerance is meant for. [default: the X-ray's own]",
)
@click.option(
    "--nsd-tolerance",
    type=types.Real(min=0),
    default=2.0,
    show_default=True,
    metavar="DISTANCE",
    help="How far boundaries may be apart that count as one, for nsd, in the unit of --spacing.",
)
@click.option(
    "--spacing",
    type=types.Spacing(),
    help="Measure distances in mm, by the side of a pixel or what each record's spacing says, or in pixels. [default: "
    "record where the first one has a spacing, as DICOM has, else px]",
)
@click.option(
    "--lesion-overlap",
    type=types.Real(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="A lesion is found by more overlap than this; 0 is for whatever touches.",
)
@click.option(
    "--lesion-rule",
    type=click.Choice(LESION_RULES),
    default="iou",
    show_default=True,
    help="What overlap is: IoU with a component, or the share of a lesion that is covered.",
)
@click.option(
    "--border",
    type=types.Real(0, 0.5, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    metavar="SHARE",
    help="How wide the border is, as a share of each side of the image.",
)
@click.option("--lungs", metavar="FILE", help="Where the lungs are, in any form of GT, for the metric outside.")
@click.option(
    "--score-threshold",
    metavar="NUMBER|FILE",
    help="Scores from which on a CXR counts as positive, for "
    "sensitivity and specificity: one for all tasks, or chex-tune's rows from another set.",
)
@options.uncertain("for metrics of scores")
@options.missing("for metrics of scores")
@click.option(
    "--shortcut",
    "shortcuts",
    multiple=True,
    metavar="KEY|FILE",
    help="What CXRs may be told apart by without a look at the lungs, for the metric shortcut: a key of PRED such as "
    "view, or records of chex-predict --floor; may be repeated.",
)
@options.replicates()
@options.resample("What the bootstrap draws.")
@options.seed()
@options.tasks()
@options.truth_settings()
@click.option(
    "--readers",
    is_flag=True,
    help="Compare readers with each other, in pairs and each with the consensus of the others, the human benchmark: "
    "those of --truth, else of PRED, each file being one.",
)
@click.option("--human", is_flag=True, help="PRED is the human benchmark: --csv names its files so.")
@click.option("--per-image", metavar="FILE", help="Write each CXR's values (JSON Lines).")
@click.option("--replicate-table", metavar="FILE", help="Write each replicate's means (JSON Lines).")
@click.option(
    "--calibration", metavar="FILE", help="Write each task's calibration curve, with --metric ece (JSON Lines)."
)
@click.option("--csv", "csv_folder", metavar="DIR", help="Write the files that the study's scripts write.")
@options.output_format(ROWS, "Rows as JSON Lines, CSV, or a table to look at.")
@options.output("the rows")
@options.force()
@options.jobs()
@options.fail_fast()
@click.pass_context
def command(
    context,
    inputs,
    human,
    per_image,
    replicate_table,
    calibration,
    csv_folder,
    output_format,
    output,
    force,
    fail_fast,
    **settings,
):
    """Measure how well masks, heatmaps or points localise what radiologists outlined, or how well scores classify.

    PRED: mask records, heatmap records, the study's mask JSON, COCO, a folder of heatmaps, a points JSON, or records
    with scores and labels (- for stdin). GT: boxes, run lengths, COCO, masks as images, annotation tools, records: any
    form of chextools-formats(7). All are told apart by content. Writes a row per metric and task, with a 95% interval
    from bootstrap replicates.
    """
    truth, readers, metrics = (settings[name] for name in ("truth", "readers", "metrics"))
    if not (readers and truth):
        inputs = base.default_inputs(context, inputs)
    elif inputs:
        raise click.UsageError("--readers compares those of --truth with each other, and takes no PRED beside it")

    from chextools import evaluate
    from chextools.plumbing import files
    from chextools.plumbing.jsontext import dumps
    from chextools.results import study_csv, tables

    if (*truth, *inputs, *settings["truth_settings"].images, settings["lungs"]).count("-") > 1:
        raise click.UsageError("only one of PRED, --truth, --lungs and --images can be stdin")
    _check(context, truth or (inputs if readers else ()), frozenset(metrics))
    files.check_targets((output, per_image, replicate_table, calibration), force)
    if csv_folder:
        study_csv.check(csv_folder, study_csv.evaluation_names(metrics or LOCALISATION, human), force)
    tally = base.tally(fail_fast)
    result = evaluate.run(inputs, evaluate.EvaluationSettings(**settings), stdin=base.stdin(), tally=tally)
    for target, rows in (
        (per_image, evaluate.per_image(result)),
        (replicate_table, evaluate.replicate_rows(result)),
        (calibration, result.calibration),
    ):
        if target:
            with base.output(target, force) as write:
                for row in rows:
                    write(dumps(row) + "\n")
    if csv_folder:
        study_csv.write(csv_folder, study_csv.evaluation_files(result, human), force)
    with base.output(output, force) as write:
        write(tables.write(result.summary, output_format, COLUMNS))
    tally.finish()


def _check(context: click.Context, truth: tuple[str, ...], metrics: frozenset[str]) -> None:
    """Refuse options that mean nothing with these metrics."""
    given = base.given(context)
    of_scores = bool(metrics.intersection(CLASSIFICATION))
    if "readers" in given and (metrics - READERS or given & {"human", "csv_folder", "sign", "calibration"}):
        raise click.UsageError(f"--readers allows --metric {', '.join(sorted(READERS))}, and none of a model's options")
    if of_scores and metrics.intersection(LOCALISATION):
        raise click.UsageError("metrics of scores and of where a model looks are measured in two runs")
    if not truth and (not metrics or any(LOCALISATION[name].needs_truth for name in metrics - {*CLASSIFICATION})):
        raise click.UsageError(
            "Missing option '--truth'; only border, outside and metrics of scores, such as auroc, need none."
        )
    if ("outside" in metrics) != ("lungs" in given):
        raise click.UsageError("--metric outside and --lungs go together")
    for name in given & OPTIONS_OF:
        users = [metric for metric, known in LOCALISATION.items() if name in known.options]
        if metrics and not metrics.intersection(users):
            raise click.UsageError(f"--{name.replace('_', '-')} is for --metric {' or '.join(users)}")
    looked_at = {LOCALISATION[name].looks_at for name in metrics - {*CLASSIFICATION}}
    if looked_at and "slice" in given and MASKS not in looked_at:
        raise click.UsageError("--slice is for metrics of masks")
    if looked_at == {MASKS} and "sign" in given:
        raise click.UsageError("--sign is for metrics of heatmaps")
    if "tolerance_size" in given and "tolerance" not in given:
        raise click.UsageError("--tolerance-size says what --tolerance is meant for")
    for parameter in context.command.params:
        if parameter.name in given.intersection(LOCALISATION_ONLY if of_scores else SCORES_ONLY):
            raise click.UsageError(f"{parameter.opts[-1]} means nothing with these metrics")
    if metrics.intersection(AT_THRESHOLD) and "score_threshold" not in given:
        raise click.UsageError(
            "sensitivity and specificity need --score-threshold, chosen on another set: see chex-tune --for score"
        )
    if "calibration" in given and "ece" not in metrics:
        raise click.UsageError("--calibration needs --metric ece")
    if ("shortcut" in metrics) != ("shortcuts" in given):
        raise click.UsageError("--metric shortcut and --shortcut go together")


def main() -> None:
    base.run(command)
