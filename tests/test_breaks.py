"""Breaks that went unseen, each with a test in which it shows.

A weight of the enumerable transformer is known exactly, path by path: no error bars.
"""

from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from pfref import LanguageModel, Proposal, RewardModel, solve
from pfref.randomness import generators
from pfref.smc import Step, particle_filter
from pfref.solver import Particle, Solution
from tests.enumerable import DELIMITER, END, PROBLEM, PROPOSAL, enumerate_paths, world
from tests.test_filter_mistakes import Given

LETTERS = {DELIMITER: "\n\n", 2: "a", 3: "b"}


def run(aggregation: str = "last", problems: int = 6, **options: Any) -> list[Solution]:
    """Populations of 16 that are never resampled."""
    lm, prm = world()
    options = dict(proposal=PROPOSAL, threshold=0.0, aggregation=aggregation) | options
    found = solve([PROBLEM] * problems, lm, prm, 16, **options)
    assert isinstance(found, list)
    return found


def members(found: list[Solution]) -> list[tuple[Particle, float]]:
    """Every particle with its log weight."""
    return [
        pair
        for s in found
        for pair in zip(s.particles, s.trace.log_weights[-1].tolist(), strict=True)
    ]


@lru_cache
def known(temperature: float) -> dict[str, tuple[float, tuple[float, ...]]]:
    """For each complete text its log p, and its prefixes' log-odds by full passes.

    An end token alone adds no step, whether or not the enumeration gives it a score.
    """
    paths = {}
    for path in enumerate_paths(*world(), PROPOSAL, temperature=temperature):
        words = sum(bool(set(step) - {END, DELIMITER}) for step in path.steps)
        text = "".join(LETTERS[t] for step in path.steps for t in step if t != END)
        paths[text] = path.log_p, path.z[: max(1, words)]
    return paths


def aggregate(aggregation: str, z: tuple[float, ...]) -> list[float]:
    """The log-odds of every prefix, as each aggregation defines them."""
    prefixes = [torch.tensor(z[: k + 1], dtype=torch.float64) for k in range(len(z))]
    if aggregation == "min":
        return [float(prefix.min()) for prefix in prefixes]
    if aggregation == "prod":
        return [float(torch.sigmoid(prefix).prod().logit()) for prefix in prefixes]
    return list(z)


def log_potentials(potential: str, z: list[float]) -> float:
    """The sum of a path's log potentials at tau = 1."""
    log_r = torch.nn.functional.logsigmoid(torch.tensor(z, dtype=torch.float64))
    if potential == "odds":
        return sum(z)
    return float(log_r.sum() if potential == "score" else log_r[-1])


@pytest.mark.parametrize("potential", ["odds", "score", "telescoping"])
@pytest.mark.parametrize("aggregation", ["last", "min", "prod"])
def test_each_weight_is_exact(aggregation: str, potential: str) -> None:
    """Sampled at 1.5 for a target at 0.9: tau = 2 divides the potentials alone."""
    proposal = Proposal(
        temperature=PROPOSAL.temperature,
        target_temperature=0.9,
        max_step_tokens=PROPOSAL.max_step_tokens,
        max_tokens=PROPOSAL.max_tokens,
        max_steps=PROPOSAL.max_steps,
    )
    found = run(aggregation, proposal=proposal, potential=potential, tau=2.0)
    uneven = 0
    for particle, log_weight in members(found):
        if not particle.finished:
            assert log_weight == -torch.inf and particle.weight == 0
            continue
        log_p, scores = known(PROPOSAL.temperature)[particle.text]
        price = known(0.9)[particle.text][0] - log_p
        z = aggregate(aggregation, scores)
        assert particle.reward == pytest.approx(z[-1], abs=1e-4)
        exact = price + log_potentials(potential, z) / 2
        assert log_weight == pytest.approx(exact, abs=1e-3)
        uneven += abs(z[-1] - scores[-1]) > 0.1
    assert (uneven > 0) == (aggregation != "last"), "`last` would pass for it"


def test_shares_and_evidence_follow_from_the_log_weights() -> None:
    for s in run(potential="score"):
        log_weights = s.trace.log_weights[-1]
        total = log_weights.exp().sum()
        shares = torch.tensor([p.weight for p in s.particles], dtype=torch.float64)
        torch.testing.assert_close(shares, log_weights.exp() / total)
        assert s.log_evidence == pytest.approx(float((total / 16).log()))


def lengths(text: str, model: LanguageModel | RewardModel) -> int:
    """Tokens of the prompt and of a finished text, as the model reads them."""
    steps = [step for step in text.split("\n\n") if step]
    letters = sum(map(len, steps))
    prompt = len(model.prompt(PROBLEM))
    if isinstance(model, RewardModel):  # each step closed by a separator, at least one
        return prompt + letters + max(1, len(steps))
    return prompt + letters + text.count("\n\n") + 1  # and the end token


@pytest.mark.parametrize("which", ["lm", "prm"])
def test_a_context_is_used_to_its_last_token(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fits exactly is finished; one token less, and it is ruled out."""
    lm, prm = world()
    model: LanguageModel | RewardModel = lm if which == "lm" else prm
    free = [p for p, _ in members(run(problems=3)) if p.finished]
    needed = sorted({lengths(p.text, model) for p in free})
    assert len(needed) >= 4
    for context in range(
        max(needed[0], len(model.prompt(PROBLEM)) + 1), needed[-1] + 1
    ):
        monkeypatch.setattr(model, "context", context)
        limited = [p for p, _ in members(run(problems=3))]
        alive = sorted(p.text for p in limited if p.weight > 0)
        fits = sorted(p.text for p in free if lengths(p.text, model) <= context)
        assert alive == fits


@pytest.mark.parametrize("which", ["lm", "prm"])
def test_a_prompt_must_leave_room_for_one_token(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: LanguageModel | RewardModel = world()[0 if which == "lm" else 1]
    length = len(model.prompt(PROBLEM))
    monkeypatch.setattr(model, "context", length + 1)
    assert len(model.prompt(PROBLEM)) == length
    monkeypatch.setattr(model, "context", length)
    with pytest.raises(Exception, match="context"):
        model.prompt(PROBLEM)


def log_weights(alive: int, particles: int) -> Tensor:
    """(T = 2, P = 1, N): an effective sample size of exactly `alive` after step 1."""
    log_g = torch.zeros(2, 1, particles, dtype=torch.float64)
    log_g[0, 0, alive:] = -torch.inf
    return log_g


@pytest.mark.parametrize("particles", [2, 3, 7, 10, 49])
def test_the_threshold_itself_resamples(particles: int) -> None:
    """An effective sample size of exactly threshold * N, whatever the rounding."""
    for alive in range(1, particles + 1):
        for threshold, due in ((alive / particles, True), (0.0, False)):
            model = Given(log_weights(alive, particles))
            first = particle_filter(
                model, particles, generators(0, 1), threshold=threshold
            ).steps[0]
            assert float(first.ess) == pytest.approx(alive)
            assert first.resampled.item() is due
        below = particle_filter(
            model, particles, generators(0, 1), threshold=alive / particles - 1e-6
        )
        assert not below.steps[0].resampled


class Rising(Given):
    """The first population is finished at step 1; later it claims not to be."""

    def finished(self, state: Tensor, t: int) -> Tensor:
        done = super().finished(state, t)
        if t == 1:
            done = done.index_fill(0, torch.tensor([0]), True)
        return done


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_population_that_has_ended_stays_ended(threshold: float) -> None:
    """No longer active, weighed or resampled, while another goes on."""
    source = torch.Generator().manual_seed(2)
    log_g = torch.randn(4, 2, 5, dtype=torch.float64, generator=source)
    seen = particle_filter(
        Rising(log_g), 5, generators(0, 2), threshold=threshold
    ).steps
    assert len(seen) == 4 and all(step.active[1].all() for step in seen[:-1])
    for step in seen:
        assert not step.active[0].any() and not step.resampled[0]
        assert step.ancestors[0].tolist() == list(range(5))
        assert torch.equal(step.log_weights[0], log_g[0, 0])
        assert_same_evidence(step, log_g[0, 0])


def assert_same_evidence(step: Step[Tensor], log_g: Tensor) -> None:
    assert float(step.log_evidence[0]) == pytest.approx(float(log_g.exp().mean().log()))
