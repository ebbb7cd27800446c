"""What a study measures, as functions of arrays: intervals, pass@N, choices among
blocks of samples, early-stopped votes, scaling rates.
"""

from collections.abc import Callable
from math import comb

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
DRAWS = 4000


def resamples(problems: int, draws: int = DRAWS, seed: int = 0) -> Array:
    """Bootstrap weights, (draws, problems): how often each problem is drawn. The same
    for all methods, so that their differences are paired.
    """
    chances = np.full(problems, 1 / problems)
    drawn = np.random.default_rng(seed).multinomial(problems, chances, size=draws)
    return drawn.astype(np.float64)


def means(values: Array, weights: Array) -> Array:
    """The mean over problems under each row of weights, (draws, ...), of `values`,
    (problems, ...). A problem without a value, nan, is left out.
    """
    here = ~np.isnan(values)
    total, count = weights @ np.where(here, values, 0.0), weights @ here.astype(float)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / np.where(count > 0, count, np.nan))


def interval(draws: Array) -> tuple[float, float]:
    """The middle 95 % of bootstrap draws, which may be infinite."""
    known = draws[~np.isnan(draws)]
    if not known.size:
        return np.nan, np.nan
    low, high = np.quantile(known, [0.025, 0.975], method="inverted_cdf")
    return float(low), float(high)


def estimate(values: Array, weights: Array) -> tuple[float, float, float]:
    """The mean of (problems,) values and its 95 % interval."""
    return float(means(values, np.ones(len(values)))), *interval(means(values, weights))


def pass_at(correct: int, samples: int, n: int) -> float:
    """The chance that one of n samples is right, without bias from `correct` right ones
    of `samples` (Chen et al. 2021). An oracle: nobody knows which one it is.
    """
    return 1 - comb(samples - correct, n) / comb(samples, n)


def best(rewards: Array, finished: NDArray[np.bool_], n: int) -> NDArray[np.int64]:
    """In each block of n consecutive samples the finished one of highest reward; -1 if
    there is none: (blocks,) numbers of samples.
    """
    blocks = len(rewards) // n
    x = np.where(finished, rewards, -np.inf)[: blocks * n].reshape(blocks, n)
    top = x.argmax(1)
    found = x[np.arange(blocks), top] > -np.inf
    return np.where(found, top + np.arange(blocks) * n, -1)


def votes(answers: NDArray[np.int64], weights: Array, n: int) -> NDArray[np.int64]:
    """In each block of n consecutive samples the answer with most weight: (blocks,).

    answers  (samples,) a number for each answer, -1 for none, which cannot win
    weights  (samples,) not negative
    Of equal answers the one that came first in the block leads. -1 if there is none.
    """
    blocks, kinds = len(answers) // n, int(answers.max(initial=-1)) + 1
    if kinds == 0:
        return np.full(blocks, -1)
    held = answers[: blocks * n]
    valid = (held >= 0) & (weights[: blocks * n] > 0)
    place = np.repeat(np.arange(blocks), n) * kinds + held
    place, inside = place[valid], np.tile(np.arange(n), blocks)[valid]
    share = np.bincount(place, weights[: blocks * n][valid], blocks * kinds)
    first = np.full(blocks * kinds, n)
    np.minimum.at(first, place, inside)
    shares = share.reshape(blocks, kinds)
    leads = shares == shares.max(1, keepdims=True)
    winner = np.where(leads, first.reshape(blocks, kinds), n).argmin(1)
    return np.where(shares.max(1) > 0, winner, -1)


def stops(
    answers: NDArray[np.int64],
    finished: NDArray[np.bool_],
    n: int,
    round: int,
    decided: Callable[[int, int], bool],
) -> list[tuple[int, int, int]]:
    """For each block of n consecutive samples, drawn `round` at a time, when the vote
    is decided: its first sample, how many were drawn, and the answer, -1 for none.

    decided  of the leader's and the second's votes
    """
    found = []
    for start in range(0, len(answers) // n * n, n):
        counts: dict[int, int] = {}
        drawn = 0
        while drawn < n:
            size = min(round, n - drawn)
            for k in range(start + drawn, start + drawn + size):
                if finished[k] and answers[k] >= 0:
                    counts[int(answers[k])] = counts.get(int(answers[k]), 0) + 1
            drawn += size
            leader, second, *_ = *sorted(counts.values(), reverse=True), 0, 0
            if decided(leader, second):
                break
        found.append((start, drawn, max(counts, key=lambda a: counts[a], default=-1)))
    return found


def isotonic(curve: Array) -> Array:
    """The curve that never falls and is nearest to `curve`, (..., budgets)."""
    size = curve.shape[-1]
    sums = np.concatenate([np.zeros((*curve.shape[:-1], 1)), curve.cumsum(-1)], axis=-1)
    rising = np.empty_like(curve)
    for k in range(size):
        least = [
            np.stack(
                [
                    (sums[..., j + 1] - sums[..., i]) / (j + 1 - i)
                    for j in range(k, size)
                ]
            ).min(0)
            for i in range(k + 1)
        ]
        rising[..., k] = np.stack(least).max(0)
    return rising


def reached(places: Array, curve: Array, level: Array) -> Array:
    """Where along `places` a curve that never falls, (draws, budgets), first reaches a
    level, (draws,), on straight lines: +inf beyond its last place, and -inf where the
    first one is above it; nan where the level is.
    """
    enough = curve >= level[:, None] - 1e-12
    at = enough.argmax(1)
    rows, before = np.arange(len(curve)), np.maximum(at - 1, 0)
    y0, y1 = curve[rows, before], curve[rows, at]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.clip((level - y0) / (y1 - y0), 0, 1)
    x = places[before] + np.where(at > 0, share, 0.0) * (places[at] - places[before])
    below = (at == 0) & (curve[:, 0] > level + 1e-12)
    found = np.where(enough.any(1), np.where(below, -np.inf, x), np.inf)
    return np.where(np.isnan(level), np.nan, found)


def rates(
    ours: Array, theirs: Array, our_places: Array, their_places: Array, weights: Array
) -> list[tuple[float, float, float]]:
    """The scaling rate at each of our budgets: the factor by which a rival's budget has
    to be larger for the same accuracy, with its 95 % interval.

    ours, theirs  (problems, budgets) mean accuracies, without nan
    places        (budgets,) log2 of N or of counted tokens, rising
    inf and 0 mean beyond the rival's largest and below its smallest budget. Curves are
    made monotone and interpolated along `places`, anew in each bootstrap draw.
    """
    weights = np.concatenate([np.ones((1, len(ours))), weights])
    mine, other = isotonic(means(ours, weights)), isotonic(means(theirs, weights))
    found = []
    for k, place in enumerate(our_places):
        factor = 2 ** (reached(their_places, other, mine[:, k]) - place)
        found.append((float(factor[0]), *interval(factor[1:])))
    return found
