"""From records to right and wrong: every answer is read anew from its text, compared
with the task's, and chosen as its method says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..methods import ANSWERS, settled
from ..printing import Failure
from ..settings import ROUND
from ..solution import VOTES, Particle, choose
from . import measures
from .measures import Array
from .recipe import EARLY, ORACLE, SAMPLED
from .records import Run, Study, Written, read
from .tasks import TASKS, Item, Task, load_items

UNSCORED = ("majority", "confidence")  # choices that ask no reward model
ALONE = ("greedy", "adaptive")  # methods that ask none


@dataclass
class Row:
    """A method at a budget. Arrays are (seeds, problems), nan where unknown."""

    method: str
    n: int
    correct: Array
    tokens: Array  # generated, and scored if a reward model was asked
    seconds: Array
    cell: dict[str, Any]
    derived: bool = False  # from the samples of a larger budget

    @property
    def values(self) -> Array:
        """(problems,) the mean over seeds."""
        return over_seeds(self.correct)

    @property
    def cost(self) -> float:
        """Counted tokens a problem."""
        return self.cost_on(slice(None))

    def cost_on(self, problems: Any) -> float:
        """On some of the problems, as an index of them; nan if none was run."""
        own = over_seeds(self.tokens)[problems]
        return float(own[~np.isnan(own)].mean()) if not np.isnan(own).all() else np.nan


def over_seeds(x: Array) -> Array:
    here = ~np.isnan(x)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(here, x, 0).sum(0) / here.sum(0))


@dataclass
class Grades:
    """All rows of a study, on the same problems."""

    items: list[Item]
    rows: dict[tuple[str, int], Row]
    study: Study
    task: str
    data: str
    failed: list[Failure] = field(default_factory=list)  # to read a problem

    def of(self, method: str) -> list[Row]:
        """A method's rows, by budget."""
        return sorted(
            (row for row in self.rows.values() if row.method == method),
            key=lambda row: row.n,
        )

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(row.method for row in self.rows.values()))


def grade(
    folder: str | Path,
    choices: Sequence[str] = (),
    data: str | None = None,
    skip: int = 0,
    limit: int | None = None,
) -> Grades:
    """Grade the records of a folder, the cells of its last settings only.

    choices  further choices among each method's particles, each of them a row
    data     where the problems are, if not where the records say
    Raises UserError if there are no records, or they are not of the data.
    """
    study = read(folder := Path(folder), check=False)
    cells = study.current()
    if not cells or not study.lines:
        raise UserError(f"{folder} holds no records; `pfref run` writes them")
    for name in choices:
        if name not in (*VOTES, "argmax"):
            known = ", ".join([*VOTES, "argmax"])
            raise UserError(f"there is no choice {name!r} to report; choose of {known}")
    first = next(iter(cells.values()))
    task, data = TASKS[first["task"]], data or first["data"]
    items = load_items(data, limit, skip)
    items = [item for item in items if item.id in study.lines]
    if not items:
        raise UserError(f"the records in {folder} are not of the problems of {data}")
    by_key: dict[str, list[dict[str, Any]]] = {}
    for cell in cells.values():
        by_key.setdefault(cell["cell"], []).append(cell)
    study.check(items)
    table = Table(items, study.seeds)
    failed: list[Failure] = []
    sizes = {cell["n"] for cell in cells.values()}
    sizes |= {2**k for k in range(max(sizes).bit_length())}
    order = {key: k for k, key in enumerate(by_key)}  # the recipe's
    for p, item in enumerate(items):
        reader = Reader(task, item)
        runs = [run for run in study.runs(item.id) if run.key in order]
        for run in sorted(runs, key=lambda run: order[run.key]):
            for cell in by_key[run.key]:
                if run.failed:
                    failed.append(Failure(item.id, run.failed, cell["label"]))
                for result in results(run, cell, reader, sorted(sizes), choices):
                    table.note(p, cell, *result)
    return Grades(items, table.rows, study, task.name, data, failed)


@dataclass
class Table:
    items: list[Item]
    seeds: list[int]
    rows: dict[tuple[str, int], Row] = field(default_factory=dict)

    def note(
        self,
        p: int,
        cell: dict[str, Any],
        method: str,
        n: int,
        correct: float,
        tokens: float,
        seconds: float,
    ) -> None:
        shape = len(self.seeds), len(self.items)
        if (row := self.rows.get((method, n))) is None:
            a, b, c = (np.full(shape, np.nan) for _ in range(3))
            derived = cell["settings"]["method"] == "samples" and n < cell["n"]
            row = self.rows[method, n] = Row(method, n, a, b, c, cell, derived)
        at = self.seeds.index(cell["seed"]), p
        row.correct[at], row.tokens[at], row.seconds[at] = correct, tokens, seconds


class Reader:
    """One problem's answers: equal ones are one, and each is graded once."""

    def __init__(self, task: Task, item: Item) -> None:
        self.task, self.item = task, item
        self.answers: dict[tuple[str, ...], str | None] = {}
        self.known: dict[str, int] = {}  # spelling -> class
        self.classes: list[str] = []
        self.right: list[bool] = []

    def answer(self, path: Written) -> int:
        """The number of a solution's answer, -1 for none."""
        if path.steps not in self.answers:
            self.answers[path.steps] = self.task.answer("".join(path.steps))
        return self.number(self.answers[path.steps])

    def number(self, answer: str | None) -> int:
        if not answer:
            return -1
        if answer not in self.known:
            # `same` is not symmetric, so a class holds answers of one verdict only.
            right = self.task.same(self.item.answer, answer)
            alike = (
                k
                for k, a in enumerate(self.classes)
                if self.right[k] == right and self.task.same(a, answer)
            )
            self.known[answer] = k = next(alike, len(self.classes))
            if k == len(self.classes):
                self.classes.append(answer)
                self.right.append(right)
        return self.known[answer]

    def grade(self, number: int) -> bool:
        return number >= 0 and self.right[number]


Result = tuple[str, int, float, float, float]  # method, n, correct, tokens, seconds


def results(
    run: Run,
    cell: dict[str, Any],
    reader: Reader,
    sizes: Sequence[int],
    choices: Sequence[str],
) -> Iterator[Result]:
    """What one run says: of samples for each smaller budget and choice, else once for
    the method's own choice and for each of `choices`.
    """
    method, label = cell["settings"]["method"], cell["label"]
    if method == "samples":
        yield from sampled(run, label, reader, sizes, cell["n"])
        return
    _, generated, scored = run.counts[:3]
    cost = float(generated + (0 if method in ALONE else scored))
    own = cell["settings"]["choose"] or ANSWERS[method]
    numbers = [reader.answer(path) for path in run.paths]
    found = [
        Particle((), str(k) if k >= 0 else None, w, *rest(path))
        for k, w, path in zip(numbers, run.weights, run.paths, strict=True)
    ]
    for name in (own, *(c for c in choices if c != own)):
        if name == "draw":
            chosen = None if run.chosen is None else found[run.chosen]
        else:
            chosen = choose(name, found)
        number = int(chosen.answer) if chosen and chosen.answer else -1
        title = label if name == own else f"{label} ({name})"
        yield title, cell["n"], reader.grade(number), cost, seconds(run)


def sampled(
    run: Run, label: str, reader: Reader, sizes: Sequence[int], largest: int
) -> Iterator[Result]:
    """Rows for every budget up to the number of samples: means over disjoint blocks."""
    prefix = "" if label == "samples" else f"{label}: "
    answers = np.array([reader.answer(path) for path in run.paths], dtype=np.int64)
    finished = np.array([path.finished for path in run.paths], dtype=bool)
    answers = np.where(finished, answers, -1) if len(answers) else answers
    right = np.array([*reader.right, False])  # -1 is the last
    rewards = np.array([path.reward for path in run.paths])
    shares = {
        name: np.array([vote(Particle((), None, 0, *rest(p))) for p in run.paths])
        for name, vote in VOTES.items()
        if name in SAMPLED.values()
    }
    told = all(path.confidence is not None for path in run.paths)
    lengths = np.array([path.tokens for path in run.paths], dtype=float)
    prompt, generated, scored, *more = run.counts
    # Of the scored ones the prompt; older records have the policy's only. A probe reads
    # nothing of its own, the prompt neither.
    read = more[0] if more else prompt if scored else 0
    per_token = (scored - read) / max(1, generated)
    for n in (n for n in sizes if n <= largest):
        whole = n == largest
        took = seconds(run) if whole else np.nan
        if not run.paths:  # a problem that could not be run
            for title in (*SAMPLED, EARLY, ORACLE):
                yield prefix + title, n, 0.0, 0.0, took
            continue
        written = lengths[: len(lengths) // n * n].sum() / (len(lengths) // n)
        judged = scored if whole else read + per_token * written
        for title, name in SAMPLED.items():
            if name == "confidence" and not told:  # by a server
                continue
            if name == "argmax":
                at = measures.best(rewards, finished, n)
                picked = np.where(at >= 0, answers[at], -1)
            else:
                picked = measures.votes(answers, shares[name], n)
            cost = written + (0 if name in UNSCORED else judged)
            yield prefix + title, n, float(right[picked].mean()), cost, took
        drawn = measures.stops(answers, finished, n, ROUND, settled)
        ends = [answer for _, _, answer in drawn]
        spent = np.mean([lengths[a : a + m].sum() for a, m, _ in drawn])
        yield prefix + EARLY, n, float(right[ends].mean()), float(spent), np.nan
        hits = int(right[answers].sum())
        oracle = measures.pass_at(hits, len(answers), n)
        yield prefix + ORACLE, n, oracle, written, took


def seconds(run: Run) -> float:
    """A problem's share of its batch; nan if nobody measured it, as for a replay."""
    return run.batch[3] / run.batch[0] or np.nan


def rest(path: Written) -> tuple[float, bool, int, float]:
    return path.reward, path.finished, path.tokens, path.confidence or 0.0
