"""Residual resampling where M * W is whole: every copy is certain, whatever is drawn.

The means of all four schemes are in test_filter_mistakes.py.
"""

import pytest
import torch
from torch import Tensor

from pfref.resampling import residual
from pfref.weights import normalise


def offspring(ancestors: Tensor, particles: int) -> Tensor:
    """How many slots descend from each particle: (B, M) -> (B, N)."""
    counts = torch.zeros(len(ancestors), particles, dtype=torch.long)
    return counts.scatter_add(1, ancestors, torch.ones_like(ancestors))


def some(rows: int, slots: int) -> Tensor:
    """Uniforms, with both ends of [0, 1) among them."""
    source = torch.Generator().manual_seed(slots)
    points = torch.rand(rows, slots, dtype=torch.float64, generator=source)
    points[0], points[-1] = 0.0, 1 - 2.0**-53
    return points


def whole_shares(particles: int) -> Tensor:
    """(N, N): particle 0 has k of N shares, N - k others one each, the rest none."""
    k = torch.arange(1, particles + 1)[:, None]
    return torch.where(
        torch.arange(particles) == 0, k, torch.arange(particles) <= particles - k
    )


@pytest.mark.parametrize("particles", [2, 3, 7, 10, 25, 49, 100, 343, 999, 1000])
def test_whole_numbers_of_copies_are_certain(particles: int) -> None:
    """49 * (1 / 49) rounds below 1: its copy must not be left to chance."""
    counts = whole_shares(particles)
    found = residual(counts / particles, some(particles, particles))
    assert torch.equal(offspring(found, particles), counts)


@pytest.mark.parametrize("particles", [3, 49, 1000])
@pytest.mark.parametrize("level", [0.0, -321.5, 88.8])
def test_whole_numbers_as_the_filter_makes_them(particles: int, level: float) -> None:
    """Weights that went through logarithms, beside a mean weight that is not 1."""
    counts = whole_shares(particles)
    weights = normalise(counts.double().log() + level)
    found = residual(weights, some(particles, particles))
    assert torch.equal(offspring(found, particles), counts)


@pytest.mark.parametrize("slots", [1, 2, 5, 12])
def test_whole_numbers_in_a_larger_population(slots: int) -> None:
    """M need not be N: equal weights of 49 particles, and a multiple of 49 slots."""
    weights = torch.full((3, 49), 1 / 49, dtype=torch.float64)
    found = residual(weights, some(3, 49 * slots))
    assert torch.equal(offspring(found, 49), torch.full((3, 49), slots))


def test_coarse_weights_have_coarser_whole_numbers() -> None:
    weights = torch.full((3, 49), 1 / 49)
    assert torch.equal(
        offspring(residual(weights, some(3, 49)), 49), torch.ones(3, 49).long()
    )


def test_what_is_left_over_is_drawn_in_proportion() -> None:
    """Beside certain copies the rest keeps its exact shares, however small it is."""
    rows, tiny = 40_000, 1e-3
    shares = [0.5, 0.25 - tiny, 0.25 * tiny, 0.75 * tiny, 0.25]
    weights = torch.tensor(shares, dtype=torch.float64)
    counts = offspring(residual(weights.expand(rows, -1), some(rows, 4)), 5).double()
    assert (counts[:, 0] == 2).all() and (counts[:, 4] == 1).all()
    share = 4 * weights[1:4]
    error = (counts.mean(0)[1:4] - share).abs()
    assert (error <= 3 * (share * (1 - share) / rows).sqrt()).all()


@pytest.mark.parametrize("share", [1e-3, 1e-6, 1e-9])
def test_a_small_share_beside_a_whole_number_is_not_rounded_away(share: float) -> None:
    weights = torch.tensor([(1 + share) / 2, (1 - share) / 2], dtype=torch.float64)
    points = torch.tensor([[0.5, 0.99 * share], [0.5, 1.01 * share]]).double()
    assert residual(weights.expand(2, -1), points).tolist() == [[0, 0], [0, 1]]


def test_nothing_is_left_over_below_zero() -> None:
    """A weight just below a whole number leaves nothing, and not a negative share.

    Were it -1e-16, the cumulative sum would fall, and a search in it go astray.
    """
    below = torch.tensor(2.0, dtype=torch.float64).nextafter(torch.tensor(0.0).double())
    weights = torch.stack([below, below / 2, below / 4, below / 4]) / 4
    found = residual(weights.expand(100, -1), some(100, 4))
    counts = offspring(found, 4)
    assert (counts[:, 0] == 2).all() and (counts[:, 1] == 1).all()
    assert (counts[:, 2:].sum(1) == 1).all()
