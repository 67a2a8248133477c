"""chex-features: options to `chextools.features`."""

from __future__ import annotations

import click

from chextools.cli import base, options
from chextools.results.words import ROWS

EXAMPLE = """
chex-features gt_annotations_val.json --truth gt_segmentations_val.json > features.jsonl
chex-features gt_annotations_val.json --truth gt.json | chex-regress per_image.jsonl --features -
"""


@base.command("chex-features", EXAMPLE)
@options.inputs("[ANNOTATIONS]...")
@click.option(
    "--truth",
    required=True,
    multiple=True,
    metavar="GT",
    help="The masks of these annotations, in any form; may be repeated, each file being a reader.",
)
@options.tasks()
@options.truth_settings()
@click.option("--csv", "csv_folder", metavar="DIR", help="Write the four files that the study's script writes.")
@options.output_format(ROWS, "Rows as JSON Lines, CSV, or a table to look at.")
@options.output("the rows")
@options.force()
@options.fail_fast()
@click.pass_context
def command(context, inputs, truth, truth_settings, tasks, csv_folder, output_format, output, force, fail_fast):
    """Describe the shape of what radiologists outlined: how many parts, how large, how long, how far from a rectangle.

    ANNOTATIONS: outlines or boxes, which are counted (- for stdin). GT: their masks, or the same again. Both in any
    form of chextools-formats(7). Writes a row per image and task; what is undefined is null.
    """
    inputs = base.default_inputs(context, inputs)

    from chextools import features
    from chextools.plumbing import files
    from chextools.results import study_csv, tables

    if (*truth, *inputs, *truth_settings.images).count("-") > 1:
        raise click.UsageError("only one of ANNOTATIONS, --truth and --images can be stdin")
    files.check_targets((output,), force)
    if csv_folder:
        study_csv.check(csv_folder, study_csv.FEATURES_FILES, force)
    tally = base.tally(fail_fast)
    settings = features.FeatureSettings(truth=truth, truth_settings=truth_settings, tasks=tasks)
    rows = features.run(inputs, settings, stdin=base.stdin(), tally=tally)
    if csv_folder:
        names = dict.fromkeys(row["task"] for row in rows)
        study_csv.write(csv_folder, study_csv.features_files(features.by_id(rows), names), force)
    with base.output(output, force) as write:
        write(tables.write(rows, output_format, ("id", "task", *features.COLUMNS, "failed")))
    tally.finish()


def main() -> None:
    base.run(command)
