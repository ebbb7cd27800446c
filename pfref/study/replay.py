"""Recorded samples in a policy's place: another reward model reads what was written,
and nothing is written again.

    pfref run RECIPE --prm OTHER --replay FOLDER --out OTHER_FOLDER

Reward models are then compared on the same samples, for the price of reading them.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from ..errors import UserError
from ..pair import probe_file
from ..paths import Paths
from ..settings import Proposal, Settings
from .recipe import OUTSIDE, Cell, Recipe
from .records import Run, Written, read
from .tasks import Item

METHODS = ("samples", "greedy")  # whose particles no score has touched
# Settings that weigh, and choose, but do not write.
WEIGHS = (
    *("potential", "tau", "anneal", "finished", "aggregation"),
    *("choose", "threshold", "resampling", "batch"),
)


@dataclass
class Script:
    """What each row has to write."""

    rows: list[Written]
    calls: int = 0  # of a language model


class Replay:
    """A `Policy` that writes what `folder` has recorded: the same steps, tokens, log
    probabilities and ends.
    """

    model = None  # holds no memory
    context = sys.maxsize

    def __init__(self, folder: Path) -> None:
        self.folder, self.study = folder, read(folder)
        self.runs: dict[str, Run] = {}  # of the cell at hand, by the problem's text

    def narrowed(self, recipe: Recipe) -> Recipe:
        """The recipe's cells that can be replayed; the others are named on standard
        error. Raises UserError for a probe, or if the records do not hold a cell.
        """
        kept = [cell for cell in recipe.cells if cell.settings.method in METHODS]
        if not kept:
            raise UserError(
                "--replay judges samples, and the recipe has no method `samples`; add "
                "one, with the label and the settings of the recorded one"
            )
        if left := {c.label for c in recipe.cells} - {c.label for c in kept}:
            told = ", ".join(sorted(left))
            print(f"pfref: left out, what scores steer: {told}", file=sys.stderr)
        for cell in kept:
            if probe_file(str(cell.models["prm"])):
                raise UserError(
                    "a probe reads the states of the model while it writes, which no "
                    "record holds; give --replay another --prm, or leave it out"
                )
            self.recorded(cell)
        return replace(recipe, cells=tuple(kept))

    def recorded(self, cell: Cell) -> dict[str, Run]:
        """What the folder has of a cell but for its reward model, by problem. Raises
        UserError if that is nothing, or answers without the solutions.
        """
        wanted = written_by(json.loads(json.dumps(cell.header())))
        cells = self.study.cells.items()
        keys = {key for (key, _), own in cells if written_by(own) == wanted}
        found = {
            id: run
            for id in self.study.lines
            for run in self.study.runs(id)
            if run.key in keys
        }
        if not found:
            raise UserError(
                f"{self.folder} holds no {cell.settings.method} of the model "
                f"{cell.models['model']} with N = {cell.n}, seed {cell.settings.seed} "
                "and the recipe's other settings; give those of its records"
            )
        paths = [path for run in found.values() for path in run.paths]
        letters = sum(len(step) for path in paths for step in path.steps)
        if 2 * letters < sum(path.tokens for path in paths):
            raise UserError(
                f"{self.folder} keeps the answers of its solutions only; --replay "
                "needs the records before `pfref pack --answers`"
            )
        return found

    def among(self, plan: Any) -> Any:
        """Of an `experiment.Plan` what can be replayed; the rest is counted."""
        found = []
        for cell, items in plan.left:
            held = self.recorded(cell)
            own = [item for item in items if item.id in held]
            if missing := len(items) - len(own):
                told = f"{missing} problems of {cell.label!r} are not in {self.folder}"
                print(f"pfref: {told}", file=sys.stderr)
            found += [(cell, own)] if own else []
        return replace(plan, left=found)

    def rounds(self, cell: Cell, items: Sequence[Item]) -> Iterator[list[Item]]:
        """Problems that differ in their texts, by which this policy knows them; a text
        that stands twice comes in two rounds.
        """
        held, seen = self.recorded(cell), Counter[str]()
        turns: dict[int, list[Item]] = {}
        for item in items:
            turns.setdefault(seen[item.problem], []).append(item)
            seen[item.problem] += 1
        for own in turns.values():
            self.runs = {item.problem: held[item.id] for item in own}
            yield own

    def check(self, settings: Settings) -> None:
        assert settings.method in METHODS

    def prompt(self, problem: str, system: str | None = None) -> list[int]:
        """As many tokens as the prompt had; each is the number of its run."""
        run = self.runs.get(problem)
        if run is None:
            return [0]
        if run.failed:
            raise UserError(run.failed)
        return [list(self.runs).index(problem)] * run.counts[0]

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


def written_by(header: dict[str, Any]) -> dict[str, Any]:
    """What decides a cell's texts: all but its reward model, and how it weighs."""
    names = ("task", "n", "seed")
    models = {
        name: value
        for name, value in header["models"].items()
        if name not in OUTSIDE and not name.startswith("prm")
    }
    settings = {
        name: value
        for name, value in header["settings"].items()
        if name not in WEIGHS and value is not None
    }
    data = Path(header["data"]).name
    return dict(
        {n: header[n] for n in names}, data=data, models=models, settings=settings
    )
