"""What a file says about its image before any pixel is decoded, and how much of it may be decoded."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_BYTES = 3 * 2**28  # in memory at once, for one image: gray of 20,000 x 20,000, RGB of 12,000 x 12,000


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its image before any pixel is decoded.

    size: (height, width) in pixels as it is shown, after its orientation.
    kind: Pillow's name of the format, or "DICOM".
    frames: how many images the file holds; the first counts.
    about: record keys that the file itself knows, such as a DICOM's "patient".
    """

    size: tuple[int, int]
    kind: str
    frames: int = 1
    about: dict = field(default_factory=dict)
