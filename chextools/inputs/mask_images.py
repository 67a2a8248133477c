"""Masks as images, PNG or TIFF, in a folder.

    ID_TASK.png     a mask of an image and a task that is known, or of ID/TASK.png
    TASK/ID.png     a folder per task
    ID.png          a label image, with one file of values beside it: CSV, JSON, ITK-SNAP's labels or Slicer's colours

A mask has two values, of which black or 0 is outside: 0 and 255, 0 and 1, or two colours of a palette. A label image
has a value per task, 0 for none of them.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import BinaryIO
from urllib.parse import quote, unquote

import numpy as np

from chextools.errors import InputError
from chextools.inputs.drawn import Images, id_of_image, task_of
from chextools.inputs.words import PICTURES
from chextools.masks.drawing import ALONE
from chextools.masks.mask import Mask
from chextools.masks.shapes import Painted, check_pixels
from chextools.plumbing import jsontext, streams
from chextools.plumbing.csvtext import CsvTable
from chextools.records.records import Failure
from chextools.records.sizes import check_size, shortened
from chextools.tasks import ALIASES, CHEXPERT

_TABLES = (".csv", ".json", ".txt", ".ctbl", ".label", ".labels")
_STAMP = "chextools mask"
_PLAIN = " !#$&'()+,-.;=@[]^_`{}~" + "".join(chr(c) for c in range(161, 0x250))
_BLOCK = 2**20
_MOST_OF_TABLE = 2**20  # bytes
_KNOWN = frozenset(
    name.lower()
    for name in (
        *CHEXPERT,
        *ALIASES,
        *"Infiltration Mass Nodule Effusion Emphysema Fibrosis Hernia Heart Lungs Lung".split(),
        *("Pleural Thickening", "Aortic Enlargement", "Calcification", "ILD", "Other Lesion", "Nodule/Mass"),
        *("Pulmonary Fibrosis", "Left Lung", "Right Lung", "Rib Fracture", "Clavicle Fracture", "Tuberculosis"),
    )
)


def records_of(folder: str, files: Sequence[PurePath]) -> Iterator[dict | Failure]:
    """Records of masks in a folder. files: relative to it, images and the table of values.

    Raises InputError where their names do not say which task a mask is of.
    """
    pictures = sorted(path for path in files if path.suffix.lower() in PICTURES)
    tables = [path for path in files if path.suffix.lower() in _TABLES and len(path.parts) == 1]
    named = {path: _stamped(Path(folder, path)) or _named(path) for path in pictures}
    if not tables and not all(named.values()):  # then of tasks that nobody knows
        named = {path: found or _by_last_word(path) for path, found in named.items()}
    known = {task_of(task) for _, task in filter(None, named.values())}
    images = Images(folder)
    if all(named.values()):
        for path in pictures:
            identifier, name = named[path]  # type: ignore[misc]
            try:
                task = task_of(name)  # a mask that is not there was not looked for
                mask = read_mask(Path(folder, path))
                image = images.image(identifier)
                images.sized(image, mask.size)
                images.add(image, ALONE, task, Painted(mask))
            except InputError as error:
                yield Failure(str(path), str(error))
    elif len(tables) == 1:
        values = {value: images.look_for(task) for value, task in _values(Path(folder, tables[0])).items()}
        for path in pictures:
            try:
                _add_labels(images, str(path), Path(folder, path), values)
            except InputError as error:
                yield Failure(str(path), str(error))
    else:
        odd = next(path for path in pictures if not named[path])
        many = f"; of {len(tables)} tables none can be chosen" if tables else ""
        raise InputError(
            f"{folder}: {odd} does not say which task it is a mask of: name it ID_TASK.png or TASK/ID.png, or put one "
            f"table of values beside label images{many}{f'; others are of {sorted(known)[0]}' if known else ''}"
        )
    yield from images.records()


def read_mask(path: Path) -> Mask:
    """The mask of an image file. Raises InputError that does not name it."""
    try:
        with open(path, "rb") as stream:
            return mask_in(stream, "it")
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None


def mask_in(stream: BinaryIO, what: str) -> Mask:
    """The mask of an image in a stream, of two values. Raises InputError where it has more, or is no image."""
    pixels, palette = _pixels(stream, what)
    values = values_in(pixels)
    outside = 0
    if palette is not None:  # black is outside, whatever its place in the palette
        outside = next((v for v in values if not any(palette[3 * v : 3 * v + 3])), 0)
    if len(values) > 2 or (len(values) == 2 and outside not in values):
        raise InputError(f"{what} holds {len(values)} values, {shortened(values[:5])}: a mask has two, 0 and one")
    return Mask.from_array(pixels != outside)


def _pixels(stream: BinaryIO, what: str) -> tuple[np.ndarray, Sequence[int] | None]:
    """Values [height, width], and the palette they are places in. Colours are one value, 0 for black or transparent."""
    from PIL import Image

    try:
        with Image.open(stream, formats=("PNG", "TIFF")) as image:
            check_pixels(check_size((image.height, image.width), f"{what}: size"))
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{what} holds {image.n_frames} images")
            palette = image.getpalette("RGB") if image.mode == "P" else None
            pixels = np.asarray(image)
            mode = image.mode
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001  Pillow raises whatever a broken file leads it to
        raise InputError(
            f"{what} is no PNG or TIFF that can be read: {str(error)[:100] or type(error).__name__}"
        ) from None
    if pixels.ndim == 2:
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise InputError(f"{what} holds values that are no numbers")
        return pixels, palette
    colours = pixels[..., : 1 if mode == "LA" else 3]
    value = np.zeros(pixels.shape[:2], np.uint32)
    for channel in range(colours.shape[2]):
        value <<= 8
        value |= colours[..., channel]
    if mode in ("LA", "RGBA") and not (pixels[..., -1] == 255).all():
        alpha = pixels[..., -1]
        if not colours.any():  # drawn in black on nothing: only the alpha tells
            return alpha, None
        value[alpha == 0] = 0
    return value, None


def values_in(pixels: np.ndarray) -> list:
    """The distinct values, ascending; block by block, as a sorted copy of all would be as large again."""
    flat = pixels.ravel()
    found: set = set()
    for start in range(0, flat.size, _BLOCK):
        found.update(np.unique(flat[start : start + _BLOCK]).tolist())
    return sorted(found)


def _named(path: PurePath) -> tuple[str, str] | None:
    """(id, task) that a mask's path says; None where it says no task."""
    parents, stem = path.parts[:-1], path.stem
    if len(parents) == 1 and _task_of_folder(parents[0]).replace("_", " ").lower() in _KNOWN:
        return stem, _task_of_folder(parents[0])
    words = re.split(r"_", stem)
    for start in range(not parents, len(words)):  # the longest name that is known
        name = " ".join(words[start:])
        if name.lower() in _KNOWN:
            return "_".join(parents + tuple(words[:start])), name
    if len(parents) == 1:
        return stem, _task_of_folder(parents[0])
    return None


def _by_last_word(path: PurePath) -> tuple[str, str] | None:
    """(id, task) of ID_TASK.png, whose task is one word of letters."""
    before, _, word = path.stem.rpartition("_")
    return ("_".join((*path.parts[:-1], before)), word) if before and word.isalpha() else None


def stamp_of(identifier: str, task: str) -> tuple[str, str]:
    """The key and text that our PNG carry, as no rule about names suits every id and task."""
    return _STAMP, jsontext.dumps([identifier, task])


def _stamped(path: Path) -> tuple[str, str] | None:
    """(id, task) of a PNG of ours."""
    from PIL import Image

    if path.suffix.lower() != ".png":
        return None
    try:
        with Image.open(path, formats=("PNG",)) as image:
            identifier, task = jsontext.loads(image.info.get(_STAMP, ""))
    except (InputError, OSError, ValueError, TypeError, SyntaxError):
        return None
    return (identifier, task) if isinstance(identifier, str) and isinstance(task, str) else None


def folder_of(task: str) -> str:
    """The folder of a task's masks: its name, but for what no file's name can hold."""
    name = quote(task, safe=_PLAIN)
    return f"%{ord(name[0]):02X}{name[1:]}" if name[0] in "._" else name


def _task_of_folder(name: str) -> str:
    return unquote(name)


def _values(path: Path) -> dict[int, str]:
    """Tasks by value, of a table: CSV or JSON of either order, ITK-SNAP's label descriptions, Slicer's colour table."""
    with streams.open_input(str(path)) as stream:
        data = stream.read(_MOST_OF_TABLE + 1)
    if len(data) > _MOST_OF_TABLE:
        raise InputError(f"{path}: more than {_MOST_OF_TABLE} bytes are no table of values")
    lines = streams.lines(io.BytesIO(data), str(path))
    if path.suffix.lower() == ".json":
        try:
            found = jsontext.loads(data)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        pairs: list = list(found.items()) if isinstance(found, Mapping) else []
    elif path.suffix.lower() == ".csv":
        pairs = _of_table(CsvTable(lines, str(path)))
    else:
        texts = (line.decode("utf-8", "replace") for line in lines)
        pairs = [_of_line(line) for line in texts if line.strip() and not line.lstrip().startswith("#")]
    values = {}
    for one, other in filter(None, pairs):
        value, name = (one, other) if str(one).strip().isdigit() else (other, one)
        if str(value).strip().isdigit() and int(value) and isinstance(name, str):
            values[int(value)] = name.strip()
    if not values:
        raise InputError(f"{path}: no table of values and tasks")
    return values


def _of_table(table: CsvTable) -> list[list[str]]:
    """The first two cells of each row, and of the header, which may be a row like the others."""
    if len(table.header) < 2:
        return []
    pairs = [table.header[:2]]
    for where, cells in table.rows():
        if isinstance(cells, InputError):
            raise InputError(f"{where}: {cells}")
        pairs.append(list(cells.values())[:2])
    return pairs


def _of_line(line: str) -> tuple[str, str] | None:
    """Of ITK-SNAP `1 255 0 0 1 1 1 "Edema"`, of Slicer `1 Edema 128 174 128 255`."""
    if quoted := re.fullmatch(r'\s*(\d+)\s.*"([^"]*)"\s*', line):
        return quoted[1], quoted[2]
    words = line.split()
    if len(words) >= 2 and words[0].isdigit():
        name = [word for word in words[1:] if not word.isdigit()] if len(words) > 2 else words[1:]
        return words[0], " ".join(name).replace("_", " ")
    return None


def _add_labels(images: Images, name: str, path: Path, values: Mapping[int, str]) -> None:
    """A label image's masks. Raises InputError for a value that is not in the table."""
    try:
        with open(path, "rb") as stream:
            pixels, _ = _pixels(stream, "it")
    except OSError as error:
        raise InputError(error.strerror or str(error)) from None
    there = set(values_in(pixels)) - {0}
    if unknown := sorted(there - values.keys()):
        raise InputError(f"the value {unknown[0]} is not in the table of values")
    image = images.image(name)
    height, width = pixels.shape
    images.sized(image, (height, width))
    images.seen(image, ALONE)
    for value in sorted(there):
        images.add(image, ALONE, values[int(value)], Painted(Mask.from_array(pixels == value)))


def is_mask_file(path: str) -> bool:
    """Whether a file may be a single mask, by its name."""
    return os.path.splitext(path)[1].lower() in PICTURES and _named(PurePath(PurePath(path).name)) is not None


def record_of_file(path: str) -> dict:
    """The record of a single mask, ID_TASK.png."""
    identifier, name = _named(PurePath(PurePath(path).name)) or ("", "")
    images = Images(path)
    image, task = id_of_image(identifier), images.look_for(name)
    mask = read_mask(Path(path))
    images.image(image)
    images.sized(image, mask.size)
    images.add(image, ALONE, task, Painted(mask))
    return next(images.records())
