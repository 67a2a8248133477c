"""chex-features: options to `chextools.features`."""

from __future__ import annotations

import click

from chextools.cli import base, options

EXAMPLE = """
chex-features gt_annotations_val.json --truth gt_segmentations_val.json > features.jsonl
chex-features gt_annotations_val.json --truth gt.json | chex-regress per_image.jsonl --features -
"""


@base.command("chex-features", EXAMPLE)
@options.inputs("[ANNOTATIONS]...")
@click.option("--truth", required=True, metavar="GT", help="The masks of these annotations, in any form.")
@options.tasks()
@click.option("--csv", "csv_folder", metavar="DIR", help="Write the four files that the study's script writes.")
@options.output_format(["jsonl", "csv", "table"], "Rows as JSON Lines, CSV, or a table to look at.")
@options.output("the rows")
@options.force()
@options.fail_fast()
@click.pass_context
def command(context, inputs, truth, tasks, csv_folder, output_format, output, force, fail_fast):
    """Describe the shape of what radiologists outlined: how many parts, how large, how long, how far from a rectangle.

    ANNOTATIONS: an annotations JSON, whose outlines are counted (- for stdin). GT: mask records, the study's mask JSON,
    COCO, or an annotations JSON. Writes a row per image and task; what is undefined is null.
    """
    inputs = base.default_inputs(context, inputs)

    from chextools import features
    from chextools.plumbing import files
    from chextools.results import study_csv, tables

    if truth == "-" and "-" in inputs:
        raise click.UsageError("ANNOTATIONS and --truth cannot both be stdin")
    files.check_targets((output,), force)
    if csv_folder:
        study_csv.check(csv_folder, study_csv.FEATURES_FILES, force)
    tally = base.tally(fail_fast)
    settings = features.FeatureSettings(truth=truth, tasks=tasks)
    rows = features.run(inputs, settings, stdin=base.stdin(), tally=tally)
    if csv_folder:
        names = dict.fromkeys(row["task"] for row in rows)
        study_csv.write(csv_folder, study_csv.features_files(features.by_id(rows), names), force)
    with base.output(output, force) as write:
        write(tables.write(rows, output_format, ("id", "task", *features.COLUMNS, "failed")))
    tally.finish()


def main() -> None:
    base.run(command)
