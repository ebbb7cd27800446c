"""A report as text."""

from collections.abc import Callable, Sequence
from typing import Any

HEAD = ("method", "N", "accuracy", "95 % interval", "tokens", "seconds", "runs")


def as_text(report: dict[str, Any], at: int | None = None) -> str:
    """Tables for a terminal.

    at  the budget of the tables by level and subject (default: the reference's middle)
    """
    own = [r["n"] for r in report["rows"] if r["method"] == report["reference"]]
    at = own[len(own) // 2] if at is None else at
    several = len(report["machines"]) > 1
    parts = [
        heading(report),
        table(
            [*HEAD, *(["on"] if several else [])],
            [row_of(row, several) for row in report["rows"]],
        ),
        "tokens: generated, and scored where a reward model was asked, a problem; "
        "seconds: a problem's share of its batch"
        + (", on which machine the last column says\n" if several else "\n")
        + "runs: problems x seeds; pass@N is an oracle, which knows the right sample",
        *by_group(report, "levels", at),
        *by_group(report, "subjects", at),
        *compared(report),
        *rates(report),
        *bars(report),
    ]
    return "\n\n".join(parts)


def heading(report: dict[str, Any]) -> str:
    seeds = len(report["seeds"])
    lines = [f"{report['data']}: {report['problems']} problems, {seeds} seeds"]
    machines = report["machines"]
    if len(machines) > 1:
        machines = [f"{k}: {machine}" for k, machine in enumerate(machines, 1)]
    lines += [f"on {machine}" for machine in machines]
    lines.append(f"answers compared by {report['grader']}")
    if report["damaged"]:
        lines.append(f"{report['damaged']} damaged lines of records are left out")
    lines += [f"counted as not solved: {cause}" for cause in report["failed"]]
    return "\n".join(lines)


def row_of(row: dict[str, Any], several: bool) -> list[str]:
    seconds = "" if row["seconds"] is None else f"{row['seconds']:.2f}"
    return [
        row["method"] + (", the bar" if row["bar"] else ""),
        str(row["n"]),
        percent(row["accuracy"]),
        f"[{percent(row['low'])}, {percent(row['high'])}]",
        f"{row['tokens']:.0f}",
        seconds,
        f"{row['problems']} x {row['seeds']}",
        *([", ".join(map(str, row["on"]))] if several else []),
    ]


def percent(x: float) -> str:
    return f"{100 * x:.1f}"


def signed(x: float) -> str:
    return f"{100 * x:+.1f}"


def by_group(report: dict[str, Any], what: str, at: int) -> list[str]:
    """Accuracy by level or by subject, at one budget; of greedy decoding too."""
    most: dict[str, int] = {}
    for row in report["rows"]:
        most[row["method"]] = max(row["n"], most.get(row["method"], 1))
    rows = [row for row in report["rows"] if row[what]]
    rows = [row for row in rows if row["n"] == at or most[row["method"]] == 1]
    names = list(dict.fromkeys(name for row in rows for name in row[what]))
    if len(names) < 2:
        return []
    lines = [
        [
            row["method"],
            *(percent(row[what][n]) if n in row[what] else "" for n in names),
        ]
        for row in rows
    ]
    return [f"by {what[:-1]}, N = {at}\n" + table(["method", *names], lines)]


def compared(report: dict[str, Any]) -> list[str]:
    found = []
    for at, words in (("n", "equal N"), ("tokens", "equal counted tokens")):
        own = [d for d in report["differences"] if d["at"] == at]
        if not own:
            continue
        title = f"{report['reference']} minus each, in points, at {words}"
        found.append(f"{title}\n" + by_rival(own, difference))
    return found


def by_rival(own: list[dict[str, Any]], cell: Callable[[Any], str]) -> str:
    """A line a rival, a column a budget."""
    sizes = sorted({d["n"] for d in own})
    lines = []
    for rival in dict.fromkeys(d["rival"] for d in own):
        cells = {d["n"]: cell(d) for d in own if d["rival"] == rival}
        lines.append([rival, *(cells.get(n, "") for n in sizes)])
    return table(["", *(f"N = {n}" for n in sizes)], lines)


def difference(d: dict[str, Any]) -> str:
    return f"{signed(d['mean'])} [{signed(d['low'])}, {signed(d['high'])}]"


def rates(report: dict[str, Any]) -> list[str]:
    found = []
    for by, words in (("n", "budget"), ("tokens", "number of counted tokens")):
        own = [r for r in report["rates"] if r["by"] == by]
        if not own:
            continue
        title = (
            f"scaling rate: the factor by which a rival's {words} has to be larger for "
            f"the accuracy of {report['reference']}"
        )
        found.append(f"{title}\n" + by_rival(own, rate))
    return found


def rate(r: dict[str, Any]) -> str:
    return f"{factor(r, 'rate')} [{factor(r, 'low')}, {factor(r, 'high')}]"


def factor(r: dict[str, Any], name: str) -> str:
    """A factor; > and < where the rival's budgets end before the accuracy is met."""
    x = r[name]
    if x is None:
        return f">{r['most']:.3g}"
    return f"<{r['least']:.3g}" if x == 0 else f"{x:.2g}"


def bars(report: dict[str, Any]) -> list[str]:
    found = []
    for bar in report["bar"]:
        lines = [
            [p["method"], str(p["n"] or "none"), str(p["surely"] or "none")]
            for p in bar["passes"]
        ]
        title = f"to pass {bar['method']}, {percent(bar['accuracy'])} %: smallest N"
        head = ["method", "above it", "difference's interval above 0"]
        found.append(f"{title}\n" + table(head, lines))
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need; the first to the left, numbers to the right."""
    wide = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, wide, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )
