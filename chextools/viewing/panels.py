"""From a record and its truth to a panel: what is drawn on an X-ray, and the IoU and hit that chex-eval would print."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from chextools import tasks
from chextools.errors import InputError
from chextools.heatmaps.heatmaps import checked_sign
from chextools.heatmaps.reading import heatmaps_of
from chextools.heatmaps.surface import surface_of
from chextools.inputs.truth import masks_of
from chextools.masks.mask import Mask, intersection
from chextools.metrics import overlap
from chextools.plumbing import jsontext
from chextools.viewing.legend import Legend
from chextools.viewing.overlay import Panel
from chextools.xrays import images

_PREDICTIONS = ("heatmap", "masks", "outlines", "points")
UNITS = "the method's units"
_SHOWN = {"positive": "positive evidence", "abs": "evidence of either sign", "raw": "least to greatest"}
_LABELS = {1: "labelled positive", 0: "labelled negative", -1: "labelled uncertain"}

_SIGNS = {
    "truth": "radiologists' outline",
    "predicted": "predicted mask",
    "hit": "predicted point: hit",
    "miss": "predicted point: miss",
    "point": "predicted point",
    "truth point": "radiologists' point",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A record to be drawn, its truth (None: the truth does not know it), and the truth's points by task."""

    where: str
    record: dict
    truth: dict | None = None
    points: dict | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """Of one task: the predicted mask and the truth, predicted points, IoU and hit (None: undefined), and the score."""

    mask: Mask | None
    truth: Mask | None
    points: Sequence[Sequence[float]]
    iou: float | None
    hit: int | None
    score: float | None

    @property
    def numbers(self) -> dict:
        return {"iou": self.iou, "hit": self.hit, "score": self.score}

    @property
    def rank(self) -> float | None:
        """How good it is where the truth outlines something: IoU, 0 for an empty mask; the hit where masks lack."""
        if self.truth is None or not self.truth.area:
            return None
        return self.hit if self.mask is None else self.iou or 0.0

    @property
    def badges(self) -> list[tuple[str, bool]]:
        """For a caption: (text, filled)."""
        said = [] if self.iou is None else [(f"IoU {self.iou:.2f}", False)]
        return said if self.hit is None else [*said, ("hit", True) if self.hit else ("miss", False)]


class Case:
    """A subject, read as far as it is asked for. Raises InputError for a record of which nothing can be drawn.

    pixels: of the X-ray's longer side when drawn. wanted: the only tasks; None for all. sign: which evidence a heatmap
    shows; None for the record's "sign", else the heatmap's default.
    tasks: what there is to be drawn. failed: by task, why it cannot be.
    """

    def __init__(self, subject: Subject, pixels: int, wanted: frozenset[str] | None = None, sign: str | None = None):
        self.record, self.truth, self.points = subject.record, subject.truth, subject.points or {}
        self.id, self.pixels = self.record["id"], pixels
        self.heatmaps = heatmaps_of(self.record, wanted) if "heatmap" in self.record else None
        if not isinstance(self.record.get("image"), str) or not self.record["image"]:
            raise InputError('no "image" key; name the X-rays with --images')
        own = checked_sign(self.record.get("sign") or "positive")
        self.sign = sign or (self.heatmaps.sign if self.heatmaps else own)
        failed = self.record.get("failed", {}) | (self.heatmaps.failed if self.heatmaps else {})
        self.failed = {task: str(why) for task, why in failed.items() if wanted is None or task in wanted}
        self.tasks = [task for task in self._tasks() if wanted is None or task in wanted]

    def _tasks(self) -> list[str]:
        """The prediction's tasks; the truth's, where a record is but an X-ray."""
        parts = [self.record[key] for key in _PREDICTIONS if key in self.record and key != "heatmap"]
        if self.heatmaps:
            parts.append(self.heatmaps.maps)
        if not parts:
            if self.truth is None and not self.points:
                raise InputError('nothing to show: no "heatmap", "masks" or points, nor any truth')
            true, _ = masks_of(self.truth, (self.truth or {}).get("masks", (self.truth or {}).get("outlines", {})))
            parts = [[task for task, mask in true.items() if mask is not None and mask.area], self.points]
        return tasks.study_order(set(itertools.chain(*parts)) - self.failed.keys())

    @property
    def method(self) -> str:
        """What a picture calls the prediction."""
        named = self.record.get("method")
        return named if isinstance(named, str) and named else next((k for k in _PREDICTIONS if k in self.record), "")

    @functools.cached_property
    def digest(self) -> str:
        """Of all that its pictures show."""
        shown = {key: value for key, value in self.record.items() if key != "views"}
        return digest([shown, self.truth, self.points, self.pixels, self.sign])

    @functools.cached_property
    def image(self) -> tuple[tuple[int, int], np.ndarray]:
        """The X-ray's (height, width), and its pixels as large as they are drawn: uint8 [h, w]."""
        header, pixels = images.shrink(self.record["image"], self.pixels)
        for what, size in (("record", self.record.get("size")), ("heatmap", getattr(self.heatmaps, "size", None))):
            if size is not None and tuple(size) != header.size:
                raise InputError(
                    f"the {what}'s size is {list(size)}, that of {self.record['image']} {list(header.size)}"
                )
        return header.size, pixels

    def read(self, task: str) -> Reading:
        """Measure a task as chex-eval does. Raises InputError for what cannot be."""
        (masks, failed), (trues, failed_truth) = (
            masks_of(self.record, [task]),
            masks_of(self.truth, [task], where="the truth"),
        )
        for reason in (failed | failed_truth).values():
            raise InputError(reason)
        mask, true, maps = masks[task], trues[task], self.heatmaps
        for what, other in (("mask", mask), ("heatmap", maps)):
            if other is not None and true is not None and other.size != true.size:
                raise InputError(f"the {what} has the size {list(other.size)}, its truth {list(true.size)}")
        iou = math.nan
        if mask is not None and true is not None:
            iou = float(overlap.iou(*np.array([intersection(mask, true), mask.area, true.area], float)))
        points: Sequence | None = None
        if "points" in self.record:
            points = self.record["points"].get(task, ())
        elif maps and task in maps.maps:
            points = [surface_of(maps.maps[task], maps.size, input_size=maps.input_size).argmax()[::-1]]
        hit = None
        if points is not None and true is not None and true.area:
            hit = int(overlap.point_hit(points, true))
        score = self.record.get("scores", {}).get(task, maps.scores.get(task) if maps else None)
        return Reading(mask, true, points or (), None if math.isnan(iou) else iou, hit, score)

    def panel(self, task: str, reading: Reading) -> tuple[Panel, tuple[str, ...]]:
        """What is drawn, and the heatmap's least, middle and greatest value for the legend."""
        size, pixels = self.image
        for what, mask in (("mask", reading.mask), ("truth", reading.truth)):
            if mask is not None and mask.size != size:
                raise InputError(f"the {what} has the size {list(mask.size)}, the X-ray {list(size)}")
        heat, ends = self._heat(task, pixels.shape)
        points, true_points = (_points(each, size) for each in (reading.points, self.points.get(task, ())))
        return Panel(pixels, size, heat, reading.truth, reading.mask, true_points, points), ends

    def _heat(self, task: str, shape: tuple[int, int]) -> tuple[np.ndarray | None, tuple[str, ...]]:
        """The heatmap [h, w] from 0 to 1, None where there is none or it is flat, and its least, middle and greatest
        value."""
        maps = self.heatmaps
        if maps is None or task not in maps.maps:
            return None, ("", "")
        surface = surface_of(maps.maps[task], maps.size, input_size=maps.input_size, sign=self.sign)
        low, high = float(surface.minimum), float(surface.maximum)
        if surface.is_flat:
            return None, ("", "")
        values = Image.fromarray(surface.values).resize(shape[::-1], Image.Resampling.BILINEAR)
        return (np.asarray(values, np.float64) - low) / (high - low), tuple(
            f"{value:.3g}" for value in (low, (low + high) / 2, high)
        )

    def notes(self, task: str, reading: Reading) -> list[str]:
        """What a caption says beside IoU and hit."""
        said = [] if reading.score is None else [f"score {reading.score:.3f}"]
        label = self.record.get("labels", {}).get(task)
        said += [_LABELS[label]] if isinstance(label, int) and label in _LABELS else []
        said += ["nothing outlined"] if self.truth is not None and not (reading.truth and reading.truth.area) else []
        said += ["empty mask"] if reading.mask is not None and not reading.mask.area else []
        if self.heatmaps and task in self.heatmaps.maps:
            values = self.heatmaps.maps[task]
            if self.sign == "positive" and values.max() <= 0:
                said.append("no positive evidence")
            elif values.min() == values.max():
                said.append("flat heatmap")
        return said


def legend_of(panels: Sequence[Panel], cases: Iterable[Case], ends: tuple[str, ...]) -> Legend:
    """The signs that some panel has."""
    seen = {sign for panel in panels for *_, sign in panel.markers}
    seen |= {"truth" for panel in panels if panel.truth is not None and panel.truth.area}
    seen |= {"predicted" for panel in panels if panel.predicted is not None and panel.predicted.area}
    shown = sorted({_SHOWN[case.sign] for case in cases if case.heatmaps})
    units = UNITS if ends[0][-1:].isdigit() else "each from its own least to its greatest value"
    heat = f"heatmap, {' or '.join(shown)} ({units})" if any(p.heat is not None for p in panels) else None
    return Legend(heat, ends, [(sign, name) for sign, name in _SIGNS.items() if sign in seen])


def digest(value: object) -> str:
    """SHA-256 of a value as JSON."""
    return hashlib.sha256(jsontext.dumps(value).encode()).hexdigest()


def _points(points: Sequence[Sequence[float]], size: tuple[int, int]) -> list[tuple[float, float]]:
    overlap.point_hit(points, Mask.empty(size))  # refuses what is no point
    return [(float(x), float(y)) for x, y in points]
