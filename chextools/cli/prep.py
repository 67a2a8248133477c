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
@options.split()
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
    split,
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

    INPUT: CheXpert's CSV, NIH's Data_Entry CSV, a folder, images (JPEG, PNG, DICOM, ...), a pack, or records (JSON
    Lines; - for stdin, which may also hold a CSV or image paths). Told apart by content. Writes a record per image
    that is whole; one that is not is named.
    """
    inputs = base.default_inputs(context, inputs)
    if resume and not pack:
        raise click.UsageError("--resume goes on with a --pack")
    if null and inputs != ("-",):
        raise click.UsageError("--null is about paths on stdin")
    if context.get_parameter_source("size").name == "COMMANDLINE" and not pack:
        raise click.UsageError("--size is that of a --pack")

    from chextools import prep
    from chextools.inputs import datasets
    from chextools.plumbing import files
    from chextools.plumbing.parallel import default_jobs
    from chextools.records import records
    from chextools.xrays.packs import Writer

    if output:
        files.check_target(output, force)
    settings = prep.Settings(size if pack else None, split, seed, verify)
    tally = base.tally(fail_fast)
    with contextlib.ExitStack() as stack:
        writer = None
        if pack:
            stack.enter_context(base.resumable())
            writer = stack.enter_context(Writer(pack, size, shard or (1, 1), force, resume))
        write = stack.enter_context(base.output(output, force))
        items = datasets.read_all(inputs, base.stdin(), root=root, null=null, renamed=dict(renamed), tasks=tasks)
        placed = prep.placed(items, shard)
        results = base.progress(prep.prepare(placed, settings, jobs or default_jobs(), writer), "images")
        for record in tally.passing(results):
            write(records.dumps(record) + "\n")
    tally.finish()


def main() -> None:
    base.run(command)
