"""Solve problems: run the particle filter on the reasoning model and choose an answer,
by name.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Generator
from tqdm import tqdm

from .answers import boxed, vote
from .errors import UserError
from .lm import LanguageModel, Proposal
from .prm import RewardModel
from .randomness import generator, uniforms
from .reasoning import Reasoning, Thoughts
from .resampling import SCHEMES, Scheme, inverse_cdf
from .smc import ParticleFilter, Step

CHOICES = ("vote", "argmax", "draw")
# Particles that share their passes; on a CPU more are slower: they overflow its caches.
BATCH = 128
NONE_LEFT = (
    "no particle is left: every one met a limit of length before an answer; "
    "raise the limits, take more particles, or models with a longer context"
)


@dataclass(frozen=True)
class Cost:
    """Counted, not estimated. The calls and the seconds are those of the whole batch of
    problems.
    """

    prompt_tokens: int  # fed once
    generated_tokens: int
    scored_tokens: (
        int  # through the reward model: its prompt, the steps and their separators
    )
    problems: int  # that shared what follows
    lm_calls: int
    prm_calls: int
    seconds: float


@dataclass(frozen=True)
class Particle:
    steps: tuple[str, ...]
    answer: str | None
    weight: float  # normalised
    reward: float  # log-odds of the whole solution
    finished: bool

    @property
    def text(self) -> str:
        return "".join(self.steps)


@dataclass(frozen=True)
class Trace:
    """One population's history, for a picture: T steps of N particles."""

    log_weights: torch.Tensor  # (T, N)
    ess: torch.Tensor  # (T,)
    ancestors: torch.Tensor  # (T, N) parents of the next step's particles
    active: torch.Tensor  # (T, N)


@dataclass(frozen=True)
class Solution:
    problem: str
    answer: str | None  # the chosen particle's
    chosen: (
        Particle | None
    )  # by vote, the heaviest with the winning answer; None if no particle is left
    particles: list[Particle]
    votes: dict[str | None, float]  # answer -> share of the weight
    log_evidence: float
    trace: Trace
    cost: Cost


@overload
def solve(
    problems: str,
    lm: LanguageModel,
    prm: RewardModel,
    particles: int = 16,
    **options: Any,
) -> Solution: ...


@overload
def solve(
    problems: Sequence[str],
    lm: LanguageModel,
    prm: RewardModel,
    particles: int = 16,
    **options: Any,
) -> list[Solution]: ...


def solve(  # type: ignore[misc]  # both give everything after `particles` by name
    problems: str | Sequence[str],
    lm: LanguageModel,
    prm: RewardModel,
    particles: int = 16,
    *,
    seed: int = 0,
    proposal: Proposal | None = None,
    potential: str = "odds",
    tau: float = 1.0,
    finished: str = "absorbed",
    resampling: str = "systematic",
    threshold: float = 0.5,
    choose: str = "vote",
    system: str | None = None,
    aggregation: str = "last",
    batch: int = BATCH,
    progress: str | None = None,
    done: Callable[[list[Solution]], None] | None = None,
    watch: Callable[[Step[Thoughts]], None] | None = None,
) -> Solution | list[Solution]:
    """Solve one problem, or several, with a population of `particles` each.

    choose    `vote`: the answer with most weight, and its heaviest particle; without
              any answer, as `argmax`;
              `argmax`: the finished particle that the reward model scores highest, as
              in the paper's code;
              `draw`: one particle by weight, a sample of the target
    seed      each problem draws from its own generator, seeded by `seed`, its text and
              how often that text came before: the same seed gives the same particles
              whatever else is in the batch (in float32)
    batch     particles in one batch: as many problems share their forward passes as
              fit, but at least one. More are slower on a CPU, whose caches they
              overflow; give more to a GPU with memory to spare
    progress  label of a progress bar, which moves batch by batch; None for none
    done      is called with the solutions of every batch as soon as they are there
    watch     is called with every step of the filter, batch after batch

    Raises UserError before any work is done if an argument is wrong or a problem cannot
    be read. If every particle of a problem was ruled out, a problem given as one text
    raises UserError too; in a list it has the answer None, so that the others are not
    lost and none leaves the denominator.
    """
    if choose not in CHOICES:
        raise UserError(
            f"there is no choice {choose!r}; choose one of {', '.join(CHOICES)}"
        )
    if resampling not in SCHEMES:
        raise UserError(
            f"there is no resampling scheme {resampling!r}; choose one of "
            f"{', '.join(SCHEMES)}"
        )
    if batch < 1:
        raise UserError(f"a batch has at least one particle, not {batch}")
    alone = isinstance(problems, str)
    texts = [problems] if isinstance(problems, str) else list(problems)
    if not all(isinstance(text, str) for text in texts):
        raise UserError("a problem is a text; give one text or a list of them")
    sources = [
        generator(seed, text, texts[:k].count(text)) for k, text in enumerate(texts)
    ]
    settings = (proposal, potential, tau, finished, system, aggregation)
    batches = [
        (Reasoning(lm, prm, texts[part], *settings), sources[part])
        for part in in_batches(len(texts), particles, batch)
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
            found += (
                solved := solve_batch(
                    model, own, particles, SCHEMES[resampling], threshold, choose, watch
                )
            )
            if done:
                done(solved)
            bar.update(len(own))
    if alone and found[0].chosen is None:
        raise UserError(NONE_LEFT)
    return found[0] if alone else found


def in_batches(problems: int, particles: int, batch: int = BATCH) -> list[slice]:
    """Which problems go together: as many as their particles fill a batch, at least
    one; of none, an empty batch.
    """
    size = max(1, batch // max(1, particles))
    return [slice(k, k + size) for k in range(0, max(1, problems), size)]


def solve_batch(
    model: Reasoning,
    sources: Sequence[Generator],
    particles: int,
    resample: Scheme,
    threshold: float,
    choose: str,
    watch: Callable[[Step[Thoughts]], None] | None,
) -> list[Solution]:
    """Run the filter on the model's problems. Its caches are freed on return, before
    the next batch fills its own.
    """
    began = time.perf_counter()
    run = ParticleFilter(model, particles, sources, resample, threshold)
    for step in run:
        if watch:
            watch(step)
    seconds = time.perf_counter() - began
    points = uniforms(sources, 1)
    return [
        finish(run, model, p, choose, points[p], seconds) for p in range(len(sources))
    ]


def finish(
    run: ParticleFilter[Thoughts],
    model: Reasoning,
    p: int,
    choose: str,
    point: torch.Tensor,
    seconds: float,
) -> Solution:
    """Read population p of a run that has ended, and choose its answer."""
    state, n, weights = run.last.state, run.particles, run.last.weights[p]
    paths, judgement = state.paths, state.judgement
    rewards = torch.where(state.z == torch.inf, -torch.inf, state.z).tolist()
    members = [
        Particle(
            paths.texts[row],
            boxed(paths.text(row)),
            float(weights[k]),
            rewards[row],
            bool(state.finished[row]),
        )
        for k, row in enumerate(range(p * n, (p + 1) * n))
    ]
    votes = vote([m.answer for m in members], weights.tolist())
    winner = next(iter(votes), None)
    alive = [m for m in members if m.weight > 0]
    if not alive:
        chosen = None
    elif choose == "draw":
        chosen = members[int(inverse_cdf(weights, point))]
    elif choose == "vote" and winner is not None:
        chosen = max((m for m in alive if m.answer == winner), key=lambda m: m.weight)
    else:
        chosen = max(alive, key=lambda m: m.reward)
    own = [t for t, step in enumerate(run.steps) if step.stepped[p]]
    if run.steps[own[-1]].resampled[
        p
    ]:  # no active particle had a child: it ended there
        own.append(own[-1] + 1)
    trace = Trace(
        *(
            torch.stack([getattr(run.steps[t], name)[p] for t in own])
            for name in ("log_weights", "ess", "ancestors", "active")
        )
    )
    cost = Cost(
        len(model.prompts[p]),
        int(paths.generated[p]),
        int(judgement.scored[p]),
        len(model.problems),
        paths.work.cache.calls,
        judgement.cache.calls,
        seconds,
    )
    return Solution(
        model.problems[p],
        chosen.answer if chosen else None,
        chosen,
        members,
        votes,
        float(run.last.log_evidence[p]),
        trace,
        cost,
    )
