"""Made-up studies and solutions, to test what is said of them without models."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pfref.solver import Cost, Particle
from pfref.study import experiment
from pfref.study.experiment import headers
from pfref.study.recipe import Cell, Recipe
from pfref.study.records import Run, Study, Written, decode, encode, mark
from pfref.study.tasks import Item

RECIPE = """
task = "minimath"
data = "minimath500"
model = "minimath-small"
prm = "minimath-prm"
budgets = [2, 4]
seeds = [0, 1]

[settings]
temperature = 0.8

[[method]]
label = "samples"
method = "samples"

[[method]]
label = "filter"
method = "filter"
"""


def path_of(answer: str | None, reward: float = 0.0, tokens: int = 10) -> Written:
    last = "stop" if answer is None else f"so \\boxed{{{answer}}}"
    return Written(("1+1=2\n\n", last), reward, tokens, -0.25, True)


def run_of(
    key: str,
    id: str,
    paths: Sequence[Written],
    weights: Sequence[float] | None = None,
    scored: int = 0,
) -> Run:
    even = [1 / len(paths)] * len(paths)
    tokens = sum(path.tokens for path in paths)
    return Run(
        key,
        id,
        list(paths),
        list(weights or even),
        0,
        None,
        None,
        (5, tokens, scored),
        (1, 1, 1, 2.0),
    )


def pretend(
    cell: Cell,
    items: Sequence[Item],
    task: Any,
    pair: Any,
    note: Any,
    batch: int,
    watch: Any = None,
) -> None:
    """In place of `experiment.solve_cell`: particles that depend on the seed, the text
    and the settings, as a solver's do, two problems a batch.
    """
    for start in range(0, len(items), 2):
        runs = []
        for item in items[start : start + 2]:
            word = f"{cell.key} {item.problem}"
            digits = hashlib.sha256(word.encode()).digest()
            paths = [
                path_of(str(digits[k] % 5), digits[k] / 10 - 10, digits[k])
                for k in range(cell.n)
            ]
            found = run_of(cell.key, item.id, paths)
            runs.append(replace(found, text=mark(item.problem)))
        note(runs)


def without_models(monkeypatch: pytest.MonkeyPatch, reader: Any) -> None:
    """Runs of recipes need none: `reader` stands for both where prompts are read."""
    monkeypatch.setattr(experiment, "solve_cell", pretend)
    monkeypatch.setattr(experiment, "fitting", lambda cell, *_: cell.settings.batch)
    monkeypatch.setattr(experiment.Models, "__call__", lambda *_: (reader, reader))


def write_study(
    folder: Path, recipe: Recipe, make: Callable[[Cell], Sequence[Run]]
) -> None:
    """Records of every cell of a recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = headers(recipe, Study(), (1, 1), "made up")
    lines += [encode([run]) for cell in recipe.cells for run in make(cell)]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n")


def runs_of(folder: Path) -> list[Run]:
    """All runs in the order of their keys and problems; two of one would both count."""
    runs = [
        run
        for file in folder.glob("*.jsonl")
        for text in file.read_text().splitlines()
        if "id" in (line := json.loads(text))
        for run in decode(line)
    ]
    return sorted(runs, key=lambda run: (run.key, run.id))


def assert_same(a: Sequence[Run], b: Sequence[Run]) -> None:
    """The same records, apart from times, and from the last digits: which problems
    share a batch depends on where a run stopped, and float32 on the batch. The last
    digits also say which of several particles of one text is the heaviest.
    """
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for name in ("key", "id", "ancestors", "counts", "failed", "text"):
            assert getattr(one, name) == getattr(other, name)
        assert chosen_steps(one) == chosen_steps(other)
        for x, y in zip(one.paths, other.paths, strict=True):
            assert (x.steps, x.tokens, x.finished) == (y.steps, y.tokens, y.finished)
            assert x.reward == pytest.approx(y.reward, abs=1e-2)
            assert x.confidence == pytest.approx(y.confidence, abs=1e-3)
        assert one.weights == pytest.approx(other.weights, abs=1e-3)
        assert one.log_evidence == pytest.approx(other.log_evidence, abs=1e-2)


def chosen_steps(run: Run) -> tuple[str, ...] | None:
    return None if run.chosen is None else run.paths[run.chosen].steps


def found() -> SimpleNamespace:
    """What `solve` finds for one problem, as far as it is printed."""
    particle = Particle(("so 5\n\n",), "5", 0.75, -math.inf, True)
    return SimpleNamespace(
        problem="2+3?",
        answer="5",
        chosen=particle,
        particles=[particle],
        votes={"5": 0.75, None: 0.25},
        log_evidence=-1.0,
        cost=Cost(1, 2, 3, 1, 4, 5, 0.1),
    )
