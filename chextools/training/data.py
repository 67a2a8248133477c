"""What is trained and validated on: records with labels, checked, and what is to be learned of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from chextools.errors import InputError
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.training import labels
from chextools.training.pixels import check_images
from chextools.training.ranks import ALONE, Ranks
from chextools.training.settings import TrainSettings, parse_select

log = logging.getLogger(__name__)

_SHOWN = 10


@dataclass
class Data:
    """Records with labels, checked: all can be used and their images are there."""

    records: list[dict]
    where: str

    def digest(self) -> str:
        """Of ids and labels: tells whether a run goes on with the data it began with."""
        told = hashlib.sha256()
        for record in self.records:
            told.update(records.dumps([record["id"], sorted(record.get("labels", {}).items())]).encode())
        return told.hexdigest()


def read_data(items: Iterable[Located | Failure], where: str, jobs: int = 1, ranks: Ranks = ALONE) -> Data:
    """All records of a data set. Raises InputError, naming up to ten, if any cannot be used, or if there is none.

    `jobs` threads look at the images; of several processes each looks at its share.
    """
    found, failures = [], []
    for item in items:
        if isinstance(item, Failure):
            failures.append(f"{item.where}: {item.reason}")
        else:
            found.append({k: item.record[k] for k in ("id", "image", "labels", "patient", "pack") if k in item.record})
    if failures:
        more = f"; and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        of = f"{where}: {len(failures)} of {len(failures) + len(found)} records cannot be used: "
        raise InputError((of if len(failures) > 1 else "") + "; ".join(failures[:_SHOWN]) + more)
    if not found:
        raise InputError(f"{where}: no records")
    if not any(record.get("labels") for record in found):
        raise InputError(f"{where}: no labels")
    check_images(found[ranks.rank :: ranks.count], where, jobs)
    return Data(found, where)


def settle_labels(train: Data, valid: Data, settings: TrainSettings) -> labels.Labelling:
    """What is to be learned, said on stderr; checked against the settings. Raises InputError."""
    labelling = labels.choose_labelling(
        train.records, settings.tasks, settings.uncertain, settings.missing, train.where
    )
    labels.say(labels.table(train.records, labelling.tasks), labelling, train.where)
    parse_select(settings.select, labelling.tasks)
    patients = [{records.patient(record) for record in data.records} for data in (train, valid)]
    if both := sorted(patients[0] & patients[1]):
        log.warning(
            "%d patients are in both %s and %s (%s, ...): the metrics will flatter",
            len(both),
            train.where,
            valid.where,
            both[0],
        )
    return labelling
