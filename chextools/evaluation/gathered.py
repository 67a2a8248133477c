"""What was measured of many CXRs, as arrays: in the memory of its numbers and ids."""

from __future__ import annotations

import marshal
from collections.abc import Iterator, Sequence

import numpy as np

from chextools.evaluation.looking import Looked
from chextools.records.record import patient_of

_BLOCK = 4096  # CXRs


class Gathered(Sequence[Looked]):
    """Rows that are added one by one, each of which can be had again; `sort` makes them arrays, by id."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._patients: dict[int, str] = {}  # where an id does not say its own
        self._scores: list[bytes] = []
        self._names: dict[tuple[str, ...], int] = {}  # of scores, most of which are of the same tasks
        self._failed: dict[int, tuple[dict[str, str], dict[str, str]]] = {}  # masks, looks
        self._blocks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._arrays: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def add(self, row: Looked) -> None:
        """Take one more row, before they are sorted."""
        number = len(self.ids)
        if number % _BLOCK == 0:
            parts, tasks = row.measured.shape
            shapes = (np.empty((_BLOCK, 2), bool), np.empty((_BLOCK, tasks), bool), np.empty((_BLOCK, parts, tasks)))
            self._blocks.append(shapes)
        self.ids.append(row.id)
        if row.patient != patient_of(row.id):
            self._patients[number] = row.patient
        names = self._names.setdefault(tuple(row.scores), len(self._names))
        self._scores.append(marshal.dumps((names, *row.scores.values())) if row.scores else b"")
        if row.failed_masks or row.failed_looks:
            self._failed[number] = row.failed_masks, row.failed_looks
        has, lacks_mask, measured = self._blocks[-1]
        at = number % _BLOCK
        has[at], lacks_mask[at], measured[at] = (row.has_truth, row.has_prediction), row.lacks_mask, row.measured

    def sort(self) -> None:
        """Put the rows into the order of their ids; no more can be added."""
        n = len(self.ids)
        order = sorted(range(n), key=self.ids.__getitem__)
        self.ids = [self.ids[k] for k in order]
        self._scores = [self._scores[k] for k in order]
        place = {k: number for number, k in enumerate(order) if k in self._patients or k in self._failed}
        self._patients = {place[k]: patient for k, patient in self._patients.items()}
        self._failed = {place[k]: failed for k, failed in self._failed.items()}
        self._arrays = tuple(_sorted([block[k] for block in self._blocks], n, order) for k in range(3))  # type: ignore
        self._blocks = []

    @property
    def measured(self) -> np.ndarray:
        """`Looked.measured` of each: float64 [n, parts, K]."""
        return self._array(2)

    @property
    def lacks_mask(self) -> np.ndarray:
        """bool [n, K]."""
        return self._array(1)

    @property
    def has_truth(self) -> np.ndarray:
        """bool [n]."""
        return self._array(0)[:, 0]

    @property
    def has_prediction(self) -> np.ndarray:
        """bool [n]."""
        return self._array(0)[:, 1]

    def _array(self, number: int) -> np.ndarray:
        assert self._arrays is not None, "rows are to be sorted first"
        return self._arrays[number]

    @property
    def patients(self) -> list[str]:
        return [self._patients.get(number) or patient_of(identifier) for number, identifier in enumerate(self.ids)]

    def failures(self, of_masks: bool, task: str) -> list[int]:
        """Numbers of those that could not be measured: of masks, or of points and heatmaps."""
        return [number for number, by_kind in self._failed.items() if task in by_kind[0 if of_masks else 1]]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Looked]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number):  # one row; nobody asks for several
        identifier = self.ids[number]
        names, *values = marshal.loads(self._scores[number]) if self._scores[number] else (0,)
        failed_masks, failed_looks = self._failed.get(number, ({}, {}))
        return Looked(
            identifier,
            self._patients.get(number) or patient_of(identifier),
            bool(self.has_truth[number]),
            bool(self.has_prediction[number]),
            dict(zip(list(self._names)[names], values)) if values else {},
            self.measured[number],
            self.lacks_mask[number],
            failed_masks,
            failed_looks,
        )


def _sorted(blocks: list[np.ndarray], n: int, order: Sequence[int]) -> np.ndarray:
    """The first n rows of blocks [rows, ...] in order; each column by itself, so that memory is that of one array."""
    shape = blocks[0].shape[1:]
    columns = np.empty((int(np.prod(shape)), n), blocks[0].dtype)
    for number in range(len(blocks)):
        block = blocks[number][: n - number * _BLOCK]
        columns[:, number * _BLOCK :][:, : len(block)] = block.reshape(len(block), -1).T
        blocks[number] = block[:0].copy()
    for column in columns:
        column[:] = column[order]
    return np.moveaxis(columns.reshape(*shape, n), -1, 0)
