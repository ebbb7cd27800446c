"""Particle Gibbs and parallel tempering: many runs of the filter, each conditional on a
path of the one before it.

A sweep of particle Gibbs is conditional SMC (Andrieu, Doucet and Holenstein 2010): the
reference path is held fixed as particle 0, the others run around it and may fork from
it, and a new reference is drawn by the final weights. The sweeps are a Markov chain
that leaves the target invariant for every N >= 2.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import torch
from torch import Generator, Tensor

from .errors import UserError
from .randomness import uniforms
from .resampling import inverse_cdf
from .smc import FeynmanKac, ParticleFilter, Priority, State, Step


@dataclass(frozen=True)
class Sweep(Generic[State]):
    """One run, and the particle of each population that is the reference from now
    on.
    """

    run: ParticleFilter[State]
    chosen: Tensor  # (P,)
    references: list[Any]  # (P,) their paths, as `pinned` takes them


class ParticleGibbs(Iterator[Sweep[State]]):
    """Sweeps of particle Gibbs for P populations, each a chain of its own.

        for sweep in ParticleGibbs(model, 8, generators): ...

    The first sweep is the plain filter. `references` may be set between sweeps, which
    is what parallel tempering does.

    particles   N of each sweep, at least 2: one is the reference
    threshold   resample when ESS <= threshold * N; `priority` and `joining` as in
                `ParticleFilter`
    watch       is called with every step of the filter
    """

    def __init__(
        self,
        model: FeynmanKac[State],
        particles: int,
        generators: Sequence[Generator],
        threshold: float = 0.5,
        priority: Priority | None = None,
        joining: bool = False,
        references: Sequence[Any] | None = None,
        watch: Callable[[Step[State]], None] | None = None,
    ) -> None:
        if particles < 2:
            raise UserError(
                "a sweep of particle Gibbs needs at least two particles, the reference "
                f"and another, not {particles}; take more particles or fewer sweeps"
            )
        self.model, self.particles, self.generators = model, particles, list(generators)
        self.options: dict[str, Any] = dict(
            threshold=threshold, priority=priority, joining=joining
        )
        self.references = None if references is None else list(references)
        self.watch = watch

    def __next__(self) -> Sweep[State]:
        run = ParticleFilter(
            self.model,
            self.particles,
            self.generators,
            pinned=self.references,
            **self.options,
        )
        for step in run:
            if self.watch:
                self.watch(step)
        weights = run.last.weights
        # Of a population without weight any particle: the next sweep starts afresh
        # beside it.
        dead = weights.sum(1, keepdim=True) == 0
        weights = torch.where(dead, 1 / self.particles, weights)
        chosen = inverse_cdf(weights, uniforms(self.generators, 1))[:, 0]
        self.references = [run.path(p, n) for p, n in enumerate(chosen.tolist())]
        return Sweep(run, chosen, self.references)


def swapped(
    rewards: Tensor, inverse: Tensor, points: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    """Which chain's reference each chain has after neighbours have offered to swap.

    Chains k and k + 1, for k = first, first + 2, ..., swap with probability
    min(1, exp((b_k - b_k+1)(R_k+1 - R_k))): the language model's terms cancel (Geyer
    1991; Puri et al. 2025, parallel tempering).

    rewards  R, (Q, K), the sum of the reference's log potentials at temperature 1
    inverse  b, (K,) inverse temperatures    points  (Q, K) uniforms
    Returns the source of each chain's reference, (Q, K), and the accepted swaps, (Q, K)
    bool at k. A reference without weight, R = -inf, is given away whenever it can be.
    """
    chains = rewards.shape[1]
    source = torch.arange(chains).expand_as(rewards).clone()
    accepted = torch.zeros_like(rewards, dtype=torch.bool)
    for k in range(first, chains - 1, 2):
        gain = torch.nan_to_num(rewards[:, k + 1] - rewards[:, k], nan=0.0)
        log_ratio = (inverse[k] - inverse[k + 1]) * gain
        accepted[:, k] = swap = points[:, k].log() < log_ratio
        source[swap, k], source[swap, k + 1] = k + 1, k
    return source, accepted
