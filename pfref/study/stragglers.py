"""Stragglers: the steps of recorded paths, and how busy a server's slots are when each
population waits for its slowest row.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .records import Run

Steps = list[NDArray[np.int64]]  # one population: of each path the tokens of its steps
POPULATIONS = 500  # from so many recorded ones problems are drawn
UNEVEN = 2.0  # shape of the gamma that spreads a path's tokens where texts are lacking
MARGIN = 8  # rows in flight a slot at which the simulations end


def populations(
    runs: Sequence[Run], rng: np.random.Generator
) -> tuple[list[Steps], bool]:
    """The steps of some of the runs, and whether the records hold their texts: packed
    with answers only, every path is one step.
    """
    runs = runs[:: -(-len(runs) // POPULATIONS)]
    texts = any(len(path.steps) > 1 for run in runs for path in run.paths)
    return [lengths(run, texts, rng) for run in runs], texts


def lengths(run: Run, texts: bool, rng: np.random.Generator) -> Steps:
    """Of each path the tokens of its steps: its tokens shared in proportion to the
    steps' characters. Without the texts, a path has as many of the turns as it has of
    the longest path's tokens, and its steps are as uneven as a real model's (their
    standard deviation is 0.6 of their mean).
    """
    turns, longest = len(run.ancestors or ()), max(path.tokens for path in run.paths)
    found = []
    for path in run.paths:
        if texts:
            weights = np.array([max(1, len(step)) for step in path.steps], dtype=float)
        else:
            count = max(1, round(turns * path.tokens / max(1, longest)))
            weights = rng.gamma(UNEVEN, size=count)
        if len(weights):
            ends = np.rint(path.tokens * weights.cumsum() / weights.sum())
            steps = np.diff(ends, prepend=0).astype(np.int64)
            found.append(np.maximum(1, steps))
    return found or [np.ones(1, dtype=np.int64)]


def told(recorded: Sequence[Steps]) -> dict[str, float]:
    """Steps a path, and a step's tokens."""
    paths = [steps for population in recorded for steps in population]
    pooled = np.concatenate(paths)
    low, middle, high = np.quantile(pooled, [0.1, 0.5, 0.9])
    quantiles = dict(low=float(low), median=float(middle), high=float(high))
    return dict(
        per_path=len(pooled) / len(paths), mean=float(pooled.mean()), **quantiles
    )


def draw(recorded: Sequence[Steps], n: int, rng: np.random.Generator) -> Steps:
    """A problem: for each of its turns the tokens of the rows that still write, of n
    paths drawn from one recorded population.
    """
    population = recorded[int(rng.integers(len(recorded)))]
    rows = [population[k] for k in rng.integers(len(population), size=n)]
    turns = max(map(len, rows))
    return [np.array([r[t] for r in rows if len(r) > t]) for t in range(turns)]


def utilisation(
    recorded: Sequence[Steps], n: int, slots: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """The share of slots at work with 1, 2, 4, ... problems of n rows in flight, until
    there are so many rows for each slot that none stands idle for want of a row.
    """
    found, k = [], 1
    while True:
        work = [draw(recorded, n, rng) for _ in range(max(100, 6 * k))]
        found.append(dict(in_flight=k, at_work=simulate(work, k, slots)))
        if k * n >= MARGIN * slots:
            return found
        k *= 2


def simulate(work: Sequence[Steps], in_flight: int, slots: int) -> float:
    """The share of a server's slots at work with so many problems in flight.

    A slot writes one token a tick, and takes the next waiting row when its own is
    through. A problem's next step begins when all its rows are through; when a problem
    ends, the next begins. Counted from when `in_flight` problems have ended until
    there is none left to begin.
    """
    if len(work) <= 2 * in_flight:
        raise ValueError("too few problems to fill the server")
    waiting: deque[tuple[int, int]] = deque()
    writing: list[tuple[int, int]] = []  # when a row will be through, and its problem
    turn, left = [0] * len(work), [0] * len(work)
    now = area = ended = 0
    since = (0, 0)

    def begin(problem: int) -> None:
        rows = work[problem][turn[problem]].tolist()
        left[problem] = len(rows)
        waiting.extend((problem, row) for row in rows)

    for problem in range(in_flight):
        begin(problem)
    while True:
        while waiting and len(writing) < slots:
            problem, tokens = waiting.popleft()
            heapq.heappush(writing, (now + tokens, problem))
        area += len(writing) * (writing[0][0] - now)
        now, problem = heapq.heappop(writing)
        left[problem] -= 1
        if left[problem]:
            continue
        turn[problem] += 1
        if turn[problem] < len(work[problem]):
            begin(problem)
            continue
        ended += 1
        if ended == in_flight:
            since = area, now
        if ended + in_flight > len(work):
            return (area - since[0]) / (slots * (now - since[1]))
        begin(ended + in_flight - 1)
