"""How far off is one run? Standard errors from who descends from whom.

Particles with a common ancestor at step 1 are a family. Families are nearly independent
of one another, so how unevenly they share the weight tells the variance of what a run
estimates, without a second run (Chan and Lai 2013; Lee and Whiteley 2018, whose
estimate of the evidence's variance is unbiased with multinomial resampling). Other
schemes add less noise, so that estimate, which takes multinomial noise out again, would
be too small, even negative: for them none is taken out. There is no theorem for that;
measured, it fits while many families are left and is too small with a dozen or fewer. A
weighted mean gets the factor of multinomial draws whatever the scheme. Once all
particles are one family nothing can be told, and a mean of few particles with uneven
weights is further off than it tells.
"""

import torch
from torch import Tensor

from .weights import normalise


def families(ancestors: Tensor) -> Tensor:
    """(T, N) parents of the next step's particles -> (N,) each particle's ancestor at
    step 1; the last row is not used: it is about a step that was not taken.
    """
    line = torch.arange(ancestors.shape[1])
    for parents in ancestors[:-1].flip(0):
        line = parents[line]
    return line


def relative_variance(
    log_weights: Tensor, family: Tensor, resamplings: int
) -> float | None:
    """Of the evidence: estimate of var(Z^) / Z^2 from the last log weights, (N,).

    resamplings  how often ancestors were independent draws: 0 for other schemes

    None if there is one family only, or no weight at all.
    """
    shares = by_family(normalise(log_weights), family)
    if not usable(shares):
        return None
    return float(1 - inflation(len(family), resamplings) * (1 - shares.square().sum()))


def standard_error(
    values: Tensor, log_weights: Tensor, family: Tensor, resamplings: int
) -> float | None:
    """Of a weighted mean of values, (N,), with any scheme. None as above."""
    weights = normalise(log_weights)
    if not usable(by_family(weights, family)):
        return None
    centred = weights * (values - (weights * values).sum())
    spread = by_family(centred, family).square().sum()
    return float((inflation(len(family), resamplings) * spread).sqrt())


def by_family(values: Tensor, family: Tensor) -> Tensor:
    return torch.zeros_like(values).index_add(0, family, values)


def usable(shares: Tensor) -> bool:
    return bool((shares > 0).sum() > 1)


def inflation(particles: int, resamplings: int) -> float:
    """Two draws are of different parents with probability (N - 1) / N each time."""
    return (particles / (particles - 1)) ** (resamplings + 1)
