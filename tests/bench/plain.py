"""The rival: what one would write with numpy and Pillow in an afternoon, every pixel made, one process.

python tests/bench/plain.py otsu|tuned MAPS
python tests/bench/plain.py annotations FILE
python tests/bench/plain.py iou|pixel PRED GT
python tests/bench/plain.py hit|energy MAPS GT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as cocomask
from scipy import ndimage

from chextools.heatmaps.study_pickles import read_study_pickle


def upsample(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, separable, float32."""
    for axis, length in ((1, size[1]), (0, size[0])):
        n = values.shape[axis]
        source = np.clip((np.arange(length) + 0.5) * n / length - 0.5, 0, None)
        low = source.astype(int)
        weight = (source - low).astype(np.float32)
        weight = weight[:, None] if axis == 0 else weight
        high = np.minimum(low + 1, n - 1)
        values = np.take(values, low, axis) * (1 - weight) + np.take(values, high, axis) * weight
    return values


def otsu(levels: np.ndarray) -> int:
    histogram = np.bincount(levels.ravel(), minlength=256) / levels.size
    weight = np.cumsum(histogram)
    mean = np.cumsum(histogram * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (mean[-1] * weight - mean) ** 2 / (weight * (1 - weight))
    return int(np.nanargmax(np.where(np.isfinite(variance), variance, -1)))


def maps(folder: str):
    for path in sorted(Path(folder).iterdir()):
        heatmap = read_study_pickle(path)
        ((task, values),) = heatmap.maps.items()
        yield heatmap.id, task, upsample(values, heatmap.size)


def encode(mask: np.ndarray) -> dict:
    rle = cocomask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def segment(folder: str, threshold: float | None) -> dict:
    result: dict = {}
    for name, task, values in maps(folder):
        values -= values.min()
        values /= values.max() or 1
        if threshold is None:
            levels = (255 * values).astype(np.uint8)
            mask = ndimage.binary_fill_holes(levels > otsu(levels))
        else:
            mask = values > threshold
        result.setdefault(name, {})[task] = encode(mask)
    return result


def annotations(path: str) -> dict:
    result: dict = {}
    for name, record in json.loads(Path(path).read_text()).items():
        height, width = record.pop("img_size")
        for task, polygons in record.items():
            canvas = Image.new("1", (width, height))
            for polygon in polygons:
                ImageDraw.Draw(canvas).polygon([(int(x), int(y)) for x, y in polygon], outline=1, fill=1)
            result.setdefault(name, {})[task] = encode(np.array(canvas))
    return result


def pairs(pred: str, gt: str):
    pred, gt = (json.loads(Path(path).read_text()) for path in (pred, gt))
    for name, masks in gt.items():
        for task, rle in masks.items():
            yield name, task, cocomask.decode(pred[name][task]).astype(bool), cocomask.decode(rle).astype(bool)


def iou(pred: str, gt: str) -> dict:
    values: dict = {}
    for _, task, a, b in pairs(pred, gt):
        defined = a.any() and b.any()
        values.setdefault(task, []).append((a & b).sum() / (a | b).sum() if defined else np.nan)
    return bootstrap(values)


def hit(folder: str, gt: str) -> dict:
    truth = json.loads(Path(gt).read_text())
    values: dict = {}
    for name, task, heatmap in maps(folder):
        if name in truth:
            mask = cocomask.decode(truth[name][task])
            where = np.unravel_index(heatmap.argmax(), heatmap.shape)
            values.setdefault(task, []).append(float(mask[where]) if mask.any() else np.nan)
    return bootstrap(values)


def energy(folder: str, gt: str) -> dict:
    truth = json.loads(Path(gt).read_text())
    values: dict = {}
    for name, task, heatmap in maps(folder):
        if name in truth:
            mask = cocomask.decode(truth[name][task]).astype(bool)
            heatmap = np.maximum(heatmap, 0)
            values.setdefault(task, []).append(heatmap[mask].sum() / heatmap.sum() if mask.any() else np.nan)
    return bootstrap(values)


def pixel(pred: str, gt: str) -> dict:
    counts: dict = {}
    for _, task, a, b in pairs(pred, gt):
        new = np.array([(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()])
        counts[task] = counts.get(task, 0) + new
    return {task: c.tolist() for task, c in counts.items()}


def bootstrap(values: dict) -> dict:
    rng = np.random.RandomState(0)
    table = np.array(list(values.values())).T
    replicates = [np.nanmean(table[rng.choice(len(table), len(table))], axis=0) for _ in range(1000)]
    return dict(zip(values, np.nanpercentile(replicates, [2.5, 97.5], axis=0).T.tolist()))


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    work, *paths = sys.argv[1:]
    functions = {"annotations": annotations, "iou": iou, "hit": hit, "energy": energy, "pixel": pixel}
    if work in functions:
        print(json.dumps(functions[work](*paths)))
    else:
        print(json.dumps(segment(paths[0], None if work == "otsu" else 0.4)))
