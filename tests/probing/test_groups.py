"""Groups of records through the probes, and the rows made of them: without a network, whose scores are known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from chextools.errors import InputError
from chextools.heatmaps.heatmaps import Heatmaps
from chextools.heatmaps.npz import write_npz
from chextools.metrics import bootstrap
from chextools.probing import prober
from chextools.probing.prober import Finished, Prober
from chextools.probing.probes import ProbeSettings
from chextools.probing.summary import Summary
from chextools.records.records import Failure, Located
from chextools.xrays.squares import Square

TASKS, SIZE = ["Edema", "Cardiomegaly"], 16
NAN = math.nan


# Rows


def summary_of(*records: dict, **settings) -> Summary:
    found = Summary(ProbeSettings(**{"metrics": ("deletion",)} | settings), TASKS)
    for number, record in enumerate(records):
        found.add({"id": f"patient{number}_a"} | record)
    return found


def deletion(value: float | None, floor: float = 0.5) -> dict:
    return {"deletion": {"Edema": value}, "deletion_random": {"Edema": floor}, "deletion_centre": {"Edema": 0.25}}


def test_a_row_is_the_mean_of_its_replicates_with_floors_beside():
    values = [0.1, 0.4, 0.9]
    row = next(r for r in summary_of(*map(deletion, values)).rows(50) if r["task"] == "Edema")
    drawn = np.array(values)[np.random.RandomState(0).randint(0, 3, (50, 3))].mean(axis=1)
    assert row["mean"] == pytest.approx(drawn.mean()) and row["observed"] == pytest.approx(np.mean(values))
    assert (row["lower"], row["upper"]) == pytest.approx(bootstrap.interval(drawn)[:2])
    assert (row["n"], row["replicates"], row["failed"]) == (3, 50, 0)
    assert {0.5, 0.25} <= {value for value in row.values() if isinstance(value, float)}


def test_rows_are_by_name_then_the_average_and_say_why_there_is_nothing():
    found = summary_of(deletion(0.2) | {"undefined": {"deletion": {"Cardiomegaly": "the heatmap is flat"}}})
    cardiomegaly, edema, average = found.rows(10)
    assert [row["task"] for row in (cardiomegaly, edema, average)] == ["Cardiomegaly", "Edema", "Average"]
    assert cardiomegaly["reason"] == "the heatmap is flat" and math.isnan(cardiomegaly["mean"])
    assert average["mean"] == edema["mean"] == pytest.approx(0.2) and average["n"] == 1
    assert summary_of(deletion(0.2)).rows(10)[0]["reason"] == "no heatmap of this task"


def test_floors_are_over_the_images_that_have_a_value():
    row = summary_of(deletion(None, floor=0.9), deletion(0.2, floor=0.5)).rows(10)[1]
    assert row["n"] == 1 and 0.5 in row.values() and 0.9 not in row.values() and 0.7 not in row.values()


def test_failures_of_a_task_and_records_that_were_skipped_are_counted():
    rows = summary_of(deletion(0.2), {"failed": {"Edema": "torn"}}).rows(10, skipped=3)
    assert {row["task"]: row["failed"] for row in rows} == {"Cardiomegaly": 3, "Edema": 4, "Average": 4}


def test_a_patients_images_are_drawn_together():
    records = [deletion(value) | {"patient": "p"} for value in (0.0, 1.0)]
    by_image, by_patient = (summary_of(*records).rows(50, resample)[1] for resample in ("cxr", "patient"))
    assert by_image["lower"] < by_image["upper"] and np.isnan([by_patient["lower"], by_patient["upper"]]).all()  # one


def test_nothing_that_could_be_probed_is_one_line():
    with pytest.raises(InputError, match="none of 7 records could be probed"):
        summary_of().rows(10, skipped=7)


# Groups


class Scores:
    """Networks whose scores are the same whatever an image shows."""

    batch_size, method = 4, None

    def __init__(self) -> None:
        square = Square(SIZE)
        self.ensemble = SimpleNamespace(
            tasks=TASKS, identity="1f", square=square, squares=[square], size=SIZE, device=torch.device("cpu")
        )

    def scores(self, plans, score):
        return [np.tile([0.25, 0.75], (plan.count, 1)) for _, plan in plans]


def prober_of(**settings) -> Prober:
    return Prober(Scores(), ProbeSettings(**{"metrics": ("deletion",), "steps": 4} | settings))


@pytest.fixture
def work(tmp_path):
    """(record, pixels) of a heatmap and its image."""

    def call(name: str, size=(20, 30), model: str = "1f", **maps) -> tuple[Located, list]:
        Image.new("L", (30, 20), 80).save(tmp_path / "x.png")
        found = {task: np.asarray(array, np.float32) for task, array in maps.items()}
        write_npz(tmp_path / f"{name}.npz", Heatmaps(name, size, found, input_size=(SIZE, SIZE), model=model))
        record = {"id": name, "image": str(tmp_path / "x.png"), "heatmap": str(tmp_path / f"{name}.npz")}
        return Located(f"x:{name}", record), [np.full((SIZE, SIZE), 80, np.uint8)]

    return call


def test_a_score_that_never_changes_is_its_own_area_and_a_flat_map_has_none(work):
    (found,) = prober_of().probed([work("a", Edema=np.eye(4), Cardiomegaly=np.ones((4, 4)))])
    record = found.record
    assert record["deletion"]["Edema"] == pytest.approx(0.25)
    assert record["undefined"] == {"deletion": {"Cardiomegaly": prober.UNDEFINED_FLAT}}
    assert (record["probed_model"], record["size"], record["model"]) == ("1f", [20, 30], "1f")
    assert "curves" not in record and prober_of().made(record)


def test_a_finished_record_is_of_these_probes_and_this_network(work):
    (found,) = prober_of().probed([work("a", Edema=np.eye(4))])
    for changed in ({"steps": 5}, {"metrics": ("insertion",)}, {"curve": True}):
        assert not prober_of(**changed).made(found.record), changed
    assert not prober_of().made(found.record | {"probed_model": "2e"}) and not prober_of().made({"id": "a"})


def test_what_a_former_probe_said_is_replaced_and_the_rest_stays(work):
    item, pixels = work("a", Edema=np.eye(4))
    item.record.update({"insertion": {"Edema": 1}, "undefined": {"x": {}}, "own": 7})
    (found,) = prober_of().probed([(item, pixels)])
    assert found.record["own"] == 7 and not {"insertion", "undefined"} & set(found.record)


def test_items_keep_their_places_and_only_those_that_can_are_probed(work, caplog):
    other = work("other", model="2e", Edema=np.eye(4))
    group = [
        (Failure("x:0", "torn"), None),
        (Finished("x:1", {"id": "done"}), None),
        work("wide", size=(40, 30), Edema=np.eye(4)),
        work("mute", Fracture=np.eye(4)),
        other,
    ]
    torn, done, wide, mute, fine = prober_of().probed(group)
    assert torn.reason == "torn" and done == Located("x:1", {"id": "done"})
    assert "the heatmap is for an image of [40, 30]" in wide.reason and "[20, 30]" in wide.reason
    assert mute.reason == "no heatmap of Edema, Cardiomegaly"
    assert fine.record["deletion"]["Edema"] == pytest.approx(0.25)
    assert caplog.messages == ["some heatmaps are of another model than --checkpoint"]


@pytest.mark.parametrize("steps,batch", [(4, 4), (20, 4), (2, 64)])
def test_a_group_fills_eight_batches_but_is_no_larger_than_need_be(steps, batch):
    made = prober_of(steps=steps)
    made.networks.batch_size = batch
    rows = (len(TASKS) + 2) * (steps - 1)  # each task's order and two floors, at each step between the ends
    size = made.group_size()
    assert size == prober.LARGEST_GROUP or size * rows >= 8 * batch > (size - 1) * rows
