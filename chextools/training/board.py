"""Results for TensorBoard, whose package is the extra `tensorboard`."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator


def available() -> bool:
    return importlib.util.find_spec("tensorboard") is not None


@contextlib.contextmanager
def writer(folder: str | None) -> Iterator[Callable[[dict], None]]:
    """A function that takes rows: each number, also by task, is a scalar at the row's step."""
    if folder is None:
        yield lambda _: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as board:

        def draw(row: dict) -> None:
            for name, value in row.items():
                for task, number in value.items() if isinstance(value, dict) else [("", value)]:
                    if isinstance(number, (int, float)) and name != "step":
                        board.add_scalar(f"{name}/{task}" if task else name, number, row["step"])

        yield draw
