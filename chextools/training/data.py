"""What is trained and validated on: records with labels, checked, and what is to be learned of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from chextools.errors import InputError
from chextools.plumbing import jsontext
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
    """Records with labels, checked: all can be used and their images are there. sources: as the user named them."""

    records: list[dict]
    where: str
    sources: tuple[str, ...] = ()

    def digest(self) -> str:
        """Of ids and labels: tells whether a run goes on with the data it began with."""
        told = hashlib.sha256()
        for record in self.records:
            told.update(jsontext.dumps([record["id"], sorted(record.get("labels", {}).items())]).encode())
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
            found.append(
                {k: item.record[k] for k in ("id", "image", "size", "labels", "patient", "pack") if k in item.record}
            )
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


def settle_labels(train: Data, valid: Data, settings: TrainSettings, mixed: Sequence[Data] = ()) -> labels.Labelling:
    """What is to be learned, said on stderr; checked against the settings. Raises InputError.

    mixed: sets that are trained on beside `train`.
    """
    sets = [train, *mixed]
    labelling = labels.choose_labelling(
        train.records,
        settings.tasks,
        settings.uncertain,
        settings.missing,
        ", ".join(data.where for data in sets),
        [data.records for data in mixed],
    )
    for data in sets:
        codes = labels.table(data.records, labelling.tasks)
        labels.say(labels.without_absent(codes) if mixed else codes, labelling, data.where)
    parse_select(settings.select, labelling.tasks)
    _say_both("patients", train, valid, records.patient)
    for data in mixed:  # sets from elsewhere number their patients alike
        _say_both("images", data, valid, lambda record: record["image"])
    return labelling


def _say_both(what: str, train: Data, valid: Data, of: Callable[[dict], str]) -> None:
    """That something is in both sets."""
    seen = [{of(record) for record in data.records} for data in (train, valid)]
    if both := sorted(seen[0] & seen[1]):
        log.warning(
            "%d %s are in both %s and %s (%s, ...): the metrics will flatter",
            len(both),
            what,
            train.where,
            valid.where,
            both[0],
        )
