"""Search by the reward model, on the filter's own engine: beam search, greedy search,
and diverse verifier tree search.

Beam search with N beams of width M (Snell et al. 2024): of N partial solutions the best
N / M survive by the reward model's score now, and each gets M next steps. Greedy search
is M = N: one survives. Diverse verifier tree search (Beeching et al. 2024) is N / M
greedy searches of M that never meet: populations of one problem.

Nothing here is weighted: what it returns is a set of candidates and not a sample of the
target.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from .errors import UserError
from .reasoning import Reasoning, Thoughts
from .smc import ParticleFilter, Step

DIGITS = 4  # of a score


class BeamSearch(ParticleFilter[Thoughts]):
    """Beam search of every population: N beams, of which N // width survive a step, at
    least one.

    A finished solution competes with the partial ones by its score. It keeps one beam
    while it survives, and the unfinished survivors share the others evenly, the better
    ones first. A search ends when all that survive are finished; their siblings of that
    step are candidates too, as far as they are finished.
    """

    def __init__(
        self,
        model: Reasoning,
        beams: int,
        generators: Sequence[Generator],
        width: int,
    ) -> None:
        if width < 1:
            raise UserError(f"a beam's width is at least 1, not {width}")
        super().__init__(model, beams, generators, threshold=1.0)
        self.survivors = max(1, beams // width)

    def record(
        self,
        t: int,
        state: Thoughts,
        log_weights: Tensor,
        active: Tensor,
        stepped: Tensor,
    ) -> Step[Thoughts]:
        z = state.z.view(active.shape)
        z = torch.where(z == torch.inf, 0.0, z)  # not scored yet: as likely as not
        # The same words have the same score, but for rounding: the first survives.
        z = z.round(decimals=DIGITS)
        alive = log_weights > -torch.inf
        z = torch.where(alive, z, -torch.inf)
        ancestors = torch.arange(self.particles).repeat(len(active), 1)
        due = torch.zeros_like(stepped)
        active = active.clone()
        for p in (stepped & active.any(1)).nonzero()[:, 0].tolist():
            order = z[p].argsort(descending=True, stable=True).tolist()
            best = [n for n in order if alive[p, n]][: self.survivors]
            growing = [n for n in best if active[p, n]]
            if not growing:
                active[p] = False
                continue
            done = [n for n in best if not active[p, n]]
            free = self.particles - len(done)
            each, more = divmod(free, len(growing))
            heirs = [n for k, n in enumerate(growing) for _ in range(each + (k < more))]
            ancestors[p] = torch.tensor(done + heirs)
            due[p] = True
        ended = ~active.any(1, keepdim=True)
        candidate = alive & (state.finished.view(active.shape) | ~ended)
        weights = torch.where(candidate, 0.0, -torch.inf).double()
        count = alive.sum(1).double()
        none = torch.full_like(count, torch.nan)
        return Step(t, state, weights, count, none, active, due, ancestors, stepped)

    def inherited(self, last: Step[Thoughts]) -> Tensor:
        return last.log_weights.gather(1, last.ancestors)
