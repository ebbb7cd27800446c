"""Reasoning as a state-space model: the language model is the transition, the reward model the potential.

    target of `odds`         p_M(x_1:T) * prod_t r_t / (1 - r_t)    what the paper's released code uses
    target of `score`        p_M(x_1:T) * prod_t r_t                the emission that the paper states
    target of `telescoping`  p_M(x_1:T) * r_T                       r_t / r_t-1, so that only the last score stays

r_t = sigmoid(z_t) is the reward model's score of the prefix x_1:t. A temperature tau divides every log potential.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from .answers import boxed
from .errors import UserError
from .lm import LanguageModel, Population, Proposal
from .prm import Judgement, RewardModel
from .smc import FeynmanKac

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
    """P x N partial solutions and what the reward model thinks of them; R = P * N rows. Updated in place."""

    population: Population
    judgement: Judgement
    z: Tensor  # (R,) log-odds of each prefix now
    before: Tensor  # (R,) and one step ago
    moved: Tensor  # (R,) extended by the last step?
    finished: Tensor  # (R,) by an end token, or by a complete \boxed{}


class Reasoning(FeynmanKac[Thoughts]):
    """The Feynman-Kac model of P problems under one language model and one reward model.

    potential  `odds`, `score` or `telescoping`           tau  divides the log potentials, above 0
    finished   `absorbed`: a finished particle has G = 1 from then on;
               `reweighted`: it is weighed again at every step, as the paper's code does
    A particle cut by a limit of `proposal` before it finished is ruled out: G = 0.
    """

    def __init__(
        self,
        lm: LanguageModel,
        prm: RewardModel,
        problems: Sequence[str],
        proposal: Proposal | None = None,
        potential: str = "odds",
        tau: float = 1.0,
        finished: str = "absorbed",
        system: str | None = None,
    ) -> None:
        if potential not in POTENTIALS:
            raise UserError(
                f"there is no potential {potential!r}; choose one of {', '.join(POTENTIALS)}"
            )
        if finished not in ("absorbed", "reweighted"):
            raise UserError(
                f"finished particles are 'absorbed' or 'reweighted', not {finished!r}"
            )
        if not tau > 0:
            raise UserError(f"the potential's temperature must be positive, not {tau}")
        if not problems:
            raise UserError("there is no problem to solve")
        self.lm, self.prm, self.problems, self.proposal = (
            lm,
            prm,
            list(problems),
            proposal or Proposal(),
        )
        self.potential, self.tau, self.reweighted = (
            POTENTIALS[potential],
            tau,
            finished == "reweighted",
        )
        self.prompts = [lm.prompt(problem, system) for problem in self.problems]
        for problem in self.problems:
            prm.prompt(problem)  # raises now, not after other problems were solved

    def start(self, particles: int, generators: Sequence[Generator]) -> Thoughts:
        """Read the prompts, then take the first step."""
        population = self.lm.start(self.prompts, particles, self.proposal)
        judgement = self.prm.start(self.problems, particles)
        certain = torch.full(
            (population.rows,), torch.inf, dtype=torch.float64, device=self.lm.device
        )
        none = torch.zeros_like(certain, dtype=torch.bool)
        state = Thoughts(population, judgement, certain, certain, none, none)
        return self.mutate(
            state, 1, torch.ones(population.shape, dtype=torch.bool), generators
        )

    def mutate(
        self, state: Thoughts, t: int, active: Tensor, generators: Sequence[Generator]
    ) -> Thoughts:
        """One step by the language model, one score by the reward model."""
        p = state.population
        state.moved = active.flatten().to(self.lm.device)
        self.lm.extend(p, state.moved, self.proposal, generators)
        texts = [steps[-1] if steps else "" for steps in p.texts]
        done = torch.tensor(
            [
                bool(moved and "}" in text and boxed("".join(steps)))
                for moved, text, steps in zip(
                    state.moved.tolist(), texts, p.texts, strict=True
                )
            ]
        )
        state.finished = (
            p.ended | done.to(self.lm.device) | (state.finished & ~state.moved)
        )
        p.truncated = (p.truncated | (t >= self.proposal.max_steps)) & ~state.finished
        # An end token alone is no new step: the score stands. Nobody reads what was cut short.
        silent = (
            torch.tensor(
                [t > 1 and not text.strip() for text in texts], device=self.lm.device
            )
            & p.ended
        )
        self.prm.extend(
            state.judgement,
            (state.moved & ~silent & ~p.truncated).to(self.prm.device),
            texts,
        )
        state.before, state.z = (
            state.z,
            self.prm.log_odds(state.judgement).to(self.lm.device),
        )
        return state

    def log_potential(self, state: Thoughts, t: int) -> Tensor:
        weighed = state.moved | (state.finished if self.reweighted else False)
        log_g = torch.where(
            weighed, self.potential(state.z, state.before) / self.tau, 0.0
        )
        log_g = torch.where(
            state.z == -torch.inf, -torch.inf, log_g
        )  # beyond the reward model's context, and not -inf + inf
        log_g = log_g + torch.where(state.moved, state.population.log_ratio, 0.0)
        return torch.where(state.population.truncated, -torch.inf, log_g).view(
            state.population.shape
        )

    def finished(self, state: Thoughts, t: int) -> Tensor:
        return (state.finished | state.population.truncated).view(
            state.population.shape
        )

    def fork(self, state: Thoughts, ancestors: Tensor) -> Thoughts:
        """Fork the records now; both caches follow when the next step needs them, and copy only active rows."""
        particles = ancestors.shape[1]
        rows = (
            (ancestors + torch.arange(len(ancestors))[:, None] * particles)
            .flatten()
            .to(self.lm.device)
        )
        self.lm.fork(state.population, rows)
        self.prm.fork(state.judgement, rows.to(self.prm.device))
        for name in ("z", "before", "moved", "finished"):
            setattr(state, name, getattr(state, name)[rows])
        return state
