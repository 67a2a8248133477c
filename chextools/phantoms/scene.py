"""What a picture is made of: lungs, heart and mediastinum as fields on the canvas, and what findings add to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from chextools.phantoms.canvas import Canvas


@dataclass(frozen=True)
class Body:
    """What does not change from study to study, and varies less among people than a finding changes it.

    width: half the inner width of the thorax; apex, dome: heights (y) of the lungs' tops and of the right dome.
    heart: the cardiothoracic ratio; lean: how far the heart points left (-1 to 1); vessels: half the mediastinum's
    width; knob: size of the aortic knob; girth: thickness of soft tissue (0 to 1). All in body units.
    """

    sex: str
    age: int
    width: float
    apex: float
    dome: float
    heart: float
    lean: float
    vessels: float
    knob: float
    girth: float
    ribs: float
    seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Body:
        sex = "Male" if rng.random() < 0.55 else "Female"
        age = int(np.clip(rng.normal(60, 17), 18, 90))
        u = rng.uniform
        return cls(
            sex,
            age,
            width=u(0.355, 0.395),
            apex=u(-0.405, -0.365),
            dome=u(0.165, 0.225),
            heart=u(0.42, 0.475),
            lean=u(-1, 1),
            vessels=u(0.058, 0.068),
            knob=u(0.8, 1.15),
            girth=rng.beta(2, 2.5),
            ribs=u(0.7, 1.15),
            seed=int(rng.integers(2**32)),
        )


@dataclass
class Changes:
    """How findings change the shape of the body before it is laid out.

    heart: factor of the heart's width. mediastinum: added to half its width. raised: by lung, how far its dome rises.
    """

    heart: float = 1
    mediastinum: float = 0
    raised: dict[int, float] = field(default_factory=dict)


@dataclass
class Lung:
    """A lung in the picture.

    side: -1 at the picture's left, 1 at its right. outer, inner [rows]: x of its edge at the chest wall (in a lateral
    picture the back) and of the other one. base [columns]: y of the diaphragm. apex: y of its top.
    inside: float32 on the grid, 1 inside. hilum: where its vessels come from.
    """

    canvas: Canvas
    side: int
    outer: np.ndarray
    inner: np.ndarray
    base: np.ndarray
    apex: float
    inside: np.ndarray
    hilum: tuple[float, float]

    def at(self, across: float, down: float) -> tuple[float, float]:
        """A point: across 0 at the chest wall, 1 at the inner edge; down 0 at the top, 1 at the diaphragm."""
        y, x = self.apex + 0.5 * (0.3 - self.apex), 0.0
        for _ in range(3):
            outer, inner = self.edges(y)
            x = outer + across * (inner - outer)
            bottom = float(np.interp(x, self.canvas.x[0], self.base))
            y = self.apex + down * (bottom - self.apex)
        return x, y

    def edges(self, y: float) -> tuple[float, float]:
        rows = self.canvas.y[:, 0]
        return float(np.interp(y, rows, self.outer)), float(np.interp(y, rows, self.inner))

    def depth(self) -> np.ndarray:
        """How far a pixel lies inside from the outer edge, along its row."""
        return (self.outer[:, None] - self.canvas.x) * np.float32(np.sign(self.outer - self.inner).mean())


@dataclass
class Scene:
    """A body laid out for a picture.

    solid: how much of the lungs' air heart and mediastinum displace, in [0, 1]. heart, mediastinum: where they are.
    dense: attenuation that findings add. vessels: factor of the lungs' vessels. air: attenuation that they take away.
    paths: named lines that devices follow.
    """

    canvas: Canvas
    body: Body
    view: str
    lungs: list[Lung]
    solid: np.ndarray
    heart: np.ndarray
    mediastinum: np.ndarray
    paths: dict[str, np.ndarray]
    dense: np.ndarray
    vessels: np.ndarray
    air: np.ndarray

    @property
    def aerated(self) -> np.ndarray:
        """Where the picture shows lung: inside a lung and not behind the heart; [0, 1]."""
        return sum(lung.inside for lung in self.lungs) * (1 - self.solid)
