"""Options as given and as a config.json has them; what ranks checkpoints; which records can be trained on."""

from __future__ import annotations

import json

import pytest
from conftest import DATA

from chextools.errors import InputError
from chextools.records.records import Failure, Located
from chextools.training.config import recorded, replayed
from chextools.training.data import Data, read_data, settle_labels
from chextools.training.settings import TrainSettings, parse_select
from chextools.training.validation import mean_of

PLACE = {"output": None, "resume": False, "config": None, "max_time": None}
OPTIONS = PLACE | {"lr": 1e-4, "tasks": (), "jobs": None}


def as_it_is(name: str, value: object) -> object:
    return value


def config(folder, **options) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(options))
    return str(folder / "config.json")


def test_a_config_comes_before_defaults_and_the_command_line_before_it(tmp_path):
    values = OPTIONS | {"config": config(tmp_path, lr=0.1, tasks=["Edema"], code={"arch": "x"}), "jobs": 2}
    assert replayed(values, {"config"}, as_it_is) | PLACE == OPTIONS | {"lr": 0.1, "tasks": ["Edema"], "jobs": 2}
    assert replayed(values | {"lr": 0.5}, {"config", "lr"}, as_it_is)["lr"] == 0.5


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"output": "x"}, "'output' belongs on the command line"),
        ({"lrr": 1}, "unknown option 'lrr' \\(did you mean 'lr'"),
        ({"lr": None}, "lr: must not be null"),
    ],
)
def test_a_config_that_cannot_be_replayed_is_named(tmp_path, options, reason):
    with pytest.raises(InputError, match=f"config.json: {reason}"):
        replayed(OPTIONS | {"config": config(tmp_path, **options)}, (), as_it_is)


def test_a_run_goes_on_with_the_options_that_change_its_weights(tmp_path):
    config(tmp_path / "RUN", lr=0.1, jobs=1)
    values = OPTIONS | {"output": str(tmp_path / "RUN"), "resume": True}
    assert replayed(values, {"output", "resume"}, as_it_is)["lr"] == 0.1
    assert replayed(values | {"jobs": 5}, {"jobs"}, as_it_is)["jobs"] == 5
    assert replayed(values | {"lr": 0.1}, {"lr"}, as_it_is)["lr"] == 0.1
    with pytest.raises(InputError, match="its lr is 0.1, not 0.2: leave it out, or begin another run"):
        replayed(values | {"lr": 0.2}, {"lr"}, as_it_is)


def test_what_is_recorded_says_nothing_of_where_the_run_is():
    assert recorded(OPTIONS, {}) == {"lr": 1e-4, "tasks": (), "jobs": None}
    assert recorded(OPTIONS, {"loss": "own.py:loss sha256:0"})["code"] == {"loss": "own.py:loss sha256:0"}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("auroc", ("auroc", None)),
        ("loss", ("loss", None)),
        ("Edema", ("auroc", "Edema")),
        ("brier:Lung Opacity", ("brier", "Airspace Opacity")),
    ],
)
def test_what_ranks_checkpoints(text, expected):
    assert parse_select(text, ("Edema", "Airspace Opacity")) == expected


def test_what_cannot_rank_checkpoints_is_refused():
    for wrong in ("accuracy", "auroc:Mass", "Edema:auroc"):
        with pytest.raises(InputError, match=f"--rank-by '{wrong}': neither one of auroc, auprc, brier, loss nor a"):
            parse_select(wrong, ("Edema",))


def test_a_mean_is_of_what_is_defined():
    assert mean_of({"a": 0.5, "b": None, "c": 1.0}) == 0.75
    assert mean_of({"a": None}) is None and mean_of({}) is None


IMAGE = str(min((DATA / "cxr").rglob("*.*g")))


def located(number: int, **labels: int) -> Located:
    record = {"id": f"p{number}", "patient": f"p{number // 2}", "image": IMAGE, "labels": labels, "view": "frontal"}
    return Located(f"x:{number}", record)


def test_records_are_read_whole_or_refused():
    data = read_data([located(1, Edema=1), located(2)], "x")
    assert [sorted(record) for record in data.records] == [["id", "image", "labels", "patient"]] * 2
    for items, reason in (
        ([], "x: no records"),
        ([located(1)], "x: no labels"),
        ([located(1, Edema=1), Failure("x:7", "no id")], "^x:7: no id$"),
        ([Failure(f"x:{k}", "no") for k in range(12)], "^x: 12 of 12 records cannot be used: x:0: no; .*; and 2 more$"),
    ):
        with pytest.raises(InputError, match=reason):
            read_data(items, "x")


def test_a_digest_tells_labels_and_order_but_not_what_is_beside_them():
    one, other = ({"id": name, "labels": {"Edema": 1, "Mass": 0}} for name in "ab")
    digest = Data([one, other], "x").digest()
    assert digest == Data([{"id": "a", "labels": {"Mass": 0, "Edema": 1}, "image": "elsewhere"}, other], "y").digest()
    assert digest != Data([other, one], "x").digest()
    assert digest != Data([one, other | {"labels": {"Edema": 0, "Mass": 0}}], "x").digest()


def test_patients_on_both_sides_are_said(caplog):
    data = [Data([located(k, Edema=k % 2).record for k in numbers], "x") for numbers in ((0, 1, 2), (3, 4))]
    assert settle_labels(*data, TrainSettings()).tasks == ("Edema",)
    assert any(message.startswith("1 patients are in both x and x (p1, ...)") for message in caplog.messages)
    caplog.clear()
    settle_labels(data[0], Data([located(6, Edema=1).record], "y"), TrainSettings())
    assert not any("patients" in message for message in caplog.messages)
