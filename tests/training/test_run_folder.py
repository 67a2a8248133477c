"""The folder of a run: which checkpoints stay, whose it is, and where one can be made."""

from __future__ import annotations

import pytest

from chextools.errors import InputError
from chextools.models.checkpoints import Checkpoint
from chextools.training.folder import RunFolder, better, check_new, is_run, read_config


def ranking(folder: RunFolder, values: list[float | None]) -> list[str]:
    """What is ranked after checkpoints of these values, at steps 1, 2 and so on."""
    ranked: list[dict] = []
    for step, value in enumerate(values, 1):
        checkpoint = Checkpoint("none", ["Edema"], 32, None, step=step, metrics={"auroc": {"Edema": value}})
        ranked = folder.prune(folder.add(checkpoint, ranked, value))
    return [entry["name"] for entry in ranked]


@pytest.mark.parametrize(
    "values, steps",
    [
        ([0.5, 0.9, 0.7, 0.6], [2, 3]),
        ([0.9, 0.9, 0.9], [1, 2]),  # the earlier of equals
        ([None, None, None], [3, 2]),  # the later where nothing is known
        ([None, 0.1, None], [2, 3]),
        ([-2.0, -1.0, -3.0], [2, 1]),  # a loss, its sign turned
    ],
)
def test_the_best_are_kept(tmp_path, values, steps):
    folder = RunFolder(tmp_path / "RUN", keep=2, ensemble=1, writes=False)
    assert ranking(folder, values) == [f"step-{step:06d}.pt" for step in steps]
    assert not (tmp_path / "RUN").exists()


def test_better_is_above_all_that_came_before():
    ranked = [{"value": 0.5}, {"value": None}]
    assert better(0.6, ranked) and not better(0.5, ranked) and not better(None, ranked)
    assert better(-9.0, []) and better(0.1, [{"value": None}])


def test_a_run_has_its_folder_to_itself(tmp_path):
    run = RunFolder(tmp_path / "RUN", 1, 1)
    run.start({"lr": 0.1})
    assert is_run(tmp_path / "RUN") and read_config(str(tmp_path / "RUN/config.json")) == {"lr": 0.1}
    with pytest.raises(InputError, match="another chex-train is at work here"):
        RunFolder(tmp_path / "RUN", 1, 1).lock()
    RunFolder(tmp_path / "RUN", 1, 1, writes=False).lock()  # a process of the same run
    run.unlock()
    other = RunFolder(tmp_path / "RUN", 1, 1)
    other.lock()
    other.unlock()
    assert other.load() is None


def test_where_a_run_can_be_made(tmp_path):
    check_new(tmp_path)
    check_new(tmp_path / "not/yet/there")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: is not a folder"):
        check_new(tmp_path / "file")
    with pytest.raises(InputError, match="no permission to write in .*file"):
        check_new(tmp_path / "file/RUN")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds a run; --resume goes on with it"):
        check_new(tmp_path)


@pytest.mark.parametrize("text, reason", [("[1]", "not the options of a run"), ("{", "truncated JSON")])
def test_a_config_that_is_none_is_named(tmp_path, text, reason):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=f"config.json: {reason}"):
        read_config(str(tmp_path / "config.json"))
    with pytest.raises(InputError, match="nothing.json: No such file"):
        read_config(str(tmp_path / "nothing.json"))
