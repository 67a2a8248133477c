"""Labels of NIH's ChestX-ray14 (Data_Entry_2017.csv): a list of findings per image, and what is not in it is negative.

train_val_list.txt and test_list.txt, where they are beside the CSV, say on which side an image is. Columns of YES and
NO are the experts' (Majkowska et al. 2020): where both say something of a task, experts count.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from chextools.errors import InputError
from chextools.inputs import label_columns
from chextools.inputs.label_columns import NIH, Wishes
from chextools.plumbing import streams
from chextools.plumbing.csvtext import CsvTable
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.tasks import canonical, choose, hint

log = logging.getLogger(__name__)

# Only what is the same finding under another name. That an infiltration is an airspace opacity, or a mass a lung
# lesion, is the user's to say.
NIH_NAMES = {"Effusion": "Pleural Effusion"}
_EXPERT_NAMES = {"Airspace opacity": "Airspace Opacity"}
_FINDINGS = ("No Finding", *NIH)
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}


def read_labels(table: CsvTable, wishes: Wishes) -> Iterator[Located | Failure]:
    """Records of a table with the column Image Index."""
    wishes.check(table)
    sample, rows = label_columns.sampled(table)
    columns = _Columns(table, sample, wishes)
    for where, cells in rows:
        try:
            if isinstance(cells, InputError):
                raise cells
            yield Located(where, records.ordered(columns.record(cells)))
        except InputError as error:
            yield Failure(where, str(error))


class _Columns:
    def __init__(self, table: CsvTable, sample: Sequence[Mapping[str, str]], wishes: Wishes):
        name, self.wishes = table.name, wishes
        self.mined = "Finding Labels" in table.header
        experts = [c for c in table.header if c not in wishes.dropped and _is_yes_or_no(row[c] for row in sample)]
        if not self.mined and not experts:
            raise InputError(f"{name}: no column Finding Labels")
        renamed = NIH_NAMES | _EXPERT_NAMES | dict(wishes.renamed)
        findings = _FINDINGS if self.mined else ()
        label_columns.check_names(name, wishes.renamed, (*findings, *experts))
        self.tasks = {finding: canonical(renamed.get(finding, finding)) for finding in findings}
        self.experts = {column: canonical(renamed.get(column, column)) for column in experts}
        self.wanted = choose(wishes.tasks, {*self.tasks.values(), *self.experts.values()}, name)
        self.folders = _folders(wishes.root)
        self.splits = _splits(wishes.root)
        said = "; ".join(f"{finding} is {task}" for finding, task in self.tasks.items() if finding != task)
        if said:
            log.warning("%s: %s; other findings keep their names (--map OLD=NEW changes it)", name, said)
        if experts:
            over = [c for c in experts if self.experts[c] in self.tasks.values()]
            more = f"; of {', '.join(over)} they count, not the list of findings" if over else ""
            log.warning("%s: experts' columns: %s%s (--drop COLUMN leaves one out)", name, ", ".join(experts), more)

    def record(self, row: Mapping[str, str]) -> dict:
        file = row["Image Index"].strip()
        if not file:
            raise InputError("no path")
        candidates = [str(PurePath(folder, label_columns.slashed(file))) for folder in self.folders]
        image = next((c for c in candidates if os.path.exists(c)), candidates[0])
        record = label_columns.image_record(file, image)
        labels = self._mined(row["Finding Labels"]) if self.mined else {}
        for column, task in self.experts.items():
            if answer := row[column].strip().upper():
                if answer not in ("YES", "NO"):
                    raise InputError(f"{column} is {answer[:40]!r}; an expert says YES or NO")
                labels[task] = int(answer == "YES")
        record["labels"] = {task: labels[task] for task in self.wanted if task in labels}
        record["view"] = "frontal"  # all of them are
        if file in self.splits:
            record["split"] = self.splits[file]
        return self.wishes.noted(record | label_columns.about(row), row)

    def _mined(self, cell: str) -> dict[str, int]:
        findings = [finding.strip() for finding in cell.split("|")]
        if unknown := [f for f in findings if f not in self.tasks]:
            raise InputError(f"unknown finding {unknown[0][:60]!r}{hint(unknown[0], self.tasks)}")
        positive = {self.tasks[finding] for finding in findings}
        return {task: int(task in positive) for task in self.tasks.values()}


def _is_yes_or_no(cells: Iterator[str]) -> bool:
    """Whether some cells say so, and none anything else."""
    said = {cell.strip().upper() for cell in cells} - {""}
    return bool(said) and said <= {"YES", "NO"}


def _folders(root: str) -> list[str]:
    """Where NIH's archives put images: beside the CSV, in images, or in images_001/images and so on."""
    found = sorted(str(path) for path in Path(root or ".").glob("images_*/images"))
    return [root, str(PurePath(root, "images")), *found]


def _splits(root: str) -> dict[str, str]:
    """The side of each image, by NIH's own lists."""
    found: dict[str, str] = {}
    for name, side in _LISTS.items():
        path = os.path.join(root, name)
        if os.path.isfile(path):
            with streams.open_input(path, named=False) as stream:
                found |= {os.fsdecode(line.strip()): side for line in streams.lines(stream, path) if line.strip()}
    if found:
        log.warning("%s: %s say which images are for training, and which for tests", root or ".", ", ".join(_LISTS))
    return found
