"""The figures of a report. matplotlib is imported where it is drawn with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, writing
from ..plots import COLOURS as FEWER

# With markers, so that no line is known by its colour alone.
COLOURS = (*FEWER, "#000000")
MARKERS = "os^DvPX*<>"


def save_curves(report: dict[str, Any], folder: Path) -> list[Path]:
    """Accuracy against N and against counted tokens, as two pictures in `folder`."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install matplotlib") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot draw into {folder}: {error.strerror}") from error
    files = []
    for x in ("n", "tokens"):
        figure = plt.figure(figsize=(8, 5), layout="constrained")
        curves(report, x, axes=figure.gca())
        files.append(folder / f"accuracy-by-{x}.svg")
        with writing(files[-1]):
            figure.savefig(files[-1])
        plt.close(figure)
    return files


def curves(
    report: dict[str, Any],
    x: str = "n",
    methods: Sequence[str] | None = None,
    axes: Any = None,
) -> Any:
    """Accuracy against `x`, n or tokens, with the reference's 95 % interval as a band;
    returns the axes.

    methods  which to draw, and in which order (default: all but the oracle)
    A method of budget 1 only is a level line, dashed if it is the bar.
    """
    import matplotlib.pyplot as plt

    axes = (
        plt.figure(figsize=(8, 5), layout="constrained").gca() if axes is None else axes
    )
    rows = [r for r in report["rows"] if not r["oracle"]]
    names = list(methods or dict.fromkeys(row["method"] for row in rows))
    for k, name in enumerate(names):
        own = [row for row in report["rows"] if row["method"] == name]
        if not own:
            raise UserError(f"there is no method {name!r} to draw")
        colour, level = COLOURS[k % len(COLOURS)], [100 * r["accuracy"] for r in own]
        if [row["n"] for row in own] == [1]:
            style = "--" if own[0]["bar"] else ":"
            axes.axhline(level[0], color=colour, linestyle=style, label=name)
            continue
        places = [row[x] for row in own]
        if name == report["reference"]:  # the band of one; of all nothing would be seen
            low, high = ([100 * row[end] for row in own] for end in ("low", "high"))
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        marker = MARKERS[k % len(MARKERS)]
        axes.plot(places, level, color=colour, marker=marker, markersize=5, label=name)
    axes.set_xscale("log", base=2 if x == "n" else 10)
    if x == "n":
        ticks = sorted({row["n"] for row in rows})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("budget N" if x == "n" else "counted tokens a problem")
    axes.set_ylabel("accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return axes
