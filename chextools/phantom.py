"""chex-phantom: a data set of made-up chest X-rays in CheXpert's layout, with the truth about each.

Patients come one after the other, each with studies, views and findings of their own, drawn from (seed, patient) alone:
a larger data set begins with the smaller one. Nothing in it shows a person; but findings may also be drawn onto
somebody's X-rays, so that of these, too, it is known where a finding is.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from chextools.records import records
from chextools.records.ids import id_of_path
from chextools.records.records import Failure, Located
from chextools.xrays import images

log = logging.getLogger(__name__)

SPLITS = ("train", "valid", "test")
SIZE = (320, 320)
OUTLINED = ("valid", "test")  # where radiologists have drawn, as in CheXpert
ONTO = (
    "Lung Lesion",
    "Airspace Opacity",
    "Edema",
    "Consolidation",
    "Atelectasis",
)  # densities, without which a body is the same
READERS = ("gt", "hb")
VIEWS = ("mixed", "frontal", "lateral", "both")
KINDS = ("annotations", "segmentations", "points")

QUALITY = 90  # of the JPEG
SUBTLE = 0.25  # a finding less severe than this is easily missed

# What ails a patient: how often, and how often each finding shows in a study. All findings occur without cause, too.
_WITHOUT_CAUSE = 0.05
_SHARE_ONTO = 0.4  # of copies that show each finding, where nothing else is asked for
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
    onto: records of X-rays onto which findings are drawn, in place of made-up bodies. size: None for `SIZE`, or that
    of each X-ray.
    """

    folder: str
    count: int
    size: tuple[int, int] | None
    seed: int = 0
    views: str = "mixed"
    prevalence: Mapping[str, float] = field(default_factory=dict)
    hard: bool = False
    onto: Sequence[dict] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        return SPLITS[:1] if self.onto else SPLITS

    @property
    def outlined(self) -> tuple[str, ...]:
        """The splits of which outlines are written."""
        return self.splits if self.onto else OUTLINED

    @property
    def readers(self) -> tuple[str, ...]:
        return READERS[:1] if self.onto else READERS

    @property
    def doses(self) -> str:
        """What an image says of how it was dosed; nothing of what is as by default."""
        shares = [f" --prevalence '{task}={share:g}'" for task, share in sorted(self.prevalence.items())]
        views = f" --views {self.views}" if self.views != "mixed" else ""
        return " --onto" * bool(self.onto) + views + "".join(shares) + " --hard" * self.hard


@dataclass(frozen=True)
class Plan:
    """One image to be made.

    path: relative to the data set's folder. findings: severity of what is drawn, by task. labels: by task, 1, 0, -1;
    none where it is not mentioned. onto: the record of the X-ray that findings are drawn onto.
    """

    path: str
    split: str
    shot: picture.Shot
    labels: dict[str, int]
    onto: dict | None = None

    @property
    def id(self) -> str:
        return id_of_path(self.path)


def prevalences(shares: Iterable[tuple[str | None, float]], drawn: Sequence[str] = tasks.STUDY) -> dict[str, float]:
    """By task, from pairs of a task, None for all that are drawn, and a share; later ones override.

    Raises InputError for a task that is not drawn.
    """
    found: dict[str, float] = {}
    for task, share in shares:
        if task is not None and tasks.canonical(task) not in drawn:
            raise InputError(
                f"--prevalence {task}: not drawn{' there' * (drawn is ONTO)}; there are {', '.join(drawn)}"
            )
        found |= dict.fromkeys(drawn if task is None else [tasks.canonical(task)], share)
    return found


def xrays_of(items: Iterable[Located | Failure], where: str) -> list[dict]:
    """The records of X-rays to draw onto: of frontal ones; lateral ones are left out, with a warning.

    Raises InputError where a record cannot be used, or none is left.
    """
    found, lateral = [], 0
    for item in items:
        if isinstance(item, Failure):
            raise InputError(f"{item.where}: {item.reason}")
        lateral += item.record.get("view") == "lateral"
        if item.record.get("view") != "lateral":
            found.append(item.record)
    if lateral:
        log.warning("%s: %d lateral X-rays left out", where, lateral)
    if not found:
        raise InputError(f"{where}: no frontal X-rays")
    return found


def plan(settings: PhantomSettings) -> Iterator[Plan]:
    """The images in order."""
    if settings.onto:
        yield from (_copy(number, settings) for number in range(settings.count))
        return
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
    for path in [*_documents(settings), *paths]:
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
            for name, kind in _documents(settings).items()
        }
        told = replace(settings, onto=settings.onto[:1])  # a process is sent the X-ray of each plan, not all of them
        for record, entries in ordered_map(partial(_make, told, force, resume), plan(settings), jobs):
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
            shot = picture.Shot(settings.size or SIZE, body, view, portable, shown, seed, (*seed, view_number))
            yield Plan(path, split, shot, labels)


def _copy(number: int, settings: PhantomSettings) -> Plan:
    """A copy of an X-ray, which come in turn, with findings of its own."""
    source, turn = settings.onto[number % len(settings.onto)], number // len(settings.onto) + 1
    rng = np.random.default_rng([settings.seed, number, len(settings.onto)])
    asked = dict(settings.prevalence) or dict.fromkeys(ONTO, _SHARE_ONTO)
    shares = dict.fromkeys(tasks.STUDY, 0.0) | asked
    findings = _findings({}, {}, rng, shares)
    shown = {task: (severity - 1) / 2 if settings.hard else severity for task, severity in findings.items()}
    wider = [task for task, narrower in _NARROWER.items() if not shown.keys().isdisjoint(narrower)]
    labels = dict(source.get("labels", {})) | dict.fromkeys([*shown, *wider], 1)
    if shown:
        labels["No Finding"] = 0
    path = f"{SPLITS[0]}/{source['id']}_drawn{turn}.jpg"
    records.check_id(id_of_path(path))
    seed = (settings.seed, number, turn)
    size = settings.size or images.measure(source["image"]).size
    shot = picture.Shot(size, Body.draw(rng), "frontal", False, shown, seed, (*seed, 1))
    return Plan(path, SPLITS[0], shot, {t: labels[t] for t in tasks.study_order(labels)}, source)


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
    if not done or image.split in settings.outlined:
        laid_out = picture.lay_out(image.shot)
    if not done:
        pixels = laid_out.over(_xray(image)) if image.onto else laid_out.pixels()
        files.make_folder(os.path.dirname(target))
        try:
            with files.atomic(target, force) as stream:
                Image.fromarray(pixels).save(stream, "JPEG", quality=QUALITY, comment=comment)
        except InputError:
            if not resume or _comment_of(target) != comment:  # else a run beside this one has made it meanwhile
                raise
    record = {
        "id": image.id,
        "image": target,
        "size": list(image.shot.size),
        "labels": image.labels,
        "patient": records.patient(image.onto) if image.onto else image.path.split("/")[1],
        "view": image.shot.view,
        "split": image.split,
    }
    entries: dict[str, object] = {f"{image.split}.csv": _row(image)}
    if image.split in settings.outlined:
        for reader, reading in zip(settings.readers, _readings(image, laid_out)):
            for kind, value in zip(KINDS, reading):
                entries[_document(reader, kind, image.split)] = value
    return record, entries


def _xray(image: Plan) -> np.ndarray:
    """The X-ray that findings are drawn onto, uint8 of the shot's size. Raises InputError."""
    assert image.onto is not None
    found = images.read(image.onto["image"])
    if found.shape == image.shot.size:
        return found
    return np.asarray(Image.fromarray(found).resize(image.shot.size[::-1], Image.Resampling.BILINEAR))


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
    who = [body.sex, str(body.age)]
    if image.onto:
        *who, side = (str(image.onto.get(key, "")) for key in ("sex", "age", "projection"))
    marks = [f"{image.labels[task]:.1f}" if task in image.labels else "" for task in tasks.CHEXPERT]
    return ",".join(map(_cell, [image.path, *who, image.shot.view.capitalize(), side, *marks]))


def _cell(text: str) -> str:
    """A cell of a CSV, quoted where it must be."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text


class _Csv:
    """CheXpert's CSV, row by row."""

    def __init__(self, stream):
        names = {canonical: name for name, canonical in tasks.ALIASES.items()}
        columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *(names.get(t, t) for t in tasks.CHEXPERT)]
        self._stream = stream
        self.add("", ",".join(columns))

    def add(self, _identifier: str, row: object) -> None:
        self._stream.write(os.fsencode(f"{row}\n"))

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


def _documents(settings: PhantomSettings) -> dict[str, type[_Csv] | type[_Json]]:
    """What is written beside the images."""
    names = {f"{split}.csv": _Csv for split in settings.splits}
    outlined = ((r, kind, split) for r in settings.readers for kind in KINDS for split in settings.outlined)
    return names | {_document(*of): _Json for of in outlined}


def _document(reader: str, kind: str, split: str) -> str:
    return f"{reader}_{kind}_{split}.json"


def _comment(path: str, settings: PhantomSettings) -> str:
    """What an image says of itself: that it shows nobody, and how it was made."""
    size = " --size {} {}".format(*settings.size) if settings.size else ""
    made = f"made up by chex-phantom {__version__} --seed {settings.seed}{size}{settings.doses}: {id_of_path(path)}"
    return made.encode("ascii", "backslashreplace").decode()


def _comment_of(path: str) -> str:
    try:
        with Image.open(path) as image:
            return image.info.get("comment", b"").decode("ascii", "replace")
    except (OSError, SyntaxError, ValueError):
        return ""
