"""chex-prep: options to `chextools.prep`."""

from __future__ import annotations

import contextlib

import click

from chextools.cli import base, options

EXAMPLE = """
chex-prep CheXpert-v1.0/train.csv --split 0.9,0.1 --pack cache --size 320 > train.jsonl
find archive -name '*.dcm' -print0 | chex-prep -0 > images.jsonl
"""


@base.command("chex-prep", EXAMPLE)
@options.inputs("[INPUT]...")
@options.root()
@options.null()
@options.renamed()
@options.tasks()
@click.option("--drop", "dropped", multiple=True, metavar="COLUMN", help="Leave this column out; may be repeated.")
@click.option(
    "--patient", metavar="COLUMN", help="The column that says whose image it is. [default: known names, else the path]"
)
@options.split()
@click.option(
    "--split-by", metavar="COLUMN", help="Keep images of one value of this column together in --split, not patients."
)
@options.seed()
@click.option("--verify", is_flag=True, help="Decode every image, to find damage inside it.")
@click.option("--pack", metavar="DIR", help="Also decode each image once into DIR, for fast training.")
@click.option(
    "--size",
    type=click.IntRange(1, 4096),
    default=320,
    show_default=True,
    metavar="N",
    help="Side in pixels of the images in the pack.",
)
@options.resume()
@options.output("the records")
@options.force()
@options.jobs()
@options.shard()
@options.fail_fast()
@click.pass_context
def command(
    context,
    inputs,
    root,
    null,
    renamed,
    tasks,
    dropped,
    patient,
    split,
    split_by,
    seed,
    verify,
    pack,
    size,
    resume,
    output,
    force,
    jobs,
    shard,
    fail_fast,
):
    """Check, measure and split X-rays; write them as image records.

    INPUT: a CSV of labels (CheXpert's and CheXpert Plus', NIH's, MIMIC-CXR-JPG's, PadChest's, VinDr-CXR's, RSNA's, or
    your own with a column Path), a folder, images (JPEG, PNG, DICOM, ...), a pack, or records (JSON Lines; - for
    stdin, which may also hold a CSV or image paths). Told apart by content. Writes a record per image that is whole;
    one that is not is named.
    """
    inputs = base.default_inputs(context, inputs)
    if resume and not pack:
        raise click.UsageError("--resume goes on with a --pack")
    if split_by and not split:
        raise click.UsageError("--split-by is about --split")
    if null and inputs != ("-",):
        raise click.UsageError("--null is about paths on stdin")
    if context.get_parameter_source("size").name == "COMMANDLINE" and not pack:
        raise click.UsageError("--size is that of a --pack")

    from chextools import prep
    from chextools.inputs import image_lists
    from chextools.plumbing import files, jsontext
    from chextools.plumbing.parallel import default_jobs
    from chextools.xrays.packs import Writer

    if output:
        files.check_target(output, force)
    settings = prep.PrepSettings(size=size if pack else None, split=split, seed=seed, decode=verify)
    wishes = {"root": root, "null": null, "renamed": dict(renamed), "tasks": tasks}
    wishes |= {"patient": patient, "dropped": dropped, "split_by": split_by}
    tally = base.tally(fail_fast)
    with contextlib.ExitStack() as stack:
        writer = None
        if pack:
            stack.enter_context(base.resumable())
            writer = stack.enter_context(Writer(pack, size, shard or (1, 1), force, resume))
        write = stack.enter_context(base.output(output, force))
        items = image_lists.read_image_lists(inputs, base.stdin(), **wishes)
        placed = prep.placed(items, shard)
        results = base.progress(prep.prepare(placed, settings, jobs or default_jobs(), writer), "images")
        for record in tally.passing(results):
            write(jsontext.dumps(record) + "\n")
    tally.finish()


def main() -> None:
    base.run(command)
