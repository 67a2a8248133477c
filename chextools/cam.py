"""chex-cam: saliency heatmaps of a classifier or an ensemble, for all tasks from one pass over the images."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import tempfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chextools.errors import InputError
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import read_npz, write_npz
from chextools.models import inference
from chextools.plumbing import files
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.saliency.methods import METHODS
from chextools.saliency.settings import MethodSettings
from chextools.xrays import images

if TYPE_CHECKING:
    from chextools.saliency.ensembles import Ensemble

log = logging.getLogger(__name__)

INCOMPLETE = 0.05  # of the change in logit: a delta to warn of
TARGET, TARGET_OF_TWO = "logit", "positive minus negative logit"


@dataclass(frozen=True)
class Target:
    """Where heatmaps go.

    folder: exists. pickles: also as the study's ID_TASK_map.pkl. force: replace files. resume: keep what is finished.
    """

    folder: Path
    pickles: bool = False
    force: bool = False
    resume: bool = False

    def npz(self, identifier: str) -> Path:
        return self.folder / f"{identifier}.npz"


def explain(
    items: Iterable[Located | Failure],
    ensemble: Ensemble,
    settings: MethodSettings,
    target: Target,
    batch_size: int | None = None,
    jobs: int = 1,
) -> Generator[Located | Failure]:
    """Records with "scores", "heatmap", "method" and "model", in order, batch by batch, each once its file is there.

    Reading, decoding and writing happen while the next batch is computed. Batches are cut from the list of items by
    position alone, so that a run that goes on from another makes the same bytes; what is finished is not computed
    again, unless its batch has something that is not.
    """
    worker = _Worker(ensemble, settings, target, batch_size or ensemble.batch_size(), jobs)
    results = worker.all_means(items) if settings.method == "mean" else worker.results(items)
    with contextlib.closing(results):
        for result in results:
            yield worker.finish(result) if isinstance(result, (_Done, _Made)) else result
    worker.warn_of_deltas()
    if ensemble.square.crops:
        log.warning('the network looks at the square in the middle of an image: outside, "crop", heatmaps are 0')


def load(
    paths: Sequence[str], settings: MethodSettings, target: Target, tasks: Sequence[str] = (), device: str = "auto"
) -> Ensemble:
    """The checkpoints, ready to be explained with these settings into this folder.

    Raises InputError, before any image is read, for what cannot be done: a task, layer or window that a network does
    not have, a method that cannot explain it, and a folder to go on with that holds heatmaps of another method or
    model. What a killed run has left half written is removed.
    """
    from chextools.saliency.ensembles import Ensemble

    files.remove_stale(target.folder)
    with inference.one_thread():
        ensemble = Ensemble(paths, METHODS[settings.method], tasks, settings.layer, device, settings.check)
    for square in ensemble.squares:
        settings.label(square.size)
    if target.pickles:
        from chextools.heatmaps.study_pickles import check_task

        if not ensemble.square.sees_all:
            how = "a crop" if ensemble.square.crops else ensemble.square.fit
            raise InputError(f"the study's pickles are of whole images; this network's input is {how}")
        for task in ensemble.tasks:
            check_task(task)
    if target.resume and not target.force:
        first = next((path for path in files.walk(target.folder) if path.suffix == ".npz"), None)
        if first is not None:
            _check_same(first, read_npz(first), settings, ensemble)
    return ensemble


@dataclass(frozen=True, slots=True)
class _Done:
    """An item that a former run has finished: it has no image to decode."""

    item: Located
    heatmaps: Heatmaps


@dataclass(frozen=True, slots=True)
class _Made:
    """An item with its new heatmaps: maps [K, h, w], scores [K], and the input [size, size] where it is needed.

    delta, change: float64 [K], how far a map's sum is from the change in logit, and that; None where it need not be.
    absorbed: float64 [K], what did not come to the map, which delta knows of; None of methods that do not count it.
    """

    item: Located
    maps: np.ndarray
    scores: np.ndarray
    image: np.ndarray | None
    delta: np.ndarray | None = None
    change: np.ndarray | None = None
    absorbed: np.ndarray | None = None


class _Worker:
    def __init__(self, ensemble: Ensemble, settings: MethodSettings, target: Target, batch_size: int, jobs: int):
        self.ensemble, self.settings, self.target, self.jobs = ensemble, settings, target, jobs
        self.label = settings.label(ensemble.size)
        self.inner = batch_size  # of what a method fills its own batches with, image by image
        self.batch_size = 1 if METHODS[settings.method].per_image else batch_size
        self.kept: dict[str, Heatmaps] = {}  # finished, but of a batch that is computed again
        self.incomplete: list[float] = []  # deltas over changes that are more than INCOMPLETE
        self.measured = 0

    def results(self, items: Iterable[Located | Failure]) -> Generator[Failure | _Done | _Made]:
        """What the network says of each item."""
        with inference.threads():
            batches = inference.batches(self._prepared(items), tuple(self.ensemble.squares), self.batch_size, self.jobs)
            found = inference.computed(batches, self._computed, self.ensemble.workers())
            with contextlib.closing(found):
                for batch in found:
                    yield from batch

    def all_means(self, items: Iterable[Located | Failure]) -> Generator[Failure | _Done | _Made]:
        """The mean map of the other images for each: two passes, the second over normalised maps in a temporary file.

        A folder's finished files are kept, but their share of the mean has to be computed again.
        """
        import torch

        from chextools.saliency.floors import mean_of_others, normalised

        seen: list[Failure | _Done | tuple] = []
        total, count, shape = torch.zeros(0, dtype=torch.float64), torch.zeros(0), torch.Size()
        with tempfile.TemporaryFile() as spool, contextlib.closing(self.results(items)) as results:
            for result in results:
                if not isinstance(result, _Made):
                    seen.append(result)
                    continue
                maps = normalised(torch.from_numpy(result.maps))
                usable = torch.isfinite(maps).flatten(1).all(1)
                if not shape:
                    shape, count = maps.shape, torch.zeros(len(maps))
                    total = torch.zeros(shape, dtype=torch.float64)
                total[usable] += maps[usable]
                count += usable
                spool.write(maps.numpy().tobytes())
                if result.image is not None:
                    spool.write(result.image.tobytes())
                seen.append((result.item, result.scores, result.image is not None))
            spool.seek(0)
            for entry in seen:
                if not isinstance(entry, tuple):
                    yield entry
                    continue
                item, scores, with_image = entry
                own = np.frombuffer(spool.read(4 * shape.numel()), np.float32).reshape(shape)
                size = self.ensemble.size
                image = np.frombuffer(spool.read(size * size), np.uint8).reshape(size, size) if with_image else None
                mean = mean_of_others(torch.tensor(own)[None], total, count)[0]
                yield _Made(item, mean.float().numpy(), scores, image)

    def finish(self, result: _Done | _Made) -> Located | Failure:
        """Write what is new, and the record."""
        if isinstance(result, _Done):
            return self._record(result.item, result.heatmaps)
        identifier = result.item.record["id"]
        kept = self.kept.pop(identifier, None)
        if kept is not None:
            return self._record(result.item, kept)
        square, size = self.ensemble.square, tuple(result.item.record["size"])
        made = Heatmaps(
            identifier,
            size,
            dict(zip(self.ensemble.tasks, square.mapped_back(result.maps, size))),
            dict(zip(self.ensemble.tasks, result.scores.tolist())),
            input_size=square.whole(size),
            method=self.label,
            model=self.ensemble.identity,
            delta=self._by_task(result.delta),
            absorbed=self._by_task(result.absorbed),
            chosen_sign=self.settings.sign,
        )
        self._note_deltas(result)
        try:
            if self.target.pickles:
                self._write_pickles(made, result)
            replace = self.target.force or self.target.resume
            with files.atomic(self.target.npz(identifier), replace, clean=False) as stream:
                write_npz(stream, made)
        except InputError as error:
            return Failure(result.item.where, str(error))
        return self._record(result.item, _as_read(made))

    def _by_task(self, values: np.ndarray | None) -> dict[str, float]:
        return {} if values is None else dict(zip(self.ensemble.tasks, values.tolist()))

    def warn_of_deltas(self) -> None:
        """Say once how many maps of integrated gradients are far from summing to the change in logit."""
        if self.incomplete:
            log.warning(
                "%d of %d heatmaps miss the change in logit by more than %.0f%% of it (median %.0f%%): more --steps "
                'come closer; see "delta"',
                len(self.incomplete),
                self.measured,
                100 * INCOMPLETE,
                100 * np.median(self.incomplete),
            )

    def _note_deltas(self, result: _Made) -> None:
        if self.settings.method == "ig" and result.delta is not None and result.change is not None:
            with np.errstate(all="ignore"):
                shares = np.abs(result.delta / result.change)
            self.measured += len(shares)
            self.incomplete += shares[shares > INCOMPLETE].tolist()

    def _prepared(self, items: Iterable[Located | Failure]) -> Iterator[Located | Failure | _Done]:
        """Items with the image's size, or why not; what is finished as `_Done`, where its whole batch is."""
        if not self.target.resume or self.settings.method == "mean":
            for item in items:
                done = self._finished(item)
                if isinstance(done, _Done):
                    self.kept[done.heatmaps.id] = done.heatmaps
                    done = item
                yield self._measured(done)
            return
        items = iter(items)
        while batch := list(itertools.islice(items, self.batch_size)):
            found = [self._finished(item) for item in batch]
            whole = not any(isinstance(each, Located) for each in found)
            for item, each in zip(batch, found):
                if isinstance(each, _Done) and not whole:
                    self.kept[each.heatmaps.id] = each.heatmaps
                    each = item
                yield self._measured(each)

    def _finished(self, item: Located | Failure) -> Located | Failure | _Done:
        """The item, `_Done` if it is finished, a Failure if its file must not be replaced."""
        if isinstance(item, Failure):
            return item
        path = self.target.npz(item.record["id"])
        if not os.path.lexists(path):
            return item
        if not self.target.resume:
            return item if self.target.force else Failure(item.where, f"{path}: exists; use --force to replace it")
        try:
            found = read_npz(path)
            _check_same(path, found, self.settings, self.ensemble)
            if set(found.maps) | set(found.failed) != set(self.ensemble.tasks):
                raise InputError(f"{path}: has other tasks; use --force to replace it")
            if found.id != item.record["id"]:
                raise InputError(f"{path}: holds the heatmaps of {found.id[:80]!r}; use --force to replace it")
        except InputError as error:
            return item if self.target.force else Failure(item.where, str(error))
        if self.target.pickles:
            from chextools.heatmaps.study_pickles import file_name

            names = [file_name(found.id, task) for task in found.maps]
            if not all((self.target.folder / name).exists() for name in names):
                return item
        return _Done(item, found)

    def _measured(self, item: Located | Failure | _Done) -> Located | Failure | _Done:
        if not isinstance(item, Located) or not isinstance(item.record.get("image"), str):
            return item
        try:
            size = list(images.measure(item.record["image"]).size)
            if item.record.get("size") not in (None, size):
                raise InputError(f"the record's size is {item.record['size']}, but {item.record['image']} has {size}")
        except InputError as error:
            return Failure(item.where, str(error))
        item.record["size"] = size
        return item

    def _computed(self, batch: Sequence[tuple]) -> list[Failure | _Done | _Made]:
        usable = [(item, pixels) for item, pixels in batch if isinstance(item, Located)]
        if usable:
            squares = enumerate(self.ensemble.squares)
            stacks = {square: np.stack([pixels[s] for _, pixels in usable]) for s, square in squares}
            maps, scores, *deltas = self.ensemble.explain(stacks, lambda c: self.settings.options(c, self.inner))
        made: list[Failure | _Done | _Made] = []
        row = 0
        for item, pixels in batch:
            if not isinstance(item, Located):
                made.append(item)
            else:
                image = np.rint(pixels[-1]).astype(np.uint8) if self.target.pickles else None
                made.append(_Made(item, maps[row], scores[row], image, *(delta[row] for delta in deltas)))
                row += 1
        return made

    def _write_pickles(self, made: Heatmaps, result: _Made) -> None:
        import torch

        from chextools.heatmaps.study_pickles import file_name, write_study_pickle
        from chextools.saliency.ensembles import upsampled

        labels = result.item.record.get("labels", {})
        assert made.input_size is not None and result.image is not None
        for task, heatmap in zip(self.ensemble.tasks, result.maps):
            if np.isfinite(heatmap).all():
                heatmap = upsampled(torch.tensor(heatmap)[None, None], made.input_size)[0, 0].numpy()
                path = self.target.folder / file_name(made.id, task)
                with files.atomic(path, self.target.force or self.target.resume, clean=False) as stream:
                    write_study_pickle(
                        stream, heatmap, task, made.scores[task], labels.get(task), result.image, made.size
                    )

    def _record(self, item: Located, made: Heatmaps) -> Located:
        record = item.record
        two = self.ensemble.differences
        targets = {task: TARGET_OF_TWO if task in two else TARGET for task in self.ensemble.tasks}
        record["size"] = list(made.size)
        record["scores"] = record.get("scores", {}) | made.scores
        record["heatmap"] = str(self.target.npz(made.id))
        record["method"], record["model"] = made.method, made.model
        record["target"] = targets if two else TARGET
        square = self.ensemble.square
        crop = [round(side) for side in square.seen(made.size)] if square.crops else None
        said = {"delta": made.delta, "absorbed": made.absorbed, "sign": self.settings.sign, "crop": crop}
        for key, value in said.items():
            record.pop(key, None)
            if value:
                record[key] = value
        if len(self.ensemble.members) > 1:
            record["checkpoints"] = [member.path for member in self.ensemble.members]
        failed = made.failed | {
            task: "the network's output is not finite" for task in made.maps if task not in made.scores
        }
        flags = {task: flag for task in self.ensemble.tasks if (flag := _flag(task, made))}
        for key, new in (("failed", failed), ("flags", flags)):
            old = {t: v for t, v in record.pop(key, {}).items() if t not in self.ensemble.tasks}
            if old | new:
                record[key] = old | new
        return Located(item.where, records.ordered(record))


def _flag(task: str, made: Heatmaps) -> str | None:
    """What is wrong with a map: NaN, flat (also all 0), or nowhere positive."""
    if task not in made.maps:
        return "NaN"
    if task in made.flags:
        return made.flags[task]
    return "negative" if made.maps[task].max() <= 0 else None


def _as_read(made: Heatmaps) -> Heatmaps:
    """Heatmaps as they come back from their file: what is not finite has failed."""
    read = Heatmaps(made.id, made.size, input_size=made.input_size, method=made.method, model=made.model)
    read.delta = {task: delta for task, delta in made.delta.items() if math.isfinite(delta)}
    read.absorbed = {task: value for task, value in made.absorbed.items() if math.isfinite(value)}
    read.chosen_sign = made.chosen_sign
    read.scores = {task: score for task, score in made.scores.items() if math.isfinite(score)}
    for task, heatmap in made.maps.items():
        read.add(task, heatmap)
    return read


def _check_same(path: Path, found: Heatmaps, settings: MethodSettings, ensemble: Ensemble) -> None:
    label = settings.label(ensemble.size)
    if found.method != label:
        raise InputError(f"{path}: made by {found.method}, not {label}; choose another folder, or --force")
    if found.model != ensemble.identity:
        raise InputError(f"{path}: made by another model ({found.model}); choose another folder, or --force")
    if found.chosen_sign != settings.sign:
        raise InputError(f"{path}: made with another --sign ({found.chosen_sign}); choose another folder, or --force")
