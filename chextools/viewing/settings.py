"""What chex-view draws."""

from __future__ import annotations

from dataclasses import dataclass

from chextools.viewing.panels import Case, Subject

SIZES = {"single": 800, "sheet": 320, "grid": 320}  # of an X-ray's longer side, unless the user says otherwise
SELECTIONS = {"worst": "worst first", "best": "best first", "random": "drawn at random"}

_SHEET, _SHEET_PIXELS = (5, 4), 8000  # columns and rows of a page, and pixels of its sides, at most


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """What is drawn.

    layout: single, sheet or grid. original: whether the X-ray alone
    stands beside what is drawn on it. size: pixels of an X-ray's longer side; None for `SIZES`.
    sign: which evidence a signed heatmap shows (`signs.SIGNS`); None for the record's "sign", else the default.
    tasks: the tasks wanted; None for all.
    select: None or one of `SELECTIONS`; count: how many, of each task or, in a grid, of all X-rays. seed: of random.
    """

    layout: str = "single"
    size: int | None = None
    sign: str | None = None
    tasks: frozenset[str] | None = None
    select: str | None = None
    count: int = 20
    seed: int = 0
    original: bool = False

    @property
    def pixels(self) -> int:
        return self.size or SIZES[self.layout]

    @property
    def unit(self) -> float:
        """The size of text in pixels."""
        return max(12.0, self.pixels / (48 if self.layout == "single" else 24))

    @property
    def page(self) -> tuple[int, int]:
        """(columns, rows) of a sheet."""
        columns, rows = (max(1, min(most, _SHEET_PIXELS // self.pixels)) for most in _SHEET)
        return columns, rows

    @property
    def reads_all(self) -> bool:
        """Whether nothing is drawn before the last record is read."""
        return bool(self.select) or self.layout == "grid"

    def case(self, subject: Subject) -> Case:
        return Case(subject, self.pixels, self.tasks, self.sign)
