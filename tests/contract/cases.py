"""How the contract's tests run each command. A new command joins by being named here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from conftest import DATA

SMALL = DATA / "oracle-small"
GT = ["--truth", SMALL / "expected/gt.json"]


@dataclass(frozen=True)
class Case:
    """A command on the small oracle.

    kind: "filter", "reducer" or "source".
    arguments: positional inputs, with which stdin is never read.
    options: what every run needs.
    lines: records for stdin, one JSON object per line, of the same work; none where the command reads no records.
    uses_torch: whether the command may import torch when it runs.
    """

    kind: str
    arguments: list = field(default_factory=list)
    options: list = field(default_factory=list)
    lines: Callable[[], list[str]] = list
    uses_torch: bool = False


@cache
def heatmap_lines() -> list[str]:
    """Records of the small oracle's pickles."""
    ids = sorted({path.name.rsplit("_", 2)[0] for path in (SMALL / "maps").iterdir()})
    return [json.dumps({"id": i, "heatmap": f"{SMALL / 'maps'}#{i}", "mine": [i]}) for i in ids]


@cache
def mask_lines() -> list[str]:
    masks = json.loads((SMALL / "expected/seg_otsu.json").read_text())
    return [json.dumps({"id": i, "masks": m}) for i, m in masks.items()]


CASES = {
    "chex-segment": Case("filter", [SMALL / "maps"], lines=heatmap_lines),
    "chex-eval": Case("reducer", [SMALL / "expected/seg_otsu.json"], GT, mask_lines),
}
