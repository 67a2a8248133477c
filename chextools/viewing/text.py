"""Text that fits its pixels, in what Pillow's own font has."""

from __future__ import annotations

from chextools.plumbing.lettering import LONGEST, broken, shortened, unaccented, width_of

_LEGIBLE = "·…–—°×"


def legible(text: str) -> str:
    """The text in what Pillow's own font has: no accents, and escapes for other scripts and control characters."""
    plain = unaccented(text[:LONGEST])
    return "".join(c if " " <= c <= "~" or c in _LEGIBLE else c.encode("unicode_escape").decode() for c in plain)


def fitted(text: str, size: float, width: float) -> str:
    """The text if it is not wider than `width` pixels, else both its ends around three dots."""
    return shortened(legible(text), lambda part: width_of(part, size) <= width, middle=True)


def wrapped(text: str, size: float, width: float) -> list[str]:
    """The text on one line of `width` pixels or on two, cut between words; the second may be wider."""
    return broken(legible(text), lambda part: width_of(part, round(size)) <= width)
