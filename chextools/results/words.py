"""The forms in which results are written, by name."""

from __future__ import annotations

ROWS = ("jsonl", "csv", "table")
MASKS = ("jsonl", "chexlocalize", "coco", "coco-results", "csv-rle", "png")
