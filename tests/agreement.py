"""Do draws agree with a distribution that is known? Chi-square tests, in one place."""

from collections.abc import Sequence

import torch
from torch import Tensor

ENOUGH = 20.0  # chains expected in a group; rarer outcomes are counted together
UNLIKELY = 0.0027  # three standard errors, two-sided
IMPOSSIBLE = 1e-6


def grouped(expected: Tensor) -> Tensor:
    """The group of each of K outcomes, (K,): its own, or one that all rare outcomes
    share.
    """
    rare = expected < ENOUGH
    group = torch.where(rare, (~rare).sum(), (~rare).cumsum(0) - 1)
    if rare.any() and expected[rare].sum() < ENOUGH and not rare.all():
        group[rare] = group[torch.where(rare, torch.inf, expected).argmin()]
    return group


def above(statistic: float, freedom: int) -> float:
    """P(chi-square with so many degrees of freedom > statistic)."""
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def agreement(outcomes: Sequence[Sequence[int]] | Tensor, probability: Tensor) -> float:
    """The p-value of the outcomes' frequencies in (C, S) visits: C independent chains
    of S visits each, which all have the distribution `probability`, (K,).

    Of one visit each it is Pearson's test. More visits of one chain depend on one
    another: then their covariance is estimated between the chains (Hotelling's test).
    """
    visits = torch.as_tensor(outcomes)
    chains, each = visits.shape
    p = probability.double() / probability.double().sum()
    group = grouped(p * chains)
    size = int(group.max()) + 1
    exact = torch.zeros(size, dtype=torch.float64).index_add(0, group, p)
    seen = torch.nn.functional.one_hot(group[visits], size).double().mean(1)
    miss = seen.mean(0) - exact
    if each == 1:
        return above(float(chains * (miss.square() / exact).sum()), size - 1)
    kept = miss[:-1]  # the shares sum to one
    spread = torch.cov(seen[:, :-1].T).view(size - 1, size - 1)
    statistic = chains * kept @ torch.linalg.solve(spread, kept)
    return above(float(statistic) * (chains - size + 1) / (chains - 1), size - 1)
