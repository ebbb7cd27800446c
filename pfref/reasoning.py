"""Reasoning as a state-space model: the language model is the transition, the reward
model the potential.

    target of `odds`         p_M(x_1:T) * prod_t r_t / (1 - r_t)  the paper's code
    target of `score`        p_M(x_1:T) * prod_t r_t              the paper's text
    target of `telescoping`  p_M(x_1:T) * r_T                     r_t / r_t-1 at a step

r_t = sigmoid(z_t) is the reward model's score of the prefix x_1:t. A temperature tau
divides every log potential.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from .inputs import listed
from .judgement import AGGREGATIONS, Judgement, Scorer
from .paths import Paths
from .policy import Policy
from .settings import Proposal, Settings, check_choice
from .smc import FeynmanKac
from .study.tasks import TASKS, Task

Potential = Callable[
    [Tensor, Tensor], Tensor
]  # (log-odds z_t, log-odds z_t-1) -> log G_t; z_0 is +inf, so r_0 = 1


def odds(z: Tensor, before: Tensor) -> Tensor:
    return z


def score(z: Tensor, before: Tensor) -> Tensor:
    return logsigmoid(z)


def telescoping(z: Tensor, before: Tensor) -> Tensor:
    return logsigmoid(z) - logsigmoid(before)


POTENTIALS: dict[str, Potential] = {
    "odds": odds,
    "score": score,
    "telescoping": telescoping,
}


@dataclass
class Thoughts:
    """P x N partial solutions, R = P * N rows, and what the reward model thinks of
    them.

    On the host, and updated in place.
    """

    paths: Paths
    judgement: Judgement
    z: Tensor  # (R,) log-odds of each prefix now; +inf before the first score
    before: Tensor  # (R,) and one score ago
    weighed: Tensor  # (R,) bool, has the last step a score of its own?
    log_g: Tensor  # (R,) log potential of the last step at tau = 1
    total: Tensor  # (R,) and the sum over all steps
    finished: Tensor  # (R,) bool, by an end token, or by a complete \\boxed{}
    ready: Tensor  # (P,) bool, populations that have just completed a step


class Reasoning(FeynmanKac[Thoughts]):
    """The Feynman-Kac model of problems under a language model and a reward model.

    Several populations may work on one problem: with P generators, population p has
    problem p // (P / problems), and its prompt is read once.

    potential    `odds`, `score` or `telescoping`
    tau          divides the log potentials, above 0; `at` gives each population its own
    aggregation  how step scores make a prefix's: `last`, `min`, `prod`, or `model`,
                 which reads the whole partial solution as one block
    finished     `absorbed`: a finished particle has G = 1 from then on; `reweighted`:
                 it is weighed at every step of its population, as in the paper's code

    task         when a solution is complete, and what its answer is

    A particle cut by a limit of `proposal` before it finished is ruled out: G = 0. A
    step that adds no text, such as an end token alone, is not weighed.
    """

    def __init__(
        self,
        lm: Policy,
        prm: Scorer,
        problems: Sequence[str],
        proposal: Proposal | None = None,
        potential: str = "odds",
        tau: float = 1.0,
        finished: str = "absorbed",
        system: str | None = None,
        aggregation: str = "last",
        task: Task | None = None,
    ) -> None:
        # Raises UserError for a name or a number that cannot be.
        Settings(finished=finished, tau=tau)
        check_choice("potential", potential, POTENTIALS)  # you may add your own
        check_choice("aggregation", aggregation, AGGREGATIONS)
        self.lm, self.prm, self.problems = lm, prm, listed(problems)
        self.proposal, self.aggregation = proposal or Proposal(), aggregation
        self.potential = POTENTIALS[potential]
        self.tau = torch.tensor([tau], dtype=torch.float64)  # (1,) or (P,)
        self.task = task or TASKS["boxed"]
        self.reweighted = finished == "reweighted"
        self.prompts = [lm.prompt(problem, system) for problem in self.problems]
        for problem in self.problems:
            prm.prompt(problem)  # raises now, not after other problems were solved

    def at(self, taus: Sequence[float]) -> "Reasoning":
        """The same with another tau for each population."""
        other = copy.copy(self)
        other.tau = torch.tensor(taus, dtype=torch.float64)
        return other

    def proposing(self, proposal: Proposal) -> "Reasoning":
        """The same with other proposals."""
        other = copy.copy(self)
        other.proposal = proposal
        return other

    def only(self, numbers: Sequence[int]) -> "Reasoning":
        """The same for some of its problems."""
        other = copy.copy(self)
        other.problems = [self.problems[k] for k in numbers]
        other.prompts = [self.prompts[k] for k in numbers]
        return other

    def start(
        self,
        particles: int,
        generators: Sequence[Generator],
        pinned: Sequence[Sequence[int]] | None = None,
    ) -> Thoughts:
        """Read the prompts, then take the first step."""
        copies = len(generators) // len(self.problems)
        judgement = self.prm.start(self.problems, particles * copies)
        paths = self.lm.start(self.prompts, particles, self.proposal, copies)
        certain = torch.full((paths.rows,), torch.inf, dtype=torch.float64)
        none = torch.zeros_like(certain, dtype=torch.bool)
        ready = torch.zeros(paths.shape[0], dtype=torch.bool)
        zero = torch.zeros_like(certain)
        state = Thoughts(
            paths=paths,
            judgement=judgement,
            z=certain,
            before=certain,
            weighed=none,
            log_g=zero,
            total=zero,
            finished=none.clone(),
            ready=ready,
        )
        everyone = torch.ones(paths.shape, dtype=torch.bool)
        return self.mutate(state, 1, everyone, generators, pinned)

    @torch.inference_mode()
    def mutate(
        self,
        state: Thoughts,
        t: int,
        active: Tensor,
        generators: Sequence[Generator],
        pinned: Sequence[Sequence[int]] | None = None,
    ) -> Thoughts:
        """Steps by the language model, until some populations have completed theirs,
        and scores of these by the reward model. A pinned path is given by its tokens.
        """
        p = state.paths
        held = {k * p.shape[1]: path for k, path in enumerate(pinned or ())}
        state.ready = self.lm.extend(p, active.flatten(), generators, held)
        moved = (active & state.ready[:, None]).flatten()
        ended, spoke = p.ended.tolist(), p.spoke.tolist()
        for row in moved.nonzero()[:, 0].tolist():
            if ended[row] or (spoke[row] and self.answered(p, row)):
                state.finished[row] = True
            elif len(p.ends[row]) >= self.proposal.max_steps:
                p.truncated[row] = True
        p.truncated &= ~state.finished
        # What was cut short is not read. Who ends without a word is read once.
        silent = ~p.spoke & ~(p.ended & (state.z == torch.inf))
        read = moved & ~silent & ~p.truncated
        self.prm.extend(state.judgement, read, p.texts, self.aggregation, p.states)
        z = self.prm.log_odds(state.judgement, self.aggregation).cpu()
        ready = state.ready.repeat_interleave(p.shape[1])
        state.weighed = torch.where(ready, read, state.weighed)
        state.before = torch.where(ready, state.z, state.before)
        state.z = torch.where(read, z, state.z)
        weighed = state.weighed | (state.finished if self.reweighted else False)
        log_g = torch.where(weighed, self.potential(state.z, state.before), 0.0)
        # Beyond the reward model's context, and not -inf + inf.
        state.log_g = torch.where(state.z == -torch.inf, -torch.inf, log_g)
        state.total = torch.where(ready, state.total + state.log_g, state.total)
        return state

    def answered(self, paths: Paths, row: int) -> bool:
        """Is there an answer in the row's text, and is it whole?"""
        whole = self.proposal.step_tokens is None or "}" in paths.texts[row][-1]
        return whole and self.task.done(paths.text(row))

    def ready(self, state: Thoughts, t: int) -> Tensor:
        return state.ready

    def log_potential(self, state: Thoughts, t: int) -> Tensor:
        p = state.paths
        log_g = state.log_g.view(p.shape) / self.tau[:, None] + p.log_ratio.view(
            p.shape
        )
        return torch.where(p.truncated.view(p.shape), -torch.inf, log_g)

    def finished(self, state: Thoughts, t: int) -> Tensor:
        return (state.finished | state.paths.truncated).view(state.paths.shape)

    def fork(self, state: Thoughts, ancestors: Tensor) -> Thoughts:
        """Fork the records now; the caches follow when a row is fed again."""
        particles = ancestors.shape[1]
        first = torch.arange(len(ancestors))[:, None] * particles
        rows = (ancestors + first).flatten()
        self.lm.fork(state.paths, rows)
        self.prm.fork(state.judgement, rows)
        for name in ("z", "before", "weighed", "log_g", "total", "finished"):
            setattr(state, name, getattr(state, name)[rows])
        return state

    def path(self, state: Thoughts, p: int, n: int) -> tuple[int, ...]:
        """The tokens of a particle's solution."""
        return state.paths.tokens[p * state.paths.shape[1] + n]
