"""A run before its first step: how long it will be, what it can know to be wrong; and the words it is told in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from chextools.errors import InputError
from chextools.training import labels, optimiser, run, words
from chextools.training.data import Data
from chextools.training.folder import RunFolder
from chextools.training.settings import TrainSettings

LABELLING = labels.Labelling(("Edema",), {"Edema": "ones"}, {"Edema": "negative"})


@pytest.fixture
def data(tmp_path, monkeypatch) -> Data:
    """Ten images. What learns of them is left out: to make it takes seconds, and here nothing is learned."""
    monkeypatch.setattr(run, "Learner", lambda *_: None)
    records = []
    for k in range(10):
        Image.new("L", (40, 40), 20 * k).save(tmp_path / f"{k}.png")
        records.append(
            {"id": str(k), "image": str(tmp_path / f"{k}.png"), "size": [40, 40], "labels": {"Edema": k % 2}}
        )
    return Data(records, "data")


def run_of(data: Data, folder, labelling=LABELLING, **settings) -> run.Run:
    chosen = TrainSettings(**{"arch": "shufflenet_v2_x0_5", "size": 32, "batch_size": 4} | settings)
    return run.Run(chosen, labelling, data, data, RunFolder(folder, 1, 1), "cpu")


@pytest.mark.parametrize(
    "settings,steps",
    [
        ({"epochs": 3}, math.ceil(3 * 10 / 4)),
        ({"epochs": 3, "accumulate": 2}, math.ceil(3 * 10 / 8)),
        ({"epochs": 0.1}, 1),
        ({"steps": 7, "epochs": 100}, 7),
        ({"steps": 7, "limit_batches": 2}, 2),
    ],
)
def test_steps_are_of_the_epochs_unless_they_are_said(data, tmp_path, settings, steps):
    made = run_of(data, tmp_path / "RUN", **settings)
    assert (made.steps, made.step, made.finished) == (steps, 0, False)
    assert len(made.valid.records) == (8 if "limit_batches" in settings else 10)


@pytest.mark.parametrize(
    "settings,said", [({"batch_size": 0}, "--batch-size 0 leaves nothing"), ({"amp": "fp16"}, "needs a CUDA GPU")]
)
def test_what_can_be_known_before_the_first_step_is_one_line(data, tmp_path, settings, said):
    with pytest.raises(InputError, match=said):
        run_of(data, tmp_path / "RUN", **settings)
    assert not (tmp_path / "RUN").exists()


def test_a_digest_is_of_ids_and_labels(data, tmp_path):
    one, again = (run_of(data, tmp_path / "RUN", steps=1).digest for _ in range(2))
    other = Data([record | {"labels": {"Edema": 1}} for record in data.records], "data")
    assert one == again != run_of(other, tmp_path / "RUN", steps=1).digest


@pytest.mark.parametrize("name", words.OPTIMISERS)
def test_each_optimiser_goes_down_a_slope(name):
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    made = optimiser.make(name, [{"params": [parameter]}], 0.1, None)
    for _ in range(3):
        made.zero_grad()
        parameter.square().sum().backward()
        made.step()
    assert abs(parameter.item()) < 0.8 and type(made).__name__.lower() == name


@pytest.mark.parametrize("schedule,last", list(zip(words.SCHEDULES, (1, 0, 0.01))))
def test_each_schedule_begins_at_one_and_ends_where_it_says(schedule, last):
    rates = [optimiser.rate(schedule, step, 1000, 0) for step in range(1000)]
    assert rates[0] == 1 and rates[-1] == pytest.approx(last, abs=1e-4) and (np.diff(rates) <= 0).all()
