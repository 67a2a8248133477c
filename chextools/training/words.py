"""What training can be told to use, by name."""

from __future__ import annotations

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "step")
CLASS_WEIGHTS = ("none", "balanced")
MIX_LOSS = ("label", "set")
DILATE = ("2", "4")
AMP = ("bf16", "fp16")
