"""Commands from Python: one call from inputs and settings gives what the command prints, and prints nothing."""

from __future__ import annotations

import dataclasses
import json
import typing

import pytest
from conftest import DATA

from chextools import compare, evaluate, features, regress, segment, tune
from chextools.errors import InputError
from chextools.records.tally import Tally

SMALL = DATA / "oracle-small"
GT, MASKS, MAPS = (str(SMALL / name) for name in ("expected/gt.json", "expected/seg_otsu.json", "maps"))
RESULTS = str(SMALL / "expected/tp/iou_results_per_cxr.csv")
HUMAN = str(SMALL / "expected/hb/iou_humanbenchmark_results_per_cxr.csv")

CALLS = {
    "chex-eval": (lambda: evaluate.run([MASKS], evaluate.EvaluationSettings(truth=GT)).summary, [MASKS, "--truth", GT]),
    "chex-tune": (
        lambda: tune.run([MAPS], tune.TuningSettings(purpose="threshold", truth=GT)).best,
        [MAPS, "--truth", GT, "--for", "threshold"],
    ),
    "chex-features": (
        lambda: features.run([str(SMALL / "gt_annotations.json")], features.FeatureSettings(truth=GT)),
        [SMALL / "gt_annotations.json", "--truth", GT],
    ),
    "chex-regress": (
        lambda: regress.run([RESULTS], regress.RegressionSettings(features=str(SMALL / "expected"))),
        [RESULTS, "--features", SMALL / "expected"],
    ),
    "chex-compare": (lambda: compare.run([RESULTS, HUMAN]).rows, [RESULTS, HUMAN]),
    "chex-segment": (lambda: list(segment.run([MAPS])), [MAPS]),
}


@pytest.mark.parametrize("command", CALLS)
def test_a_call_does_what_the_command_does(cli, capfd, command):
    call, arguments = CALLS[command]
    rows = call()
    assert capfd.readouterr().out == ""
    printed = [json.loads(line) for line in cli(command, *arguments).out.splitlines()]
    assert rows and json.loads(json.dumps(_finite(rows))) == printed


def _finite(value: object) -> object:
    from chextools.plumbing import jsontext

    return jsontext.finite(value)


def test_progress_and_failures_are_the_callers(tmp_path):
    """Whoever calls may watch, and stop at the first failure; nobody needs to."""
    lines = [
        json.dumps({"id": i, "masks": m}) for i, m in json.loads((SMALL / "expected/seg_otsu.json").read_text()).items()
    ]
    (tmp_path / "masks.jsonl").write_text("\n".join(["{", *lines]) + "\n")
    watched = []

    def watch(items: typing.Iterable, unit: str) -> typing.Iterable:
        for item in items:
            watched.append(unit)
            yield item

    settings = evaluate.EvaluationSettings(truth=GT)
    tally = Tally(progress=watch)
    result = evaluate.run([str(tmp_path / "masks.jsonl")], settings, tally=tally)
    assert set(watched) == {"CXRs", "replicates"} and watched.count("CXRs") == len(lines) + 1
    assert (tally.failed, tally.skipped) == (1, 1) and {row["failed"] for row in result.summary} == {1}
    with pytest.raises(InputError, match="1 of .* records failed"):
        tally.finish()
    with pytest.raises(InputError, match="stopped at the first failure"):
        evaluate.run([str(tmp_path / "masks.jsonl")], settings, tally=Tally(fail_fast=True))


@pytest.mark.parametrize(
    "settings",
    [
        evaluate.EvaluationSettings,
        tune.TuningSettings,
        features.FeatureSettings,
        regress.RegressionSettings,
        compare.ComparisonSettings,
        segment.SegmentationSettings,
    ],
)
def test_settings_are_given_by_name_and_explained(settings):
    with pytest.raises(TypeError):
        settings("x")
    for field in dataclasses.fields(settings):
        assert field.name in settings.__doc__, field.name
