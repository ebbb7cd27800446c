"""Reasoning as a state-space model: the language model is the transition, the reward
model the potential.

    target of `odds`         p_M(x_1:T) * prod_t r_t / (1 - r_t)  the paper's code
    target of `score`        p_M(x_1:T) * prod_t r_t              the paper's text
    target of `telescoping`  p_M(x_1:T) * r_T                     r_t / r_t-1 at a step

r_t = sigmoid(z_t) is the reward model's score of the prefix x_1:t. A temperature tau
divides every log potential.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from .answers import boxed
from .errors import UserError
from .lm import LanguageModel, Proposal
from .paths import Paths
from .prm import AGGREGATIONS, Judgement, RewardModel
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
    """P x N partial solutions, R = P * N rows, and what the reward model thinks of
    them.

    On the host, and updated in place.
    """

    paths: Paths
    judgement: Judgement
    z: Tensor  # (R,) log-odds of each prefix now; +inf before the first score
    before: Tensor  # (R,) and one score ago
    weighed: Tensor  # (R,) bool, has the last step a score of its own?
    finished: Tensor  # (R,) bool, by an end token, or by a complete \\boxed{}
    ready: Tensor  # (P,) bool, populations that have just completed a step


class Reasoning(FeynmanKac[Thoughts]):
    """The Feynman-Kac model of P problems under a language model and a reward model.

    potential    `odds`, `score` or `telescoping`
    tau          divides the log potentials, above 0
    aggregation  how step scores make a prefix's: `last`, `min`, `prod`, or `model`,
                 which reads the whole partial solution as one block
    finished     `absorbed`: a finished particle has G = 1 from then on; `reweighted`:
                 it is weighed at every step of its population, as in the paper's code

    A particle cut by a limit of `proposal` before it finished is ruled out: G = 0. A
    step that adds no text, such as an end token alone, is not weighed.
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
        aggregation: str = "last",
    ) -> None:
        for name, value, known in (
            ("potential", potential, POTENTIALS),
            ("aggregation", aggregation, AGGREGATIONS),
        ):
            if value not in known:
                raise UserError(
                    f"there is no {name} {value!r}; choose one of {', '.join(known)}"
                )
        if finished not in ("absorbed", "reweighted"):
            raise UserError(
                f"finished particles are 'absorbed' or 'reweighted', not {finished!r}"
            )
        if not 0 < tau < float("inf"):
            raise UserError(f"the potential's temperature must be positive, not {tau}")
        if not problems:
            raise UserError("there is no problem to solve")
        self.lm, self.prm, self.problems = lm, prm, list(problems)
        self.proposal, self.aggregation = proposal or Proposal(), aggregation
        self.potential, self.tau = POTENTIALS[potential], tau
        self.reweighted = finished == "reweighted"
        self.prompts = [lm.prompt(problem, system) for problem in self.problems]
        for problem in self.problems:
            prm.prompt(problem)  # raises now, not after other problems were solved

    def start(self, particles: int, generators: Sequence[Generator]) -> Thoughts:
        """Read the prompts, then take the first step."""
        paths = self.lm.start(self.prompts, particles, self.proposal)
        judgement = self.prm.start(self.problems, particles)
        certain = torch.full((paths.rows,), torch.inf, dtype=torch.float64)
        none = torch.zeros(paths.rows, dtype=torch.bool)
        everyone = torch.ones(paths.shape, dtype=torch.bool)
        ready = torch.zeros(paths.shape[0], dtype=torch.bool)
        state = Thoughts(paths, judgement, certain, certain, none, none.clone(), ready)
        return self.mutate(state, 1, everyone, generators)

    @torch.inference_mode()
    def mutate(
        self, state: Thoughts, t: int, active: Tensor, generators: Sequence[Generator]
    ) -> Thoughts:
        """Steps by the language model, until some populations have completed theirs,
        and scores of these by the reward model.
        """
        p = state.paths
        state.ready = self.lm.extend(p, active.flatten(), generators)
        moved = (active & state.ready[:, None]).flatten()
        for row in moved.nonzero()[:, 0].tolist():
            if p.ended[row] or (p.spoke[row] and self.answered(p, row)):
                state.finished[row] = True
            elif len(p.ends[row]) >= self.proposal.max_steps:
                p.truncated[row] = True
        p.truncated &= ~state.finished
        # What was cut short is not read. Who ends without a word is read once.
        silent = ~p.spoke & ~(p.ended & (state.z == torch.inf))
        read = moved & ~silent & ~p.truncated
        self.prm.extend(state.judgement, read, p.texts, self.aggregation)
        z = self.prm.log_odds(state.judgement, self.aggregation).cpu()
        ready = state.ready.repeat_interleave(p.shape[1])
        state.weighed = torch.where(ready, read, state.weighed)
        state.before = torch.where(ready, state.z, state.before)
        state.z = torch.where(read, z, state.z)
        return state

    def answered(self, paths: Paths, row: int) -> bool:
        """Is there an answer in the row's text, and is it whole?"""
        whole = self.proposal.step_tokens is None or "}" in paths.texts[row][-1]
        return whole and boxed(paths.text(row)) is not None

    def ready(self, state: Thoughts, t: int) -> Tensor:
        return state.ready

    def log_potential(self, state: Thoughts, t: int) -> Tensor:
        p = state.paths
        weighed = state.weighed | (state.finished if self.reweighted else False)
        log_g = self.potential(state.z, state.before) / self.tau
        log_g = torch.where(weighed, log_g, 0.0)
        # Beyond the reward model's context, and not -inf + inf.
        log_g = torch.where(state.z == -torch.inf, -torch.inf, log_g) + p.log_ratio
        return torch.where(p.truncated, -torch.inf, log_g).view(p.shape)

    def finished(self, state: Thoughts, t: int) -> Tensor:
        return (state.finished | state.paths.truncated).view(state.paths.shape)

    def fork(self, state: Thoughts, ancestors: Tensor) -> Thoughts:
        """Fork the records now; the caches follow when a row is fed again."""
        particles = ancestors.shape[1]
        first = torch.arange(len(ancestors))[:, None] * particles
        rows = (ancestors + first).flatten()
        self.lm.fork(state.paths, rows)
        self.prm.fork(state.judgement, rows)
        for name in ("z", "before", "weighed", "finished"):
            setattr(state, name, getattr(state, name)[rows])
        return state
