"""chex-phantom: options to `chextools.phantom`."""

from __future__ import annotations

import click

from chextools.cli import base, options, types

EXAMPLE = """
chex-phantom -o phantoms --count 1500 --size 160 160 > phantoms.jsonl
chex-phantom -o hard --count 500 --views frontal --prevalence 0.1 --prevalence 'Lung Lesion=0.5' --hard > hard.jsonl
chex-phantom -o drawn --onto train.csv --prevalence 'Airspace Opacity=1' > drawn.jsonl
chex-eval phantoms/hb_annotations_test.json --truth phantoms/gt_annotations_test.json --human
"""


@base.command("chex-phantom", EXAMPLE)
@options.output_folder("the data set", required=True)
@click.option(
    "--onto",
    metavar="XRAYS",
    type=click.Path(),
    help="Draw findings onto these X-rays (a CSV, records or a folder) instead of making bodies.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images to make. [default: 1000; with --onto one of each X-ray]",
)
@click.option(
    "--size",
    type=click.IntRange(64, 4096),
    nargs=2,
    default=None,
    metavar="H W",
    help="Height and width of the images in pixels. [default: 320 320; with --onto the X-ray's own]",
)
@click.option(
    "--views",
    type=click.Choice(["mixed", "frontal", "lateral", "both"]),
    default="mixed",
    show_default=True,
    help="Views of each study; mixed: one or two frontal ones, and now and then a lateral one.",
)
@click.option(
    "--prevalence",
    multiple=True,
    type=types.Share(),
    help="Share of studies that show a finding, of all ten or of TASK; may be repeated. [default: what ails the "
    "patients, as in a hospital; with --onto 0.4 of each of five]",
)
@click.option("--hard", is_flag=True, help="Make findings small and faint.")
@options.seed()
@options.force()
@options.resume()
@options.jobs()
def command(output, onto, count, size, views, prevalence, hard, seed, force, resume, jobs):
    """Make a data set of made-up chest X-rays in CheXpert's layout, with the truth about each.

    Writes images, train.csv, valid.csv and test.csv, split by patient; for valid and test also outlines, masks and
    points of ten findings, and those of a second reader who is good, not perfect. Image records go to stdout.
    With --onto, copies of somebody's X-rays with made-up findings, train.csv, and the outlines of those.
    """
    if onto and views != "mixed":
        raise click.UsageError("--views is of made-up bodies; --onto has the views that it finds")
    from chextools import phantom
    from chextools.inputs import image_lists
    from chextools.plumbing.jsontext import dumps
    from chextools.plumbing.parallel import default_jobs

    shares = phantom.prevalences(prevalence, phantom.ONTO) if onto else phantom.prevalences(prevalence)
    xrays = phantom.xrays_of(image_lists.read_image_lists([onto], base.stdin()), onto) if onto else []
    settings = phantom.PhantomSettings(
        folder=output,
        count=count or len(xrays) or 1000,
        size=size,
        seed=seed,
        views=views,
        prevalence=shares,
        hard=hard,
        onto=xrays,
    )
    with base.resumable(), base.output(None) as write:
        made = phantom.make(settings, jobs or default_jobs(), force, resume)
        for record in base.progress(made, "images", settings.count):
            write(dumps(record) + "\n")


def main() -> None:
    base.run(command)
