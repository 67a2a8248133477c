"""chex-predict: options to `chextools.predict`."""

from __future__ import annotations

import click

from chextools.cli import base, options

EXAMPLE = """
chex-predict test.csv --checkpoint RUN/best.pt | chex-eval --metric auroc
chex-predict test.csv --floor thumbnail --fit train.csv | chex-eval --metric auroc
chex-predict xrays --checkpoint RUN1/ensemble.json --checkpoint RUN2/ensemble.json > scores.jsonl
"""


@base.command("chex-predict", EXAMPLE)
@options.inputs("[IMAGES]...")
@options.checkpoints()
@click.option(
    "--floor",
    type=click.Choice(["filesize", "exposure", "thumbnail", "both"]),
    help="Instead of a checkpoint: score by the file's size, its grey levels wherever they are, an 8 x 8 thumbnail, or "
    "size and thumbnail, fitted to --fit.",
)
@click.option("--fit", metavar="TRAIN", help="Records or CSV with the labels that a --floor is fitted to.")
@options.tasks()
@click.option("--logits", is_flag=True, help="Also write the raw logits.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=16, show_default=True, metavar="N", help="Images per batch."
)
@options.device()
@options.root()
@options.null()
@options.output("the records")
@options.force()
@options.jobs()
@options.shard()
@options.fail_fast()
@click.pass_context
def command(
    context,
    inputs,
    checkpoints,
    floor,
    fit,
    tasks,
    logits,
    batch_size,
    device,
    root,
    null,
    output,
    force,
    jobs,
    shard,
    fail_fast,
):
    """Score X-rays: the probability of each task.

    IMAGES: CheXpert's or NIH's CSV, a folder, images, a pack, or records (JSON Lines; - for stdin, which may also hold
    a CSV or image paths). Writes the records with "scores", and "model", the checkpoints' SHA-256.
    """
    inputs = base.default_inputs(context, inputs)
    if bool(checkpoints) == bool(floor):
        raise click.UsageError("Missing option '--checkpoint'." if not floor else "--floor is without --checkpoint")
    if bool(floor) != bool(fit):
        raise click.UsageError("--floor and --fit go together")
    if fit == "-" and "-" in inputs:
        raise click.UsageError("IMAGES and --fit cannot both be stdin")
    if null and inputs != ("-",):
        raise click.UsageError("--null is about paths on stdin")

    import itertools

    from chextools import predict
    from chextools.inputs import image_lists
    from chextools.models import floors
    from chextools.models.checkpoints import select
    from chextools.plumbing import jsontext
    from chextools.plumbing.parallel import default_jobs
    from chextools.records import records

    select(checkpoints)  # before torch is imported, which takes seconds
    jobs = jobs or default_jobs()
    with base.output(output, force) as write:
        items = records.select_shard(image_lists.read_image_lists(inputs, base.stdin(), root=root, null=null), shard)
        first = next(items, None)  # an input that cannot be read is said before the network is loaded
        tally = base.tally(fail_fast)
        if first is not None:
            items = itertools.chain([first], items)
            if floor:
                known = floors.fit(
                    image_lists.read_image_lists([fit], base.stdin(), root=root), floor, tasks, fit, jobs
                )
                results = floors.predict(items, known, jobs)
            else:
                predictor = predict.Predictor(checkpoints, tasks, device)
                results = predict.apply(items, predictor, batch_size, jobs, logits)
            for record in tally.passing(base.progress(results, "images")):
                write(jsontext.dumps(record) + "\n")
    tally.finish()


def main() -> None:
    base.run(command)
