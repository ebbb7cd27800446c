"""A reward of one's own, checked against sums over all solutions."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from pfref import RewardFunction, UserError, particle_filter, solve
from pfref.randomness import generators
from pfref.reasoning import POTENTIALS, Reasoning
from tests.enumerable import (
    DELIMITER,
    END,
    PROBLEM,
    PROPOSAL,
    enumerate_paths,
    log_target,
    standard_errors,
    world,
)

METHODS = [
    *("greedy", "samples", "adaptive", "greedy-search", "beam", "dvts"),
    *("filter", "gibbs", "tempering"),
]


def like_a(text: str) -> float:
    return 0.7 * text.count("a") - 0.4 * text.count("b")


def rewards(problems: list[str], solutions: list[tuple[str, ...]]) -> list[float]:
    assert set(problems) == {PROBLEM} and len(problems) == len(solutions)
    return [like_a("".join(steps)) for steps in solutions]


@pytest.mark.parametrize("potential", POTENTIALS)
def test_the_evidence_is_that_of_the_function(potential: str) -> None:
    lm, prm = world()
    words = {END: "", DELIMITER: "\n\n", 2: "a", 3: "b"}
    exact = 0.0
    for path in enumerate_paths(lm, prm):
        texts = ["".join(words[token] for token in step) for step in path.steps]
        ends = [k + 1 for k, text in enumerate(texts) if text] or [1]
        own = replace(path, z=tuple(like_a("".join(texts[:k])) for k in ends))
        exact += math.exp(log_target(own, potential))
    model = Reasoning(lm, RewardFunction(rewards), [PROBLEM] * 400, PROPOSAL, potential)
    found = particle_filter(model, 8, generators(7, 400)).last.log_evidence.exp()
    assert standard_errors(found, exact) < 3


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_it(method: str) -> None:
    lm, _ = world()
    prm = RewardFunction(rewards)
    found = solve([PROBLEM] * 2, lm, prm, 16, method=method, proposal=PROPOSAL)
    for solution in found:
        for p in solution.particles:
            if p.finished and p.text:
                assert p.reward == pytest.approx(like_a(p.text))
        assert solution.cost.scored_tokens == 0


def test_each_problem_has_its_own() -> None:
    lm, _ = world()
    two = [PROBLEM, "ab"]

    def own(problems: list[str], solutions: list[tuple[str, ...]]) -> list[float]:
        return [float(two.index(problem)) for problem in problems]

    found = solve(two, lm, RewardFunction(own), 8, proposal=PROPOSAL)
    for k, solution in enumerate(found):
        assert {p.reward for p in solution.particles if p.finished and p.text} == {k}


def test_steps_before_are_remembered_by_the_aggregations() -> None:
    lm, _ = world()
    settings: dict[str, Any] = dict(proposal=PROPOSAL, method="samples")
    found = solve([PROBLEM], lm, RewardFunction(rewards), 64, **settings)[0]
    lowest = solve(
        [PROBLEM], lm, RewardFunction(rewards), 64, aggregation="min", **settings
    )[0]
    several = 0
    for p, low in zip(found.particles, lowest.particles, strict=True):
        assert p.steps == low.steps
        if p.finished and p.text:
            ends = range(1, len(p.steps) + 1)
            assert low.reward == pytest.approx(
                min(like_a("".join(p.steps[:k])) for k in ends)
            )
            several += low.reward < p.reward
    assert several


def test_a_reward_of_minus_infinity_rules_out() -> None:
    def no_b(problems: list[str], solutions: list[tuple[str, ...]]) -> list[float]:
        return [-math.inf if "b" in "".join(s) else 0.0 for s in solutions]

    lm, _ = world()
    found = solve(
        PROBLEM, lm, RewardFunction(no_b), 64, proposal=PROPOSAL, threshold=0.0
    )
    assert all("b" not in p.text for p in found.particles if p.weight)
    assert any("b" in p.text for p in found.particles)

    def nothing(problems: list[str], solutions: Sequence[Any]) -> list[float]:
        return [-math.inf] * len(solutions)

    with pytest.raises(UserError, match="ruled out by the reward model"):
        solve(PROBLEM, lm, RewardFunction(nothing), 4, proposal=PROPOSAL)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (lambda n: [0.0] * (n + 1), "return one for each"),
        (lambda n: 0.0, "return one for each"),
        (lambda n: None, "gave no numbers, but NoneType: return a list"),
        (lambda n: (0.0 for _ in range(n)), "gave no numbers, but generator"),
        (lambda n: ["x"] * n, "gave no numbers, but list"),
        (lambda n: torch.zeros(n, 1), "return one for each"),
        (lambda n: [math.nan] * n, "a reward is NaN or"),
        (lambda n: [math.inf] * n, "a reward is NaN or"),
    ],
)
def test_what_is_no_reward_is_told(value: Any, told: str) -> None:
    lm, _ = world()
    prm = RewardFunction(lambda problems, solutions: value(len(problems)))
    with pytest.raises(UserError, match=told):
        solve(PROBLEM, lm, prm, 4, proposal=PROPOSAL)
