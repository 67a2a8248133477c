"""chex-cam: options to `chextools.cam`."""

from __future__ import annotations

import click

from chextools.cli import base, completion, options, types
from chextools.saliency.methods import METHODS

EXAMPLE = """
chex-cam test.csv --checkpoint RUN/best.pt -o maps | chex-segment | chex-eval --truth gt.json
chex-cam xrays --checkpoint RUN/ensemble.json --method occlusion -o maps --resume > maps.jsonl
"""


@base.command("chex-cam", EXAMPLE)
@options.inputs("[IMAGES]...")
@options.checkpoints(required=True)
@options.output_folder("one heatmap file per image", required=True)
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    default="gradcam",
    show_default=True,
    help="How heatmaps are made; random, centre and mean know nothing of the image: floors.",
)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    metavar="TASK",
    shell_complete=completion.task,
    help="Only this task; may be repeated. [default: the study's ten where there are some, else all]",
)
@click.option(
    "--layer",
    metavar="NAME",
    shell_complete=completion.layer,
    help="Whose feature maps are explained. [default: the network's last]",
)
@click.option(
    "--window",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="Side of occlusion's window in the network's input. [default: an eighth of it]",
)
@click.option(
    "--stride", type=click.IntRange(1), metavar="PIXELS", help="Step of occlusion's window. [default: half the window]"
)
@click.option(
    "--baseline",
    type=types.Baseline(),
    default="zero",
    show_default=True,
    help="What stands for nothing to see, in occlusion, ig and deeplift: the network's zero, the image's "
    "mean, the image blurred, or a grey level from 0 to 1.",
)
@click.option(
    "--steps",
    type=click.IntRange(1, 10000),
    default=50,
    show_default=True,
    metavar="N",
    help="Points of ig between baseline and image.",
)
@click.option(
    "--rule",
    type=click.Choice(["epsilon-plus", "epsilon", "gradient-input"]),
    default="epsilon-plus",
    show_default=True,
    help="How lrp shares relevance out.",
)
@click.option(
    "--samples",
    type=click.IntRange(1, 10000),
    default=50,
    show_default=True,
    metavar="N",
    help="Noisy copies of smoothgrad.",
)
@options.sign()
@click.option(
    "--batch-size",
    type=types.BatchSize(),
    default="auto",
    show_default=True,
    help="Images at once, or copies of one in occlusion, ig and smoothgrad.",
)
@options.output_format(["npz", "pickles"], "Our files, or also the study's ID_TASK_map.pkl.")
@options.device()
@options.root()
@options.null()
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
    checkpoints,
    output,
    method,
    tasks,
    layer,
    window,
    stride,
    baseline,
    steps,
    rule,
    samples,
    sign,
    batch_size,
    output_format,
    device,
    root,
    null,
    seed,
    force,
    resume,
    jobs,
    shard,
    fail_fast,
):
    """Explain X-rays: saliency heatmaps of every task, from one pass.

    IMAGES: CheXpert's or NIH's CSV, a folder, images, a pack, or records (JSON Lines; - for stdin, which may also hold
    a CSV or image paths). Writes DIR/ID.npz, and records with "scores" and "heatmap" on stdout.
    """
    inputs = base.default_inputs(context, inputs)
    _check_options(context, inputs)

    import contextlib
    import itertools

    from chextools import cam
    from chextools.inputs import image_lists
    from chextools.models.checkpoints import select
    from chextools.plumbing import jsontext
    from chextools.plumbing.files import check_folder
    from chextools.plumbing.parallel import default_jobs
    from chextools.records import records
    from chextools.saliency.settings import MethodSettings

    settings = MethodSettings(
        method=method,
        layer=layer,
        window=window,
        stride=stride,
        baseline=baseline,
        steps=steps,
        rule=rule,
        samples=samples,
        seed=seed,
        sign=sign,
    )
    select(checkpoints)  # before torch is imported, which takes seconds
    target = cam.Target(check_folder(output), output_format == "pickles", force, resume)
    items = records.select_shard(image_lists.read_image_lists(inputs, base.stdin(), root=root, null=null), shard)
    with base.resumable() if resume else contextlib.nullcontext(), base.output(None) as write:
        first = next(items, None)  # an input that cannot be read is said before the network is loaded
        tally = base.tally(fail_fast)
        if first is not None:
            networks = cam.load(checkpoints, settings, target, tasks, device)
            items = itertools.chain([first], items)
            with contextlib.closing(
                cam.explain(items, networks, settings, target, batch_size, jobs or default_jobs())
            ) as results:
                for record in tally.passing(base.progress(results, "images")):
                    write(jsontext.dumps(record) + "\n")
    tally.finish()


def _check_options(context: click.Context, inputs: tuple[str, ...]) -> None:
    """Options that another option makes meaningless."""
    given = context.params
    method = METHODS[given["method"]]
    if given["null"] and inputs != ("-",):
        raise click.UsageError("--null is about paths on stdin")
    if given["layer"] and not method.needs_layer:
        raise click.UsageError(f"--layer is for methods that look at one, not {method.name}")
    for name in ("window", "stride", "baseline", "steps", "rule", "samples"):
        source = context.get_parameter_source(name)
        if source is click.core.ParameterSource.COMMANDLINE and name not in method.options:
            others = " or ".join(other.name for other in METHODS.values() if name in other.options)
            raise click.UsageError(f"--{name} is for --method {others}")
    if given["window"] and given["stride"] and given["stride"] > given["window"]:
        raise click.UsageError("--stride is larger than --window: pixels would be left out")
    if method.name == "mean" and given["shard"]:
        raise click.UsageError("--method mean is over all images: it has no --shard")


def main() -> None:
    base.run(command)
