"""chex-compare: options to `chextools.compare`."""

from __future__ import annotations

import click

from chextools.cli import base, options, types
from chextools.metrics.catalogue import COMPARED, LIKENESS, STUDY
from chextools.results.words import ROWS

EXAMPLE = """
chex-eval masks.jsonl --truth gt.json --metric iou --per-image model.jsonl
chex-eval human_masks.json --truth gt.json --metric iou --per-image human.jsonl
chex-compare model.jsonl human.jsonl --margin 0.05 --format table
chex-compare ours.jsonl theirs.jsonl --metric auroc
chex-compare maps_seed0 maps_seed1 --metric ssim
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
    "margin",
    "p_noninferior",
    "p_equivalent",
    "mean",
    "n",
    "n_pred",
    "n_ref",
    "positives",
    "patients",
    "failed",
    "note",
    "reason",
)


# Options that mean something for some metrics only
MEANT_FOR = {"truth": ("auroc",), "uncertain": ("auroc",), "missing": ("auroc",), "sign": LIKENESS, "jobs": LIKENESS}


@base.command("chex-compare", EXAMPLE)
@options.inputs("[PRED] REF")
@click.option(
    "--metric",
    type=click.Choice(COMPARED),
    help="What to compare: a metric of chex-eval by CXR; auroc of two files with scores; ssim or spearman of two sets "
    "of heatmaps. [default: what the file's name begins with, else the only one in it]",
)
@click.option(
    "--margin",
    type=types.Real(min=0, min_open=True),
    metavar="M",
    help="Test, too, whether PRED is worse than REF by less than M, and whether they differ by less.",
)
@options.resample("What is drawn, and whose signs are flipped, as one.")
@click.option("--truth", metavar="GT", help="Labels for auroc, a CSV or records, instead of PRED's own.")
@options.uncertain("for auroc")
@options.missing("for auroc")
@options.sign()
@options.replicates()
@options.seed()
@options.tasks()
@options.output_format(ROWS, "Rows as JSON Lines, the study's CSV, or a table to look at.")
@options.output("the rows")
@options.force()
@options.jobs()
@options.fail_fast()
@click.pass_context
def command(context, inputs, output_format, output, force, fail_fast, **settings):
    """Compare one result with another, such as a model with a human benchmark: percentage decrease and paired test.

    PRED (- or nothing for stdin) and REF: both per-image results, or both replicates, of chex-eval or the study's CSV;
    records with scores; or records or folders of heatmaps. CXRs are paired by id. Writes a row per task, the greatest
    decrease first, and one for the average.
    """
    if not 1 <= len(inputs) <= 2:
        raise click.UsageError("expected [PRED] REF")
    if len(inputs) == 1:
        inputs = ("-", *inputs)
    if inputs == ("-", "-"):
        raise click.UsageError("PRED and REF cannot both be stdin")

    _check(base.given(context), settings["metric"], output_format)
    if settings["truth"] == "-" and "-" in inputs:
        raise click.UsageError("only one input can be stdin")

    from chextools import compare
    from chextools.plumbing import files
    from chextools.results import tables

    files.check_targets((output,), force)
    base.begin("chex-compare", inputs)
    tally = base.tally(fail_fast)
    result = compare.run(inputs, compare.ComparisonSettings(**settings), stdin=base.stdin(), tally=tally)
    with base.output(output, force) as write:
        write(result.study_csv if output_format == "csv" else tables.write(result.rows, output_format, COLUMNS))
    tally.finish()


def _check(given: set[str], metric: str | None, output_format: str) -> None:
    """Refuse options that mean nothing with this metric."""
    for name, metrics in MEANT_FOR.items():
        if name in given and metric not in metrics:
            raise click.UsageError(f"--{name} is for --metric {' or '.join(metrics)}")
    if metric in LIKENESS and "margin" in given:
        raise click.UsageError("--margin is for differences")
    if output_format == "csv" and metric not in (None, *STUDY):
        raise click.UsageError(f"--format csv is the study's file of {' or '.join(STUDY)}")


def main() -> None:
    base.run(command)
