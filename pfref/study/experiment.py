"""Run a recipe: every method, budget and seed on every problem, recorded problem by
problem, so that a run that was stopped goes on where it was.
"""

import contextlib
import datetime
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..printing import Failure, bar, unread, watching
from .journal import Journal
from .memory import fitting
from .recipe import Cell, Recipe
from .records import SCHEMA, Run, Study, encode, mark, read, run_of
from .replay import Replay
from .tasks import TASKS, Item, Task, load_items


@dataclass(frozen=True)
class Plan:
    """What a run has to do: for each cell the problems without a record, in order.

    A problem's particles depend on its seed, its text and how often that text came
    before, so problems of one text are run together.
    """

    recipe: Recipe
    task: Task
    items: list[Item]
    left: list[tuple[Cell, list[Item]]]

    @property
    def particles(self) -> int:
        return sum(cell.n * len(items) for cell, items in self.left)


def plan(recipe: Recipe, study: Study, part: tuple[int, int] = (1, 1)) -> Plan:
    """What is left of a recipe when `study` is recorded. Part (k, m) is every m-th
    problem from the k-th on. Raises UserError for data that is not there.
    """
    for cell in recipe.cells:
        check(cell)
    check_servers(recipe.cells)
    items = load_items(recipe.data, recipe.limit, recipe.skip)
    study.check(items)
    texts = list(dict.fromkeys(item.problem for item in items))
    own = set(texts[part[0] - 1 :: part[1]])
    done, left = study.done, []
    for cell in recipe.cells:
        key = cell.key  # may read a probe's file
        lacking = {i.problem for i in items if (key, i.id) not in done} & own
        left.append((cell, [item for item in items if item.problem in lacking]))
    return Plan(recipe, TASKS[recipe.task], items, [c for c in left if c[1]])


def check(cell: Cell) -> None:
    """What else would be refused only when the cell's turn comes, hours later."""
    from ..dialects import check as check_served
    from ..pair import check as check_flags
    from ..schedules import schedule

    s, place = cell.settings, f"method {cell.label!r}, budget {cell.n}: "
    try:
        schedule(s.anneal, s.proposal.max_steps)
        check_flags(cell.models)
        if cell.models.get("endpoint"):
            check_served(s)
    except UserError as error:
        raise UserError(f"{place}{error}") from error
    if s.method in ("gibbs", "tempering"):
        chains = len(s.temperatures) if s.method == "tempering" else 1
        if cell.n < 2 * s.sweeps * chains:
            raise UserError(
                f"{place}{s.sweeps} sweeps of {chains} chains take at least "
                f"{2 * s.sweeps * chains} particles; give it budgets of its own"
            )
        if s.finished != "absorbed":
            raise UserError(f"{place}{s.method} leaves finished particles absorbed")


def check_servers(cells: Sequence[Cell]) -> None:
    """Raises UserError if one server is taken for two models."""
    for who, address in (("model", "endpoint"), ("prm", "prm_endpoint")):
        held: dict[tuple[Any, Any], Any] = {}
        for cell in cells:
            if url := cell.models[address]:
                own, place = cell.models[who], (url, cell.models[f"{address}_model"])
                if held.setdefault(place, own) != own:
                    raise UserError(
                        f"method {cell.label!r} has {who} {own!r}, and the server at "
                        f"its {address} is already that of {held[place]!r}; give it "
                        f"an {address} of its own, or leave it out of the recipe"
                    )


class Models:
    """The models of the cell at hand. Only one pair is held at a time."""

    def __init__(self, replay: Replay | None = None) -> None:
        self.replay = replay
        self.named: dict[str, Any] | None = None
        self.pair: Any = None

    def __call__(self, named: dict[str, Any]) -> Any:
        if named != self.named:
            from ..pair import load_models

            self.named, self.pair = None, None  # memory first
            self.pair, self.named = load_models(named, self.replay), named
        return self.pair


def run(
    recipe: Recipe,
    folder: str | Path,
    part: tuple[int, int] = (1, 1),
    command: str = "",
    quiet: bool = True,
    fleet: Any = None,
    replay: Replay | None = None,
) -> int:
    """Run what is left of a recipe and record it in `folder`; return how many problems
    were run. Raises UserError if nothing can be run or written; what is there stays.

    fleet   a `fleet.Fleet` of machines that run it; None for this process
    replay  recorded samples, which are judged instead of written
    """
    whole = part == (1, 1)
    recipe = replay.narrowed(recipe) if replay else recipe
    with Journal(folder := Path(folder), None if whole else part[0]) as journal:
        study = read(folder)
        if study.damaged:
            print(
                f"pfref: {study.damaged} damaged lines in {folder} are left out",
                file=sys.stderr,
            )
        todo = plan(recipe, study, part)
        todo = replay.among(todo) if replay else todo
        models, recorded = Models(replay), set(study.done)
        labels = {cell.key: cell.label for cell in recipe.cells}
        failed: list[Failure] = []
        # What is not there, or does not fit, is told before any work.
        if todo.left and fleet is None:
            first = todo.left[0][0].models
            lm, prm = models(first)
            for cell, _ in todo.left:
                if cell.models == first:
                    fitting(cell, lm, prm, ())
        if todo.left or study.asked != asked(recipe) or told(recipe, study):
            journal.append(headers(recipe, study, part, command))
        with bar(todo.particles, quiet) as progress:

            def note(runs: Sequence[Run]) -> None:
                fresh = [run for run in runs if (run.key, run.id) not in recorded]
                journal.append(encode([run]) for run in fresh)
                recorded.update((run.key, run.id) for run in fresh)
                failed.extend(
                    Failure(run.id, run.failed, labels[run.key])
                    for run in fresh
                    if run.failed
                )
                progress.update(sum(max(1, len(run.paths)) for run in fresh))

            if fleet and todo.left:
                fleet.run(todo.left, todo.task, note)
            for cell, items in todo.left if fleet is None else ():
                seed = cell.settings.seed
                progress.set_description(f"{cell.label}, N = {cell.n}, seed {seed}")
                pair = models(cell.models)
                watch = watching(progress, pair)
                for some in replay.rounds(cell, items) if replay else (items,):
                    run_cell(cell, some, todo.task, pair, note, watch)
        for line in unread(failed):
            print(f"pfref: {line}; counted as not solved", file=sys.stderr)
        return len(recorded) - len(study.done)


def run_cell(
    cell: Cell,
    items: Sequence[Item],
    task: Task,
    pair: Any,
    note: Callable[[Sequence[Run]], None],
    watch: Callable[[Any], None] | None = None,
) -> None:
    """Solve a cell's problems and hand each batch's runs to `note`. A problem that the
    models cannot read has a record too, so that it counts as not solved. If memory runs
    out, smaller batches take what is left.
    """
    import torch

    from ..pair import unreadable

    lm, prm = pair
    problems = [item.problem for item in items]
    failed = unreadable(lm, prm, problems, cell.settings.system)
    if failed:
        note([failure(cell.key, items[k], reason) for k, reason in failed.items()])
    readable = [item for k, item in enumerate(items) if k not in failed]
    batch = fitting(cell, lm, prm, [item.problem for item in readable])
    noted: set[str] = set()

    def take(runs: Sequence[Run]) -> None:
        note(runs)
        noted.update(run.id for run in runs)

    while lacking := {item.problem for item in readable if item.id not in noted}:
        own = [item for item in readable if item.problem in lacking]
        try:
            solve_cell(cell, own, task, pair, take, batch, watch)
        except torch.OutOfMemoryError as error:
            if batch <= cell.settings.together:
                raise UserError(
                    f"out of memory with {cell.n} particles of one problem; take a "
                    "smaller budget, smaller models or fewer tokens a solution"
                ) from error
            batch = max(cell.settings.together, batch // 2)
            print(f"pfref: out of memory; batch = {batch} from here", file=sys.stderr)
        with contextlib.suppress(RuntimeError):  # some versions, after a failed record
            torch.cuda.empty_cache()


def solve_cell(
    cell: Cell,
    items: Sequence[Item],
    task: Task,
    pair: Any,
    note: Callable[[Sequence[Run]], None],
    batch: int,
    watch: Callable[[Any], None] | None = None,
) -> None:
    from ..solver import solve

    left, key = iter(items), cell.key

    def done(solutions: Iterable[Any]) -> None:
        note([run_of(key, next(left).id, found) for found in solutions])

    lm, prm = pair
    texts = [item.problem for item in items]
    options = vars(cell.settings) | dict(batch=batch)
    solve(texts, lm, prm, task=task, done=done, watch=watch, **options)


def failure(key: str, item: Item, reason: str) -> Run:
    counts, batch = (0, 0, 0), (1, 0, 0, 0.0)
    return Run(
        *(key, item.id, [], [], None, None, None, counts, batch),
        failed=reason,
        text=mark(item.problem),
    )


def asked(recipe: Recipe) -> list[list[str]]:
    """Key and label of all cells."""
    return [[cell.key, cell.label] for cell in recipe.cells]


def headers(
    recipe: Recipe, study: Study, part: tuple[int, int], command: str
) -> list[str]:
    """The lines with which a session begins."""
    from .. import __version__
    from ..records import environment

    session = dict(
        schema=SCHEMA,
        time=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        command=command,
        part=list(part),
        pfref=__version__,
        environment=environment(),
        cells=asked(recipe),
    )
    lines = dict(session=session), *told(recipe, study)
    return [json.dumps(line) for line in lines]


def told(recipe: Recipe, study: Study) -> list[dict[str, Any]]:
    """What the records do not say yet of the recipe's cells: how an answer is chosen,
    say, is no part of a cell's key, and may have changed.
    """
    return [
        header
        for header in json.loads(json.dumps([cell.header() for cell in recipe.cells]))
        if study.cells.get((header["cell"], header["label"])) != header
    ]
