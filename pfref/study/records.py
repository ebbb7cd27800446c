"""The records of a study: a folder of JSON Lines files, from which everything that a
report says is computed, and nothing else.

A file holds three kinds of lines.

    {"session": ..}  a run began: machine, versions, and the cells it means to run
    {"cell": ..}     a cell's key with its label, budget, seed, models and settings
    {"id": ..}       a problem by its id, what was written for it, and by whom:
      steps            its distinct step texts
      paths            its distinct solutions: numbers of steps; reward, as log-odds,
                       null for minus infinity; tokens; confidence; finished
      runs             one a cell: the particles as numbers of paths, their weights,
                       evidence, ancestors, counts and times

Neither problems nor verdicts are in it: answers are read and graded anew from the texts
by every report. A run writes one line a problem and cell; `pack` makes one line a
problem of them all, and compresses it.
"""

import json
import lzma
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import UserError
from .tasks import TASKS, Task

SCHEMA = 1
PACKED = "records.jsonl.xz"
NAMED = re.compile(r'\{"id":("(?:[^"\\]|\\.)*"),')  # how a problem's line begins
BROKEN = (ValueError, KeyError, TypeError, IndexError)  # what damaged lines give


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
    counts: tuple[int, int, int]  # prompt, generated, scored tokens
    batch: tuple[int, int, int, float]  # problems, LM and PRM calls, seconds
    failed: str | None = None  # why the problem could not be run at all


def encode(runs: Sequence[Run], digits: int = 6, least: float = 0.0) -> str:
    """One line for runs on the same problem, with weights to so many significant
    digits, and 0 for those below `least`.
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
        weights = [float(f"{w:.{digits}g}") if w >= least else 0.0 for w in run.weights]
        own["weights"] = weights[0] if len(set(weights)) == 1 else weights
        for name in ("chosen", "ancestors", "failed"):
            if getattr(run, name) is not None:
                own[name] = getattr(run, name)
        if run.log_evidence is not None and math.isfinite(run.log_evidence):
            own["log_evidence"] = round(run.log_evidence, 6)
        own["counts"] = run.counts
        own["batch"] = (*run.batch[:3], round(run.batch[3], 3))
        lines.append(own)
    whole = dict(id=runs[0].id, steps=list(steps), paths=list(paths), runs=lines)
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
        yield Run(
            run["key"],
            line["id"],
            members,
            weights,
            run.get("chosen"),
            run.get("log_evidence"),
            run.get("ancestors"),
            tuple(run["counts"]),
            tuple(run["batch"]),
            run.get("failed"),
        )


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
        (cost.prompt_tokens, cost.generated_tokens, cost.scored_tokens),
        (cost.problems, cost.lm_calls, cost.prm_calls, seconds),
    )


def bare(run: Run, task: Task) -> Run:
    """Without its texts, but for their answers."""

    def box(path: Written) -> Written:
        answer = task.answer("".join(path.steps))
        text = f"\\boxed{{{answer}}}" if answer else ""
        kept = text if task.answer(text) == answer else path.steps[-1]
        return path._replace(steps=(kept,))

    return replace(run, paths=[box(path) for path in run.paths])


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
    damaged: int = 0  # lines that could not be read

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
        try:
            with opened(file) as stream:
                for text in stream:
                    if text.endswith("\n"):  # else another run is just writing it
                        take(study, text, file, check)
        except (OSError, EOFError, lzma.LZMAError) as error:
            raise UserError(f"cannot read {file}: {error}") from error
    return study


def take(study: Study, text: str, file: Path, check: bool) -> None:
    if not check and (found := NAMED.match(text)):
        study.lines.setdefault(json.loads(found[1]), []).append(text)
        return
    try:
        line = json.loads(text)
        if "session" in line:
            if line["session"]["schema"] > SCHEMA:
                raise UserError(f"{file} was written by a newer pfref; update this one")
            study.sessions.append(line)
        elif "cell" in line:
            study.cells[line["cell"], line["label"]] = line
        else:
            _ = line["paths"], line["steps"]
            study.done.update((run["key"], line["id"]) for run in line["runs"])
            study.lines.setdefault(line["id"], []).append(text)
    except UserError:
        raise
    except BROKEN:
        study.damaged += 1


def opened(file: Path) -> IO[str]:
    if file.suffix == ".xz":
        return lzma.open(file, "rt", encoding="utf-8", errors="replace")
    return file.open(encoding="utf-8", errors="replace")


def pack(
    folder: Path, out: Path | None = None, answers: bool = False
) -> tuple[Path, int]:
    """Write a folder's current records as one small file, a line a problem: a text that
    several methods wrote stands in it once. Weights keep four digits, and none below
    10^-6. With `answers` no more of a text is kept than its answer, in a box. Returns
    the file and its size in bytes.
    """
    study = read(folder)
    cells = list(study.current().values())
    order = {key: k for k, key in enumerate(cell["cell"] for cell in cells)}
    if not study.lines:
        raise UserError(f"{folder} holds no records; `pfref run` writes them")
    out = out or folder / PACKED
    draft = out.with_name(out.name + ".part")
    filters = [dict(id=lzma.FILTER_LZMA2, preset=9 | lzma.PRESET_EXTREME)]
    filters[0]["dict_size"] = 1 << 27
    if out.is_dir() or not out.parent.is_dir():
        raise UserError(f"{out} is no file that can be written; name another")
    with lzma.open(draft, "wt", encoding="utf-8", filters=filters) as stream:
        for header in (*study.sessions, *cells):
            print(json.dumps(header, separators=(",", ":")), file=stream)
        for id in sorted(study.lines):
            own = [run for run in study.runs(id) if run.key in order]
            if answers:
                own = [bare(run, study.task_of(run)) for run in own]
            if own:
                own.sort(key=lambda run: order[run.key])
                print(encode(own, digits=4, least=1e-6), file=stream)
    os.replace(draft, out)
    return out, out.stat().st_size
