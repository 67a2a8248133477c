"""How much of a heatmap's evidence lies where: the energy pointing game, in closed form on nodes and runs.

A pixel is a weighted sum of the heatmap's nodes, so a sum over pixels is one of nodes, and over a run of a column it is
the difference of two prefix sums: no pixel is made.
"""

from __future__ import annotations

import numpy as np

from chextools.errors import InputError
from chextools.heatmaps.sampling import Axis, axis_of
from chextools.heatmaps.surface import Surface
from chextools.masks.mask import Mask
from chextools.masks.runs import column_runs


def energy_inside(surface: Surface, truth: Mask) -> float:
    """Sum of the upsampled map inside the truth over its sum, in [0, 1].

    The energy-based pointing game (Wang et al. 2020, Score-CAM, eq. 9), also called relevance mass accuracy (Arras et
    al. 2022, eq. 7). Of a random map the truth's share of the image is to be expected. NaN where the map has negative
    values, which have no share, and where it is 0 everywhere.
    """
    values = surface.values.astype(np.float64)
    if values.min() < 0 or not values.any():
        return float("nan")
    rows, columns = (axis_of(n, size) for n, size in zip(values.shape, surface.size))
    whole = _weights(rows) @ values @ _weights(columns)
    return float(min(_inside(values, rows, columns, truth) / whole, 1.0))


def energy_in_border(surface: Surface, _truth: Mask, border: float) -> tuple[float, float]:
    """Share of the upsampled map's sum in the image's border, and of the image: what to expect of a random map.

    border: its width, as a share of each side. What a shortcut looks at lies there: markers, collimators, the edges of
    a resized picture (Zech et al. 2018; DeGrave et al. 2021). The truth says only which maps count. NaN as in
    `energy_inside`.
    """
    values = surface.values.astype(np.float64)
    if values.min() < 0 or not values.any():
        return float("nan"), float("nan")
    axes = [axis_of(n, size) for n, size in zip(values.shape, surface.size)]
    cut = [round(border * size) for size in surface.size]
    rows, columns = (_weights(axis) for axis in axes)
    inner_rows, inner_columns = (_weights(axis, slice(n, axis.size - n)) for axis, n in zip(axes, cut))
    share = 1 - (inner_rows @ values @ inner_columns) / (rows @ values @ columns)
    inner = np.prod([size - 2 * n for size, n in zip(surface.size, cut)]) / np.prod(surface.size)
    return max(float(share), 0.0), float(1 - inner)


def energy_outside(surface: Surface, _truth: Mask, lungs: Mask | None) -> tuple[float, float]:
    """Share of the upsampled map's sum outside the lungs, and of the image: what to expect of a random map.

    The truth says only which maps count. NaN as in `energy_inside`, and where the lungs are not known. Raises
    InputError where they are of another image's size.
    """
    if lungs is None or not lungs.area:
        return float("nan"), float("nan")
    if lungs.size != surface.size:
        raise InputError(f"the lungs are of an image of {list(lungs.size)}, the heatmap of {list(surface.size)}")
    chance = 1 - lungs.area / (lungs.size[0] * lungs.size[1])
    inside = energy_inside(surface, lungs)
    return (float("nan"), float("nan")) if np.isnan(inside) else (1 - inside, chance)


def _weights(axis: Axis, pixels: slice = slice(None)) -> np.ndarray:
    """How much each node counts in a sum over all pixels, or some: float64 [nodes]."""
    lower = np.bincount(axis.lower[pixels], axis.lower_weight[pixels], axis.nodes)
    return lower + np.bincount(axis.upper[pixels], axis.upper_weight[pixels], axis.nodes)


def _inside(values: np.ndarray, rows: Axis, columns: Axis, truth: Mask) -> float:
    """The sum over the truth's pixels."""
    starts, ends = column_runs(truth)
    used, place = np.unique(starts // truth.size[0], return_inverse=True)
    # The map at the truth's columns and the nodes' rows, [columns, nodes]; then sums of it down to each node's rows.
    turned = np.ascontiguousarray(values.T)
    across = turned[columns.lower[used]] * columns.lower_weight[used, None]
    across += turned[columns.upper[used]] * columns.upper_weight[used, None]
    below = np.append(0.0, np.cumsum(rows.lower_weight, dtype=np.float64))  # [pixels + 1], of the node above and below
    above = np.append(0.0, np.cumsum(rows.upper_weight, dtype=np.float64))
    first = np.searchsorted(rows.lower, np.arange(rows.nodes + 1))  # the first row of pixels under each node
    following = np.minimum(np.arange(rows.nodes) + 1, rows.nodes - 1)
    sums = np.zeros((len(used), rows.nodes + 1))
    np.multiply(across, np.diff(below[first]), out=sums[:, 1:])
    sums[:, 1:-1] += across[:, 1:] * np.diff(above[first])[:-1]
    sums[:, -1] += across[:, -1] * (above[first[-1]] - above[first[-2]])
    np.cumsum(sums, axis=1, out=sums)

    def down_to(y: np.ndarray) -> np.ndarray:
        """Sums over the pixels of each run's column above row y."""
        node = np.minimum(np.searchsorted(first, y, side="right") - 1, rows.nodes - 1)
        part = across[place, node] * (below[y] - below[first[node]])
        part += across[place, following[node]] * (above[y] - above[first[node]])
        return sums[place, node] + part

    top = starts % truth.size[0]
    return float((down_to(top + ends - starts) - down_to(top)).sum())
