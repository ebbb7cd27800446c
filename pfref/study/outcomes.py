"""Solutions with their outcomes, and the policy's states at the end of every step: what
a probe is trained on.

Batches of problems are written one by one, so a run that was stopped goes on where it
was. Each is two files in a folder.

    states-K.safetensors   states (M, layers * h) of M steps; step (M, 5): problem,
                           sample, number of the step, tokens so far, and whether the
                           text held an answer
    solutions-K.json       for each sample: problem, answer, finished, tokens, reward's
                           place in `step`, mean log probability a token; then `right`
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ..judgement import Judgement
from ..lm import LanguageModel
from ..probe import Probe
from ..randomness import generator, split
from ..reasoning import Reasoning
from ..settings import Settings
from ..smc import ParticleFilter
from ..solution import Harvest
from .tasks import TASKS, Item, Task

NUMBERS = ("problem", "sample", "step", "tokens", "answered")


class Recorder(Probe):
    """A reward model that says 0 and keeps the states that it is given."""

    def __init__(self, lm: LanguageModel, layers: Sequence[int], task: Task) -> None:
        lm.listen(layers)
        self.lm, self.layers, self.device = lm, tuple(layers), lm.device
        self.body, self.done = lm.model, task.done
        width = len(layers) * lm.model.config.get_text_config().hidden_size
        self.none = torch.zeros(0, width, dtype=lm.model.dtype)
        self.states: list[Tensor] = []
        self.steps: list[tuple[int, int, bool]] = []  # row, step, answered

    def scores(
        self,
        judgement: Judgement,
        rows: list[int],
        steps: Sequence[Sequence[str]],
        states: Tensor | None,
    ) -> Tensor:
        assert states is not None
        self.states.append(states[rows].cpu())
        for row in rows:
            done = self.done("".join(steps[row]))
            self.steps.append((row, len(steps[row]) - 1, done))
        return torch.zeros(len(rows))


@dataclass(frozen=True)
class Plan:
    """What is sampled: `samples` of each item, in batches of at most `batch`."""

    items: Sequence[Item]
    samples: int
    layers: tuple[int, ...]
    task: str
    settings: Settings  # temperature and limits

    def batches(self) -> list[range]:
        size = max(1, self.settings.batch // self.samples)
        count = len(self.items)
        return [range(k, min(k + size, count)) for k in range(0, count, size)]


def missing(plan: Plan, folder: Path, part: tuple[int, int] = (1, 1)) -> list[int]:
    """Numbers of the batches that `folder` does not hold; of part (k, m) only."""
    every = range(len(plan.batches()))[part[0] - 1 :: part[1]]
    return [k for k in every if not solutions_of(folder, k).exists()]


def sample(
    plan: Plan, lm: LanguageModel, folder: Path, numbers: Sequence[int], quiet: bool
) -> None:
    """Write some batches."""
    with tqdm(numbers, "sampling", disable=quiet) as bar:
        for number in bar:
            tensors, solutions = one_batch(plan, lm, plan.batches()[number])
            save_file(tensors, folder / f"states-{number}.safetensors")
            write(solutions_of(folder, number), solutions)


def solutions_of(folder: Path, number: int) -> Path:
    return folder / f"solutions-{number}.json"


def write(file: Path, solutions: list[dict[str, Any]]) -> None:
    """All or nothing: a run may be stopped at any time."""
    draft = file.with_suffix(".part")
    draft.write_text(json.dumps(solutions))
    draft.replace(file)


def solutions_at(folder: Path, number: int) -> list[dict[str, Any]]:
    """A batch's solutions."""
    found: list[dict[str, Any]] = json.loads(solutions_of(folder, number).read_text())
    return found


def one_batch(
    plan: Plan, lm: LanguageModel, part: range
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    task, n = TASKS[plan.task], plan.samples
    recorder = Recorder(lm, plan.layers, task)
    texts = [plan.items[k].problem for k in part]
    limits, seed = plan.settings.proposal, plan.settings.seed
    model = Reasoning(lm, recorder, texts, limits, system=task.system, task=task)
    # Each sample is a population of its own, which waits for no other.
    sources = split([generator(seed, text) for text in texts], n)
    run = ParticleFilter(model, 1, sources, threshold=0.0).run()
    found = Harvest(model)
    found.add(run)
    solutions = [
        dict(
            problem=k,
            answer=p.answer,
            finished=p.finished,
            tokens=p.tokens,
            confidence=round(p.confidence or 0.0, 4),
        )
        for k, particles in zip(part, found.particles, strict=True)
        for p in particles
    ]
    ends = run.last.state.paths.ends
    steps = [
        (part[row // n], row % n, step, ends[row][step], answered)
        for row, step, answered in recorder.steps
    ]
    tensors = {
        "states": torch.cat([recorder.none, *recorder.states]),
        "step": torch.tensor(steps, dtype=torch.int32).view(-1, len(NUMBERS)),
    }
    return tensors, solutions


def grade(plan: Plan, folder: Path, processes: int = 1) -> None:
    """Say of every solution whether its answer is right; unfinished ones are not."""
    task = TASKS[plan.task]
    for number in range(len(plan.batches())):
        solutions = solutions_at(folder, number)
        if "right" in solutions[0]:
            continue
        pairs = [
            (plan.items[s["problem"]].answer, s["answer"] or "") for s in solutions
        ]
        if processes > 1:
            with get_context("fork").Pool(processes) as pool:
                right = pool.starmap(task.same, pairs, chunksize=16)
        else:
            right = [task.same(*pair) for pair in pairs]
        for s, verdict in zip(solutions, right, strict=True):
            s["right"] = bool(s["finished"] and s["answer"] and verdict)
        write(solutions_of(folder, number), solutions)


@dataclass(frozen=True)
class Outcomes:
    """M steps of S samples.

    states (M, layers, h); problem, sample, step, tokens, answered (M,) as numbers;
    right (M,) bool, is the step's whole sample right?; solutions, the S samples.
    """

    states: Tensor
    numbers: dict[str, Tensor]
    right: Tensor
    solutions: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path, layers: int) -> "Outcomes":
        """All batches of a folder, after `grade`."""
        states, numbers, solutions = [], [], []
        for number in range(len(list(folder.glob("solutions-*.json")))):
            held = load_file(folder / f"states-{number}.safetensors")
            states.append(held["states"].unflatten(1, (layers, -1)))
            numbers.append(held["step"].long())
            solutions += solutions_at(folder, number)
        step = torch.cat(numbers)
        samples = 1 + max((int(s) for s in step[:, 1]), default=0)
        right = torch.tensor([s["right"] for s in solutions])
        places = step[:, 0] * samples + step[:, 1]
        named = dict(zip(NUMBERS, step.T, strict=True))
        return cls(torch.cat(states), named, right[places], solutions)
