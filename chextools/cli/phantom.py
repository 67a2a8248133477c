"""chex-phantom: options to `chextools.phantom`."""

from __future__ import annotations

import click

from chextools.cli import base, options

EXAMPLE = """
chex-phantom -o phantoms --count 1500 --size 160 160 > phantoms.jsonl
chex-phantom -o hard --count 500 --views frontal --prevalence 0.1 --prevalence 'Lung Lesion=0.5' --hard > hard.jsonl
chex-eval phantoms/hb_annotations_test.json --truth phantoms/gt_annotations_test.json --human
"""


class Share(click.ParamType):
    """[TASK=]SHARE: a task, None for all, and a number in [0, 1]."""

    name = "[TASK=]SHARE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str | None, float]:
        task, _, number = str(value).rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is not [TASK=]SHARE with a share from 0 to 1.", param, ctx)
        return task or None, share


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
    type=Share(),
    help="Share of studies that show a finding, of all ten or of TASK; may be repeated. [default: what ails the "
    "patients, as in a hospital]",
)
@click.option("--hard", is_flag=True, help="Make findings small and faint.")
@options.seed()
@options.force()
@options.resume()
@options.jobs()
def command(output, count, size, views, prevalence, hard, seed, force, resume, jobs):
    """Make a data set of made-up chest X-rays in CheXpert's layout, with the truth about each.

    Writes images, train.csv, valid.csv and test.csv, split by patient; for valid and test also outlines, masks and
    points of ten findings, and those of a second reader who is good, not perfect. Image records go to stdout.
    """
    from chextools import phantom
    from chextools.plumbing.parallel import default_jobs
    from chextools.records.records import dumps

    settings = phantom.PhantomSettings(
        folder=output,
        count=count,
        size=size,
        seed=seed,
        views=views,
        prevalence=phantom.prevalences(prevalence),
        hard=hard,
    )
    with base.resumable(), base.output(None) as write:
        made = phantom.make(settings, jobs or default_jobs(), force, resume)
        for record in base.progress(made, "images", count):
            write(dumps(record) + "\n")


def main() -> None:
    base.run(command)
