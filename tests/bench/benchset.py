"""Benchmark work in the study's formats at real sizes, made without torch.

    python tests/bench/benchset.py FOLDER [CXRS [SEED]]

FOLDER/maps/ID_TASK_map.pkl, FOLDER/gt_annotations.json, FOLDER/gt_points.json. Heatmaps have 320 x 320 pixels,
interpolated from 10 x 10, about half of them zero as after a ReLU; the pickles hold the X-ray as the study's do.
FOLDER/fine has maps as five of the study's seven methods make them: noise between pixels, under a smooth field.
`attributions` makes real ones, DeepLIFT's and integrated gradients' of an untrained network, with chex-cam.
"""

from __future__ import annotations

import io
import json
import pickle
import sys
from pathlib import Path

import numpy as np

from chextools.heatmaps.surface import bilinear

TASKS = [
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Airspace Opacity",
    "Edema",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Support Devices",
]
SIZES = [(2320, 2828), (2828, 2320), (2022, 1751), (2544, 3056), (320, 390)]
SIDE = 320


def make(folder: Path, cxrs: int, seed: int) -> None:
    (folder / "maps").mkdir(parents=True)
    (folder / "fine").mkdir()
    rng = np.random.default_rng(seed)
    annotations, points = {}, {}
    for i in range(cxrs):
        height, width = SIZES[i % len(SIZES)]
        name = f"patient{64000 + i}_study1_view1_{'frontal' if i % 5 else 'lateral'}"
        outlines, representative = {}, {}
        for task in TASKS:
            positive = rng.random() < 0.3
            centres = rng.uniform(0.2, 0.8, (int(rng.integers(1, 4)), 2))
            coarse = heatmap(rng, centres)
            record = {
                "map": Tensor(coarse[None, None]),
                "prob": float(np.clip(rng.beta(2, 4) + 0.25 * positive, 0, 1)),
                "task": task,
                "gt": int(positive),
                "cxr_img": Tensor(rng.random((3, SIDE, SIDE), np.float32)),
                "cxr_dims": (width, height),
            }
            with open(folder / "maps" / f"{name}_{task}_map.pkl", "wb") as stream:
                StudyPickler(stream, 4).dump(record)
            record["map"] = Tensor(fine(np.random.default_rng([seed, i, len(task)]), coarse)[None, None])
            with open(folder / "fine" / f"{name}_{task}_map.pkl", "wb") as stream:
                StudyPickler(stream, 4).dump(record)
            if positive:
                shifted = centres + rng.normal(0, 0.05, centres.shape)
                outlines[task] = [outline(rng, height, width, x, y) for x, y in shifted]
                x, y = centres[0]
                representative[task] = [[x * width, y * height]]
        if outlines:
            annotations[name] = {"img_size": [height, width]} | outlines
            points[name] = representative
    (folder / "gt_annotations.json").write_text(json.dumps(annotations))
    (folder / "gt_points.json").write_text(json.dumps(points))


def heatmap(rng: np.random.Generator, centres: np.ndarray) -> np.ndarray:
    """A few blobs in noise at a layer's resolution, float32 [SIDE, SIDE]."""
    y, x = np.meshgrid(np.linspace(0, 1, 10), np.linspace(0, 1, 10), indexing="ij")
    low = rng.normal(0, 0.15, (10, 10))
    for cx, cy in centres:
        low += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.03)
    low = np.maximum(low - 0.1, 0) * (1e-3 if rng.random() < 0.1 else 1) * (rng.random() >= 0.02)
    return bilinear(low.astype(np.float32), (SIDE, SIDE))


def fine(rng: np.random.Generator, field: np.ndarray) -> np.ndarray:
    """Noise between pixels under a smooth field, half of the maps without signs: float32 [SIDE, SIDE]."""
    noise = rng.normal(size=field.shape) * (field + 0.1 * field.max())
    return (np.abs(noise) if rng.random() < 0.5 else noise).astype(np.float32)


def attributions(folder: Path, images: Path, tasks: int = 2) -> None:
    """FOLDER/METHOD/ID_TASK_map.pkl of X-rays by DeepLIFT and integrated gradients of a random DenseNet121."""
    import subprocess

    import torch

    from chextools.models import architectures, checkpoints

    torch.manual_seed(0)
    network = architectures.build("densenet121", len(TASKS), SIDE).eval()
    checkpoint = folder / "random.pt"
    checkpoints.save(checkpoint, checkpoints.Checkpoint("densenet121", TASKS, SIDE, network))
    chosen = [word for task in TASKS[:tasks] for word in ("--task", task)]
    for method in ("deeplift", "ig"):
        words = [images, "--checkpoint", checkpoint, "--method", method, *chosen, "--format", "pickles", "-q"]
        command = [sys.executable, Path(__file__).parents[2] / "bin/chex-cam", *words, "-o", folder / method]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def outline(rng: np.random.Generator, height: int, width: int, cx: float, cy: float) -> list:
    count = int(rng.integers(24, 160))
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    radius = np.clip(rng.normal(1, 0.12, count), 0.5, 1.5) * rng.uniform(0.05, 0.22) * min(height, width)
    x = np.clip(cx * width + radius * np.cos(angle) * rng.uniform(0.6, 1.6), 0, width - 1)
    y = np.clip(cy * height + radius * np.sin(angle), 0, height - 1)
    return np.stack([x, y], axis=1).round(5).tolist()


# Pickles as torch writes them, without torch.


class Tensor:
    def __init__(self, values: np.ndarray):
        self.values = np.ascontiguousarray(values, np.float32)


class _Global:
    """A name to be pickled as if it could be imported."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def __call__(self, *_):
        raise TypeError


class _Storage:
    def __init__(self, count: int):
        self.count = count


class StudyPickler(pickle._Pickler):
    """Writes tensors as torch does: _rebuild_tensor_v2 over _load_from_bytes of a legacy torch file."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, _Global):
            super().save(value.module)
            super().save(value.name)
            self.write(pickle.STACK_GLOBAL)
        elif isinstance(value, Tensor):
            strides = np.array(value.values.strides) // 4
            self._reduce(
                _Global("torch._utils", "_rebuild_tensor_v2"),
                (_Bytes(value.values), 0, value.values.shape, tuple(strides.tolist()), False, {}),
            )
        elif isinstance(value, _Bytes):
            self._reduce(_Global("torch.storage", "_load_from_bytes"), (_legacy_file(value.values),))
        else:
            super().save(value, save_persistent_id)

    def _reduce(self, function: _Global, arguments: tuple) -> None:
        self.save(function)
        self.save(arguments)
        self.write(pickle.REDUCE)


class _Bytes:
    def __init__(self, values: np.ndarray):
        self.values = values


class _StoragePickler(pickle._Pickler):
    def persistent_id(self, value):
        if isinstance(value, _Storage):
            return ("storage", _Global("torch", "FloatStorage"), "0", "cpu", value.count, None)
        return None

    def save(self, value, save_persistent_id=True):
        if isinstance(value, _Global):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        else:
            super().save(value, save_persistent_id)


def _legacy_file(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    for value in (0x1950A86A20F9469CFC6C, 1001, system):
        pickle.dump(value, out, 2)
    _StoragePickler(out, 2).dump(_Storage(values.size))
    pickle.dump(["0"], out, 2)
    out.write(np.int64(values.size).tobytes() + values.tobytes())
    return out.getvalue()


if __name__ == "__main__":
    make(Path(sys.argv[1]), *(int(word) for word in [*sys.argv[2:], *["24", "7"][len(sys.argv) - 2 :]]))
