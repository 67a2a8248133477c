"""chex-view: options to `chextools.view`."""

from __future__ import annotations

import click

from chextools.cli import base, options

EXAMPLE = """
chex-cam test.csv --checkpoint RUN/best.pt -o maps | chex-segment | chex-view --truth gt.json -o views > views.jsonl
chex-view masks.jsonl --truth gt.json --layout sheet --select worst --count 20 -o worst
cat gradcam.jsonl occlusion.jsonl | chex-view --truth gt.json --layout grid -o compared
chex-view masks.jsonl --truth gt.json -o figure --task Edema --theme light --format svg --original
chex-view gradcam_maps_val --images valid.csv --truth gt_annotations_val.json -o views
"""


@base.command("chex-view", EXAMPLE)
@options.inputs("[RECORDS]...")
@options.output_folder("the pictures", required=True)
@click.option(
    "--truth",
    multiple=True,
    metavar="GT",
    help="What radiologists outlined, in any form of chextools-formats(7), or their points; may be repeated.",
)
@click.option(
    "--images",
    multiple=True,
    metavar="IMAGES",
    help="X-rays of records that name none: a CSV, a folder, or image records; may be repeated.",
)
@options.root()
@click.option(
    "--layout",
    type=click.Choice(["single", "sheet", "grid"]),
    default="single",
    show_default=True,
    help="A picture per record and task, a page per task, or per X-ray methods side by side and tasks down.",
)
@click.option(
    "--select",
    type=click.Choice(["worst", "best", "random"]),
    help="Only the --count worst or best by IoU (by hit where there are no masks), or random ones, of each "
    "task; of a grid, that many X-rays. [default: all]",
)
@click.option(
    "--count", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many --select takes."
)
@click.option(
    "--size",
    type=click.IntRange(64, 4096),
    metavar="N",
    help="Pixels of an X-ray's longer side. [default: 800; in a sheet or grid 320]",
)
@click.option(
    "--original", is_flag=True, help="Show the X-ray alone beside each picture; in a grid as the first column."
)
@click.option(
    "--theme",
    type=click.Choice(["dark", "light"]),
    default="dark",
    show_default=True,
    help="Paper and text; light is for papers.",
)
@options.output_format(["png", "svg", "pdf"], "Pixels; or SVG or PDF, in which outlines, points and text are vectors.")
@options.sign()
@options.tasks()
@options.truth_settings("--truth-images")
@options.seed()
@options.force()
@options.resume()
@options.jobs()
@options.shard()
@options.fail_fast()
@click.pass_context
def command(
    context,
    inputs,
    output,
    truth,
    truth_settings,
    images,
    root,
    layout,
    select,
    count,
    size,
    original,
    theme,
    output_format,
    sign,
    tasks,
    seed,
    force,
    resume,
    jobs,
    shard,
    fail_fast,
):
    """Draw X-rays with heatmaps, predicted masks and points, and what radiologists outlined.

    RECORDS: JSON Lines with heatmaps, masks or points (- for stdin), a folder of heatmaps, the study's mask or points
    JSON, COCO, or annotations. Told apart by content. Writes the records with "views": of each task the picture, IoU,
    hit and score.
    """
    inputs = base.default_inputs(context, inputs)
    if (*inputs, *truth, *images).count("-") > 1:
        raise click.UsageError("only one of RECORDS, --truth and --images can be stdin")
    if context.get_parameter_source("count").name == "COMMANDLINE" and not select:
        raise click.UsageError("--count is how many --select takes")
    if shard and (select or layout == "sheet"):
        raise click.UsageError("--shard is not for --select or --layout sheet: both look at all records")

    import contextlib

    from chextools import view
    from chextools.inputs import image_lists
    from chextools.plumbing import jsontext
    from chextools.plumbing.files import check_folder
    from chextools.plumbing.parallel import default_jobs
    from chextools.records import records

    target = view.Target(check_folder(output), force, resume, output_format, theme)
    known = view.read_known(
        truth, image_lists.read_image_lists(images, base.stdin(), root=root), base.stdin(), truth_settings
    )
    tally = base.tally(fail_fast)
    for _ in tally.passing(known.failures):
        pass
    with base.resumable() if resume else contextlib.nullcontext(), base.output(None) as write:
        read = records.select_shard(view.read_records(inputs, base.stdin(), layout), shard)
        items, wanted = view.select_tasks(read, tasks, known)
        settings = view.ViewSettings(
            layout=layout, size=size, sign=sign, tasks=wanted, select=select, count=count, seed=seed, original=original
        )
        with contextlib.closing(view.draw(items, known, settings, target, jobs or default_jobs())) as results:
            for record in tally.passing(base.progress(results, "records")):
                write(jsontext.dumps(record) + "\n")
    tally.finish()


def main() -> None:
    base.run(command)
