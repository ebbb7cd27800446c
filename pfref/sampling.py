"""Draw tokens from logits by inverse CDF, from uniform numbers that are given."""

import torch
from torch import Tensor

CHUNK = 512  # at most so many tokens are summed together
BROKEN = -1  # the token that logits which are not finite give


def sample(
    logits: Tensor, temperature: float, points: Tensor, scratch: Tensor | None = None
) -> Tensor:
    """One token a row: logits (B, V), uniforms (B,) -> (B,); temperature 0 the
    likeliest.

    Two levels, since a running sum over a whole vocabulary costs more than the model's
    last layer: first the chunk of tokens in which the point lies, then the token in it.
    `scratch`, (B, V) in float32 at least, saves a large allocation at every token.
    """
    if scratch is None:
        exact = torch.promote_types(logits.dtype, torch.float32)
        scratch = torch.empty_like(logits, dtype=exact)
    return weigh_and_sample(logits, temperature, points, scratch)[0]


def weigh_and_sample(
    logits: Tensor, temperature: float, points: Tensor, scratch: Tensor
) -> tuple[Tensor, Tensor | None]:
    """As `sample`, and the sum (B,) of the tokens' weights, which `scratch` then holds.

    At temperature 0 nothing is weighed, and there is no sum.
    """
    if temperature == 0:
        likeliest, token = logits.max(-1)
        return token.masked_fill(~likeliest.isfinite(), BROKEN), None
    weights = scratch.copy_(logits).div_(temperature)
    weights.sub_(weights.amax(-1, keepdim=True)).exp_()
    size = chunk_size(logits.shape[1])
    padding = -logits.shape[1] % size
    if padding:
        weights = torch.nn.functional.pad(weights, (0, padding))
    chunks = weights.view(len(logits), -1, size)
    chunk, point, total = pick(chunks.sum(-1), points)
    index = chunk[:, None, None].expand(-1, 1, size)
    token, _, _ = pick(chunks.gather(1, index)[:, 0], point)
    return (chunk * size + token).masked_fill(~total.isfinite(), BROKEN), total


def pick(weights: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where each point falls among weights (B, K): its place, the point within it, the
    sum.

    points (B,) in [0, 1]. A place of weight 0 is never picked.
    """
    sums = weights.cumsum(-1, dtype=torch.float64)
    total = sums[:, -1]
    # Rounded up, the product could be the sum itself, past the last place.
    target = torch.minimum(points * total, torch.nextafter(total, total.new_zeros(())))
    place = torch.searchsorted(sums, target[:, None], right=True)
    place = place.clamp(max=weights.shape[1] - 1)  # of weights that are not finite
    weight = weights.gather(1, place)[:, 0].double()
    before = sums.gather(1, place)[:, 0] - weight
    return place[:, 0], ((target - before) / weight).clamp(0, 1), total


def chunk_size(vocabulary: int) -> int:
    """The largest divisor above CHUNK / 8, so that nothing is padded, or CHUNK / 2."""
    if vocabulary <= CHUNK:
        return vocabulary
    divisors = (d for d in range(CHUNK, CHUNK // 8, -1) if vocabulary % d == 0)
    return next(divisors, CHUNK // 2)


def log_ratio(
    logits: Tensor,
    token: Tensor,
    temperature: float,
    target: float,
    power: float = 1.0,
) -> Tensor:
    """power * log p_target(token) - log p(token): what sampling from another
    distribution costs, (B,).

    p is the softmax of logits / temperature, p_target that of logits / target. With a
    power other than 1 the target of a step is not normalised, and a solution's is its
    probability to that power.
    """
    exact = torch.promote_types(logits.dtype, torch.float32)
    difference = torch.zeros(len(token), dtype=torch.float64, device=token.device)
    for factor, divisor in ((power, target), (-1, temperature)):
        log_p = torch.log_softmax(logits.to(exact) / divisor, -1)
        log = log_p.gather(1, token[:, None])[:, 0].double()
        difference = difference + factor * log
    return difference
