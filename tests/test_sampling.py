"""Tokens drawn in two levels are those that one inverse CDF over the whole vocabulary
draws.
"""

import pytest
import torch
from torch import Tensor

from pfref.sampling import BROKEN, CHUNK, chunk_size, log_ratio, pick, sample

# One chunk; several and padding, since 1031 is prime; several without.
SIZES = [7, 134, 1031, 5000]


def random_logits(rows: int, size: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(rows, size, generator=source, dtype=torch.float64)


def inverse_cdf(logits: Tensor, temperature: float, points: Tensor) -> Tensor:
    """The first token at which the running sum exceeds the point."""
    sums = torch.softmax(logits / temperature, -1).cumsum(-1)
    tokens = torch.searchsorted(sums / sums[:, -1:], points[:, None], right=True)
    return tokens[:, 0]


def grid(count: int) -> Tensor:
    """The midpoints of so many equal parts of [0, 1)."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def numbers(*points: float) -> Tensor:
    return torch.tensor(points, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
@pytest.mark.parametrize("size", SIZES)
def test_two_levels_draw_what_one_draws(size: int, temperature: float) -> None:
    logits = random_logits(400, size, seed=size)
    source = torch.Generator().manual_seed(1)
    points = torch.rand(400, generator=source, dtype=torch.float64)
    points[:2] = numbers(0.0, 1 - 2**-53)
    drawn = sample(logits, temperature, points)
    assert torch.equal(drawn, inverse_cdf(logits, temperature, points))
    assert len(drawn.unique()) > min(size, 80) / 2


@pytest.mark.parametrize("size", SIZES)
def test_each_token_has_its_share_of_a_fine_grid(size: int) -> None:
    """Of K midpoints a token gets K times its probability, to within one."""
    logits, count = random_logits(1, size, seed=size), 4000
    points = grid(count).view(-1, 1000)
    drawn = [sample(logits.expand(1000, -1), 1.3, some) for some in points]
    counts = torch.bincount(torch.cat(drawn), minlength=size)
    expected = count * torch.softmax(logits[0] / 1.3, -1)
    assert counts.sum() == count and float((counts - expected).abs().max()) <= 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_what_has_no_weight_is_never_drawn(size: int, dtype: torch.dtype) -> None:
    """The first and the last tokens, every other one, a chunk and more; at 0, next to
    1, and between.
    """
    source = torch.Generator().manual_seed(2)
    logits = random_logits(200, size)
    banned = torch.rand(200, size, generator=source) < 0.5
    banned[:, :2] = banned[:, -2:] = True
    if size > 4 * CHUNK:
        banned[:, 100 : 100 + 2 * CHUNK] = True
        banned[1, : size - 5] = True  # all but three
    banned[:, 3] = False
    logits = logits.masked_fill(banned, -torch.inf).to(dtype)
    points = torch.rand(200, generator=source, dtype=torch.float64)
    points[:4] = numbers(0.0, 0.0, 1 - 2**-53, 2**-60)
    for some in (points, torch.zeros_like(points), torch.full_like(points, 1 - 2**-53)):
        drawn = sample(logits, 1.0, some)
        assert bool((drawn >= 0).all())
        assert not banned.gather(1, drawn[:, None]).any()


def test_weights_that_vanish_are_never_drawn() -> None:
    """exp(-1000) is zero: only one token is left, wherever the point."""
    logits = torch.full((1000, 1031), -1000.0)
    logits[:, 700] = 0.0
    assert sample(logits, 1.0, grid(1000)).eq(700).all()


def test_by_hand() -> None:
    p = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).log()
    for point, token in (
        (0.0, 0),
        (0.0999, 0),
        (0.1001, 2),
        (0.6999, 2),
        (0.7001, 3),
        (1 - 2**-53, 3),
    ):
        assert sample(p, 1.0, numbers(point)).tolist() == [token]
    impossible = torch.tensor([[0.0, 0.4, 0.6]]).log()
    assert sample(impossible, 1.0, numbers(0.0)).tolist() == [1]


def test_a_point_next_to_one_is_inside_a_real_vocabulary() -> None:
    source = torch.Generator().manual_seed(0)
    for size in (150_000, 151_936, 151_943):
        large = torch.randn(1, size, generator=source)
        assert 0 <= int(sample(large, 1.0, numbers(1 - 2**-53))) < size


def test_a_point_that_was_rounded_to_one_is_still_inside() -> None:
    """As within a chunk at whose end a point lies."""
    weights = torch.tensor([[0.3, 0.7, 0.0], [0.0, 0.2, 0.0]])
    place, within, total = pick(weights, numbers(1.0, 1.0))
    assert place.tolist() == [1, 1] and bool((within <= 1).all())
    torch.testing.assert_close(total, numbers(1.0, 0.2), atol=1e-7, rtol=0)


def test_temperature_zero_is_the_likeliest() -> None:
    logits = random_logits(50, 1031)
    assert torch.equal(sample(logits, 0, grid(50)), logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("size", SIZES)
def test_broken_logits_give_no_token(size: int, temperature: float) -> None:
    """And leave the other rows alone."""
    logits = random_logits(5, size)
    whole = sample(logits, temperature, grid(5))
    logits[1, size // 2] = torch.nan
    logits[2] = -torch.inf
    logits[4, 0] = torch.inf
    drawn = sample(logits, temperature, grid(5)).tolist()
    assert [drawn[k] for k in (1, 2, 4)] == [BROKEN] * 3
    assert [drawn[k] for k in (0, 3)] == whole[[0, 3]].tolist() and min(whole) >= 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scratch_changes_nothing_and_logits_are_left_alone(dtype: torch.dtype) -> None:
    """Half precision is summed in float32: the grid would show it."""
    logits = random_logits(1000, 1031).to(dtype)
    before, scratch = logits.clone(), torch.full((1000, 1031), torch.nan)
    drawn = sample(logits, 0.9, grid(1000), scratch)
    assert torch.equal(logits, before)
    assert torch.equal(drawn, sample(logits, 0.9, grid(1000)))
    exact = inverse_cdf(logits.double(), 0.9, grid(1000))
    assert int((drawn != exact).sum()) <= 2  # float32 on the edge of two tokens


@pytest.mark.parametrize("size", [1, 7, 512, 513, 1031, 5000, 32_000, 128_256, 151_936])
def test_chunks_waste_little(size: int) -> None:
    """Padding at most a chunk, and chunks neither tiny nor huge."""
    chunk = chunk_size(size)
    assert chunk <= CHUNK and (chunk == size or chunk > CHUNK // 8)
    if size in (5000, 32_000, 128_256, 151_936):
        assert size % chunk == 0


def test_the_price_of_another_temperature() -> None:
    """By the definition, in float64, also from half precision."""
    logits, token = random_logits(6, 1031), torch.arange(6) * 100
    p = torch.softmax(logits / 1.7, -1).gather(1, token[:, None])[:, 0]
    target = torch.softmax(logits / 0.9, -1).gather(1, token[:, None])[:, 0]
    found = log_ratio(logits, token, 1.7, 0.9)
    torch.testing.assert_close(found, (target / p).log(), atol=1e-9, rtol=1e-9)
    half = logits.bfloat16()
    again = log_ratio(half, token, 1.7, 0.9)
    torch.testing.assert_close(
        again, log_ratio(half.double(), token, 1.7, 0.9), atol=1e-4, rtol=1e-5
    )
    assert again.dtype == torch.float64
    assert log_ratio(logits, token, 1.3, 1.3).abs().max() == 0
