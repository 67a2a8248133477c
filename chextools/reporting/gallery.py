"""A gallery: the best and the worst of the overlays that chex-view drew, small enough to stand in a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image

from chextools.errors import InputError
from chextools.xrays import images

MOST = 60  # pictures of a page; some 25 kB each
SIDE = 480  # pixels of the longer side: sharp at half that width on any screen
_QUALITY = 80


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


def extremes(views: Sequence[View], count: int) -> tuple[list[View], list[View]]:
    """The best and the worst, at most `count` of each and none in both: by IoU, or by hit where no IoU is known."""
    known = [view for view in views if view.iou is not None]
    by_iou = bool(known)
    known = known or [view for view in views if view.hit is not None]
    ordered = sorted(known, key=lambda v: (v.iou if by_iou else v.hit, v.hit or 0, v.task, v.id), reverse=True)
    count = min(count, (len(ordered) + 1) // 2)
    return ordered[:count], ordered[count:][-count:][::-1] if count else []


def embedded(path: str) -> tuple[str, int, int]:
    """A picture as data: URI, no side longer than `SIDE`, and its width and height. Raises InputError."""
    images.check(path)
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode("ascii"), *picture.size
