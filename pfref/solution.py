"""What a method has found for a problem, and how one answer is chosen from it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .answers import vote
from .paths import Paths
from .reasoning import Reasoning, Thoughts
from .resampling import inverse_cdf, multinomial
from .smc import ParticleFilter
from .variance import families, relative_variance, standard_error

Same = Callable[[str, str], bool]


@dataclass(frozen=True)
class Cost:
    """Counted, not estimated. The calls and the seconds are those of the whole batch of
    problems.
    """

    prompt_tokens: int  # fed once a run: a sweep, or a round of samples
    generated_tokens: int
    # Through the reward model: its prompt, the steps and their separators.
    scored_tokens: int
    problems: int  # that shared what follows
    lm_calls: int
    prm_calls: int
    seconds: float
    scored_prompt_tokens: int = 0  # of the scored ones


@dataclass(frozen=True)
class Particle:
    steps: tuple[str, ...]
    answer: str | None
    weight: float  # normalised over all particles of the problem
    reward: float  # log-odds of the whole solution
    finished: bool
    tokens: int = 0  # generated on its path
    confidence: float | None = 0.0  # mean log probability of these; None if untold

    @property
    def text(self) -> str:
        return "".join(self.steps)


@dataclass(frozen=True)
class Trace:
    """One population's history, for a picture: T steps of N particles."""

    log_weights: Tensor  # (T, N)
    ess: Tensor  # (T,)
    ancestors: Tensor  # (T, N) parents of the next step's particles
    active: Tensor  # (T, N)
    resampled: Tensor  # (T,) before the next step?
    independent: bool = True  # are ancestors independent draws, as multinomial's?


@dataclass(frozen=True)
class Solution:
    problem: str
    answer: str | None  # the chosen particle's
    chosen: Particle | None  # None if no particle is left
    particles: list[Particle]
    votes: dict[str | None, float]  # answer -> share of the weight
    log_evidence: float | None  # None where a method estimates none
    trace: Trace  # of the last population that ran for the answer
    cost: Cost
    same: Same | None = field(default=None, repr=False)  # which answers are the same

    @property
    def log_evidence_error(self) -> float | None:
        """Standard error of `log_evidence`, from this run alone (see `variance`).

        None where one population is not all, or has collapsed into one family.
        """
        draws = self.resamplings if self.trace.independent else 0
        variance = self.of_families(relative_variance, draws)
        return None if variance is None else math.sqrt(max(0.0, variance))

    def vote_error(self, answer: str | None) -> float | None:
        """Standard error of an answer's share of the votes, from this run alone."""
        values = [alike(answer, p.answer, self.same) for p in self.particles]
        known = torch.tensor(values).double()
        return self.of_families(standard_error, self.resamplings, known)

    @property
    def resamplings(self) -> int:
        return int(self.trace.resampled[:-1].sum())

    def of_families(
        self, estimate: Callable[..., float | None], resamplings: int, *values: Tensor
    ) -> float | None:
        t = self.trace
        if self.log_evidence is None or t.log_weights.shape[1] != len(self.particles):
            return None
        return estimate(*values, t.log_weights[-1], families(t.ancestors), resamplings)


def alike(one: str | None, other: str | None, same: Same | None) -> bool:
    """Are two answers the same? Two missing ones are."""
    if not one or not other or same is None:
        return (one or None) == (other or None)
    return one == other or same(one, other)


# What a finished particle adds to its answer's votes.
VOTES: dict[str, Callable[[Particle], float]] = {
    "vote": lambda p: p.weight,
    "weighted": lambda p: 1 / (1 + math.exp(-p.reward)) if p.reward > -700 else 0.0,
    "majority": lambda p: 1.0,
    "confidence": lambda p: math.exp(p.confidence or 0.0),
}


def choose(
    name: str,
    particles: Sequence[Particle],
    same: Same | None = None,
    point: float = 0.0,
) -> Particle | None:
    """The particle whose answer a method gives; None if there is none to choose.

    vote        the answer with most weight, and its heaviest particle
    argmax      the highest reward: of independent samples best-of-N (Cobbe et al. 2021)
    weighted    the answer with the largest sum of scores r (Li et al. 2023)
    majority    the commonest answer: self-consistency (Wang et al. 2023)
    confidence  the answer whose particles the language model is surest of
    draw        one particle by weight, a sample of the target; `point` is uniform

    Without any answer all of them do as `argmax`. `same` says which answers are equal.
    """
    if name == "draw":
        weights = torch.tensor([p.weight for p in particles], dtype=torch.float64)
        if not weights.sum() > 0:
            return None
        return particles[int(inverse_cdf(weights, torch.tensor([point])))]
    finished = [p for p in particles if p.finished]
    if name in VOTES:
        shares = [VOTES[name](p) for p in finished]
        votes = vote([p.answer for p in finished], shares, same)
        winner = next(iter(votes), None)
        if winner is not None:
            voters = [
                (share, p)
                for share, p in zip(shares, finished, strict=True)
                if alike(winner, p.answer, same)
            ]
            return max(voters, key=lambda pair: pair[0])[1]
    scored = [p for p in finished if p.reward > -math.inf]
    return max(scored, key=lambda p: p.reward, default=None)


@dataclass
class Harvest:
    """What all runs of a method on some problems have found, problem by problem."""

    model: Reasoning
    particles: list[list[Particle]] = field(init=False)
    runs: list[int] = field(init=False)  # populations with weight, for each problem
    evidence: list[float | None] = field(init=False)
    trace: list[Trace | None] = field(init=False)
    prompted: list[int] = field(init=False)
    generated: list[int] = field(init=False)
    scored: list[int] = field(init=False)
    scored_prompts: list[int] = field(init=False)
    lm_calls: int = 0
    prm_calls: int = 0

    def __post_init__(self) -> None:
        count = len(self.model.problems)
        self.particles, self.runs = [[] for _ in range(count)], [0] * count
        self.evidence, self.trace = [None] * count, [None] * count
        self.generated, self.scored = [0] * count, [0] * count
        self.prompted, self.scored_prompts = [0] * count, [0] * count

    def add(
        self,
        run: ParticleFilter[Thoughts],
        problems: Sequence[int] | None = None,
        kept: int | None = None,
        evidence: bool = True,
    ) -> None:
        """A run that has ended, on `problems` (default: all), several populations each.

        kept      only the first so many populations of each problem count
        evidence  does the first one's estimate the problem's?
        """
        state = run.last.state
        numbers = range(len(self.particles)) if problems is None else problems
        copies = state.paths.shape[0] // len(numbers)
        for place, k in enumerate(numbers):
            first = place * copies
            for p in range(first, first + (copies if kept is None else kept)):
                self.particles[k] += members(run, self.model, p)
                self.runs[k] += bool(run.last.weights[p].sum() > 0)
            self.trace[k] = trace(run, p)
            if evidence:
                self.evidence[k] = float(run.last.log_evidence[first])
            self.prompted[k] += len(self.model.prompts[k])
            spent = state.paths.generated[first : first + copies]
            self.generated[k] += int(spent.sum())
            self.scored[k] += int(state.judgement.scored[place])
            self.scored_prompts[k] += len(state.judgement.prompts[place])
        self.lm_calls += state.paths.work.calls
        self.prm_calls += state.judgement.cache.calls

    def solutions(
        self, choice: str, points: Sequence[float], seconds: float
    ) -> list[Solution]:
        """One for each problem, its answer by `choice`."""
        return [
            self.solution(k, choice, points[k], seconds)
            for k in range(len(self.particles))
        ]

    def solution(self, k: int, choice: str, point: float, seconds: float) -> Solution:
        share, same = max(1, self.runs[k]), self.model.task.same
        found = [
            Particle(**{**vars(p), "weight": p.weight / share})
            for p in self.particles[k]
        ]
        chosen = choose(choice, found, same, point)
        history = self.trace[k]
        assert history is not None  # every problem was run
        return Solution(
            problem=self.model.problems[k],
            answer=chosen.answer if chosen else None,
            chosen=chosen,
            particles=found,
            votes=vote([p.answer for p in found], [p.weight for p in found], same),
            log_evidence=self.evidence[k],
            trace=history,
            cost=Cost(
                self.prompted[k],
                self.generated[k],
                self.scored[k],
                len(self.particles),
                self.lm_calls,
                self.prm_calls,
                seconds,
                self.scored_prompts[k],
            ),
            same=same,
        )


def members(run: ParticleFilter[Thoughts], model: Reasoning, p: int) -> list[Particle]:
    """The particles of population p of a run that has ended."""
    state, n, weights = run.last.state, run.particles, run.last.weights[p].tolist()
    paths, rows = state.paths, range(p * n, (p + 1) * n)
    z = state.z[p * n : (p + 1) * n]
    rewards = torch.where(z == torch.inf, -torch.inf, z).tolist()
    return [
        Particle(
            steps=paths.texts[row],
            answer=model.task.answer(paths.text(row)),
            weight=weights[k],
            reward=rewards[k],
            finished=bool(state.finished[row]),
            tokens=len(paths.tokens[row]),
            confidence=told(paths, row),
        )
        for k, row in enumerate(rows)
    ]


def told(paths: Paths, row: int) -> float | None:
    """A row's mean log probability a token; a policy elsewhere may not tell."""
    mean = float(paths.log_p[row]) / max(1, len(paths.tokens[row]))
    return None if math.isnan(mean) else mean


def trace(run: ParticleFilter[Thoughts], p: int) -> Trace:
    """The history of population p, of the steps that it took."""
    own = [t for t, step in enumerate(run.steps) if step.stepped[p]]
    if run.steps[own[-1]].resampled[p]:
        own.append(own[-1] + 1)  # no active particle had a child: it ended there
    names = ("log_weights", "ess", "ancestors", "active", "resampled")
    return Trace(
        **{n: torch.stack([getattr(run.steps[t], n)[p] for t in own]) for n in names},
        independent=run.resample is multinomial or run.pinned is not None,
    )
