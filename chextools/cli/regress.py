"""chex-regress: options to `chextools.regress`."""

from __future__ import annotations

import click

from chextools.cli import base, options

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
    type=click.Choice(["iou", "hit"]),
    help="Which metric. [default: all that RESULTS have; of a CSV, the prefix of its name]",
)
@options.tasks()
@click.option("--human", is_flag=True, help="RESULTS are the human benchmark's: --csv names its files so.")
@click.option("--csv", "csv_folder", metavar="DIR", help="Write the files that the study's scripts write.")
@options.output_format(["jsonl", "csv", "table"], "Rows as JSON Lines, CSV, or a table to look at.")
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
    from chextools.records.records import Failure, peek
    from chextools.results import study_csv, tables
    from chextools.tasks import choose

    if (features_path is None) == (scores_path is None):
        raise click.UsageError("give one of --features and --scores")
    if [*inputs, minus, features_path, scores_path].count("-") > 1:
        raise click.UsageError("only one input can be stdin")
    against = "features" if features_path is not None else "scores"
    if output:
        files.check_target(output, force)
    tally = base.tally(fail_fast)

    def results_of(sources):
        where = "stdin" if sources[0] == "-" else sources[0]
        _, items = peek(regress.read_results(sources, base.stdin(), metric), where)
        return regress.collect(tally.passing(items), where, metric)

    def explanations(read, source):  # as records they do not count, unless they fail
        _, items = peek(read(source, base.stdin()), "stdin" if source == "-" else source)
        for item in items:
            yield from tally.passing([item]) if isinstance(item, Failure) else [item.record]

    results = results_of(inputs)
    if minus:
        results = results.minus(results_of([minus]))
    if csv_folder:
        names = (study_csv.regression_name(name, against, human) for name in results.values)
        study_csv.check(csv_folder, names, force)
    known = {task for values in results.values.values() for row in values.values() for task in row}
    chosen = choose(tasks, known, "the results") if tasks else ()
    if against == "features":
        given = list(explanations(regress.read_features, features_path))
        rows = list(regress.on_features(results, given, chosen, tally.failed))
    else:
        given = base.progress(explanations(regress.read_scores, scores_path), "CXRs")
        scores = {record["id"]: record["scores"] for record in given}
        rows = list(regress.on_scores(results, scores, chosen, tally.failed))
    if csv_folder:
        study_csv.write(csv_folder, study_csv.regression_files(rows, against, human), force)
    with base.output(output, force) as write:
        write(tables.write(rows, output_format, COLUMNS))
    tally.finish()


def main() -> None:
    base.run(command)
