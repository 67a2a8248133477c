"""chex-tune: options to `chextools.tune`."""

from __future__ import annotations

import click

from chextools.cli import base, options, types
from chextools.metrics.catalogue import OBJECTIVES, PURPOSES
from chextools.results.words import ROWS

EXAMPLE = """
chex-tune gradcam_maps_val --truth gt_segmentations_val.json --for threshold > tuned.jsonl
chex-tune gradcam_maps_val --truth gt_segmentations_val.json --for cutoff --format table
chex-predict valid.csv --checkpoint RUN/best.pt | chex-tune --for score --sensitivity 0.9
"""

COLUMNS = (
    "metric for task threshold cutoff score_threshold lower upper iou dice sensitivity specificity youden n positives "
    "replicates failed reason"
).split()


# Options that mean something for some purposes only
MEANT_FOR = {
    "grid": ("threshold", "cutoff"),
    "objective": ("threshold", "cutoff"),
    "smooth": ("threshold", "cutoff"),
    "sign": ("threshold", "cutoff"),
    "threshold": ("cutoff",),
    "exception": ("cutoff",),
    "sensitivity": ("score",),
    "missing": ("score",),
}


@base.command("chex-tune", EXAMPLE)
@options.inputs("[MAPS]...")
@click.option(
    "--for",
    "purpose",
    required=True,
    type=click.Choice(PURPOSES),
    help="What to choose: a threshold of heatmaps, a cutoff of scores below which masks are empty, or an "
    "operating point of scores.",
)
@click.option(
    "--truth",
    multiple=True,
    metavar="GT",
    help="What radiologists outlined, in any form; may be repeated, each file being a reader. For scores: instead of "
    "the records' labels.",
)
@click.option(
    "--grid",
    type=types.Grid(),
    help="What to choose from, STOP included. [default: 0.2:0.8:0.1; for cutoffs 0:0.8:0.1]",
)
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    default="iou",
    show_default=True,
    help="What a threshold or cutoff maximises the mean of.",
)
@click.option(
    "--sensitivity",
    type=types.Real(0, 1, min_open=True),
    metavar="S",
    help="The greatest score threshold that reaches this sensitivity. [default: the one with the best J]",
)
@options.missing("for scores")
@click.option(
    "--no-lung-lesion-exception",
    "exception",
    is_flag=True,
    default=True,
    flag_value=False,
    help="Let cutoffs of Lung Lesion start below 0.1, unlike the study.",
)
@options.threshold()
@options.smooth()
@options.sign()
@click.option("--curve", is_flag=True, help="Write a row for each value that could be chosen.")
@options.replicates()
@options.seed()
@options.tasks()
@options.truth_settings()
@options.output_format(ROWS, "Rows as JSON Lines, the study's CSV, or a table to look at.")
@options.output("the rows")
@options.force()
@options.jobs()
@options.fail_fast()
@click.pass_context
def command(context, inputs, curve, output_format, output, force, fail_fast, **settings):
    """Choose the threshold, cutoff or operating point that is best per task.

    MAPS: records with heatmaps (JSON Lines, - for stdin) or a folder of heatmaps; for cutoffs also records with masks
    and scores; for scores, records with scores and labels. Writes a row per task: the best value, with the interval of
    those chosen in bootstrap replicates. chex-segment reads it as --threshold or --cutoff.
    """
    inputs = base.default_inputs(context, inputs)

    from chextools import tune
    from chextools.plumbing import files
    from chextools.results import study_csv, tables

    given = base.given(context)
    purpose, truth = settings["purpose"], settings["truth"]
    _check(given, context, purpose)
    if not truth and purpose != "score":
        raise click.UsageError(f"--for {purpose} needs --truth")
    if (*truth, *inputs, *settings["truth_settings"].images).count("-") > 1:
        raise click.UsageError("MAPS, --truth and --images cannot both be stdin")
    if output_format == "csv" and settings["objective"] == "dice" and not curve:
        raise click.UsageError("--format csv is the study's file of IoU; for Dice add --curve")
    files.check_targets((output,), force)
    tally = base.tally(fail_fast)
    tuning = tune.TuningSettings(**settings, remake=bool(given & {"threshold", "smooth", "sign"}))
    result = tune.run(inputs, tuning, stdin=base.stdin(), tally=tally)
    with base.output(output, force) as write:
        if output_format == "csv" and purpose != "score" and not curve:
            write(study_csv.tuning_file(result.curve))
        else:
            write(tables.write(result.curve if curve else result.best, output_format, COLUMNS))
    tally.finish()


def _check(given: set[str], context: click.Context, purpose: str) -> None:
    """Refuse options that mean nothing for this purpose."""
    for parameter in context.command.params:
        if parameter.name in given & MEANT_FOR.keys() and purpose not in MEANT_FOR[parameter.name]:
            raise click.UsageError(f"{parameter.opts[-1]} means nothing with --for {purpose}")


def main() -> None:
    base.run(command)
