"""Questions to each run, answered from its rows by stated rules: does it look at the right place, does it follow the
network, is it more than chance; and, of `trust`, can the AUROC be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chextools.reporting import figures, trust
from chextools.reporting.figures import Curve, Interval
from chextools.reporting.leaderboard import ranked
from chextools.reporting.page import P_DECIMALS, Column, Figure, Section, Table
from chextools.reporting.parts import MOST_RUNS, beyond, count, listed, name_of, within
from chextools.reporting.runs import Run
from chextools.results.results import AVERAGE
from chextools.tasks import study_order

# Whether more is better (1) or less (-1), by metric, in the order of the tables.
PLACE: Mapping[str, int] = {
    "iou": 1,
    "hit": 1,
    "energy": 1,
    "rank": 1,
    "pixel-auroc": 1,
    "pixel-auprc": 1,
    "best-iou": 1,
    "dice": 1,
    "hd95": -1,
    "assd": -1,
    "nsd": 1,
    "lesion-recall": 1,
    "lesion-precision": 1,
    "froc": 1,
}
NETWORK: Mapping[str, int] = {
    "deletion": -1,
    "insertion": 1,
    "road": 1,
    "faithfulness": 1,
    "randomisation": -1,
    "sensitivity": -1,
}
OWN_BARS = {"randomisation": 0.5}  # of metrics whose chance says nothing of what is wanted

BETTER, WORSE, OPEN, UNKNOWN = "better", "worse", "not told apart", "no verdict"
SURE = 0.05  # below which a p-value counts
LEAST = 6  # CXRs, of which 1 in 32 samples goes all one way by chance; of 5 it is 1 in 16

RULES = (
    "A metric is better than its bar where its whole 95% interval lies on the good side, worse where it lies on the "
    f"other, else not told apart, as all of fewer than {LEAST} CXRs. The bar is the most demanding of chance, of a "
    "look at the centre of the image, and of the floors given; of randomisation it is a correlation of 0.5, either "
    "way. A metric with a bar but no interval has no verdict. Yes: better by all metrics that have a bar; in part: "
    "better by some, worse by none; divided: better by some, worse by others; not shown: better by none; no: worse "
    "by all."
)


@dataclass(frozen=True)
class Answer:
    """What a metric of a task says. bar: what it is held against, None where nothing is known; of: what that is.

    verdict: `UNKNOWN` without a bar or an interval.
    """

    metric: str
    task: str
    interval: Interval
    bar: float | None
    of: str
    n: int | None
    verdict: str


def answer(run: Run, metric: str, task: str, sign: int, floors: Sequence[Run]) -> Answer | None:
    """The answer of a run's metric, None where it has none."""
    row = run.row(metric, task)
    interval = run.interval(metric, task)
    if interval[0] is None:
        return None
    if metric in OWN_BARS:
        bars: list[tuple[float | None, str]] = [(OWN_BARS[metric], f"{OWN_BARS[metric]:g}")]
    else:
        bars = [(row.get(key), words) for key, words in (("chance", "chance"), ("floor", "the centre"))]
        bars += [(floor.interval(metric, task)[0], floor.name) for floor in floors if floor is not run]
    known = [(value, words) for value, words in bars if value is not None]
    bar, of = max(known, key=lambda pair: sign * pair[0]) if known else (None, "")
    n = row.get("n")
    return Answer(metric, task, interval, bar, of, n, _verdict(_either_way(metric, interval), bar, sign, n))


def _either_way(metric: str, interval: Interval) -> Interval:
    """The interval; of a correlation that is to be near 0, that of how far it is from it."""
    mean, lower, upper = interval
    if metric not in OWN_BARS or mean is None or lower is None or upper is None:
        return interval
    return abs(mean), max(lower, -upper, 0.0), max(upper, -lower)


def _verdict(interval: Interval, bar: float | None, sign: int, n: int | None) -> str:
    mean, lower, upper = interval
    if bar is None or lower is None or upper is None:
        return UNKNOWN
    if n is not None and n < LEAST:
        return OPEN
    worst, best = (lower, upper) if sign > 0 else (-upper, -lower)
    if mean is not None and not worst <= sign * mean <= best:  # as of few replicates: both must be beyond the bar
        worst, best = min(worst, sign * mean), max(best, sign * mean)
    return BETTER if worst > sign * bar else WORSE if best < sign * bar else OPEN


def answers(run: Run, metrics: Mapping[str, int], floors: Sequence[Run], task: str = AVERAGE) -> list[Answer]:
    """The answers of all metrics that a run has."""
    found = (answer(run, metric, task, sign, floors) for metric, sign in metrics.items())
    return [one for one in found if one]


def verdict(found: Sequence[Answer]) -> str:
    """Yes, in part, divided, not shown or no, see `RULES`; nothing where no metric has a verdict."""
    said = [one.verdict for one in found if one.verdict != UNKNOWN]
    if not said:
        return ""
    if all(one.verdict == BETTER for one in found if one.bar is not None):
        return "yes"
    if BETTER in said:
        return "divided" if WORSE in said else "in part"
    return "no" if all(one == WORSE for one in said) else "not shown"


def sentence(run: Run, floors: Sequence[Run]) -> str:
    """The verdict on a run in words; empty where nothing is known."""
    parts = []
    for question, metrics in (("looks at the right place", PLACE), ("follows the network", NETWORK)):
        found = answers(run, metrics, floors)
        if said := verdict(found):
            by = {kind: [within(a.metric) for a in found if a.verdict == kind] for kind in (BETTER, WORSE, OPEN)}
            reasons = [f"{words} by {listed(by[kind])}" for kind, words in _WORDS.items() if by[kind]]
            unsure = [within(a.metric) for a in found if a.verdict == UNKNOWN and a.bar is not None]
            reasons += [f"no interval of {listed(unsure)}"] if unsure else []
            parts.append(f"{question}: {said} ({'; '.join(reasons)})")
    over = _over_tasks(run, PLACE, floors)
    if over:
        metric, better, known = over[0]
        parts.append(f"better than its bar in {len(better)} of {count(len(known), 'task')} (by {within(metric)})")
    parts += filter(None, [trust.sentence(run)])
    said = "; ".join(parts)
    return f"{said[:1].upper()}{said[1:]}." if said else ""


_WORDS = {BETTER: "better than its bar", WORSE: "worse", OPEN: "not told from it"}


def _over_tasks(
    run: Run, metrics: Mapping[str, int], floors: Sequence[Run]
) -> list[tuple[str, list[Answer], list[Answer]]]:
    """By metric the tasks in which it is better, and all that have a verdict."""
    found = []
    for metric, sign in metrics.items():
        every = (answer(run, metric, task, sign, floors) for task in study_order(run.tasks(metric)))
        known = [one for one in every if one and one.verdict != UNKNOWN]
        if known:
            found.append((metric, [one for one in known if one.verdict == BETTER], known))
    return found


def asked(runs: Sequence[Run]) -> list[Run]:
    """The runs that are asked, best first: models; floors and human benchmarks are what they are held against."""
    return [run for run, _ in ranked(runs) if run.role == "model" and (run.rows["eval"] or run.rows["shortcut"])]


def verdicts(runs: Sequence[Run]) -> Section | None:
    """A sentence on each run, and the rules by which it was found."""
    floors = [run for run in runs if run.role == "floor"]
    said = [(run.name, sentence(run, floors)) for run in asked(runs)]
    said = [(name, words) for name, words in said if words]
    if not said:
        return None
    section = Section("verdict", "Verdict", [RULES])
    columns = [Column("run", "Run", link=True), Column("verdict", "Verdict")]
    section.tables.append(Table("verdict", "Verdict", columns, [[name, words] for name, words in said], sortable=False))
    return section


def place(runs: Sequence[Run]) -> Section | None:
    human = [run for run in runs if run.role == "human"]
    return _question("place", "Does it look at the right place?", PLACE, runs, human)


def network(runs: Sequence[Run]) -> Section | None:
    section = _question("network", "Does it follow the network?", NETWORK, runs, [])
    drawn = curve_figures(runs)
    if drawn and section is None:
        section = Section("network", "Does it follow the network?")
    if section is not None:
        section.figures += drawn
        section.notes.append(
            "Deletion: the score as the pixels that the map ranks highest go, so less is better. Insertion: as they "
            "come, so more is better. Randomisation: how alike the map stays when the network's weights are drawn "
            "anew; a map that does not change does not explain the network. Sensitivity has no bar."
        )
    return section


def _question(
    name: str, heading: str, metrics: Mapping[str, int], runs: Sequence[Run], humans: Sequence[Run]
) -> Section | None:
    floors = [run for run in runs if run.role == "floor"]
    table = []
    for run in asked(runs):
        for one in answers(run, metrics, floors):
            human = next((h.interval(one.metric, AVERAGE)[0] for h in humans), None)
            mean, lower, upper = one.interval
            cells = [run.name, name_of(one.metric), mean, lower, upper, one.bar, one.of, human, one.n, one.verdict]
            table.append([*cells, "less" if metrics[one.metric] < 0 else "more"])
    if not table:
        return None
    columns = [
        Column("run", "Run", link=True),
        Column("metric", "Metric"),
        Column("mean", "Mean", 3),
        Column("lower", "Lower", 3),
        Column("upper", "Upper", 3),
        Column("bar", "Bar", 3),
        Column("bar_of", "Bar of"),
        Column("human", "Human", 3),
        Column("n", "CXRs", 0),
        Column("verdict", "Against the bar"),
        Column("better", "Better is"),
    ]
    kept = [k for k in range(len(columns)) if any(row[k] not in (None, "") for row in table)]
    section = Section(name, heading, ["Means over tasks, with 95% intervals."])
    rows = [[row[k] for k in kept] for row in table]
    section.tables.append(Table(name, heading, [columns[k] for k in kept], rows))
    return section


def chance(runs: Sequence[Run]) -> Section | None:
    """How many tasks are better than their bar, and the tests of chex-compare."""
    floors = [run for run in runs if run.role == "floor"]
    table = []
    for run in asked(runs):
        for metric, better, known in _over_tasks(run, {**PLACE, **NETWORK}, floors):
            others = [one.task for one in known if one.verdict != BETTER]
            worse = sum(one.verdict == WORSE for one in known)
            table.append([run.name, name_of(metric), len(better), len(known), worse, listed(others, 5)])
    tests = [[run.name, *_test(run, metric)] for run in runs for metric in _tested(run)]
    if not table and not tests:
        return None
    section = Section("chance", "Is it more than chance?")
    if table:
        columns = [
            Column("run", "Run", link=True),
            Column("metric", "Metric"),
            Column("better", "Tasks better than the bar", 0),
            Column("tasks", "Tasks", 0),
            Column("worse", "Worse", 0),
            Column("others", "Not better in"),
        ]
        section.notes.append("Task by task, by the rule of the verdict.")
        section.tables.append(Table("chance", "Tasks that are better than the bar", columns, table))
    if tests:
        columns = [
            Column("run", "Comparison"),
            Column("metric", "Metric"),
            Column("higher", "Tasks surely higher", 0),
            Column("lower", "Surely lower", 0),
            Column("tasks", "Tasks", 0),
            Column("p", "p of the average", P_DECIMALS),
        ]
        section.notes.append(f"Comparisons of chex-compare: surely, where Holm's p over the tasks is below {SURE:g}.")
        section.tables.append(Table("tests", "Differences between runs", columns, tests))
    return section


def _tested(run: Run) -> list[str]:
    return list(dict.fromkeys(row["metric"] for row in run.rows["compare"] if row.get("p") is not None))


def _test(run: Run, metric: str) -> list:
    rows = [row for row in run.rows["compare"] if row["metric"] == metric]
    by_task = [row for row in rows if row["task"] != AVERAGE]
    sure = [row for row in by_task if row.get("p_holm") is not None and row["p_holm"] < SURE]
    higher = sum((row.get("difference") or -(row["pct_decrease"] or 0.0)) > 0 for row in sure)
    p = next((row["p"] for row in rows if row["task"] == AVERAGE), None)
    return [name_of(metric), higher, len(sure) - higher, len(by_task), p]


# Curves of deletion and insertion


def curve_figures(runs: Sequence[Run]) -> list[Figure]:
    """The mean curves of each run, with those of the two floors."""
    known = [run for run in runs if run.rows["curves"]]
    having = [run for run, _ in ranked([run for run in known if run.role == "model"] or known)]
    made = []
    for key, axis in (("deletion", "share of pixels removed"), ("insertion", "share of pixels restored")):
        panels = []
        for run in having[:MOST_RUNS]:
            lines = {name: _mean_curve(run, key + name) for name in ("", "_random", "_centre")}
            if whole := lines[""]:
                x = [k / (len(whole) - 1) for k in range(len(whole))]
                floors = (("muted", lines["_random"]), ("axis", lines["_centre"]))
                beside = {ink: line for ink, line in floors if line and len(line) == len(x)}
                panels.append(Curve(run.name, x, whole, beside=beside))
        if panels:
            drawn = figures.curves(f"{name_of(key)} curves", axis, "score", panels)
            note = (
                "Blue: by the map. Dotted: in random order. Grey: from the centre outwards. Means of images and tasks."
            )
            made.append(Figure(f"{key}_curves", name_of(key), drawn, f"{note} {beyond(having, MOST_RUNS)}".strip()))
    return made


def _mean_curve(run: Run, key: str) -> list[float]:
    """The mean over images of the mean over tasks, of the curves that have as many points as the first."""
    found = [row["curves"].get(key, {}).values() for row in run.rows["curves"]]
    found = [list(lines) for lines in found if lines]
    if not found:
        return []
    length = len(found[0][0])
    means = [_mean([line for line in lines if len(line) == length]) for lines in found]
    return _mean([line for line in means if line])


def _mean(lines: Sequence[Sequence[float]]) -> list[float]:
    return [sum(values) / len(lines) for values in zip(*lines)] if lines else []


SECTIONS: Sequence[Callable[[Sequence[Run]], Section | None]] = (verdicts, place, network, chance, trust.section)
