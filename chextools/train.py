"""chex-train: a classifier of chest X-rays, from records to tested checkpoints, that can be stopped at any moment.

What a step does is a function of the options, the weights before it and its number: the order of images, augmentation
and dropout are drawn anew from (seed, step). So a state saved between two steps is all it takes to go on to the same
weights, bit for bit on the CPU with equal threads.

Several processes share each batch (`chextools.training.ranks`), and learn what one would, to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from chextools.errors import InputError, MissingExtra
from chextools.inputs import image_lists
from chextools.models import architectures
from chextools.plumbing import streams
from chextools.plumbing.parallel import default_jobs
from chextools.plumbing.usercode import is_user_code
from chextools.training import board, config, labels, mixing, outlines, own_code
from chextools.training.data import Data, read_data, settle_labels
from chextools.training.folder import RunFolder, check_new, is_run
from chextools.training.ranks import ALONE, Ranks
from chextools.training.run import Run
from chextools.training.settings import TrainSettings


@dataclass
class Plan:
    """A run of which all is checked that needs no torch."""

    options: Mapping
    settings: TrainSettings
    labelling: labels.Labelling
    train: Data
    valid: Data
    mixed: list[Data]
    outlines: outlines.Outlines | None
    folder: RunFolder
    jobs: int
    resumed: bool
    ranks: Ranks

    @contextlib.contextmanager
    def run(self) -> Iterator[Run]:
        """The run, its folder made and locked. Raises InputError."""
        try:
            if self.resumed:
                self.folder.lock()
            run = Run(
                self.settings,
                self.labelling,
                self.train,
                self.valid,
                self.folder,
                self.options["device"],
                self.jobs,
                self.resumed,
                self.ranks,
                self.mixed,
                self.outlines,
            )
            if not self.resumed:
                self.folder.start(config.recorded(self.options, run.own.hashes()))
            else:
                run.own.check_same(config.code_of(self.options["output"]), self.options["output"])
            yield run
        finally:
            self.folder.unlock()


def prepare(options: Mapping, stdin: BinaryIO, ranks: Ranks = ALONE) -> Plan:
    """The plan of a run from its options by name (`chextools.training.config`). Raises InputError."""
    resumed = options["resume"] and is_run(options["output"])
    if not resumed:
        check_new(options["output"])
    own_code.check_files(options)
    if not is_user_code(options["arch"]):
        architectures.check_name(options["arch"])
    elif options["weights"] == "imagenet":
        raise InputError(f"--weights imagenet has none for {options['arch']}; a file may")
    if options["loss"] and options["class_weights"] != "none":
        raise InputError("--class-weights is of the loss that comes with chex-train; --loss has its own")
    for option in ("augment", "compile"):
        if options["outlines"] and options[option]:
            raise InputError(f"--outlines cannot be used with --{option}: masks could not follow the images")
    if options["tensorboard"] and not board.available():
        raise MissingExtra("--tensorboard needs tensorboard: pip install 'chextools[tensorboard]'")
    if options["weights"] not in (None, "imagenet"):
        streams.open_regular(options["weights"]).close()
    settings = config.settings(options)
    mixing.counts(settings.mix, settings.batch_size)
    jobs = options["jobs"] or default_jobs()

    def read(sources: Sequence[str], root: str | None = None) -> Data:
        found = read_data(image_lists.read_image_lists(sources, stdin, root=root), named(sources), jobs, ranks)
        return replace(found, sources=tuple(sources))

    data, valid = (read(sources, options["root"]) for sources in (options["inputs"], [options["valid"]]))
    mixed = [read([source]) for source, _ in map(mixing.parse_mix, settings.mix)]
    labelling = settle_labels(data, valid, settings, mixed)
    drawn = None
    if settings.outlines:
        drawn = outlines.read_outlines(settings.outlines, [data, *mixed], labelling.tasks, settings.size, stdin)
    folder = RunFolder(options["output"], settings.keep, settings.ensemble, ranks.leads)
    return Plan(options, settings, labelling, data, valid, mixed, drawn, folder, jobs, resumed, ranks)


def named(sources: Sequence[str]) -> str:
    """Inputs, for messages."""
    return ", ".join("stdin" if source == "-" else source for source in sources)
