"""chex-probe: options to `chextools.probe`."""

from __future__ import annotations

import click

from chextools.cli import base, options
from chextools.probing.probes import BASELINES, PROBES, SCORES

EXAMPLE = """
chex-cam test.csv --checkpoint RUN/best.pt -o maps | chex-probe --checkpoint RUN/best.pt --summary rows.jsonl > p.jsonl
chex-probe maps.jsonl --checkpoint RUN/best.pt --metric randomisation --metric sensitivity -o probe.jsonl --resume
chex-probe gradcam_maps_test --images test.csv --checkpoint RUN/best.pt --metric road --curve > road.jsonl
"""


@base.command("chex-probe", EXAMPLE)
@options.inputs("[HEATMAPS]...")
@options.checkpoints(required=True)
@click.option(
    "--images",
    metavar="IMAGES",
    help="The X-rays, by id, of heatmaps that do not say which: CSV, folder, pack or records, as in chex-cam.",
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    type=click.Choice(list(PROBES)),
    default=("deletion", "insertion"),
    show_default=True,
    help="What to measure; may be repeated.",
)
@options.tasks()
@click.option(
    "--steps",
    type=click.IntRange(2, 1000),
    default=20,
    show_default=True,
    metavar="N",
    help="Equal shares in which deletion, insertion and road take pixels.",
)
@click.option(
    "--baseline",
    type=click.Choice(BASELINES),
    help="What replaces pixels in deletion, insertion and faithfulness: the network's zero, the image's mean, the "
    "image blurred, or black. [default: blur in insertion, else zero]",
)
@click.option(
    "--samples",
    type=click.IntRange(2, 10000),
    metavar="N",
    help="Patches of faithfulness, noisy copies of sensitivity. [default: 100 and 10]",
)
@click.option(
    "--score", type=click.Choice(SCORES), default="probability", show_default=True, help="What is read of the network."
)
@options.sign()
@click.option("--curve", is_flag=True, help='Also write the curves, as "curves".')
@click.option("--summary", metavar="FILE", help="Write a row per metric and task, as chex-eval's, to FILE.")
@options.replicates()
@options.resample("What the bootstrap draws.")
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="N",
    help="Altered images at once. [default: 16 on a CPU, 128 on a GPU]",
)
@options.device()
@options.root()
@options.seed()
@options.output("the records")
@options.force()
@options.resume()
@options.jobs()
@options.shard()
@options.fail_fast()
@click.pass_context
def command(
    context,
    inputs,
    checkpoints,
    images,
    metrics,
    tasks,
    steps,
    baseline,
    samples,
    score,
    sign,
    curve,
    summary,
    replicates,
    resample,
    batch_size,
    device,
    root,
    seed,
    output,
    force,
    resume,
    jobs,
    shard,
    fail_fast,
):
    """Probe whether heatmaps follow the network: what it says as their pixels, or its weights, are altered.

    HEATMAPS: records of chex-cam, a folder of heatmaps, or the study's pickles (- for stdin). Writes the records with a
    value per metric and task, and floors beside it.
    """
    inputs = base.default_inputs(context, inputs)
    if images == "-" and "-" in inputs:
        raise click.UsageError("HEATMAPS and --images cannot both be stdin")
    if resume and not output:
        raise click.UsageError("--resume goes on with a file: it needs --output")
    if baseline and not {"deletion", "insertion", "faithfulness"}.intersection(metrics):
        raise click.UsageError("--baseline is for deletion, insertion and faithfulness")
    if samples and not {"faithfulness", "sensitivity"}.intersection(metrics):
        raise click.UsageError("--samples is for faithfulness and sensitivity")

    import contextlib

    from chextools import probe
    from chextools.models.checkpoints import select
    from chextools.plumbing import files
    from chextools.probing.probes import ProbeSettings
    from chextools.results import tables

    settings = ProbeSettings(
        metrics=tuple(name for name in PROBES if name in metrics),
        tasks=tasks,
        steps=steps,
        baseline=baseline,
        samples=samples,
        score=score,
        sign=sign,
        seed=seed,
        curve=curve,
    )
    files.check_targets((output,), force or resume)
    files.check_targets((summary,), force or resume)
    select(checkpoints)  # before torch is imported, which takes seconds
    tally = base.tally(fail_fast)
    items = probe.read(inputs, base.stdin(), images, root, shard)
    with base.resumable() if resume else contextlib.nullcontext(), base.output(output, force or resume) as write:
        run = probe.start(items, checkpoints, settings, device, batch_size, output=output, resume=resume)
        with contextlib.closing(run.lines(tally, jobs)) as lines:
            for line in lines:
                write(line)
        if summary and run.summary is not None:
            with base.output(summary, force or resume) as write_rows:
                write_rows(tables.write(run.summary.rows(replicates, resample, tally.skipped), "jsonl"))
    tally.finish()


def main() -> None:
    base.run(command)
