"""Sensitivity (Yeh et al. 2019): how much a heatmap changes with noise that nobody sees.

Copies of the image get uniform noise within 2% of the image's range, independent in each pixel, the same in each
channel; the method that made the heatmap is run on each. The value is the greatest change, as the Frobenius norm of the
difference over that of the map as it is; "sensitivity_mean" is the mean change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from chextools.probing.networks import Networks
from chextools.probing.probes import ProbeSettings
from chextools.probing.subject import Curves, Subject, Values, signed

RADIUS = 0.02  # of the image's range


def to_noise(subjects: Sequence[Subject], networks: Networks, settings: ProbeSettings) -> list[tuple[Values, Curves]]:
    """Values and curves of each subject."""
    samples = settings.option("sensitivity", "samples")
    copies = {
        square: np.concatenate(
            [_copies(subject, subject.images[square], samples, settings.seed) for subject in subjects]
        )
        for square in subjects[0].images
    }
    made = networks.maps(copies)
    found: list[tuple[Values, Curves]] = []
    for subject, maps in zip(subjects, made.reshape(len(subjects), 1 + samples, *made.shape[1:])):
        values: Values = {"sensitivity": {}, "sensitivity_mean": {}}
        for task, column in zip(subject.tasks, subject.columns):
            own = signed(maps[:, column], subject.sign).astype(np.float64)
            norm = np.sqrt((own[0] ** 2).sum())
            changes = np.sqrt(((own[1:] - own[0]) ** 2).sum((1, 2))) / norm if norm > 0 else np.full(samples, np.nan)
            values["sensitivity"][task] = float(changes.max())
            values["sensitivity_mean"][task] = float(changes.mean())
        found.append((values, {}))
    return found


def _copies(subject: Subject, image: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """The image, then noisy copies of it: float32 [1 + samples, size, size]."""
    image = image.astype(np.float32)
    reach = RADIUS * float(image.max() - image.min())
    noise = subject.random(seed, f"noise {image.shape[0]}").uniform(-reach, reach, (samples, *image.shape))
    return np.concatenate([image[None], image + noise.astype(np.float32)])
