"""What a run went through, step by step, written down while `solve` lets one watch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .errors import UserError
from .reasoning import Thoughts
from .smc import Step
from .solution import Solution
from .weights import normalise

CUT, OUT = "cut off by a limit", "ruled out"


@dataclass(frozen=True)
class Moment:
    """One step of a population of N particles, before its resampling takes effect."""

    texts: tuple[str, ...]  # (N,) all that each has written
    log_weights: tuple[float, ...]  # (N,)
    log_odds: tuple[float, ...]  # (N,) z of the reward; +inf before the first score
    finished: tuple[bool, ...]  # (N,)
    truncated: tuple[bool, ...]  # (N,) cut off by a limit
    ess: float  # in a search the number of particles that are not ruled out
    resampled: bool
    ancestors: tuple[int, ...]  # (N,) parents of the next moment's particles

    @property
    def weights(self) -> list[float]:
        """(N,) that sum to one, or to zero if all are ruled out."""
        log_weights = torch.tensor(self.log_weights, dtype=torch.float64)
        weights: list[float] = normalise(log_weights).tolist()
        return weights

    @property
    def rewards(self) -> list[float | None]:
        """(N,) r, the probability whose log-odds are z; None before the first score."""
        return [
            None
            if z == math.inf
            else float(torch.tensor(z, dtype=torch.float64).sigmoid())
            for z in self.log_odds
        ]


@dataclass(frozen=True)
class History:
    """What one population of N particles went through, in T moments."""

    moments: tuple[Moment, ...]
    first: int  # place of its particle 0 among the solution's particles
    chosen: int | None  # the last moment's particle that gave the answer
    weighed: bool  # False of a search, which has no weights

    @property
    def particles(self) -> int:
        return len(self.moments[0].texts)

    def parents(self, t: int) -> tuple[int | None, ...]:
        """(N,) places in moment t - 1 of those that moment t's particles continue."""
        return self.moments[t - 1].ancestors if t else (None,) * self.particles

    def added(self, t: int) -> list[str]:
        """(N,) what each particle wrote at moment t."""
        pairs = zip(self.moments[t].texts, self.parents(t), strict=True)
        return [
            text if parent is None else text[len(self.moments[t - 1].texts[parent]) :]
            for text, parent in pairs
        ]

    def state(self, t: int, n: int) -> str:
        """What has become of moment t's particle n, in a word or two."""
        now = self.moments[t]
        if now.truncated[n]:
            return CUT
        weightless = self.weighed and now.log_weights[n] == -math.inf
        if weightless or now.log_odds[n] == -math.inf:
            return OUT
        return "finished" if now.finished[n] else "unfinished"

    @property
    def line(self) -> list[set[int]]:
        """(T,) sets of one: whom the chosen particle descends from; of none if there is
        none.
        """
        return self.ancestry(set() if self.chosen is None else {self.chosen})

    @property
    def living(self) -> list[set[int]]:
        """(T,) sets: whom any particle of the last moment descends from."""
        return self.ancestry(set(range(self.particles)))

    def ancestry(self, last: set[int]) -> list[set[int]]:
        found = [last]
        for moment in reversed(self.moments[:-1]):
            found.append({moment.ancestors[n] for n in found[-1]})
        return found[::-1]


class Recorder:
    """Writes down the steps that `solve` lets it watch.

        recorder = Recorder()
        solution = solve(problem, lm, prm, watch=recorder)
        [history] = recorder.histories([solution])

    Of problems in several batches it is asked after each one, in `done`.
    """

    def __init__(self) -> None:
        # For each run, the moments of each of its populations.
        self.runs: list[list[list[Moment]]] = []

    def __call__(self, step: Step[Thoughts]) -> None:
        if step.t == 1:
            self.runs.append([[] for _ in step.stepped])
        for p, past in enumerate(self.runs[-1]):
            # A population whose resampling left no active particle ended there.
            over = past and past[-1].resampled and not step.active[p].any()
            if step.stepped[p] or over:
                past.append(moment(step, p))

    def histories(self, solutions: Sequence[Solution]) -> list[History]:
        """One for each problem of the batch that is done, which is then forgotten.

        Where several populations worked on a problem, as in `dvts` and `gibbs`, it is
        the one that the chosen particle is of. Raises UserError if nothing was watched,
        or runs that differ in their problems or particles, as those of `adaptive` can.
        """
        runs, self.runs = self.runs, []
        shapes = {(len(run), len(run[0][0].texts)) for run in runs}
        if len(shapes) != 1 or not solutions:
            raise UserError(
                "there is no one history: no run was watched, or unlike ones"
            )
        populations, particles = shapes.pop()
        copies = populations // len(solutions)
        found = []
        for k, solution in enumerate(solutions):
            place = place_of_chosen(solution)
            block, own = divmod(place or 0, particles)
            # The solution's particles, N at a time, are those of several runs, or of
            # one run's populations.
            run, p = (runs[block], 0) if len(runs) > 1 else (runs[0], block)
            moments = tuple(run[k * copies + p])
            chosen = None if place is None else own
            weighed = solution.log_evidence is not None
            found.append(History(moments, block * particles, chosen, weighed))
        return found


def place_of_chosen(solution: Solution) -> int | None:
    """Among the solution's particles: itself, and not one that is equal to it."""
    for place, particle in enumerate(solution.particles):
        if particle is solution.chosen:
            return place
    return None


def moment(step: Step[Thoughts], p: int) -> Moment:
    """Of population p; copied, since the state changes in place."""
    state, n = step.state, step.log_weights.shape[1]
    rows = slice(p * n, (p + 1) * n)
    return Moment(
        texts=tuple("".join(steps) for steps in state.paths.texts[rows]),
        log_weights=tuple(step.log_weights[p].tolist()),
        log_odds=tuple(state.z[rows].tolist()),
        finished=tuple(state.finished[rows].tolist()),
        truncated=tuple(state.paths.truncated[rows].tolist()),
        ess=float(step.ess[p]),
        resampled=bool(step.resampled[p]),
        ancestors=tuple(step.ancestors[p].tolist()),
    )
