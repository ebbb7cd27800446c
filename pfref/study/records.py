"""The records of a study: a folder of JSON Lines files, from which everything that a
report says is computed, and nothing else.

A file holds three kinds of lines.

    {"session": ..}  a run began: machine, versions, and the cells it means to run
    {"cell": ..}     a cell's key with its label, budget, seed, models and settings
    {"id": ..}       a problem by its id, what was written for it, and by whom:
      text             a mark of its text: eight digits of a hash
      steps            its distinct step texts
      paths            its distinct solutions: numbers of steps; reward, as log-odds,
                       null for minus infinity; tokens; confidence; finished
      runs             one a cell: the particles as numbers of paths, their weights,
                       evidence, ancestors, counts and times

Neither problems nor verdicts are in it: answers are read and graded anew from the texts
by every report. A run writes one line a problem and cell; `archive.pack` makes one line
a problem of them all, and compresses it.
"""

import hashlib
import json
import lzma
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import UserError
from .tasks import TASKS, Item, Task, task_named

SCHEMA = 1
# How a problem's line begins.
NAMED = re.compile(r'\{"id":("(?:[^"\\]|\\.)*"),(?:"text":"([0-9a-f]+)",)?')
TOLD = ("time", "part", "pfref", "environment", "cells")  # by a session
# What damaged lines give.
BROKEN = (
    *(ValueError, KeyError, TypeError, IndexError, AttributeError),
    RecursionError,
)


class Written(NamedTuple):
    """One solution: what a particle has written."""

    steps: tuple[str, ...]
    reward: float  # log-odds
    tokens: int
    confidence: float | None  # mean log probability a token
    finished: bool


@dataclass(frozen=True)
class Run:
    """One cell's particles on one problem."""

    key: str
    id: str
    paths: list[Written]  # of each particle
    weights: list[float]
    chosen: int | None  # the particle whose answer the method gave
    log_evidence: float | None
    ancestors: list[Any] | None  # (T, N); None for a turn without resampling
    counts: tuple[int, ...]  # prompt, generated, scored tokens; scored prompt
    batch: tuple[int, int, int, float]  # problems, LM and PRM calls, seconds
    failed: str | None = None  # why the problem could not be run at all
    text: str | None = None  # the mark of the problem's text; older records have none


def mark(problem: str) -> str:
    """Tells a problem's text from another."""
    return hashlib.sha256(problem.encode("utf-8", "replace")).hexdigest()[:8]


def encode(runs: Sequence[Run], digits: int = 6) -> str:
    """One line for runs on the same problem, with weights to so many significant
    digits.
    """
    steps: dict[str, int] = {}
    paths: dict[tuple[Any, ...], int] = {}
    lines = []
    for run in runs:
        members = []
        for path in run.paths:
            numbers = [steps.setdefault(step, len(steps)) for step in path.steps]
            reward = round(path.reward, 4) if math.isfinite(path.reward) else None
            sure = None if path.confidence is None else round(path.confidence, 4)
            row = (tuple(numbers), reward, path.tokens, sure, int(path.finished))
            members.append(paths.setdefault(row, len(paths)))
        own: dict[str, Any] = dict(key=run.key, particles=members)
        weights = [float(f"{w:.{digits}g}") for w in run.weights]
        own["weights"] = weights[0] if len(set(weights)) == 1 else weights
        for name in ("chosen", "ancestors", "failed"):
            if getattr(run, name) is not None:
                own[name] = getattr(run, name)
        if run.log_evidence is not None and math.isfinite(run.log_evidence):
            own["log_evidence"] = round(run.log_evidence, 6)
        own["counts"] = run.counts
        own["batch"] = (*run.batch[:3], round(run.batch[3], 3))
        lines.append(own)
    whole: dict[str, Any] = dict(id=runs[0].id)
    marks = {run.text for run in runs}
    if len(marks) == 1 and None not in marks:  # else it is not known of every run
        whole["text"] = marks.pop()
    whole |= dict(steps=list(steps), paths=list(paths), runs=lines)
    return json.dumps(whole, separators=(",", ":"), allow_nan=False)


def decode(line: dict[str, Any]) -> Iterator[Run]:
    """The runs of a line."""
    steps = line["steps"]
    paths = [
        Written(
            tuple(steps[k] for k in numbers),
            -math.inf if reward is None else reward,
            tokens,
            confidence,
            bool(finished),
        )
        for numbers, reward, tokens, confidence, finished in line["paths"]
    ]
    for run in line["runs"]:
        members = [paths[k] for k in run["particles"]]
        weights = run["weights"]
        if not isinstance(weights, list):
            weights = [weights] * len(members)
        counts, batch = tuple(run["counts"]), tuple(run["batch"])
        if len(counts) < 3 or len(batch) != 4 or batch[0] < 1:
            raise ValueError("the counts are not whole")
        names = ("chosen", "log_evidence", "ancestors", "failed")
        others: dict[str, Any] = {name: run.get(name) for name in names}
        others |= dict(counts=counts, batch=batch, text=line.get("text"))
        yield Run(run["key"], line["id"], members, weights, **others)


def run_of(key: str, id: str, solution: Any) -> Run:
    """What is recorded of a `Solution`."""
    at = [
        k
        for k, particle in enumerate(solution.particles)
        if particle is solution.chosen
    ]
    cost = solution.cost
    seconds = cost.seconds if cost.lm_calls else 0.0  # a replay's time is no run's
    return Run(
        key,
        id,
        [
            Written(p.steps, p.reward, p.tokens, p.confidence, p.finished)
            for p in solution.particles
        ],
        [p.weight for p in solution.particles],
        at[0] if at else None,
        solution.log_evidence,
        lines_of_descent(getattr(solution.trace, "ancestors", None)),
        (
            *(cost.prompt_tokens, cost.generated_tokens, cost.scored_tokens),
            cost.scored_prompt_tokens,
        ),
        (cost.problems, cost.lm_calls, cost.prm_calls, seconds),
        text=mark(solution.problem),
    )


def lines_of_descent(ancestors: Any) -> list[Any] | None:
    """(T, N) ancestors as a list; None for a turn in which all kept their own."""
    if ancestors is None:
        return None
    return [
        None if turn == list(range(len(turn))) else turn for turn in ancestors.tolist()
    ]


@dataclass
class Study:
    """All that a folder holds."""

    sessions: list[dict[str, Any]] = field(default_factory=list)
    cells: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)  # by problem, as written
    done: set[tuple[str, str]] = field(default_factory=set)  # key and problem
    texts: dict[str, set[str]] = field(default_factory=dict)  # the problems' marks
    damaged: int = 0  # lines that could not be read
    latest: str = ""  # session of the file that is being read
    since: dict[tuple[str, str], str] = field(default_factory=dict)  # of the cells

    def runs(self, id: str) -> Iterator[Run]:
        """A problem's runs, each once. What two processes ran both counts once."""
        seen = set()
        for line in self.lines[id]:
            try:
                found = list(decode(json.loads(line)))
            except BROKEN:
                self.damaged += 1
                continue
            for run in found:
                if run.key not in seen:
                    seen.add(run.key)
                    yield run

    def check(self, items: Sequence[Item]) -> None:
        """Raises UserError if a problem is not the one recorded under its id."""
        for item in items:
            if self.texts.get(item.id, own := {mark(item.problem)}) != own:
                raise UserError(
                    f"the records hold another problem under the id {item.id!r} than "
                    "the data; give the data they were made with, or write to another "
                    "folder"
                )

    def task_of(self, run: Run) -> Task:
        cells = (c for (key, _), c in self.cells.items() if key == run.key)
        return TASKS[next(cells)["task"]]

    @property
    def asked(self) -> list[list[str]] | None:
        """Key and label of the cells that the last session was to run."""
        sessions = sorted(self.sessions, key=lambda s: s["session"]["time"])
        return sessions[-1]["session"]["cells"] if sessions else None

    def current(self) -> dict[tuple[str, int, int], dict[str, Any]]:
        """By label, budget and seed the cell that a run asked for last: records of old
        settings stay in the files and are not reported.
        """
        found = {}
        for session in sorted(self.sessions, key=lambda s: s["session"]["time"]):
            for key, label in session["session"]["cells"]:
                if cell := self.cells.get((key, label)):
                    found[label, cell["n"], cell["seed"]] = cell
        return found

    @property
    def seeds(self) -> list[int]:
        """Of the current cells."""
        return sorted({seed for _, _, seed in self.current()})


def files_of(folder: Path) -> list[Path]:
    """The files of records in a folder; without a packed file's sources."""
    return sorted([*folder.glob("records*.jsonl"), *folder.glob("records*.jsonl.xz")])


def read(folder: Path, check: bool = True) -> Study:
    """Everything recorded in a folder. A line that is cut or damaged is counted and
    left out: of problems' lines now if `check`, else when their runs are asked for.
    Raises UserError for records of a newer format.
    """
    study = Study()
    for file in files_of(folder):
        study.latest = ""
        try:
            with opened(file) as stream:
                for text in stream:
                    if text.endswith("\n"):  # else another run is just writing it
                        take(study, text, file, check)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise UserError(f"cannot read {file}: {error}") from error
    return study


def take(study: Study, text: str, file: Path, check: bool) -> None:
    try:
        if not check and (found := NAMED.match(text)):
            note(study, json.loads(found[1]), found[2], text)
            return
        line = json.loads(text)
        if session := line.get("session"):
            if session["schema"] > SCHEMA:
                raise UserError(f"{file} was written by a newer pfref; update this one")
            _ = [session[name] for name in TOLD]
            study.sessions.append(line)
            study.latest = max(study.latest, session["time"])
        elif "cell" in line:
            _ = line["n"], line["seed"], task_named(line["task"])
            place = line["cell"], line["label"]
            if study.since.get(place, "") <= study.latest:
                study.cells[place], study.since[place] = line, study.latest
        else:
            study.done.update((run.key, run.id) for run in [*decode(line)])
            note(study, line["id"], line.get("text"), text)
    except UserError:
        raise
    except BROKEN:
        study.damaged += 1


def note(study: Study, id: str, text: str | None, line: str) -> None:
    study.lines.setdefault(id, []).append(line)
    if text:
        study.texts.setdefault(id, set()).add(text)


def opened(file: Path) -> IO[str]:
    if file.suffix == ".xz":
        return lzma.open(file, "rt", encoding="utf-8", errors="replace")
    return file.open(encoding="utf-8", errors="replace")
