"""What training can be told to use, by name."""

from __future__ import annotations

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "step")
CLASS_WEIGHTS = ("none", "balanced")
AMP = ("bf16", "fp16")
