"""chex-regress: options to `chextools.regress`."""

from __future__ import annotations

import click

from chextools.cli import base, options
from chextools.metrics.catalogue import BY_IMAGE
from chextools.results.words import ROWS

EXAMPLE = """
chex-features annotations.json --truth gt.json | chex-regress per_image.jsonl --features - --format table
chex-regress iou_humanbenchmark_results_per_cxr.csv --minus iou_results_per_cxr.csv --features FOLDER --csv results
chex-regress per_image.jsonl --scores gradcam_maps_val
"""

COLUMNS = (
    "metric",
    "task",
    "feature",
    "model",
    "n",
    "patients",
    "freedom",
    "slope",
    "lower",
    "upper",
    "p",
    "p_bonferroni",
    "spearman",
    "spearman_lower",
    "spearman_upper",
    "spearman_p",
    "failed",
    "note",
    "reason",
)


@base.command("chex-regress", EXAMPLE)
@options.inputs("[RESULTS]...")
@click.option(
    "--features",
    "features_path",
    metavar="FILE|DIR",
    help="Regress on geometric features: rows of "
    "chex-features (- for stdin), or the folder with the study's four CSV files.",
)
@click.option(
    "--scores",
    "scores_path",
    metavar="MAPS",
    help="Regress on the model's scores: records or results that have them, or a folder of heatmaps.",
)
@click.option("--minus", metavar="RESULTS2", help="Regress the difference: RESULTS minus RESULTS2.")
@click.option(
    "--metric",
    type=click.Choice(BY_IMAGE),
    help="Which metric. [default: all that RESULTS have; of a CSV, the prefix of its name]",
)
@options.tasks()
@click.option("--human", is_flag=True, help="RESULTS are the human benchmark's: --csv names its files so.")
@click.option("--csv", "csv_folder", metavar="DIR", help="Write the files that the study's scripts write.")
@options.output_format(ROWS, "Rows as JSON Lines, CSV, or a table to look at.")
@options.output("the rows")
@options.force()
@options.fail_fast()
@click.pass_context
def command(
    context,
    inputs,
    features_path,
    scores_path,
    minus,
    metric,
    tasks,
    human,
    csv_folder,
    output_format,
    output,
    force,
    fail_fast,
):
    """Regress how well CXRs are localised on the shape of the truth, or on the model's scores.

    RESULTS: per-image results of chex-eval (- for stdin), or the study's iou_results_per_cxr.csv and the like. CXRs are
    joined by id. Writes a row per metric and feature or task: slope, 95% interval and p; null, with the reason, where
    undefined.
    """
    inputs = base.default_inputs(context, inputs)

    from chextools import regress
    from chextools.plumbing import files
    from chextools.results import study_csv, tables

    if (features_path is None) == (scores_path is None):
        raise click.UsageError("give one of --features and --scores")
    if [*inputs, minus, features_path, scores_path].count("-") > 1:
        raise click.UsageError("only one input can be stdin")
    files.check_targets((output,), force)
    settings = regress.RegressionSettings(
        features=features_path, scores=scores_path, minus=minus, metric=metric, tasks=tasks
    )

    def check_folder(names: list[str]) -> None:
        if csv_folder:
            wanted = (study_csv.regression_name(name, settings.against, human) for name in names)
            study_csv.check(csv_folder, filter(None, wanted), force)

    tally = base.tally(fail_fast)
    rows = regress.run(inputs, settings, stdin=base.stdin(), tally=tally, known=check_folder)
    if csv_folder:
        study_csv.write(csv_folder, study_csv.regression_files(rows, settings.against, human), force)
    with base.output(output, force) as write:
        write(tables.write(rows, output_format, COLUMNS))
    tally.finish()


def main() -> None:
    base.run(command)
