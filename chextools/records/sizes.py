"""Sizes in pixels: what a stranger's header may ask for. X-rays, masks and records all check them here."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

from chextools.errors import InputError, LimitError, quoted

MAX_PIXELS = 2**29  # 23,170 x 23,170: no X-ray detector comes near, and a stranger's header cannot ask for more
MAX_INPUT = 2**25  # pixels of a network's input, 5,792 x 5,792, to which its maps are upsampled in memory
MAX_SIDE = 2**16 - 1  # JPEG's limit; memory grows with a side times the heatmap's


def check_size(size: Sequence[int], what: str = "size", most: int = MAX_PIXELS) -> tuple[int, int]:
    """`size` as (height, width), refused unless it is two positive integers of at most `most` pixels in all."""
    try:
        height, width = size
        valid = _is_side(height) and _is_side(width)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise InputError(f"{what} must be [height, width] in pixels, not {shortened(size)}")
    if int(height) * int(width) > most:
        raise LimitError(f"{what} {quoted(height)} x {quoted(width)} is more than {most} pixels")
    if max(height, width) > MAX_SIDE:
        raise LimitError(f"{what} {quoted(height)} x {quoted(width)} has a side of more than {MAX_SIDE} pixels")
    return int(height), int(width)


def is_spacing(side: float) -> bool:
    """Whether it can be the side of a pixel in mm: of any detector or scanner, and far from float's ends."""
    return 1e-6 <= side < 1e3


def _is_side(value: object) -> bool:
    whole = type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))  # most are int: quick
    return whole and value > 0  # type: ignore[operator]


def shortened(value: object) -> str:
    """What a stranger has written, for a message: `quoted`."""
    return quoted(value)
