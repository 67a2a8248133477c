"""chex-phantom: a data set of made-up chest X-rays in CheXpert's layout, with the truth about each.

Patients come one after the other, each with studies, views and findings of their own, drawn from (seed, patient) alone:
a larger data set begins with the smaller one. Nothing in it shows a person.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image

from chextools import __version__, tasks
from chextools.errors import InputError
from chextools.masks.mask import Mask
from chextools.phantoms import outlines, picture
from chextools.phantoms.scene import Body
from chextools.plumbing import files
from chextools.plumbing.parallel import ordered_map
from chextools.records.ids import id_of_path

SPLITS = ("train", "valid", "test")
OUTLINED = ("valid", "test")  # where radiologists have drawn, as in CheXpert
READERS = ("gt", "hb")
VIEWS = ("mixed", "frontal", "lateral", "both")
KINDS = ("annotations", "segmentations", "points")

QUALITY = 90  # of the JPEG
SUBTLE = 0.25  # a finding less severe than this is easily missed

# What ails a patient: how often, and how often each finding shows in a study. All findings occur without cause, too.
_WITHOUT_CAUSE = 0.05
_CONDITIONS = {
    "well": (0.26, {}),
    "heart failure": (0.18, {"Cardiomegaly": 0.7, "Edema": 0.55, "Pleural Effusion": 0.45, "Support Devices": 0.2}),
    "infection": (0.17, {"Consolidation": 0.65, "Airspace Opacity": 0.4, "Pleural Effusion": 0.2}),
    "intensive care": (
        0.16,
        {
            "Support Devices": 0.8,
            "Atelectasis": 0.5,
            "Pneumothorax": 0.2,
            "Pleural Effusion": 0.25,
            "Consolidation": 0.15,
            "Edema": 0.2,
        },
    ),
    "tumour": (
        0.13,
        {"Lung Lesion": 0.75, "Enlarged Cardiomediastinum": 0.45, "Pleural Effusion": 0.2, "Atelectasis": 0.15},
    ),
    "collapse": (0.10, {"Pneumothorax": 0.75, "Support Devices": 0.3, "Atelectasis": 0.25}),
}

# CheXpert's hierarchy: what shows the narrower finding shows the wider one.
_NARROWER = {
    "Enlarged Cardiomediastinum": ("Cardiomegaly",),
    "Airspace Opacity": ("Lung Lesion", "Edema", "Consolidation", "Atelectasis"),
}
_NEVER = ("Pleural Other", "Fracture")  # not drawn


@dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """What is made.

    folder: where the data set goes. count: images. size: (height, width) in pixels. seed: of all that is random.
    views: of `VIEWS`; mixed is as in a hospital, mostly frontal. prevalence: by task the share of studies that show it;
    of other tasks it follows from what ails the patients. hard: whether findings are small and faint.
    """

    folder: str
    count: int
    size: tuple[int, int]
    seed: int = 0
    views: str = "mixed"
    prevalence: Mapping[str, float] = field(default_factory=dict)
    hard: bool = False

    @property
    def doses(self) -> str:
        """What an image says of how it was dosed; nothing of what is as by default."""
        shares = [f" --prevalence '{task}={share:g}'" for task, share in sorted(self.prevalence.items())]
        views = f" --views {self.views}" if self.views != "mixed" else ""
        return views + "".join(shares) + " --hard" * self.hard


@dataclass(frozen=True)
class Plan:
    """One image to be made.

    path: relative to the data set's folder. findings: severity of what is drawn, by task. labels: by task, 1, 0, -1;
    none where it is not mentioned.
    """

    path: str
    split: str
    shot: picture.Shot
    labels: dict[str, int]

    @property
    def id(self) -> str:
        return id_of_path(self.path)


def prevalences(shares: Iterable[tuple[str | None, float]]) -> dict[str, float]:
    """By task, from pairs of a task, None for all of the study's ten, and a share; later ones override.

    Raises InputError for a task that is not drawn.
    """
    found: dict[str, float] = {}
    for task, share in shares:
        if task is not None and tasks.canonical(task) not in tasks.STUDY:
            raise InputError(f"--prevalence {task}: not drawn; there are {', '.join(tasks.STUDY)}")
        found |= dict.fromkeys(tasks.STUDY if task is None else [tasks.canonical(task)], share)
    return found


def plan(settings: PhantomSettings) -> Iterator[Plan]:
    """The images in order."""
    made, patient = 0, 0
    while made < settings.count:
        patient += 1
        for image in _patient(patient, settings):
            if made < settings.count:
                yield image
            made += 1


def check(settings: PhantomSettings, force: bool, resume: bool) -> None:
    """Raise InputError for a file that exists and may not be replaced or, with `resume`, is none of this data set."""
    if force:
        return
    paths = [image.path for image in plan(settings)]
    for path in [*_documents(), *paths]:
        target = os.path.join(settings.folder, path)
        if os.path.lexists(target):
            if not resume:
                raise InputError(f"{target}: exists; use --force to replace it, or --resume to go on")
            if path.endswith(".jpg") and _comment_of(target) != _comment(path, settings):
                raise InputError(f"{target}: not of this data set (other seed, size, options or version); use --force")


def make(settings: PhantomSettings, jobs: int = 1, force: bool = False, resume: bool = False) -> Iterator[dict]:
    """Write the data set; an image record for each image, in order.

    resume: images that exist are kept. The CSV and JSON files appear when the last record has been taken.
    Raises InputError where something cannot be written or exists.
    """
    check(settings, force, resume)
    files.make_folder(settings.folder)
    with contextlib.ExitStack() as stack:
        documents = {
            name: kind(stack.enter_context(files.atomic(os.path.join(settings.folder, name), force or resume)))
            for name, kind in _documents().items()
        }
        for record, entries in ordered_map(partial(_make, settings, force, resume), plan(settings), jobs):
            for name, value in entries.items():
                documents[name].add(record["id"], value)
            yield record
        for document in documents.values():
            document.finish()


def _patient(number: int, settings: PhantomSettings) -> Iterator[Plan]:
    """All images of a patient."""
    rng = np.random.default_rng([settings.seed, number])
    body = Body.draw(rng)
    names = list(_CONDITIONS)
    condition = names[rng.choice(len(names), p=[_CONDITIONS[name][0] for name in names])]
    split = "valid" if number % 10 == 5 else "test" if number % 5 == 3 else "train"
    findings: dict[str, float] = {}
    for study in range(1, int(rng.choice([1, 2, 3, 4], p=[0.5, 0.28, 0.14, 0.08])) + 1):
        findings = _findings(_CONDITIONS[condition][1], findings, rng, settings.prevalence)
        portable = bool(rng.random() < (0.75 if "Support Devices" in findings else 0.35))
        views = ["frontal"] * int(rng.choice([1, 2], p=[0.9, 0.1])) + ["lateral"] * bool(rng.random() < 0.36)
        if settings.views in ("lateral", "both"):  # for which a patient has to stand
            views, portable = ["frontal", "lateral"][settings.views == "lateral" :], False
        elif portable or settings.views == "frontal":
            views = [view for view in views if view == "frontal"]
        shown = {task: (severity - 1) / 2 if settings.hard else severity for task, severity in findings.items()}
        labels = _labels(shown, rng, definite=split in OUTLINED)
        for view_number, view in enumerate(views, 1):
            path = f"{split}/patient{number:05d}/study{study}/view{view_number}_{view}.jpg"
            seed = (settings.seed, number, study)
            shot = picture.Shot(settings.size, body, view, portable, shown, seed, (*seed, view_number))
            yield Plan(path, split, shot, labels)


def _findings(
    likely: Mapping[str, float], before: Mapping[str, float], rng: np.random.Generator, prevalence: Mapping[str, float]
) -> dict[str, float]:
    """Severity by task of what a study shows; a finding tends to stay from one study to the next."""
    found = {}
    for task in tasks.STUDY:
        chance, severity, stays = rng.random(), rng.beta(1.8, 1.6), rng.random() < 0.5
        if task in prevalence:
            if chance < prevalence[task]:
                found[task] = float(severity)
        elif task in before and stays:
            found[task] = float(np.clip(before[task] + 0.4 * (severity - 0.5), 0, 1))
        elif chance < 1 - (1 - likely.get(task, 0)) * (1 - _WITHOUT_CAUSE):
            found[task] = float(severity)
    return found


def _labels(findings: dict[str, float], rng: np.random.Generator, definite: bool) -> dict[str, int]:
    """CheXpert's labels: definite by consensus, else as a labeler reads them in reports, with gaps and doubts."""
    severity = dict(findings)
    for task, narrower in _NARROWER.items():
        if shown := [findings[t] for t in (task, *narrower) if t in findings]:
            severity[task] = max(shown)
    if "Consolidation" in findings and rng.random() < 0.6:
        severity["Pneumonia"] = findings["Consolidation"]
    if not set(severity) - {"Support Devices"}:
        severity["No Finding"] = 1.0
    labels = {}
    for task in tasks.CHEXPERT:
        doubt, silence = rng.random(2)
        if task in severity:
            unsure = doubt < (0.4 if severity[task] < SUBTLE else 0.03) and task != "No Finding"
            labels[task] = -1 if unsure and not definite else 1
        elif definite:
            labels[task] = 0
        elif silence > (0.9 if task in _NEVER else 1 if task == "No Finding" else 0.4):
            labels[task] = -1 if doubt < 0.05 and task not in _NEVER else 0
    return labels


def _make(settings: PhantomSettings, force: bool, resume: bool, image: Plan) -> tuple[dict, dict[str, object]]:
    """Make an image; its record, and its entries for the data set's documents by file name."""
    target = os.path.join(settings.folder, image.path)
    comment = _comment(image.path, settings)
    done = resume and _comment_of(target) == comment
    if not done or image.split in OUTLINED:
        laid_out = picture.lay_out(image.shot)
    if not done:
        files.make_folder(os.path.dirname(target))
        try:
            with files.atomic(target, force) as stream:
                Image.fromarray(laid_out.pixels()).save(stream, "JPEG", quality=QUALITY, comment=comment)
        except InputError:
            if not resume or _comment_of(target) != comment:  # else a run beside this one has made it meanwhile
                raise
    record = {
        "id": image.id,
        "image": target,
        "size": list(settings.size),
        "labels": image.labels,
        "patient": image.path.split("/")[1],
        "view": image.shot.view,
        "split": image.split,
    }
    entries: dict[str, object] = {f"{image.split}.csv": _row(image)}
    if image.split in OUTLINED:
        for reader, reading in zip(READERS, _readings(image, laid_out)):
            for kind, value in zip(KINDS, reading):
                entries[_document(reader, kind, image.split)] = value
    return record, entries


def _readings(image: Plan, laid_out: picture.Picture) -> list[tuple[dict, dict, dict]]:
    """(annotations, masks, points) of the truth and of the second reader; none where the truth has no outline."""
    size, findings = image.shot.size, image.shot.findings
    lesions = {task: [x for x in map(outlines.lesion_of, laid_out.outlined(task)) if x] for task in findings}
    rng = np.random.default_rng([*image.shot.view_seed, 2])
    truth: tuple[dict, dict] = {}, {}
    second: tuple[dict, dict] = {}, {}
    for task, found in lesions.items():
        truth[0][task], truth[1][task] = [o for x in found for o in x.outlines], [x.point for x in found]
        second[0][task], second[1][task] = outlines.second_reading(found, size, findings[task] < SUBTLE, rng)
    return [_reading(size, *shown) for shown in (truth, second)] if any(truth[0].values()) else []


def _reading(size: tuple[int, int], outlined: dict, points: dict) -> tuple[dict, dict, dict]:
    outlined, points = _widened(outlined), _widened(points)
    masks = {task: Mask.from_polygons(size, outlined.get(task, ())).to_rle() for task in tasks.STUDY}
    return {"img_size": list(size)} | outlined, masks, points


def _widened(found: dict[str, list]) -> dict[str, list]:
    """With what narrower findings show given to the wider ones, in the study's order, without empty tasks."""
    whole = {task: [v for t in (task, *_NARROWER.get(task, ())) for v in found.get(t, ())] for task in tasks.STUDY}
    return {task: values for task, values in whole.items() if values}


def _row(image: Plan) -> str:
    body, frontal = image.shot.body, image.shot.view == "frontal"
    side = ("AP" if image.shot.portable else "PA") if frontal else ""
    marks = [f"{image.labels[task]:.1f}" if task in image.labels else "" for task in tasks.CHEXPERT]
    return ",".join([image.path, body.sex, str(body.age), image.shot.view.capitalize(), side, *marks])


class _Csv:
    """CheXpert's CSV, row by row."""

    def __init__(self, stream):
        names = {canonical: name for name, canonical in tasks.ALIASES.items()}
        columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *(names.get(t, t) for t in tasks.CHEXPERT)]
        self._stream = stream
        self.add("", ",".join(columns))

    def add(self, _identifier: str, row: object) -> None:
        self._stream.write(f"{row}\n".encode("ascii"))

    def finish(self) -> None:
        pass


class _Json:
    """One JSON object by id, entry by entry, so that memory does not grow."""

    def __init__(self, stream):
        self._stream = stream
        self._before = "{"

    def add(self, identifier: str, value: object) -> None:
        self._stream.write(f"{self._before}{json.dumps(identifier)}: {json.dumps(value)}".encode("ascii"))
        self._before = ",\n"

    def finish(self) -> None:
        self._stream.write(b"{}\n" if self._before == "{" else b"}\n")


def _documents() -> dict[str, type[_Csv] | type[_Json]]:
    """What is written beside the images."""
    names = {f"{split}.csv": _Csv for split in SPLITS}
    return names | {_document(r, kind, split): _Json for r in READERS for kind in KINDS for split in OUTLINED}


def _document(reader: str, kind: str, split: str) -> str:
    return f"{reader}_{kind}_{split}.json"


def _comment(path: str, settings: PhantomSettings) -> str:
    """What an image says of itself: that it shows nobody, and how it was made."""
    height, width = settings.size
    options = f"--seed {settings.seed} --size {height} {width}{settings.doses}"
    return f"made up by chex-phantom {__version__} {options}: {id_of_path(path)}"


def _comment_of(path: str) -> str:
    try:
        with Image.open(path) as image:
            return image.info.get("comment", b"").decode("ascii", "replace")
    except (OSError, SyntaxError, ValueError):
        return ""
