"""The options that commands share: the same name, letter and meaning everywhere, defined once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import click

from chextools.cli import completion
from chextools.heatmaps.signs import SIGNS
from chextools.metrics.catalogue import CONSENSUS, MISSING, RESAMPLED, UNCERTAIN

Decorator = Callable[[Callable], Callable]


class Shard(click.ParamType):
    """I/N: part I of N, counted from 1."""

    name = "I/N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        part, _, parts = str(value).partition("/")
        if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
            self.fail(f"{value!r} is not I/N with 1 <= I <= N.", param, ctx)
        return int(part), int(parts)


class Threshold(click.ParamType):
    """otsu, a number in [0, 1], or a file."""

    name = "otsu|NUMBER|FILE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if value is None or str(value).lower() == "otsu":
            return value and "otsu"
        try:
            number = float(str(value))
        except ValueError:
            return str(value)
        if not 0 <= number <= 1:
            self.fail(f"{value} is not in [0, 1].", param, ctx)
        return number


class ImageSize(click.ParamType):
    """HxW, or one number of a square, in pixels."""

    name = "HxW"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        height, _, width = str(value).lower().partition("x")
        width = width or height
        if not (height.isdigit() and width.isdigit() and 0 < int(height) < 2**16 and 0 < int(width) < 2**16):
            self.fail(f"{value!r} is not HEIGHTxWIDTH in pixels, such as 1024x1024.", param, ctx)
        return int(height), int(width)


class Split(click.ParamType):
    """TRAIN,VALID[,TEST]: shares that add up to 1."""

    name = "TRAIN,VALID[,TEST]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            shares = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            shares = ()
        if len(shares) not in (2, 3) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            self.fail(f"{value!r} is not two or three shares that add up to 1, such as 0.8,0.1,0.1.", param, ctx)
        return shares


class Renaming(click.ParamType):
    """OLD=NEW: a task's name in the input and in the records."""

    name = "OLD=NEW"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        old, _, new = str(value).partition("=")
        if not old or not new:
            self.fail(f"{value!r} is not OLD=NEW.", param, ctx)
        return old, new


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
        type=Threshold(),
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
            type=ImageSize(),
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
    return click.option("--shard", type=Shard(), help="Take only part I of N of the records, chosen by id.")


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
        type=Renaming(),
        help="Call the column or finding OLD the task NEW; may be repeated.",
    )


def split() -> Decorator:
    return click.option(
        "--split", type=Split(), help="Put each patient into train, valid or test, in these shares, by the seed."
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
