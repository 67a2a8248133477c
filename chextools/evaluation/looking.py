"""What one CXR says of where a model looks: areas, hits and whatever else is measured of masks, heatmaps and points."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np

from chextools.errors import InputError
from chextools.evaluation.settings import EvaluationSettings
from chextools.inputs.truth import Truth, frame_of, mask_of, masks_of, named, size_of
from chextools.masks.mask import Mask, intersection, union
from chextools.metrics import overlap
from chextools.metrics.catalogue import HEATMAPS, LOCALISATION, MASKS, POINTS, Metric
from chextools.plumbing.parallel import keep_memory, ordered_map
from chextools.records import records
from chextools.records.record import DRAWING
from chextools.records.records import Failure, Located
from chextools.tasks import study_order

if TYPE_CHECKING:  # most evaluations read no heatmaps
    from chextools.heatmaps.heatmaps import Heatmaps
    from chextools.heatmaps.surface import Surface

RECORD, PIXELS = "record", "px"  # units of distances: mm by each record's spacing, and pixels
AREAS = 5  # what is measured whatever was asked for
HAS_LOOK = 4  # its last: whether the prediction has a point or heatmap
_AT_ONCE = 32  # CXRs that a process takes of many: to hand one over takes as long as to measure it
_CONE = 33  # nodes of a heatmap's side


@dataclass(slots=True)
class Looked:
    """What was measured of one CXR: float64 [K] by task, NaN where it could not be.

    measured: all in one array [AREAS + parts, K], as there may be many CXRs: pixels of the image; areas in pixels of
        predicted, truth and both; points, whether the prediction has a point or heatmap (NaN: nobody asked); then the
        parts of each metric (`parts_of`).
    lacks_mask: bool [K], whether the prediction has no mask.
    failed_masks, failed_looks: by task, why masks, and points or heatmaps, could not be measured.
    """

    id: str
    patient: str
    has_truth: bool
    has_prediction: bool
    scores: dict[str, float]
    measured: np.ndarray
    lacks_mask: np.ndarray
    failed_masks: dict[str, str]
    failed_looks: dict[str, str]

    @property
    def failed(self) -> dict[str, str]:
        return self.failed_masks | self.failed_looks


def parts_of(metric: Metric) -> int:
    """How many numbers a metric is of one CXR and task."""
    if not metric.function:
        return 0
    return (metric.counts or 1 + len(metric.extras)) * (1 + metric.floor)


def places_of(settings: EvaluationSettings) -> dict[str, slice]:
    """Where in `Looked.measured` each metric's parts are."""
    places, start = {}, AREAS
    for name in settings.localisation:
        places[name] = slice(start, start := start + parts_of(LOCALISATION[name]))
    return places


def metrics_of(record: Mapping) -> list[str]:
    """The metrics that a prediction like this one allows. Raises InputError if there are none."""
    looks = {MASKS} if {"masks", "outlines", DRAWING}.intersection(record) else set()
    looks |= {POINTS} if "points" in record else {POINTS, HEATMAPS} if "heatmap" in record else set()
    if not looks:
        raise InputError('no "masks", "heatmap" or points to evaluate')
    return [name for name, metric in LOCALISATION.items() if metric.looks_at in looks]


def metrics_for(record: Mapping, requested: Collection[str]) -> list[str]:
    """The requested metrics; where none is, those measured by default that the prediction allows.

    Raises InputError for one that it does not allow.
    """
    allowed = metrics_of(record)
    impossible = sorted(set(requested) - set(allowed))
    if impossible:
        mend = "; make masks with chex-segment" if "heatmap" in record else ""
        raise InputError(f"{record['id']}: allows {', '.join(allowed)}, not {', '.join(impossible)}{mend}")
    return [name for name in allowed if (name in requested if requested else LOCALISATION[name].is_default)]


def measure(
    items: Iterable[Located | Failure],
    truth: Truth | None,
    settings: EvaluationSettings,
    jobs: int = 1,
    lungs: Truth | None = None,
) -> Iterator[Located | Failure]:
    """Measure each prediction; the records that come back hold "row", a `Looked`, and "failed" by task.

    truth: None for metrics that need none. lungs: where they are, see `lungs_of`. jobs: processes for
    what heatmaps cost; arithmetic on runs costs less than to hand masks to another process.
    """
    jobs = jobs if any(LOCALISATION[name].function for name in settings.localisation) else 1
    if any(LOCALISATION[name].looks_at == HEATMAPS for name in settings.localisation):
        keep_memory()  # each image's pixels take the place of the last one's
    known = [side.records if side else {} for side in (truth, lungs)]
    triples = ((item, *(side.get(_id(item)) for side in known)) for item in items)
    lung_tasks = lungs_of(lungs) if lungs else []
    work = partial(_measured, settings=settings, has_truth=truth is not None, lung_tasks=lung_tasks)
    return ordered_map(work, triples, jobs, most=_AT_ONCE)


def _id(item: Located | Failure) -> str:
    return item.record["id"] if isinstance(item, Located) else ""


def _measured(
    triple: tuple[Located | Failure, dict | None, dict | None],
    settings: EvaluationSettings,
    has_truth: bool,
    lung_tasks: Sequence[str],
) -> Located | Failure:
    item, truth, lungs = triple

    def measured(record: dict) -> dict:
        metrics_for(record, settings.metrics)
        known = truth if has_truth else _wherever(record, settings.tasks)
        row = looked_at(record, known, settings, partial(_union, lungs, lung_tasks), named(settings.truth))
        return {"row": row, "failed": row.failed}

    return records.applied(measured, item)


def tasks_in(record: Mapping) -> list[str]:
    """The tasks of a prediction's heatmaps. Raises InputError where it has none."""
    from chextools.heatmaps.reading import heatmaps_of

    found = heatmaps_of(dict(record))
    return study_order([*found.maps, *found.failed])


def _wherever(record: dict, names: Sequence[str]) -> dict:
    """What stands for the truth of metrics that need none: the whole image, of the tasks that are labelled positive."""
    from chextools.heatmaps.reading import heatmaps_of

    size = size_of(record) or heatmaps_of(record).size
    labels = record.get("labels")
    whole = Mask(size, np.array([0, size[0] * size[1]])).to_rle()
    positive = [task for task in names if labels is None or labels.get(task) == 1]
    return {"id": record["id"], "masks": dict.fromkeys(positive, whole)}


_LUNG_WORDS = frozenset({"lung", "lungs", "left", "right", "field", "fields"})


def lungs_of(truth: Truth) -> list[str]:
    """The tasks of a truth that are the lungs: those called so, or the only one. Raises InputError if none is."""
    found = [task for task in truth.tasks if _LUNG_WORDS.issuperset(re.findall("[a-z]+", task.lower()))]
    if not found and len(truth.tasks) != 1:
        raise InputError(f"{truth.where}: no lungs among its tasks: {', '.join(truth.tasks[:10])}")
    return found or truth.tasks


def looked_at(
    record: dict | None,
    truth: dict | None,
    settings: EvaluationSettings,
    lungs: Callable[[tuple[int, int]], Mask | None] = lambda _: None,
    where: str = "",
) -> Looked:
    """Measure a prediction against its truth; either may be missing, which counts as empty.

    lungs: those of an image of this size, None where they are unknown. where: the truth's file, to be named if it is
    what cannot be read.
    """
    either = (truth or {}) | (record or {})
    names = settings.tasks
    frame = _size_of(record, truth)
    trues, failed_looks = masks_of(truth, names, frame, where)
    masks, failed = masks_of(record, names, size_of(truth))
    failed |= failed_looks
    places = places_of(settings)
    row = Looked(
        either["id"],
        records.patient(either),
        truth is not None,
        record is not None,
        either.get("scores", {}),
        np.full((max([AREAS, *(place.stop for place in places.values())]), len(names)), np.nan),
        np.zeros(len(names), bool),
        failed,
        failed_looks,
    )
    seen = {k: trues[task] for k, task in enumerate(names) if task in trues}
    _measure_looks(row, record, seen, settings, places, lungs)
    spacing = _spacing_of(record, truth, settings)
    for k, task in enumerate(names):
        if task in failed:
            continue
        true, mask = trues[task], masks[task]
        if mask is not None and true is not None and mask.size != true.size:
            failed[task] = f"the mask has the size {list(mask.size)}, its truth {list(true.size)}"
            continue
        size = (true or mask or Mask((0, 0), np.empty(0))).size
        row.measured[:4, k] = (
            size[0] * size[1] or np.nan if record is not None or frame is None else np.nan,
            mask.area if mask is not None else 0,
            true.area if true is not None else 0,
            intersection(mask, true) if mask is not None and true is not None else 0,
        )
        row.lacks_mask[k] = mask is None
        if true is not None or mask is not None:
            empty = Mask.empty(size)
            _measure_mask(row, k, mask or empty, true or empty, settings, places, spacing)
    return row


def _size_of(record: dict | None, truth: dict | None) -> tuple[int, int] | None:
    """The size of a prediction's image, as far as its truth needs it: of heatmaps only their file says it.

    Of what was not predicted, and is drawn on an image of unknown size, as small a one as can be.
    """
    if record is None:
        return frame_of(truth, None)
    found = size_of(record)
    if found is None and record is not None and "heatmap" in record and truth is not None and DRAWING in truth:
        from chextools.heatmaps.reading import heatmaps_of

        found = heatmaps_of(record).size
    return found


def _measure_mask(
    row: Looked,
    k: int,
    mask: Mask,
    true: Mask,
    settings: EvaluationSettings,
    places: Mapping[str, slice],
    spacing: tuple[float, float],
) -> None:
    """The metrics of masks that areas do not say."""
    if not true.area and not (mask.area and settings.slice == "full"):
        return
    disc: Mask | None = None  # one for all metrics, which remember what they found of it
    for name, place in places.items():
        metric = LOCALISATION[name]
        if metric.looks_at == MASKS and metric.function:
            if metric.floor and disc is None:
                disc = overlap.centred_disc(mask.size, mask.area)
            row.measured[place, k] = _value(metric, settings, mask, true, disc, spacing=spacing)


def _spacing_of(record: dict | None, truth: dict | None, settings: EvaluationSettings) -> tuple[float, float]:
    """Height and width of a pixel in the unit of distances. Raises InputError where a record does not say its own."""
    if isinstance(settings.spacing, (int, float)):
        return float(settings.spacing), float(settings.spacing)
    if settings.spacing != RECORD or record is None:
        return 1.0, 1.0
    found = said_spacing(record, truth)
    if found is None:
        raise InputError('no "spacing" of its pixels in mm, as others have; --spacing px measures all in pixels')
    return found[0], found[1]


def said_spacing(record: Mapping, truth: Mapping | None) -> list[float] | None:
    """Height and width of a pixel in mm, as the prediction or its truth says."""
    return record.get("spacing") or (truth or {}).get("spacing")


def _measure_looks(
    row: Looked,
    record: dict | None,
    trues: Mapping[int, Mask | None],
    settings: EvaluationSettings,
    places: Mapping[str, slice],
    lungs: Callable[[tuple[int, int]], Mask | None],
) -> None:
    """The metrics of points and heatmaps, where the truth is not empty."""
    asked = [name for name in places if LOCALISATION[name].looks_at != MASKS]
    asked_tasks = {k: true for k, true in trues.items() if asked and true is not None and true.area}
    prediction = None
    if record and asked_tasks:
        prediction = _Prediction(record, [settings.tasks[k] for k in asked_tasks], settings.sign)
    for k, true in asked_tasks.items():
        task = settings.tasks[k]
        try:
            row.measured[HAS_LOOK, k] = has = prediction is not None and prediction.has(task)
            for name in asked:
                metric, place = LOCALISATION[name], places[name]
                if metric.looks_at == POINTS:
                    points = prediction.points(task, true) if prediction and has else ()
                    row.measured[place, k] = _value(metric, settings, points, true)
                elif prediction and has:
                    known = {"lungs": lungs(true.size)} if "lungs" in metric.options else {}
                    row.measured[place, k] = _value(metric, settings, prediction.surface(task, true), true, **known)
                elif metric.counts:
                    row.measured[place, k] = _value(metric, settings, _flat(true.size), true)
                elif not metric.is_distance:
                    row.measured[place.start, k] = 0  # nothing there is nothing found
        except InputError as error:
            for name in asked:
                row.measured[places[name], k] = np.nan
            row.failed_looks[task] = str(error)


def _union(record: dict | None, names: Sequence[str], size: tuple[int, int]) -> Mask | None:
    """The masks of these tasks in one; None where there is none. Raises InputError for one that is broken."""
    found = (mask_of(record, task, size) for task in names)
    there = [mask for mask in found if mask is not None and mask.area]
    return union(there) if there else None


def _value(
    metric: Metric,
    settings: EvaluationSettings,
    seen: object,
    true: Mask,
    centre: Mask | Surface | None = None,
    **known: object,
) -> object:
    """The numbers of a metric, its extras and, where it has a floor, those of what looks at the centre."""
    function = metric.load()
    options = {name: known.get(name, getattr(settings, name)) for name in metric.options}
    value = function(seen, true, **options)
    if not metric.floor:
        return value
    return np.append(value, function(centre or _centred_map(true.size), true, **options))


def _flat(size: tuple[int, int]) -> Surface:
    """The heatmap of a prediction that has none."""
    from chextools.heatmaps.surface import Surface

    return Surface(np.zeros((1, 1), np.float32), size)


@lru_cache(4)
def _centred_map(size: tuple[int, int]) -> Surface:
    """The heatmap of a model that looks at the centre of every image: a cone."""
    from chextools.heatmaps.surface import Surface

    side = np.linspace(-1, 1, _CONE)
    return Surface(np.maximum(1 - np.hypot(side[:, None], side), 0).astype(np.float32), size)


class _Prediction:
    """Where a prediction points, for the tasks of which it will be asked; read once, when it is."""

    def __init__(self, record: dict, tasks: Collection[str], sign: str | None):
        self._record, self._tasks, self._sign = record, tasks, sign
        self._surfaces: dict[str, Surface] = {}

    @cached_property
    def _heatmaps(self) -> Heatmaps:
        from chextools.heatmaps.reading import heatmaps_of

        return heatmaps_of(self._record, self._tasks)

    def has(self, task: str) -> bool:
        """Whether there is a point or heatmap of the task; a human who drew no point has missed."""
        if "points" in self._record:
            return True
        return task in self._heatmaps.maps or task in self._heatmaps.failed

    def points(self, task: str, truth: Mask) -> Sequence[tuple[int, int]]:
        """The pixels (y, x) of the points, or the heatmap's greatest pixel, the first in row-major order."""
        if "points" in self._record:
            if task in self._record.get("failed", {}):
                raise InputError(self._record["failed"][task])
            return overlap.pixels_of(self._record["points"].get(task, ()), truth.size)
        return [self.surface(task, truth).argmax()]

    def surface(self, task: str, truth: Mask) -> Surface:
        """The heatmap, upsampled; read once for all metrics. Raises InputError where it failed."""
        from chextools.heatmaps.surface import surface_of

        if task not in self._surfaces:
            loaded = self._heatmaps
            if loaded.size != truth.size:
                raise InputError(f"the heatmap is for an image of {list(loaded.size)}, its truth of {list(truth.size)}")
            if task in loaded.failed:
                raise InputError(loaded.failed[task])
            sign = self._sign or loaded.sign
            heatmap = surface_of(loaded.maps[task], loaded.size, input_size=loaded.input_size, sign=sign)
            self._surfaces = {task: heatmap}
        return self._surfaces[task]
