"""chex-report: options to `chextools.report`."""

from __future__ import annotations

import click

from chextools.cli import base, options
from chextools.results.words import ROWS

EXAMPLE = """
chex-report gradcam.jsonl human.jsonl random.jsonl -o page.html
chex-report results/*.jsonl --human-run radiologists -o leaderboard.html --format table
chex-report gradcam.jsonl lrp.jsonl --by task --format table
chex-report results --plots figures
chex-report gradcam human.jsonl random.jsonl --card -o card.html
"""


def _page(_context: click.Context, _parameter: click.Parameter, path: str | None) -> str | None:
    if path == "-":
        raise click.BadParameter("the page needs a file; stdout holds the rows.")
    return path


@base.command("chex-report", EXAMPLE)
@options.inputs("[RESULT]...")
@click.option("-o", "--output", metavar="PAGE", callback=_page, help="Write the page, one HTML file, to PAGE.")
@click.option("--plots", metavar="DIR", help="Write each figure as SVG and PNG to the folder DIR.")
@click.option(
    "--human-run",
    "humans",
    multiple=True,
    metavar="RUN",
    help="This run is a human benchmark; may be repeated. [default: those named so, such as human or hb]",
)
@click.option(
    "--floor-run",
    "floors",
    multiple=True,
    metavar="RUN",
    help="This run is a floor; may be repeated. [default: "
    "those named so: with the word floor, or random, centre, mean, filesize, exposure, thumbnail]",
)
@click.option(
    "--gallery",
    type=click.IntRange(min=0, max=30),
    default=3,
    show_default=True,
    metavar="N",
    help="Best and worst overlays to show of each run and task that have pictures, N of each.",
)
@click.option(
    "--card", is_flag=True, help="The page is the saliency card of one run, beside human benchmarks and floors."
)
@click.option("--title", metavar="TEXT", help="The page's heading. [default: the runs, or Leaderboard]")
@click.option(
    "--by",
    type=click.Choice(["run", "task", "metric"]),
    default="run",
    show_default=True,
    help="What a row on stdout is of: a run; IoU, hit rate or AUROC of a task, with a column for each run; or every "
    "metric of a task, with its CXRs, chance and floor besides.",
)
@options.output_format(ROWS, "The rows on stdout: JSON Lines, CSV, or a table to look at.")
@options.force()
@options.fail_fast()
@click.pass_context
def command(context, inputs, output, plots, humans, floors, gallery, card, title, by, output_format, force, fail_fast):
    """Show results in one HTML page that needs no network; several runs make a leaderboard.

    RESULT: a file of one run, or a folder of one run's files (- for stdin): what chex-eval, chex-compare, chex-tune,
    chex-features and chex-regress write, records of chex-view, the study's CSV; told apart by content. A run is named
    after its file or folder. Writes a row per run, best mean IoU first, or per metric and task.
    """
    inputs = base.default_inputs(context, inputs)

    from chextools import report
    from chextools.plumbing import files

    if card and not output:
        raise click.UsageError("--card needs --output, the page")
    if output:
        files.check_target(output, force)
    if plots:
        files.check_folder(plots)
    tally = base.tally(fail_fast)
    read = report.read_runs(inputs, base.stdin(), humans, floors, tally.progress)
    for _ in tally.passing(read.items):
        pass
    if output or plots:
        made = (
            report.build_card(read.runs, title or "", tally.progress)
            if card
            else report.build(read.runs, title or "", gallery if output else 0, tally.progress)
        )
        for _ in tally.passing(made.items):
            pass
        if plots:
            report.write_plots(plots, report.plot_files(made, tally.progress), force)
        if output:
            report.write_file(output, report.page_of(made).encode("utf-8"), force)
    with base.output(None) as write:
        write(report.text(read.runs, by, output_format))
    tally.finish()


def main() -> None:
    base.run(command)
