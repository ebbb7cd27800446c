"""Four ways to draw ancestors in proportion to weights (Douc, Cappe, Moulines 2005).

    ancestors = systematic(weights, uniforms)

`weights` is (..., N) and sums to one; `uniforms` is (..., M), in [0, 1); `ancestors` is
(..., M): slot m of the next population descends from particle ancestors[m].
All four are unbiased to rounding: particle n has M * weights[n] offspring on average.
They are pure functions: the same uniforms, the same ancestors.
A particle of weight zero never has offspring.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Scheme = Callable[[Tensor, Tensor], Tensor]
LARGEST_BELOW_ONE = 1 - 2.0**-53


def inverse_cdf(weights: Tensor, points: Tensor) -> Tensor:
    """The particle whose share of [0, 1) holds each point.

    (..., N) weights and (..., M) points -> (..., M).
    """
    cumulative = weights.double().cumsum(-1)
    # A rounded sum may end beside 1, and (M - 1 + u) / M may round up to 1: both would
    # point past the end.
    cumulative = cumulative / cumulative[..., -1:]
    points = points.double().clamp(max=LARGEST_BELOW_ONE).contiguous()
    return torch.searchsorted(cumulative, points, right=True)


def multinomial(weights: Tensor, uniforms: Tensor) -> Tensor:
    """M independent draws."""
    return inverse_cdf(weights, uniforms)


def stratified(weights: Tensor, uniforms: Tensor) -> Tensor:
    """One draw in each of M equal strata of [0, 1)."""
    slots = uniforms.shape[-1]
    return inverse_cdf(
        weights, (torch.arange(slots, device=uniforms.device) + uniforms) / slots
    )


def systematic(weights: Tensor, uniforms: Tensor) -> Tensor:
    """One uniform for all strata: M * weights, and less than one more or fewer."""
    return stratified(weights, uniforms[..., :1].expand_as(uniforms))


def residual(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The whole part of M * weights for certain, and the rest by independent draws."""
    slots = uniforms.shape[-1]
    expected = slots * weights.double()
    # Whole but for rounding is whole: 49 * (1 / 49) is less than 1, and has one copy.
    whole = expected.round()
    rounding = 1e-12 if weights.dtype == torch.float64 else 1e-6
    is_whole = (expected - whole).abs() <= rounding * whole
    copies = torch.where(is_whole, whole, expected.floor())
    slot = torch.arange(slots, device=weights.device).expand_as(uniforms).contiguous()
    certain = torch.searchsorted(copies.cumsum(-1), slot.double(), right=True)
    left_over = torch.where(is_whole, 0.0, expected - copies)
    nothing_left = left_over.sum(-1, keepdim=True) == 0
    drawn = multinomial(
        torch.where(nothing_left, weights.double(), left_over), uniforms
    )
    return torch.where(slot < copies.sum(-1, keepdim=True), certain, drawn)


SCHEMES: dict[str, Scheme] = {
    "multinomial": multinomial,
    "stratified": stratified,
    "systematic": systematic,
    "residual": residual,
}
