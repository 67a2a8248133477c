"""The options of a run, by name: as given, or as a config.json has them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from chextools.errors import InputError
from chextools.tasks import hint
from chextools.training.augment import Augmentation
from chextools.training.folder import CONFIG, is_run, read_config
from chextools.training.settings import TrainSettings

# Options that are not replayed by --config: where a run is, and how this part of it is run
OF_THIS_RUN = {"output", "resume", "config", "max_time"}
CODE = "code"  # beside the options: FILE.py:NAME and its SHA-256, by what it is
# Options that may differ when a run is resumed: they change no weights
FREE = OF_THIS_RUN | {"jobs", "device", "tensorboard"}


def replayed(values: Mapping, given: Collection[str], parse: Callable[[str, object], object]) -> dict:
    """All options: as given, else as in the run that is resumed or the --config, else the default; lists for tuples.

    values: all options, with their defaults. given: names of those on the command line. parse: a value from the file,
    as the command line would have it; raises InputError. Raises InputError where a run is resumed with other options.
    """
    values = dict(values)
    resumed = values["resume"] and values["output"] and is_run(values["output"])
    path = str(Path(values["output"], CONFIG)) if resumed else values["config"]
    for name, value in (read_config(path) if path else {}).items():
        if name == CODE:
            continue
        if name in OF_THIS_RUN:
            raise InputError(f"{path}: {name!r} belongs on the command line")
        if name not in values:
            raise InputError(f"{path}: unknown option {name!r}{hint(name, values)}")
        try:
            if value is None and values[name] is not None:
                raise InputError("must not be null")
            value = parse(name, value)
        except InputError as error:
            raise InputError(f"{path}: {name}: {error}") from None
        if name not in given:
            values[name] = value
        elif resumed and name not in FREE and _plain(value) != _plain(values[name]):
            raise InputError(
                f"{values['output']}: its {name.replace('_', '-')} is {_plain(value)!r}, not "
                f"{_plain(values[name])!r}: leave it out, or begin another run"
            )
    return {name: _plain(value) for name, value in values.items()}


def recorded(values: Mapping, code: Mapping[str, str]) -> dict:
    """What a config.json holds: options, and of which files the user's own code is."""
    found = {name: value for name, value in values.items() if name not in OF_THIS_RUN}
    return found | ({CODE: dict(code)} if code else {})


def code_of(run: str) -> dict:
    """What the config.json of a run says of the user's own code."""
    found = read_config(str(Path(run, CONFIG))).get(CODE)
    return found if isinstance(found, dict) else {}


def settings(values: Mapping) -> TrainSettings:
    """The settings that the options are."""
    names = TrainSettings.__dataclass_fields__.keys() - {"augmentation"}
    changes = Augmentation(*(values[name] for name in Augmentation.__dataclass_fields__))
    plain: dict[str, Any] = {
        name: tuple(values[name]) if isinstance(values[name], list) else values[name] for name in names
    }
    return TrainSettings(**plain, augmentation=changes)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
