"""A picture of a body with findings, and where they are in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from chextools.phantoms import exposure, frontal, lateral, signs
from chextools.phantoms.canvas import Canvas, canvas_of
from chextools.phantoms.scene import Body, Changes, Scene

_VIEWS = {"frontal": frontal, "lateral": lateral}
_MARKER = {"frontal": (0.40, -0.42), "lateral": (-0.42, -0.38)}
_CONTRAST = (0.35, 1.0)  # of a sign on somebody's X-ray, whose response is not known, to one on a made-up one


@dataclass(frozen=True)
class Shot:
    """What a picture shows and how it was taken.

    findings: severity by task. seed: of what the study's findings look like. view_seed: of what belongs to this picture
    alone. portable: taken at the bedside.
    """

    size: tuple[int, int]
    body: Body
    view: str
    portable: bool
    findings: Mapping[str, float]
    seed: tuple[int, ...]
    view_seed: tuple[int, ...]


@dataclass
class Picture:
    """A shot laid out: `regions` by task are where its signs are, on the canvas."""

    shot: Shot
    scene: Scene
    exposure: exposure.Exposure
    regions: dict[str, list[np.ndarray]]

    @property
    def canvas(self) -> Canvas:
        return self.scene.canvas

    def outlined(self, task: str) -> list[np.ndarray]:
        """The task's regions as the picture shows them, bool [h, w] each."""
        return [self.exposure.placed(self.canvas, region) > 0.5 for region in self.regions[task]]

    def pixels(self) -> np.ndarray:
        """uint8 [h, w]."""
        rng = np.random.default_rng([*self.shot.view_seed, 1])
        total = _VIEWS[self.shot.view].attenuation(self.scene)
        exposure.mark(self.canvas, total, _MARKER[self.shot.view])
        return exposure.develop(self.canvas, total, self.exposure, rng)

    def over(self, xray: np.ndarray) -> np.ndarray:
        """An X-ray of the shot's size, uint8 [h, w], on which the signs' densities are laid, like it.

        What of the film was still dark where a sign is, (1 - brightness), is lessened as rays would be. The signs lie
        where a body of usual build has its lungs.
        """
        rng = np.random.default_rng([*self.shot.view_seed, 1])
        dense = self.exposure.placed(self.canvas, self.scene.dense) * np.float32(rng.uniform(*_CONTRAST))
        return (255.5 - (255 - xray.astype(np.float32)) * np.exp(-dense)).astype(np.uint8)


def lay_out(shot: Shot) -> Picture:
    """Everything but the rays, which `Picture.pixels` sends."""
    rng = np.random.default_rng([*shot.view_seed, 0])
    taken = exposure.Exposure.draw(rng, shot.portable)
    oblique = float(np.clip(rng.normal(0, 0.008), -0.02, 0.02))
    changes = Changes(heart=1.06 if shot.portable else 1.0)
    for task, severity in shot.findings.items():
        signs.change(task, changes, severity, _generator(shot, task))
    scene = _VIEWS[shot.view].lay_out(canvas_of(shot.size), shot.body, changes, oblique)
    regions = {
        task: signs.draw(task, scene, severity, _generator(shot, task)) for task, severity in shot.findings.items()
    }
    return Picture(shot, scene, taken, regions)


def _generator(shot: Shot, task: str) -> np.random.Generator:
    return np.random.default_rng([*shot.seed, *task.encode()])
