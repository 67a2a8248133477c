"""What was drawn on one image, by one reader or several, before it becomes masks: that needs the image's size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chextools.errors import InputError
from chextools.masks.consensus import agreed
from chextools.masks.mask import Mask, union
from chextools.masks.shapes import Box, Painted, Runs, Shape, Size, draw

ALONE = ""  # the reader of a file that names none


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What was drawn on one image.

    readers: shapes by reader and task. A reader who read the image and drew nothing has no task.
    size: (height, width) of the image in which the coordinates are; None where the file does not say.
    tasks: for which every reader looked, so that what is not drawn is an empty mask; any other is not known.
    is_assumed: whether the size is only that of the data set's images as they are published.
    is_scaled: whether it is drawn into images of other sizes, by scaling.
    target: the image's own size, where it was looked up.
    rule: how readers' masks become one (`consensus.RULES`).
    """

    readers: Mapping[str, Mapping[str, Sequence[Shape]]]
    size: Size | None = None
    tasks: tuple[str, ...] = ()
    is_assumed: bool = False
    is_scaled: bool = False
    target: Size | None = None
    rule: str = "majority"

    @property
    def names(self) -> list[str]:
        """The tasks of which something is known, in order of appearance."""
        drawn = (task for by_task in self.readers.values() for task in by_task)
        return list(dict.fromkeys([*drawn, *self.tasks]))

    def is_of_boxes(self, task: str) -> bool:
        """Whether all that was drawn of a task are boxes."""
        shapes = [shape for by_task in self.readers.values() for shape in by_task.get(task, ())]
        return bool(shapes) and all(isinstance(shape, Box) for shape in shapes)

    def count(self, task: str) -> int | None:
        """How many boxes and outlines a reader drew; None of several readers, and of painted pixels."""
        shapes = [shape for by_task in self.readers.values() for shape in by_task.get(task, ())]
        if shapes and (len(self.readers) > 1 or any(isinstance(shape, (Painted, Runs)) for shape in shapes)):
            return None
        return len(shapes)

    @property
    def least_size(self) -> Size | None:
        """The size of the smallest image that holds all boxes and outlines; None where runs of pixels cannot tell."""
        shapes = [shape for by_task in self.readers.values() for drawn in by_task.values() for shape in drawn]
        bounds = [shape.bounds for shape in shapes]
        if any(each is None for each in bounds):
            return None
        far = [(math.ceil(each[3]), math.ceil(each[2])) for each in bounds if each is not None]
        return max([1, *(y for y, _ in far)]), max([1, *(x for _, x in far)])

    def measured(self, given: Size | None, target: Size | None) -> Drawing:
        """The same drawing with sizes that the file does not say.

        given: by the user, of the image in which the coordinates are; from then on it is scaled. A file that says so
        itself is believed. target: of the image.
        """
        size = self.size if self.size is not None and not (self.is_assumed and given) else given or target
        return replace(self, size=size, target=target, is_scaled=given is not None)

    def mask(self, task: str, size: Size | None = None) -> Mask | None:
        """All readers' mask of a task, in an image of this size; None for its own. No mask of a task not looked for.

        Raises InputError where no size is known, or it is another, and for shapes that cannot be drawn.
        """
        if task not in self.names:
            return None
        found = self.by_reader(task, size)
        return agreed(list(found.values()), self.rule)

    def by_reader(self, task: str, size: Size | None = None) -> dict[str, Mask]:
        """Each reader's mask of a task; see `mask`."""
        into = self._into(size, task)
        if not any(by_task.get(task) for by_task in self.readers.values()):
            return dict.fromkeys(self.readers, Mask.empty(into))
        return {
            reader: union([Mask.empty(into), *draw(by_task.get(task, ()), into, self.size)])
            for reader, by_task in self.readers.items()
        }

    def _into(self, size: Size | None, task: str) -> Size:
        into = size or self.target or self.size
        if into is None:
            raise InputError("the file does not say the image's size: give --truth-size HxW, or the X-rays (--images)")
        if self.size and into != self.size and not self.is_scaled:
            what = "boxes" if self.is_of_boxes(task) else "masks or outlines"
            raise InputError(
                f"the {what} are in an image of {self.size[0]} x {self.size[1]}, this one has {into[0]} x {into[1]}: "
                f"--truth-size {self.size[0]}x{self.size[1]} scales them"
            )
        return into


def kind_of(drawing: Drawing, tasks: Sequence[str]) -> str | dict[str, str] | None:
    """A record's "kind": "box" where all that was drawn are boxes, by task where only some are, None where none is."""
    drawn = [task for task in tasks if any(by_task.get(task) for by_task in drawing.readers.values())]
    boxes = [task for task in drawn if drawing.is_of_boxes(task)]
    if not boxes:
        return None
    return "box" if len(boxes) == len(drawn) else dict.fromkeys(boxes, "box")
