"""Loss and metrics of the validation set, as chex-predict would score it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np

from chextools.metrics import scores
from chextools.models import checkpoints
from chextools.training import labels
from chextools.training.data import Data
from chextools.training.labels import Labelling
from chextools.training.learner import Learner
from chextools.training.pixels import Ahead, Images

log = logging.getLogger(__name__)

METRICS = ("auroc", "auprc", "brier")


class Validation:
    """A validation set: its images at `size`, read by `jobs` threads, and labels.

    mixed: tasks may be those of other sets: one of which this has no label at all does not count.
    """

    def __init__(self, data: Data, labelling: Labelling, size: int, jobs: int, mixed: bool = False):
        import torch

        self.data, self.labelling, self.jobs = data, labelling, jobs
        self.images = Images(data.records, size)
        codes = labels.table(data.records, labelling.tasks)
        codes = labels.without_absent(codes) if mixed else codes
        self.target, self.weight = map(torch.from_numpy, labels.targets(codes, labelling))
        self.positive, self.usable = labels.certain(codes, labelling)

    def measure(
        self, learner: Learner, share: Callable[[np.ndarray], np.ndarray], following: Callable, batch_size: int
    ) -> dict | None:
        """valid_loss, metrics by task and their mean, of the network as it is.

        share: the part of a batch's rows that is ours. following: the next of the batches that are read, None to stop.
        """
        import torch

        n = len(self.data.records)
        rows = [np.arange(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]
        learner.model.eval()
        output = torch.zeros(n, len(learner.outputs), dtype=torch.float32)
        batches = iter(Ahead(self.images, rows, self.jobs, share))
        with torch.inference_mode():
            for batch in rows:
                read = following(batches)
                if read is None:
                    return None
                if len(read[1]):
                    output[share(batch)] = learner.model(learner.images(read[1])).float().cpu()
            learner.ranks.total(output)  # where another has an image we have 0
            target, weight = learner.there(self.target), learner.there(self.weight)
            loss = float(learner.loss(learner.there(output), target, weight)) / max(float(self.weight.sum()), 1.0)
            score = checkpoints.logits(output, self.labelling.tasks, self.labelling.policy).sigmoid().numpy()
        found: dict = {"valid_loss": loss}
        for metric in METRICS:
            found[metric] = {task: self._value(metric, score, k) for k, task in enumerate(self.labelling.tasks)}
        return found | {"mean": mean_of(found["auroc"])}

    def _value(self, metric: str, score: np.ndarray, k: int) -> float | None:
        used = self.usable[:, k]
        value = scores.value(metric, score[used, k], self.positive[used, k])
        return None if math.isnan(value) else value

    def say_undefined(self, found: dict) -> None:
        """Which tasks have no AUROC, as nobody is positive or nobody negative."""
        undefined = [task for task, value in found["auroc"].items() if value is None]
        if undefined:
            where = self.data.where
            log.warning("%s: AUROC undefined, as one class is missing: %s", where, ", ".join(undefined))


def mean_of(values: dict[str, float | None]) -> float | None:
    """The mean over tasks that have a value; None where none has."""
    defined = [value for value in values.values() if value is not None]
    return sum(defined) / len(defined) if defined else None
