"""Text in the font that Pillow brings along: how wide it is, and lines of it that fit.

What a line must fit into is its caller's to know: a function says whether a text fits.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from PIL import ImageFont

LONGEST = 400  # characters of a text that are looked at where it must be cut


@lru_cache(64)
def font_of(size: float) -> ImageFont.FreeTypeFont:
    """The font, its letters so many pixels high."""
    return ImageFont.load_default(size)  # type: ignore[return-value]  # another only without a size


def width_of(text: str, size: float) -> float:
    """In pixels."""
    return font_of(size).getlength(text)


@lru_cache(4096)
def has_letter(letter: str) -> bool:
    """Whether the font has it: what it lacks looks like U+FFFF, which is no character."""
    font = font_of(40)
    return letter == " " or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))


def unaccented(text: str) -> str:
    """Letters without their accents, and in their plainest form."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def shortened(text: str, fits: Callable[[str], bool], middle: bool = False) -> str:
    """The text if it fits, else as much of it as fits with an ellipsis, at its end or in its middle; else nothing."""
    if fits(text):
        return text

    def cut(kept: int) -> str:
        after = kept // 2 if middle else 0
        return f"{text[: kept - after].rstrip()}…{text[len(text) - after :].lstrip() if after else ''}"

    low, high = 0, min(len(text) - 1, LONGEST)
    while low < high:
        kept = (low + high + 1) // 2
        low, high = (kept, high) if fits(cut(kept)) else (low, kept - 1)
    return cut(low) if low else ""


def broken(text: str, fits: Callable[[str], bool], lines: int = 2, after: str = " ") -> list[str]:
    """The text on at most so many lines, broken after any of these characters; of what does not fit on a line the
    first piece stands on it alone, and on the last all that is left.
    """
    ends = re.escape(after)
    pieces = re.findall(f"[^{ends}]*[{ends}]?", text)
    found: list[str] = []
    while any(pieces) and len(found) < lines - 1:
        count = 1
        while count < len(pieces) and fits("".join(pieces[: count + 1]).strip()):
            count += 1
        found.append("".join(pieces[:count]).strip())
        pieces = pieces[count:]
    return list(filter(None, [*found, "".join(pieces).strip()]))
