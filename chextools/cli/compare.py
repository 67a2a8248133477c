"""chex-compare: options to `chextools.compare`."""

from __future__ import annotations

import click

from chextools.cli import base, options

EXAMPLE = """
chex-eval masks.jsonl --truth gt.json --metric iou --per-image model.jsonl
chex-eval human_masks.json --truth gt.json --metric iou --per-image human.jsonl
chex-compare model.jsonl human.jsonl --format table
"""

COLUMNS = (
    "metric",
    "task",
    "pred",
    "ref",
    "pct_decrease",
    "lower",
    "upper",
    "difference",
    "difference_lower",
    "difference_upper",
    "p",
    "p_holm",
    "n",
    "n_pred",
    "n_ref",
    "failed",
    "note",
    "reason",
)


@base.command("chex-compare", EXAMPLE)
@options.inputs("[PRED] REF")
@click.option(
    "--metric",
    type=click.Choice(["iou", "hit"]),
    help="What to compare. [default: what the file's name begins with, else the only one in it]",
)
@options.replicates()
@options.seed()
@options.tasks()
@options.output_format(["jsonl", "csv", "table"], "Rows as JSON Lines, the study's CSV, or a table to look at.")
@options.output("the rows")
@options.force()
@options.fail_fast()
def command(inputs, metric, replicates, seed, tasks, output_format, output, force, fail_fast):
    """Compare one result with another, such as a model with a human benchmark: percentage decrease and paired test.

    PRED (- or nothing for stdin) and REF: both per-image results, or both replicates, of chex-eval or the study's CSV.
    Per-image results are resampled jointly, paired by CXR. Writes a row per task, the greatest decrease first, and one
    for the average.
    """
    if not 1 <= len(inputs) <= 2:
        raise click.UsageError("expected [PRED] REF")
    if len(inputs) == 1:
        inputs = ("-", *inputs)
    if inputs == ("-", "-"):
        raise click.UsageError("PRED and REF cannot both be stdin")

    from chextools import compare
    from chextools.plumbing import files
    from chextools.results import tables

    if output:
        files.check_target(output, force)
    tally = base.tally(fail_fast)
    # The second is opened first, so that a slip in its name shows before stdin is waited for
    ref, pred = (compare.read(source, base.stdin(), metric) for source in inputs[::-1])
    for _ in tally.passing(pred.failures + ref.failures):
        pass
    rows = compare.compare(pred, ref, compare.Settings(tuple(tasks), replicates, seed))
    with base.output(output, force) as write:
        if output_format == "csv":
            write(compare.study_text(rows))
        else:
            write(tables.write(rows, output_format, COLUMNS))
    tally.finish()


def main() -> None:
    base.run(command)
