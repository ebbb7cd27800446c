"""What a study measures, against closed forms and other code."""

import itertools
import math
import random

import numpy as np
import pytest

from pfref.methods import leads, settled
from pfref.solution import VOTES, Particle, choose
from pfref.study import measures


def test_pass_at_n_is_the_mean_over_all_subsets() -> None:
    for correct, samples, n in itertools.product(range(6), [5], range(1, 6)):
        right = [True] * correct + [False] * (samples - correct)
        subsets = list(itertools.combinations(right, n))
        share = sum(map(any, subsets)) / len(subsets)
        assert measures.pass_at(correct, samples, n) == pytest.approx(share)


def test_choices_in_blocks_are_those_of_solutions() -> None:
    """With ties, unfinished samples, and samples without an answer."""
    source = random.Random(1)
    for _ in range(200):
        size = source.choice([3, 8, 16])
        found = [
            Particle(
                (),
                source.choice(["a", "b", "c", None]),
                0.1,
                source.choice([-1.0, 0.0, 2.0, -math.inf]),
                source.random() < 0.8,
                5,
                source.choice([-0.5, -1.0]),
            )
            for _ in range(size)
        ]
        done = np.array([p.finished for p in found])
        names = [p.answer if p.finished else None for p in found]
        answers = np.array([-1 if a is None else "abc".index(a) for a in names])
        rewards = np.array([p.reward for p in found])
        for n in (1, 2, 3, size):
            blocks = [found[k : k + n] for k in range(0, size // n * n, n)]
            for name in ("majority", "weighted", "confidence"):
                shares = np.array([VOTES[name](p) for p in found])
                got = measures.votes(answers, shares, n)
                chosen = [choose(name, block) for block in blocks]
                want = [p.answer if p and p.answer else None for p in chosen]
                # only where an answer has a share; else both have none that counts
                assert [None if g < 0 else "abc"[g] for g in got] == want
            got = measures.best(rewards, done, n)
            chosen = [choose("argmax", block) for block in blocks]
            assert [None if g < 0 else found[g].answer for g in got] == [
                p.answer if p else None for p in chosen
            ]


def test_early_stopping() -> None:
    """Four alike are enough, 1 - 2^-5; three are not, 1 - 2^-4; nor are 5 against 2."""
    assert leads(4, 0) == pytest.approx(31 / 32) and leads(3, 0) == pytest.approx(
        15 / 16
    )
    assert settled(4, 0) and not settled(3, 0) and not settled(5, 2)
    assert leads(7, 1) == pytest.approx(1 - (1 + 9) / 2**9) and settled(7, 1)
    done = np.ones(16, dtype=bool)
    same = np.zeros(16, dtype=np.int64)
    assert measures.stops(same, done, 8, 4, settled) == [(0, 4, 0), (8, 4, 0)]
    assert measures.stops(same, done, 8, 1, settled) == [(0, 4, 0), (8, 4, 0)]
    mixed = np.array([0, 1, 0, 0, 0, 0, 0, 0, *range(8)])
    assert measures.stops(mixed, done, 8, 4, settled) == [(0, 8, 0), (8, 8, 0)]
    assert measures.stops(mixed, done, 16, 4, settled) == [(0, 8, 0)]
    done[:2] = False  # no votes
    assert measures.stops(same, done, 8, 4, settled) == [(0, 8, 0), (8, 4, 0)]


def test_isotonic_regression() -> None:
    found = measures.isotonic(np.array([[1, 3, 2, 4], [3, 2, 1, 0], [0, 1, 2, 3.0]]))
    assert found.tolist() == [[1, 2.5, 2.5, 4], [1.5] * 4, [0, 1, 2, 3]]


def test_scaling_rate_of_a_shifted_curve() -> None:
    """A rival that needs four times the budget; beyond its budgets the rate is said to
    be more, and before its first one to be less.
    """
    places = np.arange(5.0)
    ours = np.tile(0.1 + 0.1 * places, (50, 1))
    theirs = ours - 0.2
    weights = measures.resamples(50, 100)
    found = measures.rates(ours, theirs, places, places, weights)
    assert np.array(found[:3]) == pytest.approx(4.0) and found[3] == (math.inf,) * 3
    back = measures.rates(theirs, ours, places, places, weights)
    assert back[0] == (0, 0, 0) and np.array(back[2:]) == pytest.approx(0.25)
    half = measures.rates(ours[:, :3], ours - 0.05, places[:3], places, weights)
    assert np.array(half) == pytest.approx(2**0.5)


def test_scaling_rate_of_a_curve_that_falls() -> None:
    """The rival's third budget is worse than its second: both count as their mean."""
    ours, theirs = np.array([[0.3, 0.5]]), np.array([[0.2, 0.4, 0.3, 0.6]])
    weights = measures.resamples(1, 10)
    found = measures.rates(ours, theirs, np.arange(2.0), np.arange(4.0), weights)
    first, second = 2 ** ((0.3 - 0.2) / 0.15), 2 ** (2 + 0.15 / 0.25 - 1)
    assert np.array(found) == pytest.approx(np.array([[first] * 3, [second] * 3]))


def test_intervals_cover_the_truth() -> None:
    """Of 400 data sets of 100 problems the 95 % interval misses the true mean in about
    5 %: within three standard errors, and one point for the percentile's own error.
    """
    source = np.random.default_rng(3)
    weights = measures.resamples(100, 1000)
    inside = 0
    for _ in range(400):
        mean, low, high = measures.estimate(source.random(100) ** 2, weights)
        inside += low <= 1 / 3 <= high
    spread = 3 * math.sqrt(0.95 * 0.05 / 400)
    assert 0.95 - spread - 0.01 <= inside / 400 <= 0.95 + spread
    values = np.where(np.arange(100) < 3, np.nan, 1.0)
    assert measures.estimate(values, weights) == (1.0, 1.0, 1.0)


def test_a_level_that_is_not_known_is_reached_nowhere() -> None:
    curve, level = np.array([[0.1, 0.2], [0.1, 0.2]]), np.array([0.15, np.nan])
    found = measures.reached(np.array([0.0, 1.0]), curve, level)
    assert found[0] == pytest.approx(0.5) and np.isnan(found[1])
