"""Particle Gibbs and parallel tempering leave their targets where they are: on hidden
Markov models and on the enumerable transformer, against exact sums.

Chains begin with exact draws, so that all their visits have the target's distribution.
What peers got wrong is built here on purpose, and is seen.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from pfref import gibbs, methods
from pfref.errors import UserError
from pfref.gibbs import ParticleGibbs, swapped
from pfref.lm import Proposal
from pfref.methods import tempered
from pfref.randomness import generator, split, uniforms
from pfref.reasoning import Reasoning, Thoughts
from pfref.resampling import inverse_cdf, systematic
from pfref.schedules import schedule
from pfref.smc import ParticleFilter
from pfref.statespace import HiddenMarkov
from pfref.weights import normalise
from tests.agreement import IMPOSSIBLE, UNLIKELY, agreement
from tests.enumerable import PROBLEM, enumerate_paths, log_target, world
from tests.enumerable import PROPOSAL as WIDE
from tests.test_statespace import all_paths, hidden_markov

# ---- hidden Markov models ----

STATES, STEPS = 3, 4
F64 = torch.float64
SHARP = HiddenMarkov(
    torch.tensor([0.7, 0.2, 0.1], dtype=F64),
    torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.3, 0.3, 0.4]], dtype=F64),
    torch.tensor([[0.85, 0.1, 0.05], [0.1, 0.8, 0.1], [0.03, 0.07, 0.9]], dtype=F64),
    torch.tensor([2, 1, 0, 2]),
)
PATHS, LOG_JOINT = all_paths(SHARP, STEPS)
SMOOTHED = torch.softmax(LOG_JOINT, 0)
PLACE = STATES ** torch.arange(STEPS - 1, -1, -1)


def drawn(probability: Tensor, sources: list[Generator]) -> list[int]:
    """One exact draw for each of the sources."""
    points = uniforms(sources, 1)
    return inverse_cdf(probability.expand(len(sources), -1), points)[:, 0].tolist()


def hidden_visits(
    model: HiddenMarkov, particles: int, chains: int, sweeps: int, **options: Any
) -> Tensor:
    """(C, S) numbers of the paths that the references are after each sweep."""
    visits = []
    for part in range(0, chains, 1000):
        sources = [generator("hidden", part, k) for k in range(min(1000, chains))]
        references = [list(PATHS[k]) for k in drawn(SMOOTHED, sources)]
        chain = ParticleGibbs(
            model, particles, sources, references=references, **options
        )
        seen = []
        for sweep in islice(chain, sweeps):
            paths = torch.stack([torch.stack(list(x)) for x in sweep.references])
            seen.append((paths * PLACE).sum(1))
        visits.append(torch.stack(seen, 1))
    return torch.cat(visits)


@pytest.mark.parametrize("joining", [False, True])
@pytest.mark.parametrize(
    "particles, threshold, anneal",
    [
        (2, 1.0, None),
        (3, 1.0, None),
        (4, 0.5, None),
        (4, 1.0, "power:0.5"),
        (8, 1.0, None),
    ],
)
def test_smoothing_is_invariant(
    particles: int, threshold: float, anneal: str | None, joining: bool
) -> None:
    visits = hidden_visits(
        *(SHARP, particles, 600, 5),
        threshold=threshold,
        priority=schedule(anneal, STEPS),
        joining=joining,
    )
    assert agreement(visits, SMOOTHED) > UNLIKELY


@dataclass(frozen=True)
class Watched(HiddenMarkov):
    """Knows the pinned paths when it weighs: that is how mistakes are made."""

    def start(self, particles, generators, pinned=None):
        object.__setattr__(self, "held", pinned)
        return super().start(particles, generators, pinned)

    def weighed(self, at: int) -> Tensor:
        """The pinned paths' log potentials at a step, from 0."""
        states = torch.stack([path[at] for path in self.held])  # type: ignore[attr-defined]
        return self.emission.log()[states, self.observations[at]]


class WeighedByItsEnd(Watched):
    """The reference's potential is at every step that of its last one."""

    def log_potential(self, state: Tensor, t: int) -> Tensor:
        log_g = super().log_potential(state, t)
        log_g[:, 0] = self.weighed(STEPS - 1)
        return log_g


class WeighedAtOnce(Watched):
    """The reference has its whole weight from the first step on."""

    def log_potential(self, state: Tensor, t: int) -> Tensor:
        log_g = super().log_potential(state, t)
        whole = torch.stack([self.weighed(k) for k in range(STEPS)]).sum(0)
        log_g[:, 0] = whole if t == 1 else 0.0
        return log_g


class OneStepLate(Watched):
    def log_potential(self, state: Tensor, t: int) -> Tensor:
        log_g = super().log_potential(state, t)
        log_g[:, 0] = self.weighed(max(t - 2, 0))
        return log_g


class OneStepEarly(Watched):
    def log_potential(self, state: Tensor, t: int) -> Tensor:
        log_g = super().log_potential(state, t)
        log_g[:, 0] = self.weighed(min(t, STEPS - 1))
        return log_g


class ForAllSlots(ParticleFilter[Any]):
    """N systematic draws, of which the reference overwrites one."""

    def draw(self, t: int, state: Any, log_weights: Tensor, due: Tensor) -> Tensor:
        own = [self.generators[p] for p in due.nonzero()[:, 0].tolist()]
        weights = normalise(self.priority(log_weights, self.taken)[due])
        ancestors = systematic(weights, uniforms(own, self.particles))
        ancestors[:, 0] = 0
        return ancestors


class AnyParent(ParticleFilter[Any]):
    """The reference's parent is drawn by weight, as the others'."""

    def draw(self, t: int, state: Any, log_weights: Tensor, due: Tensor) -> Tensor:
        own = [self.generators[p] for p in due.nonzero()[:, 0].tolist()]
        weights = normalise(self.priority(log_weights, self.taken)[due])
        return inverse_cdf(weights, uniforms(own, self.particles))


def of(kind: type[HiddenMarkov]) -> HiddenMarkov:
    return kind(*(getattr(SHARP, name) for name in HiddenMarkov.__annotations__))


@pytest.mark.parametrize(
    "kind, chains",
    [
        (WeighedByItsEnd, 500),
        (WeighedAtOnce, 2000),
        (OneStepLate, 500),
        (OneStepEarly, 500),
    ],
)
def test_a_reference_with_another_weight_is_seen(
    kind: type[HiddenMarkov], chains: int
) -> None:
    """Mistake 2: its weight at step t is that of its own first t steps."""
    assert agreement(hidden_visits(of(kind), 4, chains, 4), SMOOTHED) < IMPOSSIBLE


@pytest.mark.parametrize(
    "kind, chains, sweeps", [(ForAllSlots, 2000, 15), (AnyParent, 500, 5)]
)
def test_other_parents_are_seen(
    kind: type[ParticleFilter[Any]],
    chains: int,
    sweeps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mistake 2 again: N - 1 independent draws, and the reference is its own parent."""
    monkeypatch.setattr(gibbs, "ParticleFilter", kind)
    wrong = hidden_visits(SHARP, 3, chains, sweeps, threshold=1.0)
    assert agreement(wrong, SMOOTHED) < IMPOSSIBLE


def test_the_reference_is_particle_0_and_its_own_parent() -> None:
    """And its log weights are the sums of its own potentials between resamplings."""
    path = [torch.tensor(k) for k in (2, 0, 1, 1)]
    run = ParticleFilter(
        *(SHARP, 5, [generator(1)]), threshold=0.7, pinned=[path]
    ).run()
    log_w = 0.0
    for t, step in enumerate(run.steps):
        assert step.state[0, 0] == path[t] and step.ancestors[0, 0] == 0
        log_w += float(SHARP.emission[path[t], SHARP.observations[t]].log())
        assert float(step.log_weights[0, 0]) == pytest.approx(log_w)
        if step.resampled:
            log_w = float(step.log_evidence)
    assert any(step.resampled for step in run.steps)
    assert run.path(0, 0) == path


def test_joining_draws_the_references_parent_by_weight_and_future() -> None:
    """Two particles that differ, and the probability of each as the parent."""
    path = [torch.tensor(k) for k in (0, 2, 1, 1)]
    sources = [generator("joining", k) for k in range(4000)]
    run = ParticleFilter(
        *(SHARP, 2, sources),
        threshold=1.0,
        pinned=[path] * len(sources),
        joining=True,
    )
    step = next(run)
    w = SHARP.emission[:, SHARP.observations[0]] * SHARP.transition[:, 2]
    other = step.state[:, 1]
    p = w[other] / (w[other] + w[0])
    hits = (step.ancestors[:, 0] == 1).double()
    miss = (hits - p).mean()
    assert abs(miss) < 3 * float((p * (1 - p)).mean()) ** 0.5 / len(sources) ** 0.5
    plain = (step.ancestors[:, 1] == 1).double()
    v = SHARP.emission[:, SHARP.observations[0]]
    q = v[other] / (v[other] + v[0])
    assert abs((plain - q).mean()) < 3 * 0.5 / len(sources) ** 0.5
    assert float((p - q).abs().max()) > 0.1


def test_ancestor_sampling_renews_the_past_of_long_paths() -> None:
    """Twenty steps, four particles: without it the first states hardly ever change."""
    model, moved = hidden_markov(steps=20), {}
    for joining in (False, True):
        sources = [generator("long", k) for k in range(200)]
        chain = ParticleGibbs(model, 4, sources, threshold=1.0, joining=joining)
        before = next(chain).references
        after = next(chain).references
        moved[joining] = sum(a[0] != b[0] for a, b in zip(before, after, strict=True))
    assert moved[True] > 3 * moved[False]


def test_one_particle_is_no_sweep() -> None:
    with pytest.raises(UserError, match="needs at least two particles"):
        ParticleGibbs(SHARP, 1, [generator(0)])


# ---- swaps ----


def test_swaps_by_the_closed_form() -> None:
    """min(1, exp((b_1 - b_2)(R_2 - R_1))): neither always nor never."""
    rewards = torch.tensor([[0.0, -1.5], [0.0, 2.0], [-0.3, -0.4]], dtype=F64)
    inverse = torch.tensor([1.0, 0.4], dtype=F64)
    points = (torch.arange(10_000, dtype=F64) + 0.5) / 10_000
    for row in rewards:
        source, accepted = swapped(
            row.expand(10_000, -1), inverse, points[:, None].expand(-1, 2), 0
        )
        wanted = min(1.0, math.exp(0.6 * float(row[1] - row[0])))
        assert float(accepted[:, 0].double().mean()) == pytest.approx(wanted, abs=1e-4)
        assert torch.equal(source[:, 0] == 1, accepted[:, 0])
        assert torch.equal(source.sum(1), torch.ones(10_000, dtype=torch.long))


def test_neighbours_only_and_in_turns() -> None:
    rewards = torch.tensor([[0.0, 9.0, 0.0, 9.0, 0.0]], dtype=F64)
    inverse = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2], dtype=F64)
    points = torch.full((1, 5), 0.999, dtype=F64)
    assert swapped(rewards, inverse, points, 0)[0].tolist() == [[1, 0, 3, 2, 4]]
    assert swapped(rewards, inverse, points, 1)[0].tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(
    "cold, hot, swaps",
    [(-math.inf, 0.0, True), (0.0, -math.inf, False), (-math.inf, -math.inf, True)],
)
def test_a_reference_without_weight_is_given_away(
    cold: float, hot: float, swaps: bool
) -> None:
    rewards, inverse = torch.tensor([[cold, hot]], dtype=F64), torch.tensor([1.0, 0.5])
    points = torch.tensor([[1 - 1e-9, 0.5]], dtype=F64)
    assert swapped(rewards, inverse, points, 0)[1].tolist() == [[swaps, False]]


# ---- the enumerable transformer ----

# Posteriors far from the prior: a third of the temperature.
TAU = 0.3
SMALL = Proposal(temperature=1.5, max_step_tokens=3, max_tokens=5, max_steps=3)


@lru_cache
def solutions(proposal: Proposal, temperature: float | None = None) -> tuple:
    """The tokens of every solution, their numbers, and what `log_target` wants."""
    paths = enumerate_paths(*world(), proposal, temperature=temperature)
    tokens = [sum(path.steps, ()) for path in paths]
    return tokens, {t: k for k, t in enumerate(tokens)}, paths


def posterior(proposal: Proposal, tau: float, temperature: float | None = None):
    paths = solutions(proposal, temperature)[2]
    return torch.softmax(
        torch.tensor([log_target(path, "odds", tau) for path in paths], dtype=F64), 0
    )


def model_of(proposal: Proposal, tau: float = TAU) -> Reasoning:
    return Reasoning(*world(), [PROBLEM], proposal, "odds", tau)


def text_visits(
    particles: int,
    chains: int,
    sweeps: int,
    proposal: Proposal = SMALL,
    model: Reasoning | None = None,
    **options: Any,
) -> Tensor:
    """(C, S) numbers of the references after each sweep; of one problem."""
    target = proposal.target_temperature
    tokens, number, _ = solutions(proposal, target)
    probability, visits = posterior(proposal, TAU, target), []
    for part in range(0, chains, 250):
        sources = [generator("text", part, k) for k in range(min(250, chains - part))]
        chain = ParticleGibbs(
            model or model_of(proposal),
            particles,
            sources,
            references=[tokens[k] for k in drawn(probability, sources)],
            **options,
        )
        seen = [[number[path] for path in s.references] for s in islice(chain, sweeps)]
        visits.append(torch.tensor(seen).T)
    return torch.cat(visits)


class WeighedByItsFinalScore(Reasoning):
    """Mistake 2 with texts: the reference has its final score at every step."""

    final: Tensor

    def mutate(self, state, t, active, generators, pinned=None):
        state = super().mutate(state, t, active, generators, pinned)
        if pinned is not None:
            n = state.paths.shape[1]
            _, number, paths = solutions(WIDE)
            z = [paths[number[x]].z[-1] for x in pinned]
            moved = state.weighed[::n] & state.ready & active[:, 0]
            state.log_g = state.log_g.clone()
            state.log_g[::n] = torch.where(
                moved, torch.tensor(z, dtype=F64), state.log_g[::n]
            )
        return state


def test_the_posterior_over_texts_is_invariant() -> None:
    visits = text_visits(4, 250, 2, threshold=1.0)
    assert agreement(visits, posterior(SMALL, TAU)) > UNLIKELY


@pytest.mark.slow
@pytest.mark.parametrize("particles", [2, 4, 8])
def test_the_posterior_is_invariant_in_ten_thousand_sweeps(particles: int) -> None:
    """Resampled always, sometimes, and with both kinds of annealing."""
    for k, (threshold, anneal) in enumerate(
        [(1.0, None), (0.5, None), (1.0, "power:0.5"), (1.0, "entropic")]
    ):
        priority = schedule(anneal, WIDE.max_steps)
        visits = text_visits(
            *(particles, 500, 5, WIDE), threshold=threshold, priority=priority
        )
        p = agreement(visits, posterior(WIDE, TAU))
        assert p > UNLIKELY, (k, threshold, anneal, p)


@pytest.mark.slow
def test_a_reference_text_with_its_final_score_is_seen() -> None:
    wrong = WeighedByItsFinalScore(*world(), [PROBLEM], WIDE, "odds", TAU)
    visits = text_visits(4, 2000, 4, WIDE, wrong, threshold=1.0)
    assert agreement(visits, posterior(WIDE, TAU)) < IMPOSSIBLE


def test_with_a_target_temperature_too() -> None:
    """Another temperature's price is part of the reference's weight."""
    proposal = Proposal(
        temperature=1.5,
        target_temperature=0.8,
        max_step_tokens=3,
        max_tokens=5,
        max_steps=3,
    )
    visits = text_visits(4, 250, 2, proposal, threshold=1.0)
    assert agreement(visits, posterior(proposal, TAU, 0.8)) > UNLIKELY
    assert agreement(visits, posterior(proposal, TAU, 1.5)) < IMPOSSIBLE


# ---- tempering ----

HEAT = (1.0, 3.0, 9.0)


def tempered_visits(
    chains: int, sweeps: int, particles: int, heat: tuple[float, ...]
) -> list[Tensor]:
    """For each temperature, the references' numbers after swaps, (C, S); each chain
    starts with a draw from its own target.
    """
    tokens, number, _ = solutions(SMALL)
    temperatures, count = torch.tensor(heat, dtype=F64), len(heat)
    targets = [posterior(SMALL, TAU * t) for t in heat]
    visits = []
    for part in range(0, chains, 100):
        sources = [generator("tempered", part, k) for k in range(100)]
        starts = [drawn(target, sources) for target in targets]
        model = Reasoning(*world(), [PROBLEM] * 100, SMALL, "odds", TAU)
        chain = ParticleGibbs(
            model.at((TAU * temperatures).tolist() * 100),
            particles,
            split(sources, count),
            threshold=1.0,
            references=[tokens[k] for row in zip(*starts, strict=True) for k in row],
        )
        loop: Iterator[Any] = tempered(chain, 1 / (TAU * temperatures), sources)
        seen = []
        for _ in islice(loop, sweeps):
            seen.append([number[path] for path in chain.references or ()])
        visits.append(torch.tensor(seen).T.view(100, count, sweeps))
    return list(torch.cat(visits).unbind(1))


def check_tempered(chains: int, sweeps: int, particles: int, heat: tuple) -> float:
    """The smallest p-value of the temperatures, times their number."""
    visits = tempered_visits(chains, sweeps, particles, heat)
    p = [
        agreement(v, posterior(SMALL, TAU * t))
        for v, t in zip(visits, heat, strict=True)
    ]
    return min(p) * len(heat)


def test_tempering_leaves_every_temperature_invariant() -> None:
    assert check_tempered(200, 2, 2, HEAT[:2]) > UNLIKELY


@pytest.mark.slow
def test_tempering_of_three_chains() -> None:
    assert check_tempered(500, 4, 4, HEAT) > UNLIKELY


def always(
    rewards: Tensor, inverse: Tensor, points: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    return swapped(torch.zeros_like(rewards), inverse, points, first)


def upside_down(
    rewards: Tensor, inverse: Tensor, points: Tensor, first: int
) -> tuple[Tensor, Tensor]:
    return swapped(-rewards, inverse, points, first)


@pytest.mark.parametrize("mistake", [always, upside_down])
def test_other_swaps_are_seen(
    mistake: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "swapped", mistake)
    assert check_tempered(200, 2, 2, HEAT[:2]) < IMPOSSIBLE


def test_chains_do_swap() -> None:
    """As often as their rewards say, and what one gives the other has."""
    sources = [generator("swaps", k) for k in range(50)]
    inverse = 1 / (TAU * torch.tensor(HEAT[:2], dtype=F64))
    model = Reasoning(*world(), [PROBLEM] * 50, SMALL, "odds", TAU)
    chain: ParticleGibbs[Thoughts] = ParticleGibbs(
        model.at((1 / inverse).tolist() * 50), 4, split(sources, 2)
    )
    sweep = next(tempered(chain, inverse, sources))
    before, after = sweep.references, chain.references or []
    changed = 0
    number, paths = solutions(SMALL)[1:]
    expected = []
    for k in range(0, 100, 2):
        assert after[k : k + 2] in (before[k : k + 2], before[k : k + 2][::-1])
        changed += after[k] != before[k]
        known = [before[j] in number for j in (k, k + 1)]
        r = [sum(paths[number[x]].z) for x in before[k : k + 2]] if all(known) else None
        differ = before[k] != before[k + 1]
        if r is not None and differ:
            gain = float(inverse[0] - inverse[1]) * (r[1] - r[0])
            expected.append(min(1.0, math.exp(gain)))
    mean = sum(expected)
    spread = sum(p * (1 - p) for p in expected) ** 0.5
    dead = (
        50 - len(expected) - sum(before[k] == before[k + 1] for k in range(0, 100, 2))
    )
    assert mean > 5 and abs(changed - mean) < 3 * spread + dead


def test_a_reference_that_was_cut_short_has_no_reward() -> None:
    """It has the score of what came before, which would win it a place in the cold
    chain.
    """
    seen: list[Tensor] = []

    def noted(rewards: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        seen.append(rewards)
        return swapped(rewards, *rest)

    short = Proposal(temperature=1.5, max_step_tokens=3, max_tokens=3, max_steps=2)
    sources = [generator("cut", k) for k in range(60)]
    inverse = torch.tensor([1.0, 0.5], dtype=F64)
    model = Reasoning(*world(), [PROBLEM] * 60, short, "odds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "swapped", noted)
        chain: ParticleGibbs[Thoughts] = ParticleGibbs(
            model.at([1.0, 2.0] * 60), 2, split(sources, 2)
        )
        sweep = next(tempered(chain, inverse, sources))
    dead = sweep.run.last.weights.sum(1).view(60, 2) == 0
    assert dead.any() and torch.equal(seen[0] == -math.inf, dead)


def test_a_sweep_is_the_filter_unless_told_otherwise() -> None:
    own = ParticleGibbs(SHARP, 2, [generator(0)]).options
    assert own == dict(threshold=0.5, priority=None, joining=False)
