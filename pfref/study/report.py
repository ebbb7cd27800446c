"""The report of a study: what each method reached at each budget and what it cost, how
the methods differ, and by which factor a budget has to grow to make up for it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..printing import unread
from . import measures
from .grades import Grades, Row, grade
from .measures import Array
from .recipe import ORACLE
from .tasks import TASKS, graded_by


def report_on(
    folder: Path,
    reference: str | None = None,
    choices: Sequence[str] = (),
    data: str | None = None,
    skip: int = 0,
    limit: int | None = None,
) -> dict[str, Any]:
    """All figures of a folder of records, as JSON takes them.

    rows         accuracy with its 95 % interval, by level and subject, counted tokens
                 and seconds a problem, for each method and budget n; `on` which of the
                 `machines`, counted from 1
    differences  the reference's accuracy minus each rival's, paired by problem, `at`
                 equal n, and at equal counted tokens
    rates        scaling rates of the reference over each rival, in budgets and in
                 tokens; null stands for beyond the rival's largest budget
    bar          the accuracy to pass, and the smallest n of each method that passes it

    Intervals resample problems; a problem's value is its mean over the seeds.
    """
    grades = grade(folder, choices, data, skip, limit)
    return summary(grades, reference)


def summary(grades: Grades, reference: str | None = None) -> dict[str, Any]:
    weights = measures.resamples(len(grades.items))
    filters = (
        row.method
        for row in grades.rows.values()
        if row.cell["settings"]["method"] == "filter"
    )
    reference = reference or next(filters, grades.methods[0])
    if reference not in grades.methods:
        known = ", ".join(grades.methods)
        raise UserError(
            f"there is no method {reference!r} to compare with; take {known}"
        )
    budgets = {m: grades.of(m) for m in grades.methods}
    bars = [m for m in grades.methods if budgets[m][0].cell.get("bar")]
    rivals = [
        m for m in grades.methods if m not in (reference, *bars) and not is_oracle(m)
    ]
    ours, ran_on = budgets[reference], machines(grades)
    return dict(
        data=Path(grades.data).name,
        task=grades.task,
        grader=graded_by(TASKS[grades.task]),
        problems=len(grades.items),
        seeds=grades.study.seeds,
        machines=list(ran_on),
        damaged=grades.study.damaged,
        failed=unread(grades.failed),
        reference=reference,
        rows=[
            described(row, grades, weights) | dict(on=places_of(row, ran_on))
            for m in budgets
            for row in budgets[m]
        ],
        differences=[d for m in rivals for d in differences(ours, budgets[m], weights)],
        rates=[r for m in rivals for r in rates(ours, budgets[m], weights)],
        bar=[passing(budgets[bar][0], budgets, weights) for bar in bars],
    )


def is_oracle(method: str) -> bool:
    return method.endswith(ORACLE)


def described(row: Row, grades: Grades, weights: Array) -> dict[str, Any]:
    values = row.values
    accuracy, low, high = measures.estimate(values, weights)
    seconds = row.seconds[~np.isnan(row.seconds)]
    return dict(
        method=row.method,
        n=row.n,
        accuracy=accuracy,
        low=low,
        high=high,
        tokens=row.cost,
        seconds=float(seconds.mean()) if seconds.size else None,
        problems=int((~np.isnan(values)).sum()),
        seeds=int((~np.isnan(row.correct)).any(1).sum()),
        oracle=is_oracle(row.method),
        bar=bool(row.cell.get("bar")),
        levels=groups(values, [item.level for item in grades.items]),
        subjects=groups(values, [item.subject for item in grades.items]),
    )


def groups(values: Array, names: Sequence[Any]) -> dict[str, float]:
    """The mean of the problems of each group; those without one are left out."""
    kinds = sorted({name for name in names if name is not None})
    found = {}
    for kind in kinds:
        own = values[[name == kind for name in names]]
        if not np.isnan(own).all():
            found[str(kind)] = float(np.nanmean(own))
    return found


def machines(grades: Grades) -> dict[str, set[str]]:
    """What the study ran on, each once, with the keys of cells meant to run there."""
    found: dict[str, set[str]] = {}
    for session in grades.study.sessions:
        e, (_, parts) = session["session"]["environment"], session["session"]["part"]
        shared = f", {parts} processes" if parts > 1 else ""
        threads = f"{e['threads']} thread{'s' if e['threads'] != 1 else ''}"
        where = e["gpu"] or f"{e['processor']}, {threads}{shared}"
        machine = f"{where}; torch {e['torch']}, pfref {session['session']['pfref']}"
        keys = {key for key, _ in session["session"]["cells"]}
        found[machine] = found.get(machine, set()) | keys
    return found


def places_of(row: Row, ran_on: dict[str, set[str]]) -> list[int]:
    """The numbers of the machines on which a row's cell ran, from 1."""
    own = row.cell["cell"]
    return [k for k, keys in enumerate(ran_on.values(), 1) if own in keys]


def differences(
    ours: Sequence[Row], theirs: Sequence[Row], weights: Array
) -> list[dict[str, Any]]:
    """At equal n, and at equal counted tokens, where the rival's accuracy lies between
    its budgets on a straight line in log tokens.
    """
    found = []
    for row in ours:
        rival = next((r for r in theirs if r.n == row.n), None)
        if rival:
            found.append(
                difference(row, rival, "n", row.values - rival.values, weights)
            )
        if (other := at_tokens(theirs, row)) is not None:
            named = theirs[0]
            found.append(difference(row, named, "tokens", row.values - other, weights))
    return [d for d in found if not math.isnan(d["mean"])]


def difference(
    row: Row, rival: Row, at: str, values: Array, weights: Array
) -> dict[str, Any]:
    mean, low, high = measures.estimate(values, weights)
    return dict(rival=rival.method, n=row.n, at=at, mean=mean, low=low, high=high)


def at_tokens(rows: Sequence[Row], ours: Row) -> Array | None:
    """(problems,) values of `rows` at as many counted tokens as `ours` took, between
    two of them, on the problems that the three have; None beyond the rows' range.
    """
    rows = sorted(rows, key=lambda row: row.cost)
    for a, b in zip(rows, rows[1:], strict=False):
        here = ~np.isnan(ours.values + a.values + b.values)
        tokens, low, high = (row.cost_on(here) for row in (ours, a, b))
        if 0 < low <= tokens <= high and low < high:
            share = math.log(tokens / low) / math.log(high / low)
            return (1 - share) * a.values + share * b.values
    return None


def rates(
    ours: Sequence[Row], theirs: Sequence[Row], weights: Array
) -> list[dict[str, Any]]:
    """Of the reference over a rival, in budgets and in counted tokens."""
    if len(ours) < 2 or len(theirs) < 2:
        return []
    mine = np.stack([row.values for row in ours], 1)
    other = np.stack([row.values for row in theirs], 1)
    whole = ~(np.isnan(mine).any(1) | np.isnan(other).any(1))
    if not whole.any():
        return []
    found = []
    for by in ("n", "tokens"):
        at, there = places(ours, by, whole), places(theirs, by, whole)
        if not (np.diff(at) > 0).all() or not (np.diff(there) > 0).all():
            continue
        factors = measures.rates(
            mine[whole], other[whole], at, there, weights[:, whole]
        )
        for row, place, factor in zip(ours, at, factors, strict=True):
            rate, low, high = (beyond(x) for x in factor)
            most, least = (2 ** (there[k] - place) for k in (-1, 0))
            found.append(
                dict(
                    rival=theirs[0].method,
                    n=row.n,
                    by=by,
                    rate=rate,
                    low=low,
                    high=high,
                    most=float(most),
                    least=float(least),
                )
            )
    return found


def places(rows: Sequence[Row], by: str, problems: Any) -> Array:
    """(budgets,) log2 of n or of counted tokens; nan for a budget that cost none."""
    sizes = [row.n if by == "n" else row.cost_on(problems) for row in rows]
    return np.array([math.log2(size) if size > 0 else math.nan for size in sizes])


def beyond(x: float) -> float | None:
    """JSON has no infinity."""
    return x if math.isfinite(x) else None


def passing(bar: Row, budgets: dict[str, list[Row]], weights: Array) -> dict[str, Any]:
    """The smallest budget of each method that is above the bar, and the smallest whose
    paired difference from it has an interval above 0.
    """
    found = []
    for method, rows in budgets.items():
        if method == bar.method or is_oracle(method):
            continue
        gains = [(r.n, measures.estimate(r.values - bar.values, weights)) for r in rows]
        found.append(
            dict(
                method=method,
                n=next((n for n, (mean, _, _) in gains if mean > 0), None),
                surely=next((n for n, (_, low, _) in gains if low > 0), None),
            )
        )
    accuracy = measures.estimate(bar.values, weights)[0]
    return dict(method=bar.method, accuracy=accuracy, passes=found)
