"""The options that commands share: the same name, letter and meaning everywhere, defined once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import click

from chextools.cli import completion, types
from chextools.heatmaps.signs import SIGNS
from chextools.metrics.catalogue import CONSENSUS, MISSING, RESAMPLED, UNCERTAIN

Decorator = Callable[[Callable], Callable]


def inputs(metavar: str) -> Decorator:
    """Positional inputs; none means stdin."""
    return click.argument("inputs", nargs=-1, metavar=metavar)


def output(what: str) -> Decorator:
    return click.option(
        "-o",
        "--output",
        metavar="FILE",
        callback=lambda _, __, path: None if path == "-" else path,
        help=f"Write {what} to FILE instead of stdout.",
    )


def output_folder(what: str, required: bool = False) -> Decorator:
    return click.option("-o", "--output", metavar="DIR", required=required, help=f"Write {what} to the folder DIR.")


def force() -> Decorator:
    return click.option("-f", "--force", is_flag=True, help="Replace files that exist.")


def jobs() -> Decorator:
    return click.option(
        "-j",
        "--jobs",
        type=click.IntRange(min=1),
        metavar="N",
        help="Processes. [default: what Slurm granted, else the cores, at most 4]",
    )


def seed() -> Decorator:
    return click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        metavar="N",
        help="Seed of all that is random.",
    )


def replicates() -> Decorator:
    return click.option(
        "--replicates",
        type=click.IntRange(min=1, max=1_000_000),
        default=1000,
        show_default=True,
        metavar="N",
        help="Bootstrap replicates.",
    )


def resample(meaning: str) -> Decorator:
    return click.option("--resample", type=click.Choice(RESAMPLED), default="cxr", show_default=True, help=meaning)


def checkpoints(required: bool = False) -> Decorator:
    return click.option(
        "--checkpoint",
        "checkpoints",
        multiple=True,
        required=required,
        metavar="CKPT",
        help="Checkpoint of chex-train or chex-import, or ensemble.json; of several the mean; may be repeated.",
    )


def threshold() -> Decorator:
    return click.option(
        "--threshold",
        type=types.Threshold(),
        default="otsu",
        show_default=True,
        metavar="otsu|NUMBER|FILE",
        help="Otsu's threshold; one for all tasks; or one per task from chex-tune or tuning_results.csv.",
    )


def smooth() -> Decorator:
    return click.option(
        "--smooth",
        type=click.IntRange(min=1),
        default=1,
        metavar="K",
        help="Smooth the upsampled heatmap with a box of K x K pixels. [default: off]",
    )


def sign() -> Decorator:
    return click.option(
        "--sign",
        type=click.Choice(SIGNS),
        help="Which evidence counts in a signed heatmap. [default: what the record or heatmap says, else positive, raw "
        "for the study's pickles]",
    )


def uncertain(where: str) -> Decorator:
    return click.option(
        "--uncertain",
        type=click.Choice(UNCERTAIN),
        default="ignore",
        show_default=True,
        help=f"What uncertain labels count as, {where}.",
    )


def missing(where: str) -> Decorator:
    return click.option(
        "--missing",
        type=click.Choice(MISSING),
        help=f"What blank labels count as, {where}. [default: as in chex-train: negative of CheXpert's tasks, else "
        "ignore]",
    )


def truth_settings(images: str = "--images") -> Decorator:
    """What files of truth do not say; the command gets it as `truth_settings`."""

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def call(*args, truth_size, consensus, truth_images, **values):
            from chextools.inputs.truth import TruthSettings

            settings = TruthSettings(size=truth_size, consensus=consensus, images=truth_images)
            return command(*args, truth_settings=settings, **values)

        for option in reversed(_truth_options(images)):
            call = option(call)
        return call

    return decorate


def _truth_options(images: str) -> list[Decorator]:
    return [
        click.option(
            "--truth-size",
            type=types.ImageSize(),
            metavar="HxW",
            help="Size of the images in which the truth's coordinates are, where its file does not say; truth of "
            "another size is then scaled.",
        ),
        click.option(
            "--consensus",
            type=click.Choice(CONSENSUS),
            help="How several readers' outlines become one truth. [default: majority, more than half of them]",
        ),
        click.option(
            images,
            "truth_images",
            multiple=True,
            metavar="IMAGES",
            help="The truth's X-rays, for their sizes: a CSV, a folder, or image records; may be repeated.",
        ),
    ]


def shard() -> Decorator:
    return click.option("--shard", type=types.Shard(), help="Take only part I of N of the records, chosen by id.")


def fail_fast() -> Decorator:
    return click.option("--fail-fast", is_flag=True, help="Stop at the first record that fails.")


def tasks() -> Decorator:
    return click.option(
        "--task",
        "tasks",
        multiple=True,
        metavar="TASK",
        shell_complete=completion.task,
        help="Only this task; may be repeated. [default: all]",
    )


def root() -> Decorator:
    return click.option(
        "--root",
        metavar="DIR",
        help="Folder of the paths in a CSV. [default: the CSV's own; for stdin the working directory]",
    )


def null() -> Decorator:
    return click.option("-0", "--null", is_flag=True, help="stdin holds image paths ended by NUL, as find -print0.")


def renamed() -> Decorator:
    return click.option(
        "--map",
        "renamed",
        multiple=True,
        type=types.Renaming(),
        help="Call the column or finding OLD the task NEW; may be repeated.",
    )


def split() -> Decorator:
    return click.option(
        "--split", type=types.Split(), help="Put each patient into train, valid or test, in these shares, by the seed."
    )


def device() -> Decorator:
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        metavar="NAME",
        shell_complete=completion.words("auto", "cpu", "cuda", "mps"),
        help="Where to compute: auto, cpu, cuda, cuda:N or mps; auto takes a GPU if there is one.",
    )


def resume() -> Decorator:
    return click.option("--resume", is_flag=True, help="Go on where a run that was stopped left off.")


def output_format(choices: Sequence[str], meaning: str) -> Decorator:
    return click.option(
        "--format", "output_format", type=click.Choice(choices), default=choices[0], show_default=True, help=meaning
    )
