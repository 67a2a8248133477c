"""chex-import: options to `chextools.importing`."""

from __future__ import annotations

import click

from chextools.cli import base, options, types
from chextools.cli.progress import steps

EXAMPLE = """
chex-import model.pth --arch densenet121 --tasks NIH14 -o chexnet.pt
chex-import xrv:densenet121-res224-chex -o xrv.pt
chex-import model.ckpt --arch mynet.py:build --tasks tasks.txt --size 512 --channels 1 --mean .5 --std .25 -o mine.pt
"""


@base.command("chex-import", EXAMPLE)
@click.argument("source", metavar="SOURCE")
@click.option(
    "--arch",
    metavar="NAME",
    help="Whose weights SOURCE holds: a name of torchvision, timm/NAME, xrv:densenet121, or your FILE.py:FUNCTION.",
)
@click.option(
    "--tasks",
    metavar="NAMES|FILE|ORDER",
    help="What the outputs are: names by comma, a file of a name a line, or NIH14, CHEXPERT14, XRV18; an empty name "
    "drops an output. [default: what SOURCE knows]",
)
@click.option(
    "--head",
    type=click.Choice(["sigmoid", "softmax2", "softmax3"]),
    default="sigmoid",
    show_default=True,
    help="One output a task; or negative, positive; or negative, positive, uncertain.",
)
@click.option("--channels", type=click.Choice(["1", "3"]), help="Of the input. [default: what SOURCE knows, else 3]")
@click.option(
    "--size",
    type=click.IntRange(8, 4096),
    metavar="N",
    help="Side of the input in pixels. [default: what SOURCE knows, else 224]",
)
@click.option("--range", "value_range", type=types.Range(), help="What black and white become, such as -1024,1024.")
@click.option("--mean", type=types.Numbers(), help="Of pixels in [0, 1], one or by channel. [default: ImageNet's]")
@click.option("--std", type=types.Numbers(), help="Standard deviation of pixels likewise.")
@click.option(
    "--resize",
    "fit",
    type=click.Choice(["squash", "shorter-centre-crop", "pad"]),
    help="How images become squares. [default: what SOURCE's library does, else squash]",
)
@click.option(
    "--resize-to",
    type=click.IntRange(8, 16384),
    metavar="N",
    help="Resize images to this side first, a crop's shorter one, then take the middle: Resize(256) and "
    "CenterCrop(224) are --resize-to 256 --size 224. [default: what SOURCE's library does, else the crop first]",
)
@click.option(
    "--antialias",
    "resample",
    type=click.Choice(["pil", "draft", "torch", "skimage", "none"]),
    help="Whose filter shrinks images; draft: pil, quicker on large JPEGs. [default: what SOURCE's library does, else "
    "pil]",
)
@click.option(
    "--interpolation",
    type=click.Choice(["bilinear", "bicubic", "lanczos", "nearest"]),
    help="The filter. [default: what SOURCE's library does, else bilinear]",
)
@click.option(
    "--points",
    metavar="FILE|none",
    help="JSON of the probability, by task, that a score of 0.5 is to stand for. [default: what SOURCE knows]",
)
@click.option("--layer", metavar="NAME", help="Where class activation maps are made. [default: the last feature maps]")
@click.option("--download", is_flag=True, help="Let SOURCE's library fetch weights that are not on disk.")
@click.option("--example", metavar="IMAGE", help="Also print the scores of this image.")
@click.option("-o", "--output", metavar="CKPT", required=True, help="Write the checkpoint to CKPT.")
@options.force()
def command(source, output, force, channels, **given):
    """Make a checkpoint of a classifier from elsewhere, for chex-predict and chex-cam.

    SOURCE: a file of torch.save (state dict, whole module, Lightning) or safetensors, with --arch; a program of
    torch.export (.pt2); xrv:NAME; hf:FOLDER; or FILE.py:FUNCTION. Prints what it is, and how far its outputs are
    from the original's.
    """
    if given["value_range"] and (given["mean"] or given["std"]):
        raise click.UsageError("--range and --mean or --std say the same")
    if bool(given["mean"]) != bool(given["std"]):
        raise click.UsageError("--mean and --std go together")

    from chextools import importing
    from chextools.plumbing import jsontext

    settings = importing.ImportSettings(source=source, channels=int(channels) if channels else None, **given)
    with base.output(None) as write:
        with steps() as step:
            row = importing.import_network(settings, output, force, step)
        write(jsontext.dumps(row) + "\n")


def main() -> None:
    base.run(command)
