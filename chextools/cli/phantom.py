"""chex-phantom: options to `chextools.phantom`."""

from __future__ import annotations

import click

from chextools.cli import base, options

EXAMPLE = """
chex-phantom -o phantoms --count 1500 --size 160 160 > phantoms.jsonl
chex-eval phantoms/hb_annotations_test.json --truth phantoms/gt_annotations_test.json --human
"""


@base.command("chex-phantom", EXAMPLE)
@options.output_folder("the data set", required=True)
@click.option(
    "--count", type=click.IntRange(min=1), default=1000, show_default=True, metavar="N", help="Images to make."
)
@click.option(
    "--size",
    type=click.IntRange(64, 4096),
    nargs=2,
    default=(320, 320),
    show_default=True,
    metavar="H W",
    help="Height and width of the images in pixels.",
)
@options.seed()
@options.force()
@options.resume()
@options.jobs()
def command(output, count, size, seed, force, resume, jobs):
    """Make a data set of made-up chest X-rays in CheXpert's layout, with the truth about each.

    Writes images, train.csv, valid.csv and test.csv, split by patient; for valid and test also outlines, masks and
    points of ten findings, and those of a second reader who is good, not perfect. Image records go to stdout.
    """
    from chextools import phantom
    from chextools.plumbing.parallel import default_jobs
    from chextools.records.records import dumps

    settings = phantom.Settings(output, count, size, seed)
    with base.resumable(), base.output(None) as write:
        for record in base.progress(phantom.make(settings, jobs or default_jobs(), force, resume), "images"):
            write(dumps(record) + "\n")


def main() -> None:
    base.run(command)
