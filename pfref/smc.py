"""Sequential Monte Carlo: what a model must offer, and the one particle filter that
runs all of them.

A Feynman-Kac model has transitions M_t and potentials G_t. Its target after step t is

    pi_t(x_1:t) = M_1(x_1) G_1(x_1) ... M_t(x_t | x_1:t-1) G_t(x_1:t) / Z_t,

and Z_t is its evidence (Del Moral 2004). The filter runs P independent populations of N
particles at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Generator, Tensor

from .errors import UserError
from .randomness import uniforms
from .resampling import Scheme, multinomial, systematic
from .weights import effective_sample_size, log_mean_exp, normalise

State = TypeVar("State")
# (log weights (P, N), steps that each population has taken (P,)) -> log v (P, N): what
# ancestors are drawn in proportion to.
Priority = Callable[[Tensor, Tensor], Tensor]


class FeynmanKac(ABC, Generic[State]):
    """A model that the particle filter can run. P is the number of generators, one for
    each population.

    A model that can hold a path fast takes the argument `pinned`, P paths, in `start`
    and `mutate`: particle 0 of population p then takes the steps of pinned[p] instead
    of its own.
    """

    @abstractmethod
    def start(self, particles: int, generators: Sequence[Generator]) -> State:
        """x_1 ~ M_1 for P x N particles."""

    @abstractmethod
    def mutate(
        self, state: State, t: int, active: Tensor, generators: Sequence[Generator]
    ) -> State:
        """x_t ~ M_t(. | x_1:t-1) for the particles in `active`, a (P, N) mask; the
        others stay as they are. A model that updates its state in place needs a `path`
        of its own.
        """

    @abstractmethod
    def log_potential(self, state: State, t: int) -> Tensor:
        """log G_t(x_1:t), (P, N). -inf rules a particle out; a finished particle that
        is absorbed has 0.
        """

    @abstractmethod
    def finished(self, state: State, t: int) -> Tensor:
        """Which particles are complete and will not be extended, a (P, N) mask."""

    def ready(self, state: State, t: int) -> Tensor | None:
        """Which populations have taken their step, a (P,) mask; None, as here, if all.

        The others are in the middle of it. They are neither weighed nor resampled, and
        `mutate` goes on with them: no population waits for another's long step.
        """
        return None

    def fork(self, state: State, ancestors: Tensor) -> State:
        """Particle n becomes a copy of particle ancestors[p, n] of its population.
        Here: a tensor state (P, N, ...).
        """
        population = torch.arange(len(ancestors), device=ancestors.device)[:, None]
        return state[population, ancestors]  # type: ignore[index]

    def path(self, state: State, p: int, n: int) -> Any:
        """x_1:t of particle n of population p, as `pinned` takes it.

        None, as here, if a state does not hold its past: `ParticleFilter.path` then
        collects it from the filter's steps.
        """
        return None

    def log_future(self, state: State, t: int, pinned: Sequence[Any]) -> Tensor | None:
        """(P, N): log density of each pinned path's steps after t, and of its
        potentials there, if each particle came before them; up to a constant. None, as
        here, if that is unknown. For ancestor sampling.
        """
        return None


@dataclass(frozen=True)
class Step(Generic[State]):
    """What happened at step t, before its resampling takes effect."""

    t: int
    state: State  # models that update in place hand out the same object at every step
    log_weights: Tensor  # (P, N)
    ess: Tensor  # (P,) effective sample size
    log_evidence: Tensor  # (P,) log of the estimate of Z_t
    active: Tensor  # (P, N) particles that are neither finished nor ruled out
    resampled: Tensor  # (P,) will this population resample before the next step?
    ancestors: Tensor  # (P, N) parents of the particles of step t + 1
    stepped: Tensor  # (P,) did this population take a step?

    @property
    def weights(self) -> Tensor:
        """(P, N), each row sums to one, or to zero if the population is dead."""
        return normalise(self.log_weights)


class ParticleFilter(Iterator[Step[State]]):
    """The particle filter with adaptive resampling.

        for step in ParticleFilter(model, 64, generators): ...

    1. Move every active particle: x_t ~ M_t.   2. Weigh: log w += log G_t.
    3. If the effective sample size is at most `threshold` * N, draw ancestors in
       proportion to the weights and give every particle the population's mean weight.

    A population ends when none of its particles is active. It is not resampled after
    its last step, so the result is a weighted population (unless a resampling left no
    active particle, which ends it too). The mean weight estimates Z_t
    without bias at every t.

    model        what to run                      resample   a scheme of `resampling`
    particles    N, at least 1                    threshold  0 never resamples, 1 always
    generators   P of them, one a population; the only source of randomness
    priority     log weights -> log v: ancestors are drawn in proportion to v, and each
                 keeps the weight w / v times the mean of v, so that all estimates stay
                 unbiased (Liu 2001, section 3.4); None: v = w
    pinned       P paths, one a population: conditional SMC (Andrieu et al. 2010).
                 Particle 0 is the path and its own parent, weighed by its prefix as the
                 others are; the others' parents are N - 1 independent draws
    joining      with `pinned`: draw particle 0's parent too, in proportion to its
                 weight times the model's `log_future` (ancestor sampling, Lindsten et
                 al. 2014)
    """

    def __init__(
        self,
        model: FeynmanKac[State],
        particles: int,
        generators: Sequence[Generator],
        resample: Scheme = systematic,
        threshold: float = 0.5,
        priority: Priority | None = None,
        pinned: Sequence[Any] | None = None,
        joining: bool = False,
    ) -> None:
        if particles < 1 or not generators:
            raise UserError(
                "a population needs at least one particle and a generator; there are "
                f"{particles} and {len(generators)}"
            )
        if not 0 <= threshold <= 1:
            raise UserError(
                "the resampling threshold is a share of N between 0 and 1, not "
                f"{threshold}"
            )
        self.model, self.particles, self.generators = model, particles, list(generators)
        self.resample, self.threshold = resample, float(threshold)
        self.priority = priority or (lambda log_weights, taken: log_weights)
        self.pinned, self.joining = pinned, joining
        # Only models that know of it are asked to hold a path.
        self.held = {} if pinned is None else {"pinned": pinned}
        self.steps: list[Step[State]] = []
        self.taken = torch.zeros(len(self.generators), dtype=torch.long)  # steps

    def __next__(self) -> Step[State]:
        t = len(self.steps) + 1
        if t == 1:
            state = self.model.start(self.particles, self.generators, **self.held)
            active = torch.ones(len(self.generators), self.particles, dtype=torch.bool)
            log_weights = torch.zeros(active.shape, dtype=torch.float64)
        else:
            last = self.steps[-1]
            if not last.active.any():
                raise StopIteration
            state, active, log_weights = last.state, last.active, last.log_weights
            if last.resampled.any():
                state = self.model.fork(state, last.ancestors)
                active = active.gather(1, last.ancestors)
                log_weights = self.inherited(last)
            state = self.model.mutate(state, t, active, self.generators, **self.held)
        stepped = active.any(1)  # a population that has ended is weighed no more
        if (ready := self.model.ready(state, t)) is not None:
            stepped &= ready.cpu()
        increment = self.model.log_potential(state, t).to("cpu", torch.float64)
        increment = torch.where(stepped[:, None], increment, 0.0)
        if (increment.isnan() | (increment == torch.inf)).any():
            raise UserError(
                f"a log potential at step {t} is NaN or plus infinity: the model's "
                "scores are broken"
            )
        log_weights = log_weights + increment
        goes_on = (log_weights > -torch.inf) & ~self.model.finished(state, t).cpu()
        active = active.any(1, keepdim=True) & torch.where(
            stepped[:, None], goes_on, active
        )
        self.taken = self.taken + stepped
        step = self.record(t, state, log_weights, active, stepped)
        self.steps.append(step)
        return step

    def record(
        self, t: int, state: State, log_weights: Tensor, active: Tensor, stepped: Tensor
    ) -> Step[State]:
        ess = effective_sample_size(log_weights)
        low = ess <= self.threshold * self.particles * (1 + 1e-12)
        due = stepped & active.any(1) & low & (self.threshold > 0)
        ancestors = torch.arange(self.particles).repeat(len(self.generators), 1)
        if due.any():
            ancestors[due] = self.draw(t, state, log_weights, due)
        evidence = log_mean_exp(log_weights)
        return Step(
            *(t, state, log_weights, ess, evidence, active, due, ancestors, stepped)
        )

    def draw(self, t: int, state: State, log_weights: Tensor, due: Tensor) -> Tensor:
        """Ancestors of the populations in `due`, (D, N)."""
        own = [self.generators[p] for p in due.nonzero()[:, 0].tolist()]
        points = uniforms(own, self.particles)
        v = self.priority(log_weights, self.taken)
        if self.pinned is None:
            return self.resample(normalise(v[due]), points)
        # Independent draws for the others: an ordered scheme, with one entry written
        # over, would not be.
        ancestors = multinomial(normalise(v[due]), points)
        future = self.model.log_future(state, t, self.pinned) if self.joining else None
        if future is None:
            ancestors[:, 0] = 0
        else:
            joint = normalise(log_weights[due] + future[due])
            ancestors[:, :1] = multinomial(joint, points[:, :1])
        return ancestors

    def inherited(self, last: Step[State]) -> Tensor:
        """The log weights with which the children of step `last` begin.

        With v = w that is log mean w, the estimate of Z so far: carried on, it stays
        one.
        """
        w = last.log_weights
        v = self.priority(w, self.taken)
        kept = torch.where(w == v, 0.0, w - v).gather(1, last.ancestors)
        children = kept + log_mean_exp(v)[:, None]
        return torch.where(last.resampled[:, None], children, w)

    def run(self) -> "ParticleFilter[State]":
        """Take all steps that are left."""
        for _ in self:
            pass
        return self

    @property
    def last(self) -> Step[State]:
        return self.steps[-1]

    def lineage(self) -> Tensor:
        """(T, P, N): the particle of step t from which the last step's particle n
        descends.
        """
        lines = [torch.arange(self.particles).repeat(len(self.generators), 1)]
        for step in reversed(self.steps[:-1]):
            lines.append(step.ancestors.gather(1, lines[-1]))
        return torch.stack(lines[::-1])

    def path(self, p: int, n: int) -> Any:
        """The path of the last step's particle n of population p, which `pinned`
        takes.
        """
        path = self.model.path(self.last.state, p, n)
        if path is not None:
            return path
        if len({id(step.state) for step in self.steps}) < len(self.steps):
            raise ValueError("states updated in place are lost: write a `path`")
        line = [n]
        for step in reversed(self.steps[:-1]):
            line.append(int(step.ancestors[p, line[-1]]))
        back = zip(self.steps, reversed(line), strict=True)
        return [step.state[p, k] for step, k in back]  # type: ignore[index]


def particle_filter(
    model: FeynmanKac[State],
    particles: int,
    generators: Sequence[Generator],
    resample: Scheme = systematic,
    threshold: float = 0.5,
    **options: Any,
) -> ParticleFilter[State]:
    """Run a `ParticleFilter` to its end and return it: its `last` step, all its
    `steps`, its `lineage()`.
    """
    return ParticleFilter(
        model, particles, generators, resample, threshold, **options
    ).run()
