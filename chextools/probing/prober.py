"""Groups of images through the probes: what each record is given, and why a value is undefined."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chextools.errors import InputError
from chextools.heatmaps.reading import heatmaps_of
from chextools.probing.networks import FULL_BATCHES, Networks
from chextools.probing.probes import PROBES, ProbeSettings
from chextools.probing.subject import Subject
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.xrays import images

log = logging.getLogger(__name__)

LARGEST_GROUP = 64
REMADE_GROUP = 8  # images for which a network with other weights is made
UNDEFINED_FLAT = "the heatmap is flat"
UNDEFINED = "nothing to compare: no variation"


@dataclass(frozen=True, slots=True)
class Finished:
    """An item that a former run has finished: it has no image to decode."""

    where: str
    record: dict


class Prober:
    """Heatmap records through the probes, group by group of images."""

    def __init__(self, networks: Networks, settings: ProbeSettings):
        self.networks, self.settings = networks, settings
        self.labels = {name: settings.label(name) for name in PROBES if name in settings.metrics}
        self._said: set[str] = set()

    def made(self, record: Mapping) -> bool:
        """Whether a finished record is of these probes and networks."""
        probes = record.get("probes")
        if not isinstance(probes, dict) or record.get("probed_model") != self.networks.ensemble.identity:
            return False
        return probes == self.labels and ("curves" in record) == self.settings.curve

    def group_size(self) -> int:
        """Images that are probed together."""
        orders = len(self.networks.ensemble.tasks) + 2  # those of each task, and two floors
        inner = self.settings.steps - 1
        of_one = {"deletion": orders * inner, "insertion": orders * inner, "road": 2 * orders * inner}
        of_one["faithfulness"] = self.settings.option("faithfulness", "samples")
        rows = min((of_one[name] for name in self.labels if name in of_one), default=0)
        size = math.ceil(FULL_BATCHES * self.networks.batch_size / max(rows, 1)) if rows else 1
        if any(PROBES[name].remakes for name in self.settings.metrics):
            size = max(size, REMADE_GROUP)
        return min(size, LARGEST_GROUP)

    def probed(self, group: Sequence[tuple]) -> list[Located | Failure]:
        """What is found of each image of a group."""
        subjects: dict[int, Subject] = {}
        found: list[Located | Failure] = []
        for place, (item, pixels) in enumerate(group):
            if isinstance(item, Finished):
                found.append(Located(item.where, item.record))
                continue
            if isinstance(item, Located):
                try:
                    subjects[place] = self._subject(item.record, pixels)
                except InputError as error:
                    item = Failure(item.where, str(error))
            found.append(item)
        results: dict[int, list] = {place: [] for place in subjects}
        some = [subject for subject in subjects.values() if subject.tasks]
        for name in self.labels if some else ():
            for subject, result in zip(some, self._measured(name, some)):
                results[next(place for place, each in subjects.items() if each is subject)].append(result)
        for place, subject in subjects.items():
            item = found[place]
            if isinstance(item, Located):
                found[place] = Located(item.where, self._record(item.record, subject, results[place]))
        return found

    def _measured(self, name: str, subjects: Sequence[Subject]) -> list[tuple]:
        """Values and curves of each subject."""
        function = PROBES[name].load()
        if PROBES[name].remakes:
            return function(subjects, self.networks, self.settings)
        plans = [(subject, function(subject, self.settings)) for subject in subjects]
        scores = self.networks.scores(plans, self.settings.score)
        return [plan.finish(each) for (_, plan), each in zip(plans, scores)]

    def _subject(self, record: dict, pixels: Sequence[np.ndarray]) -> Subject:
        ensemble = self.networks.ensemble
        loaded = heatmaps_of(record, ensemble.tasks)
        size = tuple(images.measure(record["image"]).size)
        if size != loaded.size:
            raise InputError(
                f"the heatmap is for an image of {list(loaded.size)}, but {record['image']} has {list(size)}"
            )
        model = record.get("model") or loaded.model
        if model and model != ensemble.identity:
            self._warn("some heatmaps are of another model than --checkpoint")
        if self.networks.method is not None:
            said, own = record.get("method") or loaded.method, self.networks.method.label(ensemble.size)
            if said != own:
                raise InputError(f"its heatmaps were made by {said}, those of the first record by {own}")
        tasks = [task for task in ensemble.tasks if task in loaded.maps]
        missing = [task for task in ensemble.tasks if task not in loaded.maps and task not in loaded.failed]
        if missing and not tasks:
            raise InputError(f"no heatmap of {', '.join(missing)}")
        record["size"] = list(loaded.size)
        failed = {task: why for task, why in loaded.failed.items() if task in ensemble.tasks} | record.get("failed", {})
        if failed:
            record["failed"] = failed
        for key, value in (("method", loaded.method), ("model", loaded.model)):
            if value:
                record.setdefault(key, value)
        return Subject(
            record["id"],
            tasks,
            [ensemble.tasks.index(task) for task in tasks],
            ensemble.square,
            dict(zip(ensemble.squares, pixels)),
            loaded,
            self.settings.sign or loaded.sign,
            ensemble.device,
        )

    def _record(self, record: dict, subject: Subject, results: Sequence[tuple]) -> dict:
        """The record with what was found: values by task, null where undefined, and why."""
        made: dict[str, Any] = {"probes": self.labels, "probed_model": self.networks.ensemble.identity}
        undefined: dict[str, dict[str, str]] = {}
        curves: dict[str, Any] = {}
        for name, (values, lines) in zip(self.labels, results):
            made |= values
            curves |= lines
            for task, value in values[name].items():
                if math.isnan(value):
                    why = UNDEFINED_FLAT if subject.is_flat(task) else UNDEFINED
                    undefined.setdefault(name, {})[task] = why
        if undefined:
            made["undefined"] = undefined
        if self.settings.curve:
            made["curves"] = curves
        stale = {"undefined", "curves", *(key for name in PROBES for key in (name, *PROBES[name].beside.values()))}
        kept = {key: value for key, value in record.items() if key not in stale}
        return records.ordered(kept | made)

    def _warn(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", message)
