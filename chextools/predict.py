"""chex-predict: the probability of each task in each X-ray, from one checkpoint or the mean of several."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from chextools.models import checkpoints, inference, selection
from chextools.records import records
from chextools.records.records import Failure, Located
from chextools.xrays.squares import Square

log = logging.getLogger(__name__)


class Predictor:
    """Checkpoints on a device, and which of their tasks count."""

    def __init__(self, paths: Sequence[str], requested: Sequence[str] = (), device: str = "auto"):
        """paths: checkpoints, or ensemble.json files, which name some per task. requested: tasks, none for all.

        Raises InputError in one line for what cannot be loaded, and for a task that no checkpoint has.
        """
        chosen = checkpoints.select(paths)
        self.device = inference.device(device)
        with inference.one_thread():
            loaded = list(selection.loaded(chosen))
        self.checkpoints = [checkpoint for _, checkpoint, _ in loaded]
        counts = [tasks for _, _, tasks in loaded]
        self.tasks = selection.tasks(requested, {task for tasks in counts for task in tasks}, ", ".join(paths))
        counted = [[task for task in tasks if task in self.tasks] for tasks in counts]
        named = [tasks for tasks, mine in zip(chosen.values(), counted) if mine]
        self.checkpoints = [checkpoint for checkpoint, tasks in zip(self.checkpoints, counted) if tasks]
        # Of each checkpoint, which column goes to which task
        self.columns = [
            [(checkpoint.tasks.index(task), self.tasks.index(task)) for task in tasks]
            for checkpoint, tasks in zip(self.checkpoints, filter(None, counted))
        ]
        self.squares = sorted({checkpoint.square for checkpoint in self.checkpoints})
        self.identity = checkpoints.identity(self.checkpoints, named)
        with inference.one_thread():
            for checkpoint in self.checkpoints:
                inference.place(checkpoint.network, self.device)
        inference.exactly()

    def predict(self, images: Mapping[Square, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """(scores, logits), float64 [N, K], of [N, size, size] by square: the mean over each task's checkpoints.

        Where memory is not enough, the batch is halved.
        """
        from chextools.models import chunks

        scores, logits = chunks.of_images(images, self._predict)
        return scores, logits

    def _predict(self, images: Mapping[Square, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        import torch

        n = len(next(iter(images.values())))
        total, count = np.zeros((2, n, len(self.tasks))), np.zeros(len(self.tasks))
        with torch.inference_mode():
            inputs: dict[tuple, torch.Tensor] = {}
            for checkpoint, columns in zip(self.checkpoints, self.columns):
                key = (checkpoint.square, checkpoint.mean, checkpoint.std)
                if key not in inputs:
                    inputs[key] = inference.normalise(images[checkpoint.square], *key[1:], self.device)
                logits = checkpoint.logits(checkpoint.network(inputs[key]).float())
                found = torch.stack([checkpoint.probabilities(logits), logits]).cpu().numpy().astype(np.float64)
                for source, target in columns:
                    total[:, :, target] += found[:, :, source]
                    count[target] += 1
        scores, logits = total / count
        return scores, logits


def apply(
    items: Iterable[Located | Failure], predictor: Predictor, batch_size: int, jobs: int = 1, logits: bool = False
) -> Iterator[Located | Failure]:
    """Records with "scores" and "model", and "logits" where asked for, in order, batch by batch.

    An image of one grey level is warned of, and so are scores that are the same for all images.
    """
    squares = tuple(predictor.squares)

    def work(batch: list) -> tuple:
        usable = [images for _, images in batch if images is not None]
        stacks = {square: np.stack([images[s] for images in usable]) for s, square in enumerate(squares) if usable}
        return batch, zip(*predictor.predict(stacks)) if usable else iter(())

    first, number, same = None, 0, True
    with inference.threads():
        found = inference.computed(
            inference.batches(items, squares, batch_size, jobs), work, inference.workers(predictor.device)
        )
        with contextlib.closing(found):
            for item, images, results in (pair + (results,) for batch, results in found for pair in batch):
                if images is None:
                    yield item
                    continue
                scores, raw = next(results)
                if images[0].min() == images[0].max():
                    shade = "black" if images[0].max() == 0 else "one grey level"
                    log.warning("%s: %s: all %s: its scores mean nothing", item.where, item.record["image"], shade)
                first = scores if first is None else first
                number, same = number + 1, same and bool(np.allclose(scores, first, rtol=0, atol=1e-6))
                yield _predicted(item, predictor, scores, raw if logits else None)
    if number > 1 and same:
        log.warning("all %d images have the same scores: are they what the network was trained on?", number)


def _predicted(item: Located, predictor: Predictor, scores: np.ndarray, logits: np.ndarray | None) -> Located | Failure:
    if not np.isfinite(scores).all():
        return Failure(item.where, "the network's output is not finite")
    record = item.record | {"scores": dict(zip(predictor.tasks, scores.tolist())), "model": predictor.identity}
    if logits is not None:
        record["logits"] = dict(zip(predictor.tasks, logits.tolist()))
    return Located(item.where, records.ordered(record))
