"""Can the AUROC be trusted? Which part of it a shortcut explains, and how much of the maps lies where no lung is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chextools.reporting import figures
from chextools.reporting.drawing import Drawing
from chextools.reporting.figures import Series
from chextools.reporting.leaderboard import ranked
from chextools.reporting.page import Column, Figure, Section, Table
from chextools.reporting.parts import MOST_RUNS, beyond, listed, named
from chextools.reporting.runs import Run
from chextools.results.results import AVERAGE
from chextools.tasks import study_order

ALL, PART, NONE, UNKNOWN = "all of it", "part of it", "not shown", "no verdict"
THERE, AWAY, OPEN = "more than chance", "less than chance", "not told apart"
LEAST = 0.55  # AUROC of whose excess over 0.5 a share is told; of less than that it is anything from -1000% up
NEAR = "AUROC near 0.5"
SHARE = ("explained", "explained_lower", "explained_upper")
ELSEWHERE = {"border": "in the border", "outside": "outside the lungs"}

_RULES = (
    "A shortcut is what CXRs may be told apart by without a look at the lungs. Among CXRs that are alike in it, the "
    "AUROC within strata, it cannot help. It explains part of an AUROC where the 95% interval of the share explained "
    "lies above 0, and may explain all of it where that within strata reaches 0.5 besides; else nothing is shown, as "
    f"where CXRs are too few. An AUROC near 0.5 (below {LEAST}, or its own 95% interval reaches 0.5) has no excess to "
    "speak of: there is no verdict, and the share is left out. A shortcut whose own AUROC "
    "comes near the network's is a warning whatever the strata say, which are no finer than quintiles."
)
_ELSEWHERE = (
    "Energy: the share of a map's sum that lies in the border or outside the lungs; of a random map the share of the "
    "image is to be expected. More than that is a look at what no radiologist looks at."
)


def whole(run: Run) -> list[dict]:
    """A run's row of each shortcut over all tasks, or of its only task."""
    found: dict[str, dict] = {}
    for row in run.rows["shortcut"]:
        if row["task"] == AVERAGE or row["by"] not in found:
            found[row["by"]] = row
    return list(found.values())


def has_excess(row: dict) -> bool:
    """Whether the AUROC is far enough from 0.5 for a share of its excess to mean something."""
    lower = row.get("auroc_lower")
    return row["auroc"] is not None and row["auroc"] >= LEAST and (lower is None or lower > 0.5)


def explains(row: dict) -> str:
    """Which part of the AUROC is explained, by the rule of the page."""
    if row["lower"] is None or row["explained_lower"] is None or not has_excess(row):
        return UNKNOWN
    if row["explained_lower"] <= 0:
        return NONE
    return ALL if row["lower"] <= 0.5 else PART


def sentence(run: Run) -> str:
    """What to say of a run's AUROC in a verdict; empty where nothing is known."""
    rows = whole(run)
    by = {kind: [_named(row) for row in rows if explains(row) == kind] for kind in (ALL, PART, NONE)}
    said = [f"{listed(by[ALL])} may explain all of it"] if by[ALL] else []
    said += [f"{listed(by[PART])} explain{'s' * (len(by[PART]) == 1)} part of it"] if by[PART] else []
    said += [f"that {listed(by[NONE])} explain{'s' * (len(by[NONE]) == 1)} any is not shown"] if by[NONE] else []
    if any(row["auroc"] is not None and not has_excess(row) for row in rows):
        said += ["too near 0.5 for a shortcut to explain"]
    near = [row["by"] for row in rows if None not in (row["floor"], row["auroc"]) and row["floor"] >= row["auroc"]]
    said += [f"{listed(near)} alone reach{'es' * (len(near) == 1)} as much"] if near else []
    return f"AUROC {rows[0]['auroc']:.2f}: {', '.join(said)}" if said and rows[0]["auroc"] is not None else ""


def _named(row: dict) -> str:
    share = row["explained"]
    return row["by"] if share is None or explains(row) != PART else f"{row['by']} ({share:.0%})"


def section(runs: Sequence[Run]) -> Section | None:
    models = [run for run, _ in ranked(runs) if run.role == "model"]
    having = [run for run in models if run.rows["shortcut"]]
    elsewhere = _elsewhere(models)
    if not having and not elsewhere.rows:
        return None
    made = Section("trust", "Can the AUROC be trusted?")
    if having:
        made.notes += filter(None, [_RULES, beyond(having, MOST_RUNS)])
        made.tables.append(_table("shortcuts", "Which part of an AUROC a shortcut explains", having, whole))
        if any(len(run.rows["shortcut"]) > len(whole(run)) for run in having):
            made.tables.append(_table("shortcuts_by_task", "The same by task", having, _by_task))
        for run in having[:MOST_RUNS]:
            heading = "AUROC within strata" if len(having) == 1 else f"AUROC within strata, {run.name}"
            made.figures.append(Figure(named("shortcuts", "auroc", run, having), heading, _drawn(run)))
    if elsewhere.rows:
        made.notes.append(_ELSEWHERE)
        made.tables.append(elsewhere)
    return made


def _by_task(run: Run) -> list[dict]:
    rows = [row for row in run.rows["shortcut"] if row["task"] != AVERAGE]
    order = study_order(row["task"] for row in rows)
    return sorted(rows, key=lambda row: order.index(row["task"]))


def _table(name: str, caption: str, runs: Sequence[Run], rows_of: Callable[[Run], list[dict]]) -> Table:
    columns = [
        Column("run", "Run", link=True),
        Column("task", "Task"),
        Column("by", "Shortcut"),
        Column("auroc", "AUROC", 3),
        Column("floor", "Shortcut alone", 3),
        Column("mean", "Within strata", 3),
        Column("lower", "Lower", 3),
        Column("upper", "Upper", 3),
        Column("verdict", "It explains"),
        Column("explained", "Explained, %", 0),
        Column("explained_lower", "Lower, %", 0),
        Column("explained_upper", "Upper, %", 0),
        Column("spearman", "Correlation", 2),
        Column("pairs", "Pairs within, %", 0),
        Column("n", "CXRs", 0),
        Column("reason", "Note"),
    ]
    found = [_cells(run, row) for run in runs for row in rows_of(run)]
    used = [c for c in columns if any(row.get(c.key) is not None for row in found)]
    used = [c for c in used if c.key not in ("run", "task") or len({row[c.key] for row in found}) > 1]
    return Table(name, caption, used, [[row.get(column.key) for column in used] for row in found])


def _cells(run: Run, row: dict) -> dict:
    percent = ["pairs", *SHARE]
    cells = row | {key: None if row[key] is None else 100 * row[key] for key in percent}
    if row["auroc"] is not None and not has_excess(row):
        cells |= dict.fromkeys(SHARE) | {"reason": row.get("reason") or NEAR}
    return {"run": run.name} | cells | {"verdict": explains(row)}


def _drawn(run: Run) -> Drawing:
    rows = {row["by"]: row for row in whole(run)}
    series = [
        Series("within strata", "s0", "dot", {by: (r["mean"], r["lower"], r["upper"]) for by, r in rows.items()}),
        Series("all pairs", "s1", "square", {by: (row["auroc"], None, None) for by, row in rows.items()}),
        Series("the shortcut alone", "floor", "ring", {by: (row["floor"], None, None) for by, row in rows.items()}),
    ]
    series = [one for one in series if any(mean is not None for mean, _, _ in one.values.values())]
    return figures.dot_intervals(
        f"AUROC of {run.name} by shortcut", "AUROC, 95% interval within strata", list(rows), series, reference=0.5
    )


def _elsewhere(runs: Sequence[Run]) -> Table:
    """Energy in the border and outside the lungs, over tasks."""
    columns = [
        Column("run", "Run", link=True),
        Column("where", "Where"),
        Column("mean", "Energy", 3),
        Column("lower", "Lower", 3),
        Column("upper", "Upper", 3),
        Column("chance", "Chance", 3),
        Column("n", "CXRs", 0),
        Column("verdict", "Against chance"),
    ]
    found = []
    for run in runs:
        for metric, where in ELSEWHERE.items():
            row = run.row(metric, AVERAGE)
            mean, lower, upper = run.interval(metric, AVERAGE)
            if mean is not None:
                chance = row.get("chance")
                said = UNKNOWN
                if chance is not None and lower is not None and upper is not None:
                    said = THERE if lower > chance else AWAY if upper < chance else OPEN
                width = f" of {row['border']:.0%}" if row.get("border") else ""
                found.append([run.name, where + width, mean, lower, upper, chance, row.get("n"), said])
    return Table("elsewhere", "Energy where no lung is", columns, found)
