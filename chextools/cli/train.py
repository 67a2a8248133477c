"""chex-train: options to `chextools.train`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from chextools.cli import base, completion, options, types
from chextools.training.words import AMP, CLASS_WEIGHTS, DILATE, MIX_LOSS, OPTIMISERS, SCHEDULES

if TYPE_CHECKING:
    from chextools import train

LOOK_EVERY = 5.0  # seconds

EXAMPLE = """
chex-train CheXpert-v1.0/train.csv --valid CheXpert-v1.0/valid.csv -o RUN > log.jsonl
chex-train train.csv --valid valid.csv -o RUN --weights imagenet --uncertain ones --max-time 11:50:00 --resume
for lr in 1e-3 1e-4; do chex-train --config RUN/config.json --lr $lr -o run-$lr; done
"""


def number(name: str, kind: click.ParamType, text: str, default: object = None, **more: Any) -> options.Decorator:
    return click.option(
        name, type=kind, default=default, show_default=default is not None, metavar="N", help=text, **more
    )


def choice(
    name: str, choices: Sequence[str] | click.Choice, text: str, default: str | None = None
) -> options.Decorator:
    own = isinstance(choices, types.OwnOr)
    kind = choices if isinstance(choices, click.Choice) else click.Choice(choices)
    metavar = f"[{'|'.join(kind.choices)}|FILE.py:NAME]" if own else None
    return click.option(name, type=kind, default=default, show_default=default is not None, metavar=metavar, help=text)


POSITIVE, COUNT = types.Real(0, min_open=True), click.IntRange(1)
SHARE = types.Real(0, 1)


@base.command("chex-train", EXAMPLE)
@options.inputs("[TRAIN]...")
@click.option("--valid", metavar="VALID", help="Records or CSV to validate on.")
@click.option(
    "--mix",
    multiple=True,
    metavar="SET[:SHARE]",
    help="Take this share of each batch from another set: records, CSV (its paths are in its own folder) or pack; "
    "may be repeated. [default: as much as of TRAIN]",
)
@click.option(
    "--outlines",
    multiple=True,
    metavar="[SET=]FILE",
    help="Where findings are, in any form that chex-eval takes for truth: positives that are outlined are also taught "
    "to be seen there; may be repeated. SET, TRAIN or one of --mix, where both have an id.",
)
@options.output_folder("the run")
@options.root()
@click.option(
    "--arch",
    default="densenet121",
    show_default=True,
    metavar="NAME",
    shell_complete=completion.arch,
    help="Any classification model of torchvision, timm/NAME, or FILE.py:NAME, your own function of the number of "
    "outputs.",
)
@click.option(
    "--weights",
    metavar="FILE|imagenet",
    help="Begin with these weights; imagenet downloads torchvision's. [default: drawn from the seed]",
)
@choice("--dilate", DILATE, "Make the last maps this much finer: strides become dilation, weights fit as they are.")
@number("--size", click.IntRange(8, 4096), "Side of the images in pixels.", 320)
@options.tasks()
@click.option(
    "--uncertain",
    multiple=True,
    metavar="[TASK=]POLICY",
    help="What uncertain labels count as: ignore, "
    "zeros, ones, multiclass or smooth; may be repeated. [default: ignore]",
)
@click.option(
    "--missing",
    multiple=True,
    metavar="[TASK=]POLICY",
    help="What blank labels count as: negative or "
    "ignore; may be repeated. [default: negative for CheXpert's tasks, else ignore]",
)
@choice("--class-weights", CLASS_WEIGHTS, "Whether a task's positives weigh as much as its negatives.", "none")
@click.option("--loss", type=types.Own(), help="Your own loss. [default: cross-entropy]")
@number("--outline-weight", types.Real(0), "Weight of the share of the map outside outlines in the loss.", 1.0)
@choice("--optimizer", types.OwnOr(OPTIMISERS), "Optimiser, or your own.", "adam")
@number("--lr", POSITIVE, "Learning rate.", 1e-4)
@number("--trunk-rate", types.Real(0), "Rate of all before the head as a share of --lr; 0 freezes it.", 1.0)
@number(
    "--layer-decay", types.Real(0, 1, min_open=True), "Rate of the first layer as a share of the trunk's last.", 1.0
)
@number("--weight-decay", types.Real(0), "Weight decay. [default: 0.01 for adamw, else 0]")
@choice("--schedule", types.OwnOr(SCHEDULES), "How the rate falls; step: to a tenth after each third.", "cosine")
@number("--warmup", click.IntRange(0), "Steps in which the rate rises from 0.", 0)
@number("--batch-size", COUNT, "Images per batch.", 16)
@choice("--mix-loss", MIX_LOSS, "Whether each label counts the same, or each set as its share of the batch.", "label")
@number("--accumulate", COUNT, "Batches per step.", 1)
@number("--clip", POSITIVE, "Greatest norm of the gradient. [default: any]")
@number("--epochs", types.Real(0, 1e6, min_open=True), "Epochs.", 3.0)
@number("--steps", COUNT, "Steps, instead of epochs.")
@number("--patience", COUNT, "End after N validations without improvement.")
@number("--checkpoint-every", COUNT, "Steps between validations; one is always last.", 4800)
@number("--keep", COUNT, "Checkpoints to keep.", 10)
@click.option(
    "--rank-by",
    "select",
    default="auroc",
    show_default=True,
    metavar="METRIC[:TASK]",
    help="What ranks checkpoints: "
    "auroc, auprc, brier or loss, of a task or the mean over tasks; a task alone is its auroc.",
)
@number("--ensemble", COUNT, "Checkpoints per task in ensemble.json.", 3)
@click.option("--augment", type=types.Own(), help="Your own changes of each image, in place of those below.")
@number("--rotate", types.Real(0, 180), "Rotate images by up to N degrees.", 5.0)
@number("--shift", SHARE, "Shift images by up to this share of their side.", 0.03)
@number("--scale", types.Real(0, 0.9), "Scale images by up to this share.", 0.05)
@number("--brightness", SHARE, "Change brightness by up to this share of the range.", 0.0)
@number("--contrast", SHARE, "Change contrast by up to this share.", 0.0)
@number("--crop", types.Real(0.1, 1), "Crop images to N or more of their side, anywhere, and enlarge.", 1.0)
@number("--exposure", SHARE, "Change gamma, contrast and brightness as if on another scanner, up to N.", 0.0)
@number("--border", types.Real(0, 0.45), "Paint over the edges of every other image, up to N of the side.", 0.0)
@click.option("--flip", is_flag=True, help="Mirror every other image. It puts the heart on the wrong side.")
@choice("--amp", AMP, "Compute in 16 bits where it is safe; fp16 needs a GPU.")
@click.option(
    "--channels-last/--no-channels-last",
    default=None,
    help="Lay images out by pixel: a tenth to a fifth faster on a CPU, up to half on a GPU. [default: on both]",
)
@click.option("--compile", is_flag=True, help="Compile the network first.")
@number("--limit-batches", COUNT, "Train and validate on N batches: a smoke test.")
@options.seed()
@options.device()
@options.jobs()
@click.option("--tensorboard", metavar="DIR", help="Also write results to DIR for TensorBoard.")
@click.option("--config", metavar="FILE", help="Take options from a run's config.json; those given here override.")
@options.resume()
@click.option("--max-time", type=types.Duration(), help="Save and exit with 75 when this time is over.")
@click.pass_context
def command(context, inputs, **_):
    """Train a classifier of chest X-rays.

    TRAIN and VALID: image records (JSON Lines, - for stdin), CheXpert's CSV, or a pack of chex-prep. Writes an object
    per validation: loss, AUROC per task, images per second. SIGTERM, SIGUSR1 and SIGUSR2 finish the step, save, and
    exit with 75; --resume goes on to the same weights.
    """
    start = time.monotonic()
    from chextools import train
    from chextools.plumbing.jsontext import dumps
    from chextools.training import board, ranks

    options = _options(context, inputs)
    with ranks.found() as ours, base.output(None) as write:
        if not ours.leads:
            base.only_errors()
        plan = train.prepare(options, base.stdin(), ours)
        with base.stopping(options["max_time"] and start + options["max_time"]) as stop, plan.run() as run:
            with board.writer(options["tensorboard"] if ours.leads else None) as draw:
                left = run.steps - run.step
                events = left + math.ceil(left / run.settings.checkpoint_every) + len(run.rows)  # a row is one, too
                shown = base.progress(run.events(stop), "steps", events, _SoFar(run))
                for row in filter(None, shown):
                    draw(row)
                    write(dumps(row) + "\n")
    if not run.finished:
        base.stopped_early()


class _SoFar:
    """How training stands, in few words: the loss since the last validation, looked at now and then as a GPU has to
    be waited for, and that validation's AUROC."""

    def __init__(self, run: train.Run):
        self.run, self.looked, self.loss, self.auroc = run, time.monotonic(), "", ""

    def __call__(self, row: object) -> str:
        if isinstance(row, dict):
            known = [value for value in row["auroc"].values() if value is not None]
            self.auroc = f"AUROC {sum(known) / len(known):.3f}" if known else ""
        if self.run.finished:  # maybe before it was resumed, and then has no learner
            return self.auroc
        learner = self.run.learner
        if time.monotonic() - self.looked > LOOK_EVERY and learner.loss_count:
            self.looked = time.monotonic()
            self.loss = f"loss {float(learner.loss_sum) / learner.loss_count:.4f}"
        return ", ".join(filter(None, [self.loss, self.auroc]))


def _options(context: click.Context, inputs: tuple[str, ...]) -> dict:
    """All options, from the command line and the config.json that it replays."""
    from chextools.errors import InputError
    from chextools.training.config import replayed

    parameters = {p.name: p for p in context.command.params if p.name in context.params}
    given = {name for name in parameters if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    given -= set() if inputs else {"inputs"}

    def parse(name: str, value: object) -> object:
        _check_kind(parameters[name], value)
        try:
            return value if name == "inputs" else parameters[name].process_value(context, value)
        except click.BadParameter as error:
            raise InputError(error.format_message()) from None

    options = replayed({name: context.params[name] for name in parameters}, given, parse)
    for name, letter in (("output", "'-o' / '--output'"), ("valid", "'--valid'")):
        if not options[name]:
            raise click.UsageError(f"Missing option {letter}.")
    options["inputs"] = options["inputs"] or list(base.default_inputs(context, inputs))
    sources = [*options["inputs"], options["valid"], *(text.partition(":")[0] for text in options["mix"])]
    sources += [text.rpartition("=")[2] for text in options["outlines"]]
    if sources.count("-") > 1:
        raise click.UsageError("of TRAIN, --valid, --mix and --outlines only one can be stdin")
    return options


def _check_kind(parameter: click.Parameter, value: object) -> None:
    """Raise InputError for a value of JSON that click would make something else of, such as 2 of 2.5."""
    from chextools.errors import InputError

    if parameter.nargs == -1 or getattr(parameter, "multiple", False):
        wanted, fits = "a list of strings", isinstance(value, list) and all(isinstance(each, str) for each in value)
    elif getattr(parameter, "is_flag", False):
        wanted, fits = "true or false", isinstance(value, bool)
    elif isinstance(parameter.type, click.types.IntParamType):
        wanted, fits = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(parameter.type, click.types.FloatParamType):
        wanted, fits = "a number", isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        wanted, fits = "a string", isinstance(value, str)
    if value is not None and not fits:
        raise InputError(f"must be {wanted}")


def main() -> None:
    base.run(command)
