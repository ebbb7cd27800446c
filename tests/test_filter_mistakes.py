"""Mistakes that other filters make, each with the test that would show it.

Exact answers on tiny discrete models.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor

from pfref.errors import UserError
from pfref.randomness import generators, uniforms
from pfref.resampling import SCHEMES, inverse_cdf, multinomial, residual, systematic
from pfref.smc import FeynmanKac, ParticleFilter, particle_filter

ENDS = 2  # the symbol that finishes a path
P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
G = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)


@dataclass(frozen=True)
class RandomLengths(FeynmanKac[Tensor]):
    """Symbols 0, 1, 2 by P; 2 ends the path; the potential of a step is G of its
    symbol; after `horizon` a path must have ended.
    """

    horizon: int = 3

    def start(self, particles: int, sources: Sequence[Generator]) -> Tensor:
        return inverse_cdf(P.expand(len(sources), -1), uniforms(sources, particles))[
            ..., None
        ]

    def mutate(
        self, state: Tensor, t: int, active: Tensor, sources: Sequence[Generator]
    ) -> Tensor:
        drawn = inverse_cdf(
            P.expand(len(sources), -1), uniforms(sources, state.shape[1])
        )
        return torch.cat([state, torch.where(active, drawn, -1)[..., None]], -1)

    def log_potential(self, state: Tensor, t: int) -> Tensor:
        moved, last = state[..., -1] >= 0, state[..., -1].clamp(min=0)
        cut = moved & (last != ENDS) & (t == self.horizon)
        return torch.where(cut, -torch.inf, torch.where(moved, G[last].log(), 0.0))

    def finished(self, state: Tensor, t: int) -> Tensor:
        return (state == ENDS).any(-1) | torch.tensor(t == self.horizon)


def exact() -> dict[tuple[int, ...], float]:
    """Every path that ends in time, with its unnormalised target."""
    paths = {}
    for length in (1, 2, 3):
        for body in itertools.product((0, 1), repeat=length - 1):
            path = (*body, ENDS)
            paths[path] = math.prod(float(P[x] * G[x]) for x in path)
    return paths


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_absorbed_particles_of_unequal_length(scheme: str, threshold: float) -> None:
    """Mistake 3: finished and active particles are resampled together and the mean
    weight is kept.
    """
    run = particle_filter(
        RandomLengths(), 6, generators(1, 6000), SCHEMES[scheme], threshold
    )
    z, weights, state = run.last.log_evidence.exp(), run.last.weights, run.last.state
    truth = exact()
    total = sum(truth.values())
    assert abs(z.mean() - total) < 3 * z.std() / len(z) ** 0.5
    for path in [(2,), (1, 2), (0, 1, 2)]:
        padded = torch.tensor([*path, *[-1] * (state.shape[-1] - len(path))])
        mass = z * (weights * (state == padded).all(-1)).sum(
            1
        )  # unbiased for the unnormalised target
        assert abs(mass.mean() - truth[path]) < 3 * mass.std() / len(z) ** 0.5


@dataclass(frozen=True)
class Given(FeynmanKac[Tensor]):
    """Particles that never move, with log potentials given for each step: (T, P, N)."""

    log_g: Tensor

    def start(self, particles: int, sources: Sequence[Generator]) -> Tensor:
        return torch.arange(particles).repeat(len(sources), 1)

    def mutate(
        self, state: Tensor, t: int, active: Tensor, sources: Sequence[Generator]
    ) -> Tensor:
        return state

    def log_potential(self, state: Tensor, t: int) -> Tensor:
        return self.log_g[t - 1].gather(1, state)

    def finished(self, state: Tensor, t: int) -> Tensor:
        return torch.full(state.shape, t == len(self.log_g))


def test_no_resampling_after_the_last_step() -> None:
    """Mistake 1: with log weights 0 and 1 the second particle is drawn with probability
    0.73; resampled first and weighed again, 0.82.
    """
    log_g = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(1, 4000, 2)
    run = particle_filter(Given(log_g), 2, generators(2, 4000), multinomial, 1.0)
    assert not run.last.resampled.any() and torch.equal(
        run.last.state[0], torch.arange(2)
    )
    assert run.last.weights[0, 1].item() == pytest.approx(math.e / (1 + math.e))
    drawn = (
        inverse_cdf(run.last.weights, uniforms(generators(3, 4000), 1)).double().mean()
    )
    assert abs(drawn - 0.731) < 3 * (0.731 * 0.269 / 4000) ** 0.5 < abs(drawn - 0.82)


def test_a_dead_population_is_an_outcome() -> None:
    """Mistake 9: all weights zero gives -inf and zeros, never NaN; the other
    populations go on.
    """
    log_g = torch.zeros(3, 2, 4, dtype=torch.float64)
    log_g[1, 0] = -torch.inf
    run = particle_filter(Given(log_g), 4, generators(0, 2), threshold=1.0)
    last = run.last
    assert (
        last.log_evidence.tolist() == [-math.inf, 0.0]
        and last.ess.tolist() == [0.0, 4.0]
        and last.t == 3
    )
    assert last.weights[0].sum() == 0 and not any(
        step.weights.isnan().any() for step in run.steps
    )
    assert not run.steps[1].active[0].any() and not run.steps[1].resampled[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_potentials_are_one_clear_line(bad: float) -> None:
    log_g = torch.zeros(1, 1, 3, dtype=torch.float64)
    log_g[0, 0, 1] = bad
    with pytest.raises(UserError, match="step 1 is NaN or plus infinity"):
        particle_filter(Given(log_g), 3, generators(0, 1))


def test_a_population_does_not_see_its_neighbours() -> None:
    """Mistake 6: generator by generator the same, alone or among others that run
    longer.
    """
    together = particle_filter(RandomLengths(), 5, generators(7, 9), threshold=1.0)
    for k in (0, 4, 8):
        alone = particle_filter(
            RandomLengths(), 5, [generators(7, 9)[k]], threshold=1.0
        )
        steps = len(alone.steps)
        assert torch.equal(alone.last.state[0], together.last.state[k][:, :steps])
        assert torch.equal(alone.last.log_weights[0], together.last.log_weights[k])


def test_iterator_and_call_agree_and_nothing_follows_the_end() -> None:
    watched = ParticleFilter(RandomLengths(), 5, generators(7, 3))
    seen = list(watched)
    called = particle_filter(RandomLengths(), 5, generators(7, 3))
    assert (
        torch.equal(seen[-1].log_weights, called.last.log_weights)
        and seen == watched.steps
    )
    with pytest.raises(StopIteration):
        next(watched)


def test_lineage_follows_ancestors() -> None:
    run = particle_filter(RandomLengths(), 8, generators(5, 4), multinomial, 1.0)
    line = run.lineage()
    for t in range(len(run.steps)):
        ancestors = torch.arange(8).repeat(4, 1)
        for step in reversed(run.steps[t:-1]):
            ancestors = step.ancestors.gather(1, ancestors)
        assert torch.equal(line[t], ancestors)
        symbol = run.steps[t].state[
            ..., t
        ]  # what the particle of step t drew is what its descendant holds there
        assert torch.equal(run.last.state[..., t], symbol.gather(1, line[t]))


@pytest.mark.parametrize(
    "change", [dict(particles=0), dict(threshold=-0.1), dict(threshold=1.1)]
)
def test_bad_settings(change: dict) -> None:
    with pytest.raises(UserError):
        ParticleFilter(
            RandomLengths(), **(dict(particles=4, generators=generators(0, 1)) | change)
        )


@pytest.mark.parametrize("scheme", SCHEMES)
def test_offspring_are_unbiased(scheme: str) -> None:
    weights = torch.tensor([0.05, 0.0, 0.37, 0.21, 0.37], dtype=torch.float64).expand(
        20_000, -1
    )
    slots = 7
    ancestors = SCHEMES[scheme](
        weights, uniforms(generators(4, 200), 100, slots).view(-1, slots)
    )
    counts = (ancestors[..., None] == torch.arange(5)).sum(1).double()
    error = (counts.mean(0) - slots * weights[0]).abs()
    assert (error <= 3 * counts.std(0) / len(counts) ** 0.5 + 1e-12).all()
    assert (counts[:, 1] == 0).all()  # no weight, no offspring
    if scheme == "residual":
        assert (counts >= (slots * weights).floor()).all()
    if scheme == "systematic":
        assert ((counts - slots * weights).abs() < 1 + 1e-9).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype, digits", [(torch.float64, 53), (torch.float32, 24)])
def test_the_end_of_the_cumulative_sum(
    scheme: str, dtype: torch.dtype, digits: int
) -> None:
    """Mistake 5: uniforms next to 1 and sums that round off never point past the end,
    nor at a particle of weight zero.
    """
    top = torch.full((1, 1000), 1 - 2.0**-digits, dtype=dtype)
    for n in (3, 10, 1000):
        weights = torch.full((1, n), 1 / n, dtype=torch.float64)
        weights[0, -1] = 0.0
        weights = weights / weights.sum() * (1 - 1e-16)
        for u in (top[:, :n], torch.zeros(1, n, dtype=dtype)):
            ancestors = SCHEMES[scheme](weights, u)
            assert ancestors.min() >= 0 and ancestors.max() <= n - 2


def test_schemes_are_pure_vectorised_and_multinomial_is_in_no_order() -> None:
    source = generators(9, 50)
    weights = torch.softmax(uniforms(source, 8) * 3, -1)
    u = uniforms(source, 8)
    for scheme in SCHEMES.values():
        together = scheme(weights, u)
        assert torch.equal(
            together,
            torch.stack([scheme(w, x) for w, x in zip(weights, u, strict=True)]),
        ) and torch.equal(together, scheme(weights, u))
    descents = (multinomial(weights, u).diff(dim=1) < 0).any(1).double().mean()
    assert (
        descents > 0.9 and (systematic(weights, u).diff(dim=1) >= 0).all()
    )  # entry 0 of sorted draws would not be one of N alike


def test_lower_variance_than_multinomial() -> None:
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).expand(20_000, -1)
    u = uniforms(generators(6, 200), 100, 10).view(-1, 10)
    variance = {
        name: ((scheme(weights, u)[..., None] == torch.arange(4)).sum(1))
        .double()
        .var(0)
        .sum()
        for name, scheme in SCHEMES.items()
    }
    assert (
        max(variance["stratified"], variance["systematic"], variance["residual"])
        < variance["multinomial"]
    )
    assert residual(weights[0], u[0]).shape == (10,)


def test_a_model_is_told_which_step_it_is() -> None:
    """Potentials and transitions that change with time depend on it."""
    told: list[int] = []

    class Listening(RandomLengths):
        def mutate(
            self, state: Tensor, t: int, active: Tensor, sources: Sequence[Generator]
        ) -> Tensor:
            told.append(t)
            return super().mutate(state, t, active, sources)

    run = particle_filter(Listening(), 8, generators(0, 2))
    assert told == list(range(2, len(run.steps) + 1))


def test_resampling_below_the_threshold_and_at_it() -> None:
    """Effective sample sizes of 2, 3 and 4 of 4."""
    log_g = torch.zeros(2, 3, 4, dtype=torch.float64)
    log_g[0, 0, 2:] = log_g[0, 1, 3:] = -torch.inf
    for options, due in (
        (dict(threshold=0.0), [False, False, False]),
        (dict(threshold=0.4999), [False, False, False]),
        ({}, [True, False, False]),
        (dict(threshold=0.75), [True, True, False]),
        (dict(threshold=1.0), [True, True, True]),
    ):
        step = next(ParticleFilter(Given(log_g), 4, generators(0, 3), **options))
        assert step.resampled.tolist() == due


@dataclass(frozen=True)
class Walk(FeynmanKac[Tensor]):
    """A walk whose state may be one object that is written over."""

    in_place: bool

    def start(self, particles: int, sources: Sequence[Generator]) -> Tensor:
        return uniforms(sources, particles)

    def mutate(
        self, state: Tensor, t: int, active: Tensor, sources: Sequence[Generator]
    ) -> Tensor:
        new = state + uniforms(sources, state.shape[1])
        return state.copy_(new) if self.in_place else new

    def log_potential(self, state: Tensor, t: int) -> Tensor:
        return -state

    def finished(self, state: Tensor, t: int) -> Tensor:
        return torch.full(state.shape, t == 3)


def test_a_path_is_not_read_from_states_that_were_written_over() -> None:
    run = particle_filter(Walk(False), 8, generators(0, 1), threshold=0.0)
    path = run.path(0, 1)
    assert path[0] < path[1] < path[2]
    again = particle_filter(Walk(True), 8, generators(0, 1), threshold=0.0)
    assert torch.equal(again.last.log_weights, run.last.log_weights)
    with pytest.raises(ValueError, match="updated in place are lost: write a `path`"):
        again.path(0, 1)


def test_a_filter_needs_a_population() -> None:
    for particles, sources in ((4, []), (0, generators(0, 1))):
        with pytest.raises(UserError, match="at least one particle and a generator"):
            ParticleFilter(Walk(False), particles, sources)
