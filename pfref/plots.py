"""Pictures. matplotlib is imported where it is drawn with, so the rest of the package
does not need it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import writing
from .weights import normalise

COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#D55E00",
    "#56B4E9",
)  # Okabe and Ito
OTHERS, DEAD = "#555555", "#cccccc"


def survivors(ancestors: Tensor) -> list[list[set[int]]]:
    """For every step and particle, the last step's particles that descend from it: (T,
    N) ancestors.
    """
    lines = [[{n} for n in range(ancestors.shape[1])]]
    for parents in reversed(ancestors[:-1].tolist()):
        heirs: list[set[int]] = [set() for _ in parents]
        for child, parent in enumerate(parents):
            heirs[parent] |= lines[-1][child]
        lines.append(heirs)
    return lines[::-1]


def genealogy(
    log_weights: Tensor,
    ancestors: Tensor,
    labels: Sequence[str | None] = (),
    title: str = "",
    axes: Any = None,
) -> Any:
    """Particles over steps: width by weight, lines of descent, dead branches pale.

    log_weights  (T, N) before each resampling
    ancestors    (T, N) parents of the next step's particles
    labels       of the last step's particles, such as their answers; a colour and a
                 marker for each common one
    Returns the matplotlib axes.
    """
    import matplotlib.pyplot as plt

    steps, particles = log_weights.shape
    weights, heirs = normalise(log_weights), survivors(ancestors)
    labels = [label or "no answer" for label in labels] or ["alive"] * particles
    share = {
        label: sum(
            float(weights[-1, n]) for n in range(particles) if labels[n] == label
        )
        for label in labels
    }
    ranking = sorted(share, key=lambda label: -share[label])
    if axes is None:
        axes = plt.figure(
            figsize=(min(12, 2.5 + 0.9 * steps), 1.5 + 0.2 * particles),
            layout="constrained",
        ).gca()

    def style(t: int, n: int) -> tuple[str, str, int]:
        if not heirs[t][n]:
            return DEAD, "o", 1
        rank = min(ranking.index(labels[k]) for k in heirs[t][n])
        return (
            (COLOURS[rank], "os^DvP"[rank], 2)
            if rank < len(COLOURS)
            else (OTHERS, "o", 2)
        )

    for t in range(steps):
        for n in range(particles):
            colour, marker, layer = style(t, n)
            weight = float(weights[t, n]) * particles  # 1 is a fair share
            if t + 1 < steps:
                for child in (ancestors[t] == n).nonzero()[:, 0].tolist():
                    child_colour, _, child_layer = style(t + 1, child)
                    axes.plot(
                        [t + 1, t + 2],
                        [n, child],
                        color=child_colour,
                        zorder=child_layer,
                        linewidth=0.8
                        + min(5.0, 1.5 * float(weights[t + 1, child]) * particles),
                    )
            axes.scatter(
                t + 1,
                n,
                s=14 + 40 * min(4.0, weight),
                color=colour,
                marker=marker,
                zorder=layer + 2,
            )
    for rank, label in enumerate(ranking[: len(COLOURS)]):
        axes.scatter(
            [],
            [],
            color=COLOURS[rank],
            marker="os^DvP"[rank],
            label=f"{label}: {share[label]:.0%} of the weight",
        )
    axes.scatter([], [], color=DEAD, label="no descendant left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    axes.set(xlabel="step", ylabel="particle", title=title, xticks=range(1, steps + 1))
    axes.invert_yaxis()
    return axes


def save_genealogy(solution: Any, file: str | Path) -> None:
    """The genealogy of a `Solution`, as a picture file. Raises UserError if that cannot
    be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    trace = solution.trace
    axes = genealogy(
        trace.log_weights,
        trace.ancestors,
        [p.answer for p in solution.particles],
        f"{len(solution.particles)} particles, answer {solution.answer}",
    )
    with writing(file):
        axes.figure.savefig(file, dpi=150, facecolor="white")
