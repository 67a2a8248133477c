"""Text that fits: in what Pillow's own font has, cut or wrapped to a width."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import ImageFont

_LEGIBLE = "·…–—°×"
_LONGEST = 400  # characters of a text that are looked at


@lru_cache(64)
def font_of(pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(pixels)  # type: ignore[return-value]  # another only without a size


def legible(text: str) -> str:
    """The text in what Pillow's own font has: no accents, and escapes for other scripts and control characters."""
    plain = unicodedata.normalize("NFKD", text[:_LONGEST])
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" or c in _LEGIBLE else c.encode("unicode_escape").decode() for c in plain)


def fitted(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text if it is not wider than `width` pixels, else both its ends around three dots."""
    text = legible(text)
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        short = f"{text[: kept - kept // 2].rstrip()}…{text[len(text) - kept // 2 :].lstrip() if kept > 1 else ''}"
        if font.getlength(short) <= width:
            return short
    return ""


def wrapped(text: str, size: float, width: float) -> list[str]:
    """The text on one line of `width` pixels or on two, cut between words."""
    words = legible(text).split(" ")
    font = font_of(round(size))
    fits = [cut for cut in range(1, len(words) + 1) if font.getlength(" ".join(words[:cut])) <= width] or [1]
    return list(filter(None, [" ".join(words[: fits[-1]]), " ".join(words[fits[-1] :])]))
