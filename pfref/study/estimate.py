"""What a run will cost, before it is spent: tokens, hours and memory."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .experiment import Models, Plan, plan, run_cell
from .memory import told
from .recipe import Cell, Recipe
from .records import Run, Study, read

PROBE = 8  # problems, of each of which so many samples are drawn where nothing is known
SAMPLES = 16  # together a batch


def estimate(recipe: Recipe, folder: Path, part: tuple[int, int] = (1, 1)) -> str:
    """Tokens and hours that are left, from records of the same methods where there are
    any, else from a few problems that are run now and not recorded; and the memory of
    both models and of a batch at its limits. An extrapolation in proportion to N.
    """
    study = read(folder)
    todo = plan(recipe, study, part)
    if not todo.left:
        return "nothing is left to run"
    known = known_costs(study)
    models = Models()
    probed: dict[str, tuple[float, float]] = {}
    tokens = seconds = 0.0
    guessed = 0
    for cell, items in todo.left:
        costs = known.get(cell.label)
        if costs is None:
            guessed += 1
            name = str(cell.models)
            if name not in probed:
                probed[name] = probe(cell, todo, models)
            costs = {1: probed[name]}
        n = min(costs, key=lambda size: abs(np.log(size / cell.n)))
        scale = cell.n / n * len(items)
        tokens += costs[n][0] * scale
        seconds += costs[n][1] * scale
    basis = (
        "from this folder's records"
        if not guessed
        else f"from {SAMPLES} samples of {min(PROBE, len(todo.items))} problems"
        + (" and this folder's records" if known else "")
    )
    largest, items = max(todo.left, key=lambda c: c[0].n)
    lm, prm = models(largest.models)
    texts = readable(lm, prm, [i.problem for i in items], largest.settings.system)
    runs = sum(len(items) for _, items in todo.left)
    lines = [
        f"{runs} problems to run in {len(todo.left)} cells, {todo.particles} particles",
        f"about {tokens / 1e6:.1f} million tokens, generated and scored, and "
        f"{seconds / 3600:.1f} hours on this machine, {basis}",
        told(largest, lm, prm, texts),
    ]
    return "\n".join(filter(None, lines))


def readable(lm: Any, prm: Any, texts: list[str], system: str | None) -> list[str]:
    from ..pair import unreadable

    failed = unreadable(lm, prm, texts, system)
    return [text for place, text in enumerate(texts) if place not in failed]


def known_costs(study: Study) -> dict[str, dict[int, tuple[float, float]]]:
    """By label and budget the tokens and seconds of a problem, of current records."""
    cells = {cell["cell"]: cell for cell in study.current().values()}
    sums: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for id in study.lines:
        for run in study.runs(id):
            if cell := cells.get(run.key):
                sums[cell["label"], cell["n"]].append(cost_of(run))
    found: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for (label, n), costs in sums.items():
        tokens, seconds = np.mean(costs, axis=0)
        found[label][n] = float(tokens), float(seconds)
    return dict(found)


def cost_of(run: Run) -> tuple[float, float]:
    return float(sum(run.counts[1:3])), run.batch[3] / run.batch[0]


def probe(cell: Cell, todo: Plan, models: Models) -> tuple[float, float]:
    """Tokens and seconds of one particle."""
    settings = replace(cell.settings, method="samples", particles=SAMPLES)
    step = max(1, len(todo.items) // PROBE)
    items = todo.items[::step][:PROBE]
    runs: list[Run] = []
    for some in (items[:1], items):  # the first run of all is slower
        runs.clear()
        trial = replace(cell, settings=settings)
        run_cell(trial, some, todo.task, models(cell.models), runs.extend)
    costs = [cost_of(run) for run in runs if run.paths] or [(0.0, 0.0)]
    tokens, seconds = np.mean(costs, axis=0) / SAMPLES
    return float(tokens), float(seconds)
