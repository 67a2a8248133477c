"""What names of files say."""

from __future__ import annotations

PICTURES = (".png", ".tif", ".tiff")  # that may hold masks
