"""The language-model path, as users call it, against sums over every solution of the
enumerable transformer.
"""

import math

import pytest

from pfref.lm import Proposal
from pfref.randomness import generators
from pfref.reasoning import POTENTIALS, Reasoning
from pfref.resampling import SCHEMES
from pfref.smc import particle_filter
from tests.enumerable import (
    PROBLEM,
    PROPOSAL,
    enumerate_paths,
    exact_evidence,
    log_target,
    world,
)


def estimates(
    populations: int,
    particles: int,
    scheme: str,
    threshold: float,
    potential: str,
    seed: int,
    **options,
):
    lm, prm = world()
    proposal = options.pop("proposal", PROPOSAL)
    model = Reasoning(lm, prm, [PROBLEM] * populations, proposal, potential, **options)
    return particle_filter(
        model, particles, generators(seed, populations), SCHEMES[scheme], threshold
    )


@pytest.mark.parametrize("potential", POTENTIALS)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_evidence_is_unbiased(scheme: str, threshold: float, potential: str) -> None:
    z = estimates(400, 8, scheme, threshold, potential, seed=11).last.log_evidence.exp()
    assert abs(z.mean() - exact_evidence(potential)) < 3 * z.std() / len(z) ** 0.5


def solutions(run, model_rows: int) -> list[tuple[int, ...]]:
    return [tuple(run.last.state.paths.tokens[row]) for row in range(model_rows)]


def total_variation(particles: int, potential: str, seed: int) -> float:
    """Between the exact posterior over solutions and one weighted population."""
    lm, prm = world()
    exact = {
        sum(path.steps, ()): math.exp(log_target(path, potential))
        for path in enumerate_paths(lm, prm)
    }
    z = sum(exact.values())
    found: dict[tuple[int, ...], float] = {}
    run = estimates(1, particles, "systematic", 0.5, potential, seed)
    for tokens, weight in zip(
        solutions(run, particles), run.last.weights[0].tolist(), strict=True
    ):
        found[tokens] = found.get(tokens, 0.0) + weight
    assert set(tokens for tokens, weight in found.items() if weight > 0) <= set(exact)
    return 0.5 * sum(abs(found.get(tokens, 0.0) - p / z) for tokens, p in exact.items())


@pytest.mark.slow
@pytest.mark.parametrize("potential", POTENTIALS)
def test_posterior_is_approached_as_n_grows(potential: str) -> None:
    distance = [
        sum(total_variation(n, potential, seed) for seed in range(4)) / 4
        for n in (32, 512, 8192)
    ]
    assert (
        distance[1] < 0.5 * distance[0]
        and distance[2] < 0.5 * distance[1]
        and distance[2] < 0.1
    )


def test_target_temperature_is_paid_for_in_the_weights() -> None:
    """Sampling at 1.3 for a target at 0.9: without the price the mean would be that of
    another target.
    """
    lm, prm = world()
    proposal = Proposal(
        temperature=1.3,
        target_temperature=0.9,
        max_step_tokens=3,
        max_tokens=6,
        max_steps=3,
    )
    z = estimates(
        2000, 8, "systematic", 0.5, "score", seed=5, proposal=proposal
    ).last.log_evidence.exp()
    exact = sum(
        math.exp(log_target(path, "score"))
        for path in enumerate_paths(lm, prm, proposal, temperature=0.9)
    )
    assert abs(z.mean() - exact) < 3 * z.std() / len(z) ** 0.5
    other = sum(
        math.exp(log_target(path, "score"))
        for path in enumerate_paths(lm, prm, proposal, temperature=1.3)
    )
    assert abs(z.mean() - other) > 6 * z.std() / len(z) ** 0.5


@pytest.mark.parametrize("length", [2, 3])
def test_fixed_length_steps_and_a_potential_temperature(length: int) -> None:
    """Steps of two or three tokens, whatever they say, tau = 2; the solution may end
    only by its end token.
    """
    lm, prm = world()
    proposal = Proposal(
        temperature=1.0, step_tokens=length, max_tokens=2 * length, max_steps=2
    )
    z = estimates(
        1000, 8, "residual", 1.0, "score", seed=6, proposal=proposal, tau=2.0
    ).last.log_evidence
    exact = sum(
        math.exp(log_target(path, "score", 2.0))
        for path in fixed_length_paths(lm, prm, length)
    )
    assert abs(z.exp().mean() - exact) < 3 * z.exp().std() / len(z) ** 0.5


def fixed_length_paths(lm, prm, length):
    from tests.enumerable import END, Path, scores

    wide = Proposal(
        temperature=1.0, max_step_tokens=9, max_tokens=2 * length, max_steps=9
    )
    for path in enumerate_paths(lm, prm, wide):
        tokens = sum(path.steps, ())
        steps = tuple(tokens[k : k + length] for k in range(0, len(tokens), length))
        assert tokens[-1] == END
        yield Path(steps, path.log_p, scores(prm, steps, PROBLEM))


def test_absorbed_and_reweighted_have_different_targets() -> None:
    """`reweighted` weighs a finished particle until its population ends, so its mean
    weight is another number.
    """
    absorbed = estimates(
        400, 8, "systematic", 0.5, "score", seed=7
    ).last.log_evidence.exp()
    again = estimates(
        400, 8, "systematic", 0.5, "score", seed=7, finished="reweighted"
    ).last.log_evidence.exp()
    assert abs(absorbed.mean() - exact_evidence("score")) < 3 * absorbed.std() / 20
    assert again.mean() < 0.9 * absorbed.mean()
