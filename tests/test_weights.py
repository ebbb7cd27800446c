"""Log-weight arithmetic against plain sums, and at the edges where plain sums break."""

import math

import pytest
import torch
from torch import Tensor

from pfref.randomness import generator
from pfref.weights import effective_sample_size, log_mean_exp, normalise

INF = math.inf


def logs(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def ordinary() -> Tensor:
    """Log weights small enough for plain sums: (4, 5, 7)."""
    return 3 * torch.randn(4, 5, 7, generator=generator("weights"), dtype=torch.float64)


def test_log_mean_exp_is_the_log_of_the_mean_weight(ordinary: Tensor) -> None:
    expected = [
        math.log(math.fsum(map(math.exp, row)) / 7)
        for row in ordinary.reshape(-1, 7).tolist()
    ]
    torch.testing.assert_close(
        log_mean_exp(ordinary),
        torch.tensor(expected, dtype=torch.float64).reshape(4, 5),
        rtol=1e-12,
        atol=1e-12,
    )


def test_normalised_weights_are_shares_of_the_sum(ordinary: Tensor) -> None:
    plain = ordinary.exp()
    torch.testing.assert_close(
        normalise(ordinary), plain / plain.sum(-1, keepdim=True), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        normalise(ordinary).sum(-1),
        torch.ones(4, 5, dtype=torch.float64),
        rtol=1e-14,
        atol=0,
    )


def test_effective_sample_size_is_the_squared_sum_over_the_sum_of_squares(
    ordinary: Tensor,
) -> None:
    plain = ordinary.exp()
    torch.testing.assert_close(
        effective_sample_size(ordinary),
        plain.sum(-1) ** 2 / plain.square().sum(-1),
        rtol=1e-12,
        atol=0,
    )


@pytest.mark.parametrize("alive", range(1, 9))
def test_effective_sample_size_counts_equal_weights(alive: int) -> None:
    assert float(
        effective_sample_size(logs(*[-2.5] * alive, *[-INF] * (8 - alive)))
    ) == pytest.approx(alive, rel=1e-12)


def test_effective_sample_size_lies_between_one_and_n() -> None:
    for scale in (0.0, 0.01, 1.0, 30.0, 1e4):
        ess = effective_sample_size(
            scale
            * torch.randn(1000, 16, generator=generator(scale), dtype=torch.float64)
        )
        assert ess.min() >= 1 - 1e-12 and ess.max() <= 16 + 1e-9


@pytest.mark.parametrize("level", [-1e5, 1e5])
def test_extreme_levels_change_nothing_but_the_level(
    ordinary: Tensor, level: float
) -> None:
    torch.testing.assert_close(
        log_mean_exp(ordinary + level) - level,
        log_mean_exp(ordinary),
        rtol=0,
        atol=1e-9,
    )
    torch.testing.assert_close(
        normalise(ordinary + level), normalise(ordinary), rtol=1e-9, atol=0
    )
    torch.testing.assert_close(
        effective_sample_size(ordinary + level),
        effective_sample_size(ordinary),
        rtol=1e-9,
        atol=0,
    )


def test_one_weight_far_above_the_rest_takes_everything() -> None:
    extreme = logs(-1e5, 1e5, 0.0, -1e5)
    assert float(log_mean_exp(extreme)) == pytest.approx(1e5 - math.log(4), abs=1e-9)
    assert normalise(extreme).tolist() == [0.0, 1.0, 0.0, 0.0]
    assert float(effective_sample_size(extreme)) == 1.0


def test_two_huge_equal_weights_share() -> None:
    assert normalise(logs(1e5, 1e5, -1e5)).tolist() == [0.5, 0.5, 0.0]
    assert float(log_mean_exp(logs(1e5, 1e5))) == 1e5


def test_a_single_dead_particle_counts_in_the_mean_and_gets_nothing() -> None:
    one_dead = logs(0.0, -INF, 0.0)
    assert float(log_mean_exp(one_dead)) == pytest.approx(math.log(2 / 3), abs=1e-15)
    assert normalise(one_dead).tolist() == [0.5, 0.0, 0.5]
    assert float(effective_sample_size(one_dead)) == 2.0


def test_a_dead_population_is_an_outcome_not_a_nan() -> None:
    dead = logs(-INF, -INF, -INF)
    assert float(log_mean_exp(dead)) == -INF
    assert normalise(dead).tolist() == [0.0, 0.0, 0.0]
    assert float(effective_sample_size(dead)) == 0.0


def test_a_dead_population_leaves_its_neighbours_alone() -> None:
    batch = torch.stack([logs(-INF, -INF), logs(0.0, math.log(3.0)), logs(-1e5, -INF)])
    assert log_mean_exp(batch).tolist() == pytest.approx(
        [-INF, math.log(2.0), -1e5 - math.log(2.0)], abs=1e-9
    )
    torch.testing.assert_close(
        normalise(batch), torch.stack([logs(0, 0), logs(0.25, 0.75), logs(1, 0)])
    )
    torch.testing.assert_close(
        effective_sample_size(batch), logs(0.0, 1 / (0.25**2 + 0.75**2), 1.0)
    )


def test_a_population_of_one() -> None:
    assert log_mean_exp(logs(-7.0)).item() == -7.0
    assert normalise(logs(-1e5)).tolist() == [1.0]
    assert effective_sample_size(logs(1e5)).item() == 1.0


@pytest.mark.parametrize("function", [log_mean_exp, normalise, effective_sample_size])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_float64_comes_out_and_the_arithmetic_is_float64(
    function, dtype: torch.dtype
) -> None:
    """The input may be coarse.

    What is computed from it may not: equal to the same numbers given as float64.
    """
    given = torch.randn(3, 50, generator=generator("dtype")).to(dtype)
    found = function(given)
    assert found.dtype == torch.float64
    assert torch.equal(found, function(given.double()))


def test_the_input_is_left_as_it_was(ordinary: Tensor) -> None:
    ordinary[0] = -INF
    before = ordinary.clone()
    for function in (log_mean_exp, normalise, effective_sample_size):
        function(ordinary)
    assert torch.equal(ordinary, before)
