"""Which evidence of a signed heatmap counts."""

from __future__ import annotations

SIGNS = ("positive", "abs", "raw")  # negatives are 0; either sign; from the least value to the greatest
