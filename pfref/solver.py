"""Solve problems: run the particle filter on the reasoning model and choose an answer,
by name.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, overload

from torch import Generator
from tqdm import tqdm

from .errors import UserError
from .inputs import listed
from .judgement import Scorer
from .methods import ANSWERS, METHODS, Watch
from .policy import Policy
from .randomness import generator, uniforms
from .reasoning import Reasoning
from .schedules import schedule
from .settings import Settings
from .solution import Cost as Cost
from .solution import Particle as Particle
from .solution import Solution as Solution
from .solution import Trace as Trace
from .study.tasks import Task, task_named

NONE_LEFT = (
    "no particle is left: every one met a limit of length before an answer, or was "
    "ruled out by the reward model; raise the limits, take more particles, or models "
    "with a longer context"
)


@overload
def solve(
    problems: str,
    lm: Policy,
    prm: Scorer,
    particles: int = 16,
    **options: Any,
) -> Solution: ...


@overload
def solve(
    problems: Sequence[str],
    lm: Policy,
    prm: Scorer,
    particles: int = 16,
    **options: Any,
) -> list[Solution]: ...


def solve(
    problems: str | Sequence[str],
    lm: Policy,
    prm: Scorer,
    particles: int = 16,
    *,
    task: Task | str | None = None,
    progress: str | None = None,
    done: Callable[[list[Solution]], None] | None = None,
    watch: Watch = None,
    **options: Any,
) -> Solution | list[Solution]:
    """Solve one problem, or several, each with a budget of `particles`.

    The method is the particle filter, and the answer the one with most weight, unless
    `options` say otherwise. They are the fields of `Settings`:

    method    `filter`; `samples`, `adaptive`, `greedy`; `greedy-search`, `beam`,
              `dvts`; `gibbs`, `tempering` (see `methods`)
    choose    `vote`, `argmax`, `weighted`, `majority`, `confidence`, `draw` (see
              `solution.choose`)
    seed      each problem draws from its own generator, seeded by `seed`, its text and
              how often that text came before: the same seed gives the same particles
              whatever else is in the batch (in float32)
    batch     particles in one batch: as many problems share their forward passes as
              fit, but at least one. More are slower on a CPU, whose caches they
              overflow; give more to a GPU with memory to spare
    proposal  how steps are proposed, a `Proposal`

    task      when a solution is complete, what its answer is, and which answers are the
              same: one of `study.tasks.TASKS`, or its name; default: answers in boxes.
              Its system prompt is used unless `system` is given, which may be empty
    progress  label of a progress bar, which moves batch by batch; None for none
    done      is called with the solutions of every batch as soon as they are there
    watch     is called with every step of the filter, batch after batch

    Raises UserError before any work is done if an argument is wrong or a problem cannot
    be read. If every particle of a problem was ruled out, a problem given as one text
    raises UserError too; in a list it has the answer None, so that the others are not
    lost and none leaves the denominator.
    """
    settings = Settings().but(particles=particles, **options)
    schedule(settings.anneal, settings.proposal.max_steps)  # raises now
    lm.check(settings)
    alone = isinstance(problems, str)
    texts = [problems] if isinstance(problems, str) else listed(problems)
    if isinstance(task, str):
        task = task_named(task)
    if task and settings.system is None:
        settings = settings.but(system=task.system)
    seen, sources = Counter[str](), []
    for text in texts:  # a text that comes again has another seed
        sources.append(generator(settings.seed, text, seen[text]))
        seen[text] += 1
    batches = [
        (modelled(texts[part], lm, prm, settings, task), sources[part])
        for part in in_batches(len(texts), settings)
    ]
    found: list[Solution] = []
    with tqdm(
        total=len(texts),
        desc=progress,
        unit=" problems",
        leave=False,
        disable=progress is None,
    ) as bar:
        for model, own in batches:
            found += (solved := solve_batch(model, own, settings, watch))
            if done:
                done(solved)
            bar.update(len(own))
    if alone and found[0].chosen is None:
        raise UserError(NONE_LEFT)
    return found[0] if alone else found


def modelled(
    texts: Sequence[str],
    lm: Policy,
    prm: Scorer,
    settings: Settings,
    task: Task | None,
) -> Reasoning:
    """The Feynman-Kac model of some problems."""
    return Reasoning(
        lm,
        prm,
        texts,
        settings.proposal,
        settings.potential,
        settings.tau,
        settings.finished,
        settings.system,
        settings.aggregation,
        task,
    )


def in_batches(problems: int, settings: Settings) -> list[slice]:
    """Which problems go together: as many as their particles fill a batch, at least
    one.
    """
    size = settings.at_once
    return [slice(k, k + size) for k in range(0, problems, size)]


def solve_batch(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> list[Solution]:
    """Run the method on the model's problems. Its caches are freed on return, before
    the next batch fills its own.
    """
    began = time.perf_counter()
    found = METHODS[settings.method](model, sources, settings, watch)
    seconds = time.perf_counter() - began
    points = uniforms(sources, 1)[:, 0].tolist()
    choice = settings.choose or ANSWERS[settings.method]
    return found.solutions(choice, points, seconds)
