"""The questions of a report: bars, verdicts by the stated rules, curves, and the card of one run."""

from __future__ import annotations

import json

import pytest
from report_data import eval_rows, write

from chextools import report
from chextools.errors import InputError
from chextools.reporting import questions, trust
from chextools.reporting.questions import BETTER, NETWORK, OPEN, PLACE, UNKNOWN, WORSE
from chextools.reporting.runs import Run


def _run(name: str, role: str = "model", **metrics: tuple) -> Run:
    """A run with rows of the average: metric=(mean, lower, upper, chance, floor), those at the end as far as known."""
    keys = ("mean", "lower", "upper", "chance", "floor")
    rows = [
        {"metric": metric.replace("_", "-"), "task": "Average"} | dict(zip(keys, v)) for metric, v in metrics.items()
    ]
    return Run(name, role, {"eval": rows, "shortcut": [], "compare": [], "curves": []})


@pytest.mark.parametrize(
    ("metric", "sign", "numbers", "bar", "verdict"),
    [
        ("energy", 1, (0.5, 0.4, 0.6, 0.3), 0.3, BETTER),
        ("energy", 1, (0.5, 0.4, 0.6, 0.3, 0.45), 0.45, OPEN),  # the centre asks for more than chance
        ("energy", 1, (0.2, 0.1, 0.25, 0.3), 0.3, WORSE),
        ("energy", 1, (0.5, 0.3, 0.6, 0.3), 0.3, OPEN),  # what touches the bar is not beyond it
        ("deletion", -1, (0.2, 0.1, 0.25, 0.3), 0.3, BETTER),
        ("deletion", -1, (0.2, 0.1, 0.25, 0.3, 0.05), 0.05, WORSE),
        ("deletion", -1, (0.2, 0.1, 0.25), None, UNKNOWN),
        ("energy", 1, (0.5, None, None, 0.3), 0.3, UNKNOWN),
        ("randomisation", -1, (0.1, 0.0, 0.2, 0.0), 0.5, BETTER),
        ("randomisation", -1, (0.9, 0.8, 0.95, 0.0), 0.5, WORSE),
        ("randomisation", -1, (-0.9, -0.95, -0.8, 0.0), 0.5, WORSE),  # turned round it is the same map still
        ("randomisation", -1, (0.1, -0.6, 0.4, 0.0), 0.5, OPEN),
        ("energy", 1, (0.2, 0.4, 0.6, 0.3), 0.3, OPEN),  # a mean that its own interval does not hold
    ],
)
def test_a_metric_against_its_bar(metric, sign, numbers, bar, verdict):
    found = questions.answer(_run("a", **{metric: numbers}), metric, "Average", sign, [])
    assert (found.bar, found.verdict) == (bar, verdict)


@pytest.mark.parametrize(("n", "verdict"), [(2, OPEN), (5, OPEN), (6, BETTER), (None, BETTER)])
def test_few_cxrs_tell_nothing(n, verdict):
    """Two of two hits have the interval [1, 1], which is above any chance."""
    run = _run("a", hit=(1.0, 1.0, 1.0, 0.3))
    run.rows["eval"][0]["n"] = n
    assert questions.answer(run, "hit", "Average", 1, []).verdict == verdict


def test_a_metric_without_an_interval_keeps_from_yes():
    run = _run("a", energy=GOOD, hit=(0.05, None, None, 0.3))
    assert questions.sentence(run, []) == (
        "Looks at the right place: in part (better than its bar by energy inside; no interval of hit rate)."
    )
    assert questions.verdict(questions.answers(_run("a", hit=(0.05, None, None, 0.3)), PLACE, [])) == ""


def test_better_than_its_bar_is_not_said_to_be_more_than_chance():
    """Chance is 0.1, the centre 0.4: a map with 0.3 is more than chance, but not better than its bar."""
    run = _run("a", iou=(0.3, 0.25, 0.35, 0.1, 0.4))
    run.rows["eval"].append(run.rows["eval"][0] | {"task": "Edema"})
    assert questions.sentence(run, []) == (
        "Looks at the right place: no (worse by mIoU); better than its bar in 0 of 1 task (by mIoU)."
    )


def test_a_floor_that_was_given_is_a_bar_but_not_for_itself():
    run, floor = _run("a", iou=(0.4, 0.3, 0.5)), _run("random", "floor", iou=(0.2, 0.1, 0.3))
    assert questions.answer(run, "iou", "Average", 1, [floor]).of == "random"
    assert questions.answer(floor, "iou", "Average", 1, [floor]).verdict == UNKNOWN


GOOD, BAD, UNSURE = (0.5, 0.4, 0.6, 0.3), (0.2, 0.1, 0.25, 0.3), (0.3, 0.2, 0.4, 0.3)


@pytest.mark.parametrize(
    ("energy", "rank", "said"),
    [
        (GOOD, GOOD, "yes"),
        (GOOD, UNSURE, "in part"),
        (GOOD, BAD, "divided"),
        (UNSURE, UNSURE, "not shown"),
        (BAD, UNSURE, "not shown"),
        (BAD, BAD, "no"),
        ((0.5, 0.4, 0.6), (0.5, 0.4, 0.6), ""),
    ],
)
def test_the_verdict_follows_from_the_metrics(energy, rank, said):
    assert questions.verdict(questions.answers(_run("a", energy=energy, rank=rank), PLACE, [])) == said


def test_the_verdict_in_words():
    run = _run("a", energy=GOOD, rank=UNSURE, deletion=BAD)
    assert questions.sentence(run, []) == (
        "Looks at the right place: in part (better than its bar by energy inside; not told from it by mass rank); "
        "follows the network: yes (better than its bar by deletion)."
    )
    assert questions.answers(run, NETWORK, [])[0].bar == 0.3


def test_every_metric_of_a_question_is_one_that_a_command_writes():
    from chextools.metrics.catalogue import LOCALISATION
    from chextools.probing.probes import PROBES

    against_truth = {name for name, metric in LOCALISATION.items() if metric.needs_truth}
    assert set(PLACE) == against_truth - {"pixel", "count"}
    assert set(trust.ELSEWHERE) == set(LOCALISATION) - against_truth
    assert set(NETWORK) == set(PROBES)


def test_mean_curves_are_over_tasks_then_images():
    curves = [
        {"deletion": {"Edema": [1.0, 0.0], "Atelectasis": [0.5, 0.5]}},
        {"deletion": {"Edema": [0.25, 0.25], "Atelectasis": [0.0, 0.5, 1.0]}},
    ]
    run = Run("a", rows={"eval": [], "curves": [{"id": str(k), "curves": one} for k, one in enumerate(curves)]})
    (figure,) = questions.curve_figures([run])
    assert questions._mean_curve(run, "deletion") == [(0.75 + 0.25) / 2, (0.25 + 0.25) / 2]  # noqa: SLF001
    assert figure.name == "deletion_curves"


def test_a_card_is_of_one_run(tmp_path, cli):
    paths = [
        write(tmp_path / f"{n}.jsonl", eval_rows(m, ["Edema"])) for n, m in (("a", 0.4), ("b", 0.3), ("human", 0.5))
    ]
    read = report.read_runs([str(path) for path in paths], None).runs
    with pytest.raises(InputError, match=r"there are 2 \(a and b\)"):
        report.build_card(read)
    made = report.build_card([run for run in read if run.name != "b"])
    assert [section.id for section in made.sections] == ["place", "tasks", "limits", "settings"]
    assert 'class="card"' in report.page_of(made)
    assert cli("chex-report", paths[0], "--card").code == 2
    assert cli("chex-report", paths[0], "--card", "-o", tmp_path / "card.html").code == 0


def test_probe_records_give_curves_and_broken_ones_are_named(tmp_path, cli):
    whole = {"id": "a", "image": "a.png", "curves": {"deletion": {"Edema": [1, 0.5, 0]}}}
    broken = {"id": "b", "image": "b.png", "curves": {"deletion": {"Edema": [1]}}}
    (tmp_path / "gradcam").mkdir()
    write(tmp_path / "gradcam" / "rows.jsonl", eval_rows(0.4, ["Edema"]))
    (tmp_path / "gradcam" / "probe.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (whole, broken)))
    result = cli("chex-report", tmp_path / "gradcam", "-o", tmp_path / "page.html")
    assert result.code == 1
    assert 'probe.jsonl:2: "curves": deletion of Edema is no list of numbers; skipped' in result.err
    assert "score against share of pixels removed" in (tmp_path / "page.html").read_text()
