"""Sections of the study's further questions: comparisons, shapes of the pathology, thresholds, regressions."""

from __future__ import annotations

from collections.abc import Sequence

from chextools.metrics.catalogue import FEATURES
from chextools.reporting import figures
from chextools.reporting.drawing import Drawing
from chextools.reporting.figures import Curve
from chextools.reporting.page import P_DECIMALS, Column, Figure, Section, Table
from chextools.reporting.parts import (
    FEATURE_NAMES,
    MOST_MODELS,
    MOST_RUNS,
    NAMES,
    OF_ONE,
    beyond,
    name_of,
    named,
    rows_table,
    series,
    within,
)
from chextools.reporting.runs import Run
from chextools.results.results import AVERAGE
from chextools.tasks import study_order

MOST_POINTS = 200  # of a curve


def decrease(runs: Sequence[Run]) -> Section | None:
    having = [run for run in runs if run.rows["compare"]]
    if not having:
        return None
    section = Section(
        "decrease",
        "Percentage decrease",
        [
            "How far the mean falls below the reference, such as a human benchmark, in percent of it; below 0 it is "
            "above. Dotted: no difference."
        ],
    )
    metrics = dict.fromkeys(row["metric"] for run in having for row in run.rows["compare"])
    for metric in list(metrics)[:4]:
        these = [run for run in having if any(row["metric"] == metric for row in run.rows["compare"])]
        found = {
            run.name: {
                row["task"]: (row["pct_decrease"], row["lower"], row["upper"])
                for row in run.rows["compare"]
                if row["metric"] == metric
            }
            for run in these[:MOST_MODELS]
        }
        labels = list(dict.fromkeys(task for values in found.values() for task in values if task != AVERAGE))
        last = [AVERAGE] if any(AVERAGE in values for values in found.values()) else []
        drawn = figures.dot_intervals(
            f"Percentage decrease of {within(metric)}",
            f"decrease of {within(metric)} in %, 95% interval",
            [*labels, *last],
            series(these[:MOST_MODELS], these, found),
            last=last,
            reference=0.0,
            decimals=1,
        )
        section.figures.append(Figure(f"decrease_{metric}", name_of(metric), drawn, beyond(these, MOST_MODELS)))
    columns = [
        Column("run", "Run"),
        Column("metric", "Metric"),
        Column("task", "Task"),
        Column("pred", "Mean", 3),
        Column("ref", "Reference", 3),
        Column("pct_decrease", "Decrease, %", 1),
        Column("lower", "Lower", 1),
        Column("upper", "Upper", 1),
        Column("p", "p", P_DECIMALS),
        Column("p_holm", "p (Holm)", P_DECIMALS),
        Column("n", "CXRs", 0),
        Column("note", "Note"),
    ]
    section.tables.append(rows_table("decrease", "Percentage decrease", columns, having, "compare"))
    return section


def features(runs: Sequence[Run]) -> Section | None:
    having = [run for run in runs if run.rows["features"]]
    if not having:
        return None
    section = Section(
        "features",
        "Shape of the pathology",
        [
            "Of the CXRs on which a task is outlined: bar, the middle half; line across, the median; thin line, 5th to "
            "95th percentile. Up to 30 CXRs are dots of their own."
        ],
    )
    columns = [Column("run", "Run"), Column("feature", "Feature"), Column("task", "Task"), Column("n", "CXRs", 0)]
    columns += [
        Column(k, w, 3) for k, w in (("p5", "5%"), ("q1", "25%"), ("median", "Median"), ("q3", "75%"), ("p95", "95%"))
    ]
    table = []
    for run in having[:MOST_RUNS]:
        tasks = study_order(row["task"] for row in run.rows["features"])
        for feature in FEATURES:
            groups: dict[str, list[float]] = {task: [] for task in tasks}
            for row in run.rows["features"]:
                value = row.get(feature)
                if value is not None and (value > 0 or feature not in ("num_instances", "area_ratio")):
                    groups[row["task"]].append(value)
            groups = {task: values for task, values in groups.items() if values}
            if not groups:
                continue
            name = FEATURE_NAMES[feature]
            drawn = figures.distributions(
                f"{name} by task", name.lower(), groups, 1.0 if feature == "elongation" else 0.0
            )
            heading = name if len(having) == 1 else f"{name}, {run.name}"
            section.figures.append(Figure(named("feature", feature, run, having), heading, drawn))
            table += [[run.name, name, t, len(v), *figures.quantiles(v)] for t, v in groups.items()]
    if len(having) == 1:
        columns, table = columns[1:], [row[1:] for row in table]
    section.tables.append(Table("features", "Shape of the pathology", columns, table))
    section.notes += filter(None, [beyond(having, MOST_RUNS)])
    return section


_CHOSEN = {"threshold": "threshold", "cutoff": "cutoff", "score": "score_threshold"}
_CHOSEN_NAMES = {"threshold": "threshold of the heatmap", "cutoff": "cutoff of the score", "score": "score threshold"}


def tuning(runs: Sequence[Run]) -> Section | None:
    having = [run for run in runs if run.rows["tune"]]
    if not having:
        return None
    section = Section("thresholds", "Thresholds")
    for run in having[:MOST_RUNS]:
        for purpose in dict.fromkeys(row["for"] for row in run.rows["tune"]):
            if purpose not in _CHOSEN:
                continue
            of_purpose = [row for row in run.rows["tune"] if row["for"] == purpose]
            by_task: dict[str, list[dict]] = {}
            for row in of_purpose:
                by_task.setdefault(row["task"], []).append(row)
            name, what = named("tuned", purpose, run, having), _CHOSEN_NAMES[purpose]
            heading = what.capitalize() if len(having) == 1 else f"{what.capitalize()}, {run.name}"
            if any(len(points) > 1 for points in by_task.values()):
                drawn, note = _curves(purpose, by_task)
            else:
                drawn = figures.dot_intervals(
                    f"Best {what} by task",
                    f"{what}, 95% interval",
                    list(by_task),
                    series(
                        [run],
                        [run],
                        {
                            run.name: {
                                task: (points[0].get(_CHOSEN[purpose]), points[0]["lower"], points[0]["upper"])
                                for task, points in by_task.items()
                            }
                        },
                    ),
                    least=0.0,
                    greatest=1.0,
                )
                note = "Intervals are of the values chosen in bootstrap replicates. chex-tune --curve draws the curves."
            if drawn is not None:
                section.figures.append(Figure(name, heading, drawn, note))
    columns = [
        Column("run", "Run"),
        Column("for", "For"),
        Column("task", "Task"),
        Column("threshold", "Threshold", 3),
        Column("cutoff", "Cutoff", 3),
        Column("score_threshold", "Score threshold", 3),
        Column("iou", "mIoU", 3),
        Column("dice", "Dice", 3),
        Column("sensitivity", "Sensitivity", 3),
        Column("specificity", "Specificity", 3),
        Column("lower", "Lower", 3),
        Column("upper", "Upper", 3),
        Column("n", "CXRs", 0),
        Column("best", "Chosen"),
        Column("reason", "Note"),
    ]
    section.tables.append(rows_table("thresholds", "Thresholds", columns, having, "tune"))
    section.notes += filter(None, [beyond(having, MOST_RUNS)])
    return section


def _curves(purpose: str, by_task: dict[str, list[dict]]) -> tuple[Drawing | None, str]:
    key = _CHOSEN[purpose]
    objective = next((k for k in ("iou", "dice") if any(k in row for rows in by_task.values() for row in rows)), "iou")
    panels = []
    for task in study_order(by_task):
        points = [row for row in by_task[task] if row.get(key) is not None]
        best = next((k for k, row in enumerate(points) if row.get("best") is True), None)
        if purpose == "score":  # the ROC curve
            known = [row for row in points if row.get("sensitivity") is not None and row.get("specificity") is not None]
            x, y = [1 - row["specificity"] for row in known], [row["sensitivity"] for row in known]
            best = next((k for k, row in enumerate(known) if row.get("best") is True), None)
            lower, upper = [], []
        else:
            if best is None and points:  # the study's file does not say which
                best = max(range(len(points)), key=lambda k: (points[k].get(objective) or 0, -k))
            x, y = [row[key] for row in points], [row.get(objective) for row in points]
            lower, upper = [row["lower"] for row in points], [row["upper"] for row in points]
        if x:
            panels.append(_thinned(Curve(task, x, y, lower, upper, best)))
    if not panels:
        return None, ""
    if purpose == "score":
        drawn = figures.curves("ROC curves", "1 − specificity", "sensitivity", panels, 1.0)
        return drawn, "The ring is the operating point chosen."
    drawn = figures.curves(f"{NAMES[objective]} by {_CHOSEN_NAMES[purpose]}", purpose, NAMES[objective], panels)
    return drawn, "The ring is the value chosen; the band is the 95% interval."


def _thinned(curve: Curve) -> Curve:
    """At most `MOST_POINTS` points of a curve, its ends and the chosen one among them."""
    count = len(curve.x)
    if count <= MOST_POINTS:
        return curve
    kept = sorted({round(k * (count - 1) / (MOST_POINTS - 1)) for k in range(MOST_POINTS)} | {curve.best or 0})
    y, lower, upper = ([part[k] for k in kept] if part else [] for part in (curve.y, curve.lower, curve.upper))
    x = [curve.x[k] for k in kept]
    return Curve(curve.name, x, y, lower, upper, None if curve.best is None else kept.index(curve.best))


def regressions(runs: Sequence[Run]) -> Section | None:
    having = [run for run in runs if run.rows["regress"]]
    if not having:
        return None
    section = Section("regressions", "Regressions", ["Slopes with 95% intervals. Dotted: no relation."])
    for run in having[:MOST_RUNS]:
        groups: dict[tuple, list[dict]] = {}
        for row in run.rows["regress"]:
            groups.setdefault((row["metric"], row["model"], row["feature"] == "score"), []).append(row)
        for (metric, model, on_scores), found in list(groups.items())[:8]:
            outcome = OF_ONE.get(metric, name_of(metric))
            labelled = {
                row["task"] if on_scores else FEATURE_NAMES.get(row["feature"], row["feature"]): (
                    row["slope"],
                    row["lower"],
                    row["upper"],
                )
                for row in found
            }
            last = [label for label in labelled if on_scores and label == "Overall"]
            labels = [label for label in labelled if label not in last] + last
            against = (
                "score"
                if on_scores
                else "each feature, scaled to 0–1"
                if model == "single"
                else "all features, standardised"
            )
            drawn = figures.dot_intervals(
                f"Regression of {outcome} on {against}",
                f"slope of {outcome} on {against}"[:60],
                labels,
                series([run], [run], {run.name: labelled}),
                last=last,
                reference=0.0,
            )
            heading = f"{outcome[:1].upper()}{outcome[1:]} on {against}"
            heading += f", {run.name}" if len(having) > 1 else ""
            stem = f"{metric}_{'scores' if on_scores else model}"
            section.figures.append(Figure(named("regression", stem, run, having), heading, drawn))
    columns = [
        Column("run", "Run"),
        Column("metric", "Metric"),
        Column("task", "Task"),
        Column("feature", "On"),
        Column("model", "Model"),
        Column("n", "n", 0),
        Column("slope", "Slope", 3),
        Column("lower", "Lower", 3),
        Column("upper", "Upper", 3),
        Column("p", "p", P_DECIMALS),
        Column("p_bonferroni", "p (Bonferroni)", P_DECIMALS),
        Column("spearman", "Spearman", 3),
        Column("spearman_lower", "Lower (ρ)", 3),
        Column("spearman_upper", "Upper (ρ)", 3),
        Column("reason", "Note"),
    ]
    section.tables.append(rows_table("regressions", "Regressions", columns, having, "regress"))
    section.notes += filter(None, [beyond(having, MOST_RUNS)])
    return section
