"""How an answer is chosen: votes, `solve`'s choices, and the baselines.

The cases in which a wrong rule would give another answer are the ones that count.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pfref import LanguageModel, Proposal, RewardModel, solve
from pfref.answers import vote
from pfref.baselines import (
    best_of,
    greedy,
    independent,
    majority,
    weighted_best_of,
)
from pfref.minimath.problems import load_set
from pfref.solver import Cost, Particle, Solution, Trace
from tests.enumerable import PROBLEM, PROPOSAL, world

NOTHING = torch.zeros(0)
PROBLEMS = load_set("minimath500")
TEXTS = [p.problem for p in PROBLEMS[:4]]
HARD = [p.problem for p in PROBLEMS if p.level >= 4][:12]


def particle(
    answer: str | None, reward: float = 0.0, weight: float = 0.1, finished: bool = True
) -> Particle:
    text = "no box" if answer is None else f"\\boxed{{{answer}}}"
    return Particle((text,), answer, weight, reward, finished)


def solution(*particles: Particle) -> Solution:
    """What the baselines read; its choice is no matter here."""
    return Solution(
        problem="?",
        answer=None,
        chosen=None,
        particles=list(particles),
        votes={},
        log_evidence=0.0,
        trace=Trace(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING),
        cost=Cost(0, 0, 0, 1, 0, 0, 0.0),
    )


# Votes ------------------------------------------------------------------------------


def test_votes_are_shares_of_all_weight_the_largest_first() -> None:
    found = vote(["1", "2", None, "2", ""], [0.4, 0.1, 0.2, 0.5, 0.8])
    assert list(found) == ["2", "1", None]
    assert found == pytest.approx({"2": 0.3, "1": 0.2, None: 0.5})


def test_no_answer_never_wins_over_an_answer() -> None:
    """None comes last, whatever its weight: the first key is the winner."""
    assert list(vote([None, "7", None], [5.0, 1e-9, 9.0])) == ["7", None]
    assert vote([None, ""], [1.0, 3.0]) == {None: 1.0}


def test_what_has_no_weight_has_no_vote() -> None:
    assert vote(["1", None, "2"], [0.0, 0.0, 2.0]) == {"2": 1.0}
    assert vote(["1", None], [0.0, 3.0]) == {None: 1.0}
    assert vote(["3"], [0.0]) == {} == vote([], [])


def test_of_equal_answers_the_first_leads() -> None:
    assert list(vote(["9", "1", "5"], [1.0, 1.0, 1.0])) == ["9", "1", "5"]
    assert list(vote(["1", "9", "9", "1"], [1.0, 2.0, 1.0, 2.0])) == ["1", "9"]


def test_each_answer_has_its_own_weight() -> None:
    with pytest.raises(ValueError):
        vote(["1", "2"], [1.0])


# Baselines --------------------------------------------------------------------------


def test_best_of_is_the_highest_reward_among_the_finished() -> None:
    many = [particle("1", 0.5, 0.7), particle("2", 2.0, 0.1), particle("1", 1.0, 0.2)]
    assert best_of(solution(*many)) == "2"
    assert best_of(solution(particle("3", 9.0, finished=False), *many)) == "2"
    assert best_of(solution(particle("3", -5.0), particle("4", -7.0))) == "3"
    assert best_of(solution(particle("3", finished=False))) is None


def test_weighted_best_of_sums_scores_and_not_log_odds() -> None:
    """Log-odds 6 against 1 + 1 + 1: scores 0.998 against 2.19."""
    sure, fair = particle("sure", 6.0), particle("fair", 1.0)
    assert weighted_best_of(solution(sure, fair, fair, fair)) == "fair"
    # 4 + 4 and three of -1: by log-odds the three would count against their answer.
    doubtful = [particle("doubtful", -1.0)] * 3
    assert weighted_best_of(solution(particle("once", -0.8), *doubtful)) == "doubtful"
    # Odds would let one sure sample outweigh many; scores do not.
    assert weighted_best_of(solution(particle("x", 12.0), *[fair] * 2)) == "fair"


def test_weighted_best_of_is_not_a_count() -> None:
    weak = [particle("weak", -3.0)] * 5
    assert weighted_best_of(solution(*weak, particle("strong", 2.0))) == "strong"
    assert majority(solution(*weak, particle("strong", 2.0))) == "weak"


def test_only_the_finished_count() -> None:
    cut = [particle("cut", 5.0, 0.3, finished=False)] * 3
    done = particle("done", -1.0, 0.1)
    for choice in (best_of, weighted_best_of, majority):
        assert choice(solution(*cut, done)) == "done"
        assert choice(solution(*cut)) is None


def test_no_answer_loses_a_vote_of_the_baselines() -> None:
    silent = [particle(None, 3.0)] * 4
    for choice in (weighted_best_of, majority):
        assert choice(solution(*silent, particle("7", -2.0))) == "7"
        assert choice(solution(*silent)) is None


def test_majority_reads_neither_weight_nor_reward() -> None:
    heavy = particle("heavy", 8.0, 0.9)
    light = particle("light", -8.0, 0.01)
    assert majority(solution(heavy, light, light)) == "light"
    assert majority(solution(heavy, light, replace(heavy, weight=0.0))) == "heavy"


def test_independent_samples_never_meet() -> None:
    lm, prm = world()
    found = independent([PROBLEM] * 3, lm, prm, 8, proposal=PROPOSAL, seed=2)
    alone = torch.arange(8)
    assert [s.problem for s in found] == [PROBLEM] * 3
    for s in found:
        assert len(s.particles) == 8
        assert all(torch.equal(parents, alone) for parents in s.trace.ancestors)
    resampled = solve([PROBLEM] * 3, lm, prm, 8, proposal=PROPOSAL, seed=2, threshold=1)
    assert any((s.trace.ancestors != alone).any() for s in resampled)


def test_greedy_is_the_likeliest_path_of_each_problem() -> None:
    lm, prm = minimath()
    likeliest = Proposal(temperature=0)
    found = solve(TEXTS, lm, prm, 2, proposal=likeliest)
    assert greedy(TEXTS, lm) == [s.particles[0].answer for s in found]
    assert len({s.particles[0].answer for s in found}) > 1  # so that an order shows
    # A limit is a limit: nothing of the answer is there yet.
    assert greedy(TEXTS[:2], lm, max_tokens=3) == [None, None]


# `solve` ------------------------------------------------------------------------------


def minimath() -> tuple[LanguageModel, RewardModel]:
    return LanguageModel.load("minimath-small"), RewardModel.load("minimath-prm")


def chosen_by(choose: str, problems: int) -> list[Solution]:
    """Hot, scarcely judged, never resampled: answers and weights differ in plenty."""
    lm, prm = minimath()
    hot = Proposal(temperature=1.3)
    settings: dict[str, Any] = dict(tau=20.0, threshold=0.0, choose=choose)
    found = solve(HARD[:problems], lm, prm, 12, proposal=hot, **settings)
    assert isinstance(found, list)
    return found


@pytest.fixture(scope="module")
def by_vote() -> list[Solution]:
    return chosen_by("vote", len(HARD))


def test_by_vote_the_heaviest_with_the_winning_answer_is_chosen(by_vote) -> None:
    others = {"first": 0, "last": 0, "best rewarded": 0, "heaviest of all": 0}
    for s in by_vote:
        weight: dict[str, float] = {}
        for p in s.particles:
            if p.answer is not None and p.weight > 0:
                weight[p.answer] = weight.get(p.answer, 0.0) + p.weight
        winner = max(weight, key=weight.__getitem__)
        with_it = [p for p in s.particles if p.answer == winner]
        heaviest = max(with_it, key=lambda p: p.weight)
        assert s.answer == winner and s.chosen == heaviest
        others["first"] += heaviest != with_it[0]
        others["last"] += heaviest != with_it[-1]
        others["best rewarded"] += heaviest != max(with_it, key=lambda p: p.reward)
        others["heaviest of all"] += heaviest != max(
            s.particles, key=lambda p: p.weight
        )
    assert min(others.values()) > 0, f"a wrong rule would pass: {others}"


def test_by_argmax_the_best_rewarded_that_is_left_is_chosen(by_vote) -> None:
    found = chosen_by("argmax", 7)
    others = 0
    for s, voted in zip(found, by_vote, strict=False):
        # A choice changes no particle.
        assert [p.text for p in s.particles] == [p.text for p in voted.particles]
        left = [p for p in s.particles if p.weight > 0]
        assert s.chosen == max(left, key=lambda p: p.reward)
        assert s.answer == s.chosen.answer
        others += s.chosen.text != voted.chosen.text
    assert others > 0, "a vote would pass for it"


def test_without_any_answer_a_vote_is_as_argmax() -> None:
    """The four letters of the small world write no box."""
    lm, prm = world()
    for s in solve([PROBLEM] * 6, lm, prm, 6, proposal=PROPOSAL, threshold=0.0):
        left = [p for p in s.particles if p.weight > 0]
        assert s.answer is None and set(s.votes) == {None}
        assert s.chosen == max(left, key=lambda p: p.reward)


def test_a_draw_is_by_weight() -> None:
    """800 populations of four: how often is the heaviest drawn, or the first?"""
    lm, prm = world()
    runs = 800
    found = solve(
        [PROBLEM] * runs, lm, prm, 4, proposal=PROPOSAL, threshold=0.0, choose="draw"
    )
    rules = {
        "the heaviest": lambda s: max(s.particles, key=lambda p: p.weight),
        "the lightest": lambda s: min(s.particles, key=lambda p: p.weight),
        "the best rewarded": lambda s: max(s.particles, key=lambda p: p.reward),
        "the first": lambda s: s.particles[0],
        "the last": lambda s: s.particles[-1],
    }
    for name, rule in rules.items():
        drawn, expected, variance = 0, 0.0, 0.0
        for s in found:
            text = rule(s).text  # two particles may say the same
            share = sum(p.weight for p in s.particles if p.text == text)
            drawn += s.chosen is not None and s.chosen.text == text
            expected, variance = expected + share, variance + share * (1 - share)
        assert variance > 20, "the weights must leave something to chance"
        assert abs(drawn - expected) < 3 * variance**0.5, name
    assert all(s.chosen is None or s.chosen.weight > 0 for s in found)
