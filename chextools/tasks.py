"""Task (pathology) names: the orders in which data sets and the study list them, and their aliases."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Iterable, Sequence

from chextools.errors import InputError, quoted

log = logging.getLogger(__name__)

# CheXpert's label columns, in the order of its CSV (Irvin et al. 2019), under the names that we write.
CHEXPERT = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Airspace Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

# The ten localised tasks, in the study's order (Saporta et al. 2022).
STUDY = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Airspace Opacity",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Support Devices",
)

# The order of the 14 scores in the study's pickles; not CheXpert's: Lung Lesion comes before Airspace Opacity.
STUDY_SCORES = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Airspace Opacity",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)

_MOST_COMPARED, _MOST_LETTERS = 500, 200  # names and letters for a suggestion: comparing takes quadratic time

_MOST_NAMED = 30
_MOST_AT_ONCE = 1024  # tasks: PadChest, the richest set of labels, has 300

ALIASES = {"Lung Opacity": "Airspace Opacity"}


def canonical(name: str) -> str:
    """The name under which a task is written everywhere; an unknown name is its own."""
    return ALIASES.get(name, name)


def study_order(names: Iterable[str]) -> list[str]:
    """Distinct tasks: the study's ten first, in its order, then the others by name."""
    names = set(names)
    return [task for task in STUDY if task in names] + sorted(names.difference(STUDY))


def choose(requested: Sequence[str], available: Iterable[str], where: str) -> list[str]:
    """The requested tasks under their canonical names, all of `available` where none is requested.

    A task is accepted when it is available or one of CheXpert's: a data set may lack a known one, but a name that
    nobody knows is a slip, refused with the closest name, and so are more tasks than data have.
    """
    available = study_order(available)
    if not requested:
        return bounded(available, where)
    known = dict.fromkeys([*available, *CHEXPERT])
    for name in map(canonical, requested):
        if name in known and name not in available:
            log.warning("%s has no %s", where, name)
        if name not in known:
            has = ", ".join(available[:_MOST_NAMED]) + ", ..." * (len(available) > _MOST_NAMED)
            raise InputError(f"unknown task {quoted(name)}{hint(name, known)}; {where} has {has or 'none'}")
    return bounded(study_order(map(canonical, requested)), where)


def bounded(names: list[str], where: str) -> list[str]:
    """The names. Raises InputError for more tasks than data have, for each of which time and memory would be taken."""
    if len(names) > _MOST_AT_ONCE:
        raise InputError(f"{where}: {len(names)} tasks; at most {_MOST_AT_ONCE} at once: name those wanted with --task")
    return names


def blank_means(task: str) -> str:
    """What a blank label says unless the user says otherwise: "negative" of CheXpert's tasks, as in the study, else
    nothing ("ignore"), as nobody may have looked.
    """
    return "negative" if task in CHEXPERT else "ignore"


def hint(name: str, known: Iterable[str]) -> str:
    """A suggestion such as ` (did you mean 'Edema'?)`, or nothing."""
    import difflib  # here, as most names are right and it costs start-up

    by_fold = {_folded(each): each for each in known}
    close = difflib.get_close_matches(_folded(name), list(itertools.islice(by_fold, _MOST_COMPARED)), n=1)
    found = by_fold.get(_folded(name)) or (by_fold[close[0]] if close else None)
    return f" (did you mean {found!r}?)" if found is not None and found != name else ""


def say_misspelled(names: Iterable[str], known: Collection[str], where: str) -> None:
    """Warn of each name that is one of those known but for case, blanks or hyphens, and so counts as another task."""
    by_fold = {_folded(each): each for each in known}
    for name in names:
        if name not in known and _folded(name) in by_fold:
            log.warning("%s has %s: is it meant to be %s?", where, name, by_fold[_folded(name)])


def _folded(name: str) -> str:
    """A name less what people write in more ways than one, and no longer than a name that is worth comparing."""
    return " ".join(name[:_MOST_LETTERS].casefold().replace("_", " ").replace("-", " ").split())
