"""A gallery: of each run and task the best and the worst overlays that chex-view drew, small enough for a page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from chextools.errors import InputError
from chextools.records.records import Failure
from chextools.records.tally import unseen
from chextools.reporting.page import Picture, Pictures, Section, span
from chextools.reporting.runs import Run
from chextools.tasks import study_order
from chextools.xrays import images

MOST, FEW = 360, 60  # pictures of a page, and as many as are shown larger; 12 or 25 kB each
SIDE, SMALL = 480, 320  # pixels of the longer side in each column: sharp at half that width on any screen
MOST_OPEN = 14  # groups that are open from the start
_QUALITY = 80
_MOST_SVG, _FEW_BYTES = 1 << 27, 1 << 13  # letters of an SVG, and of an image in it that stays as it is
_SVG = re.compile(r'<svg [^<>]*?\bwidth="(\d{1,5})" height="(\d{1,5})"')
_METADATA = re.compile("<metadata>[^<]*</metadata>")
_PIXELS = re.compile("data:image/png;base64,([A-Za-z0-9+/=]+)")


@dataclass(frozen=True)
class View:
    """One overlay: its picture's path, and how well the task was localised there, None where unknown."""

    id: str
    task: str
    picture: str
    iou: float | None
    hit: float | None
    score: float | None

    @property
    def words(self) -> str:
        """Such as `IoU 0.41, hit, score 0.88`."""
        found = [] if self.iou is None else [f"IoU {self.iou:.2f}"]
        found += [] if self.hit is None else ["hit" if self.hit else "miss"]
        found += [] if self.score is None else [f"score {self.score:.2f}"]
        return ", ".join(found)


def views_of(rows: Iterable[dict]) -> list[View]:
    """The overlays of records of chex-view."""
    return [
        View(row["id"], task, view["picture"], view["iou"], view["hit"], view["score"])
        for row in rows
        for task, view in row["views"].items()
    ]


def by_task(views: Iterable[View]) -> dict[str, list[View]]:
    """The overlays of each task, in the study's order."""
    found: dict[str, list[View]] = {}
    for view in views:
        found.setdefault(view.task, []).append(view)
    return {task: found[task] for task in study_order(found)}


def extremes(views: Sequence[View], count: int) -> tuple[list[View], list[View]]:
    """The best and the worst, at most `count` of each and none in both: by IoU, or by hit where no IoU is known."""
    known = [view for view in views if view.iou is not None]
    by_iou = bool(known)
    known = known or [view for view in views if view.hit is not None]
    ordered = sorted(known, key=lambda v: (v.iou if by_iou else v.hit, v.hit or 0, v.task, v.id), reverse=True)
    count = min(count, (len(ordered) + 1) // 2)
    return ordered[:count], ordered[count:][-count:][::-1] if count else []


def embedded(path: str, side: int = SIDE) -> tuple[str, int, int]:
    """A picture as data: URI, no side longer than `side` times the columns that it takes in a gallery, and its width
    and height. Raises InputError."""
    if path.endswith(".svg"):
        return _vectors(path, side)
    images.check(path)
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    side *= span(*picture.size)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _data(picture), *picture.size


def _data(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def _vectors(path: str, side: int) -> tuple[str, int, int]:
    """An SVG of chex-view as `embedded`: lines and text stay vectors, the pixels below them become few enough."""
    try:
        with open(path, encoding="ascii") as stream:
            text = stream.read(_MOST_SVG + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or 'no SVG of chex-view'}") from None
    head = _SVG.match(text)
    if not head or len(text) > _MOST_SVG:
        raise InputError(f"{path}: no SVG of chex-view")
    width, height = map(int, head.groups())
    share = min(1.0, side * span(width, height) / max(width, height, 1))

    def smaller(found: re.Match) -> str:
        try:
            with Image.open(io.BytesIO(base64.b64decode(found[1])), formats=("PNG",)) as image:
                picture = image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: an image in it is broken ({type(error).__name__})") from None
        size = [max(1, round(share * n)) for n in picture.size]
        return _data(picture.resize(size, Image.Resampling.LANCZOS)) if len(found[1]) > _FEW_BYTES else found[0]

    text = _PIXELS.sub(smaller, _METADATA.sub("", text, count=1))
    uri = "data:image/svg+xml;base64," + base64.b64encode(text.encode("ascii")).decode("ascii")
    return uri, round(share * width), round(share * height)


def section(
    runs: Sequence[Run], most: int, failures: list[Failure], progress: Callable[..., Iterable] = unseen
) -> tuple[Section | None, dict[tuple[str, str], str]]:
    """The section, and by (run, task) the address within the page of its pictures.

    most: best and worst of each run and task, so many of each, or fewer where these would be more than `MOST`.
    failures: what cannot be read is added to them. progress: as of `Tally`.
    """
    groups = [(k, run, task, views) for k, run in enumerate(runs, 1) for task, views in _tasks_of(run)]
    shown = Section(
        "gallery", "Pictures", ["The overlays that match the truth best and worst, by IoU where it is known."]
    )
    links: dict[tuple[str, str], str] = {}
    if not groups or not most:
        return None, links
    share = max(1, min(most, MOST // (2 * len(groups))))
    if share < most:
        shown.notes.append(f"So many runs and tasks that only {share} best and {share} worst of each are shown.")
    groups = groups[: MOST // 2]
    side = SIDE if 2 * share * len(groups) <= FEW else SMALL
    ends = [extremes(views, share) for _, _, _, views in groups]
    steps = iter(progress(range(sum(len(chosen) for pair in ends for chosen in pair)), "pictures"))
    for (number, run, task, _), pair in zip(groups, ends):
        parts = []
        for words, chosen in zip(("Best", "Worst"), pair):
            pictures = [picture for view, _ in zip(chosen, steps) if (picture := _picture(run, view, side, failures))]
            parts.append((words, pictures))
        if any(pictures for _, pictures in parts):
            address = f"pictures-{number}-{len(links) + 1}"
            links[run.name, task] = f"#{address}"
            shown.pictures.append(Pictures(address, run.name, task, parts, is_open=len(groups) <= MOST_OPEN))
    return (shown if shown.pictures else None), links


def _tasks_of(run: Run) -> list[tuple[str, list[View]]]:
    return [(task, views) for task, views in by_task(views_of(run.rows["view"])).items() if any(extremes(views, 1))]


def _picture(run: Run, view: View, side: int, failures: list[Failure]) -> Picture | None:
    try:
        return Picture(*embedded(view.picture, side), view.task, view.id, view.words)
    except InputError as error:
        failures.append(Failure(f"{run.sources[0]}: {view.id}", str(error)))
        run.failed += 1
        return None
