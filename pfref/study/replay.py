"""Recorded samples in a policy's place: another reward model reads what was written,
and nothing is written again.

    pfref run RECIPE --prm OTHER --replay FOLDER --out OTHER_FOLDER

Reward models are then compared on the same samples, for the price of reading them.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ..errors import UserError
from ..loading import probe_file
from ..paths import Paths
from ..settings import Proposal, Settings
from .recipe import ONCE, OUTSIDE, Cell, Recipe
from .records import Run, Written, read
from .tasks import Item

METHODS = ("samples", "greedy")  # whose particles no score has touched
# Settings that weigh, choose or steer, but do not write samples.
WEIGHS = (
    *("potential", "tau", "anneal", "finished", "aggregation", "choose", "threshold"),
    *("resampling", "batch", "width", "sweeps", "temperatures"),
)
BOX = re.compile(r"(\\boxed\{.*\})?", re.DOTALL)


@dataclass
class Script:
    """What each row has to write."""

    rows: list[Written]
    calls: int = 0  # of a language model


class Replay:
    """A `Policy` that writes what `folder` has recorded: the same steps, tokens, log
    probabilities and ends. Raises UserError for a folder without records.
    """

    model = None  # holds no memory
    context = sys.maxsize

    def __init__(self, folder: Path) -> None:
        self.folder, self.study = folder, read(folder)
        if not self.study.lines:
            raise UserError(f"there are no records in {folder}; name a run's folder")
        if self.study.damaged:
            told = f"{self.study.damaged} damaged lines in {folder} are left out"
            print(f"pfref: {told}", file=sys.stderr)
        replayable = {
            key
            for (key, _), cell in self.study.cells.items()
            if cell["settings"]["method"] in METHODS
        }
        self.samples: dict[str, dict[str, Run]] = {key: {} for key in replayable}
        for id in self.study.lines:
            for run in self.study.runs(id):
                if run.key in replayable:
                    self.samples[run.key][id] = run
        self.held: dict[str, dict[str, Run]] = {}  # by the recipe's cell and problem
        self.runs: dict[str, Run] = {}  # of the cell at hand, by the problem's text
        self.numbers: dict[str, int] = {}  # of these texts

    def narrowed(self, recipe: Recipe) -> Recipe:
        """The recipe's cells that can be replayed; the others are named on standard
        error. Raises UserError if there is none, or one that cannot be judged so.
        """
        cells = [c for c in recipe.cells if c.settings.method in METHODS]
        if not cells:
            raise UserError(
                "--replay judges samples, and the recipe has no method `samples`; add "
                "one, with the settings of the recorded one"
            )
        why = []
        for cell in cells:
            check(cell)
            try:
                self.held[cell.key] = self.recorded(cell)
            except UserError as error:
                why.append(str(error))
        if not self.held:
            raise UserError(why[0])
        if left := {c.label for c in recipe.cells} - {c.label for c in cells}:
            told = "; ".join(sorted(left))
            why.append(f"only samples are replayed, and these methods left out: {told}")
        for line in why:
            print(f"pfref: {line}", file=sys.stderr)
        return replace(recipe, cells=tuple(c for c in cells if c.key in self.held))

    def recorded(self, cell: Cell) -> dict[str, Run]:
        """What the folder has of a cell but for its reward model, by problem. Raises
        UserError if that is nothing, or answers without the solutions.
        """
        wanted = written_by(json.loads(json.dumps(cell.header())))
        there = {key: written_by(c) for (key, _), c in self.study.cells.items()}
        runs = [
            run
            for key, own in self.samples.items()
            if there[key] == wanted
            for run in own.values()
            if len(run.paths) == cell.n or run.failed
        ]
        good = {run.id: run for run in runs if run.paths and not answers_only(run)}
        if good:  # a failure counts where nothing else is recorded
            return {run.id: run for run in runs if run.failed} | good
        if runs:
            raise UserError(
                f"{self.folder} keeps the answers of its solutions only; --replay "
                "needs the records before `pfref pack --answers`"
            )
        like = [d for what in there.values() if (d := differing(what, wanted))]
        hint = f"; it has some that differ in {min(like, key=len)}" if like else ""
        raise UserError(
            f"{self.folder} holds no {cell.settings.method} with N = {cell.n} and seed "
            f"{cell.settings.seed} as the recipe has them{hint}"
        )

    def among(self, plan: Any) -> Any:
        """Of an `experiment.Plan` what can be replayed; the rest is counted."""
        found = []
        try:
            self.study.check(plan.items)
        except UserError as error:
            raise UserError(f"{self.folder}: {error}") from error
        for cell, items in plan.left:
            own = [item for item in items if item.id in self.held[cell.key]]
            if missing := len(items) - len(own):
                print(
                    f"pfref: {self.folder} lacks {missing} of {len(items)} problems of "
                    f"{cell.label!r}, seed {cell.settings.seed}",
                    file=sys.stderr,
                )
            found += [(cell, own)] if own else []
        return replace(plan, left=found)

    def rounds(self, cell: Cell, items: Sequence[Item]) -> Iterator[list[Item]]:
        """Problems that differ in their texts, by which this policy knows them; a text
        that stands twice comes in two rounds.
        """
        held, seen = self.held[cell.key], Counter[str]()
        turns: dict[int, list[Item]] = {}
        for item in items:
            turns.setdefault(seen[item.problem], []).append(item)
            seen[item.problem] += 1
        for own in turns.values():
            self.runs = {item.problem: held[item.id] for item in own}
            self.numbers = {text: k for k, text in enumerate(self.runs)}
            yield own

    def check(self, settings: Settings) -> None:
        assert settings.method in METHODS

    def prompt(self, problem: str, system: str | None = None) -> list[int]:
        """As many tokens as the prompt had; each is the number of its run. Raises
        UserError for a problem that could not be run, as it was recorded.
        """
        if problem not in self.runs:
            return [0]
        if reason := self.runs[problem].failed:
            raise UserError(reason)
        return [self.numbers[problem]] * self.runs[problem].counts[0]

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        particles: int,
        proposal: Proposal,
        copies: int = 1,
    ) -> Paths:
        paths = Paths.empty(len(prompts) * copies, particles)
        runs = list(self.runs.values())
        script = [path for ids in prompts for path in runs[ids[0]].paths]
        paths.work = Script(script)
        for row, path in enumerate(script):
            paths.tokens[row] = (0,) * path.tokens
            paths.generated[row // particles] += path.tokens
            sure = torch.nan if path.confidence is None else path.confidence
            paths.log_p[row] = sure * path.tokens
        return paths

    def extend(
        self,
        paths: Paths,
        active: Tensor,
        sources: Sequence[Generator],
        forced: dict[int, Sequence[int]] | None = None,
    ) -> Tensor:
        """Every active row's next step."""
        paths.spoke[:] = False
        for row in active.nonzero()[:, 0].tolist():
            written = paths.work.rows[row]
            step = written.steps[len(paths.texts[row])]
            paths.texts[row] += (step,)
            paths.ends[row] += (len(paths.tokens[row]),)
            paths.spoke[row] = bool(step.strip())
            if len(paths.texts[row]) == len(written.steps):
                paths.ended[row] = written.finished
                paths.truncated[row] = not written.finished
        return torch.ones(paths.shape[0], dtype=torch.bool)

    def fork(self, paths: Paths, ancestors: Tensor) -> None:
        raise AssertionError("samples are not resampled")


def check(cell: Cell) -> None:
    """Raises UserError for what records do not tell."""
    s = cell.settings
    for wrong, why in (
        (
            probe_file(str(cell.models["prm"])),
            "a probe reads the states of the model while it writes",
        ),
        (
            s.proposal.target and s.method != "greedy",
            "weights to another target than the proposal need its probabilities",
        ),
        (
            s.proposal.step_tokens or s.finished == "reweighted",
            "with --step-tokens or --finished reweighted a turn without a word counts",
        ),
        (s.choose == "draw", "a draw needs the random numbers of the run"),
    ):
        if wrong:
            raise UserError(f"{why}, and no record holds that; leave --replay out")


def answers_only(run: Run) -> bool:
    """Is it what `pack --answers` keeps: a box, or a last step, of long solutions?"""
    return all(
        len(path.steps) == 1
        and (BOX.fullmatch(path.steps[0]) or 2 * len(path.steps[0]) < path.tokens)
        for path in run.paths
    )


def differing(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The names of what two cells differ in, if they are of one method."""
    if one["method"] != other["method"]:
        return ""
    names = [k for k in {**one, **other} if one.get(k) != other.get(k)]
    return ", ".join(sorted(names))


def written_by(header: dict[str, Any]) -> dict[str, Any]:
    """What decides a cell's texts: all but its reward model, and how it weighs. What is
    None does not count, as in a cell's key.
    """
    settings = dict(header["settings"])
    what = header["models"] | settings.pop("proposal") | settings
    what |= dict(task=header["task"], data=Path(header["data"]).name)
    once = ("seed",) if what["method"] in ONCE else ()
    return {
        name: value
        for name, value in what.items()
        if value is not None
        and name not in (*OUTSIDE, *WEIGHS, *once)
        and not name.startswith("prm")
    }
