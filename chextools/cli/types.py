"""What the words of options may be: checked as the command line is parsed, and into the values that commands take."""

from __future__ import annotations

import math
from typing import Any

import click


class Shard(click.ParamType):
    """I/N: part I of N, counted from 1."""

    name = "I/N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        part, _, parts = str(value).partition("/")
        if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
            self.fail(f"{value!r} is not I/N with 1 <= I <= N.", param, ctx)
        return int(part), int(parts)


class Real(click.FloatRange):
    """A finite number in a range; click takes nan for one in any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class Threshold(click.ParamType):
    """otsu, a number in [0, 1], or a file."""

    name = "otsu|NUMBER|FILE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        if value is None or str(value).lower() == "otsu":
            return value and "otsu"
        try:
            number = float(str(value))
        except ValueError:
            return str(value)
        if not 0 <= number <= 1:
            self.fail(f"{value} is not in [0, 1].", param, ctx)
        return number


class ImageSize(click.ParamType):
    """HxW, or one number of a square, in pixels."""

    name = "HxW"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        height, _, width = str(value).lower().partition("x")
        width = width or height
        if not (height.isdigit() and width.isdigit() and 0 < int(height) < 2**16 and 0 < int(width) < 2**16):
            self.fail(f"{value!r} is not HEIGHTxWIDTH in pixels, such as 1024x1024.", param, ctx)
        return int(height), int(width)


class Split(click.ParamType):
    """TRAIN,VALID[,TEST]: shares that add up to 1."""

    name = "TRAIN,VALID[,TEST]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            shares = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            shares = ()
        if len(shares) not in (2, 3) or not min(shares) >= 0 or not abs(sum(shares) - 1) <= 1e-6:
            self.fail(f"{value!r} is not two or three shares that add up to 1, such as 0.8,0.1,0.1.", param, ctx)
        return shares


class Renaming(click.ParamType):
    """OLD=NEW: a task's name in the input and in the records."""

    name = "OLD=NEW"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        old, _, new = str(value).partition("=")
        if not old or not new:
            self.fail(f"{value!r} is not OLD=NEW.", param, ctx)
        return old, new


class Grid(click.ParamType):
    """START:STOP:STEP."""

    name = "START:STOP:STEP"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple:
        try:
            start, stop, step = (float(part) for part in str(value).split(":"))
        except ValueError:
            self.fail(f"{value!r} is not START:STOP:STEP.", param, ctx)
        return start, stop, step


class Spacing(click.ParamType):
    """A pixel's side in mm, or one of the words record and px."""

    name = "MM|record|px"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value in ("record", "px"):
            return str(value)
        from chextools.records.sizes import is_spacing

        try:
            side = float(str(value))
        except ValueError:
            side = 0.0
        if not is_spacing(side):
            self.fail(f"{value!r} is neither a pixel's side in mm, nor record or px.", param, ctx)
        return side


class BatchSize(click.ParamType):
    """A number of images, or auto."""

    name = "auto|N"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value in (None, "auto"):
            return None
        if not str(value).isdigit() or not int(str(value)):
            self.fail(f"{value!r} is neither auto nor a number of images.", param, ctx)
        return int(str(value))


class Baseline(click.ParamType):
    """What stands for an image in which there is nothing to see."""

    names = ("zero", "mean", "blur", "black", "white")
    name = "|".join([*names, "GREY"])

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str | float:
        if value in self.names:
            return str(value)
        try:
            grey = float(str(value))
        except ValueError:
            grey = -1.0
        if not 0 <= grey <= 1:
            self.fail(f"{value!r} is not {', '.join(self.names)}, or a grey level from 0 to 1.", param, ctx)
        return grey


class Share(click.ParamType):
    """[TASK=]SHARE: a task, None for all, and a number in [0, 1]."""

    name = "[TASK=]SHARE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str | None, float]:
        task, _, number = str(value).rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is not [TASK=]SHARE with a share from 0 to 1.", param, ctx)
        return task or None, share


class Numbers(click.ParamType):
    """One number, or one for each channel, by comma."""

    name = "NUMBERS"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            found = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            found = ()
        if len(found) not in (1, 3) or not all(abs(each) < 1e9 for each in found):
            self.fail(f"{value!r} is not one number, or three by comma.", param, ctx)
        if param is not None and param.name == "std" and min(found) <= 0:
            self.fail(f"{value!r}: a standard deviation is above 0.", param, ctx)
        return found


class Range(click.ParamType):
    """LOW,HIGH: what black and white become."""

    name = "LOW,HIGH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        try:
            low, high = (float(part) for part in str(value).split(","))
        except ValueError:
            low = high = 0.0
        if not -1e9 < low < high < 1e9:
            self.fail(f"{value!r} is not LOW,HIGH, such as -1024,1024.", param, ctx)
        return low, high


class Duration(click.ParamType):
    """[[HH:]MM:]SS, in seconds."""

    name = "[[HH:]MM:]SS"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        parts = str(value).split(":")
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            numbers = []
        if not numbers or len(numbers) > 3 or min(numbers) < 0:
            self.fail(f"{value!r} is not [[HH:]MM:]SS.", param, ctx)
        return sum(number * 60**k for k, number in enumerate(reversed(numbers)))


class Own(click.ParamType):
    """FILE.py:NAME."""

    name = "FILE.py:NAME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from chextools.plumbing.usercode import is_user_code

        if not is_user_code(str(value)):
            self.fail(f"{value!r} is not FILE.py:NAME.", param, ctx)
        return str(value)


class OwnOr(click.Choice):
    """One of the choices, or FILE.py:NAME."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> object:
        from chextools.plumbing.usercode import is_user_code

        return value if is_user_code(str(value)) else super().convert(value, param, ctx)
