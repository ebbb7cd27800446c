"""Against early collapse: flatter weights to resample by.

A schedule is a `smc.Priority`: ancestors are drawn in proportion to w^alpha with some
alpha in (0, 1], one for each population, and what is left, w^(1 - alpha), stays in the
weights. So the population remains properly weighted, and the evidence unbiased.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .errors import UserError
from .smc import Priority
from .weights import effective_sample_size, normalise

FLATTEST = 1e-3  # the smallest alpha: weights of minus infinity stay so
KINDS = (
    "power:0.5 (any power of the weights), ess:0.5 (any share of the living), entropic"
)


def flattened(
    alpha_of: Callable[[Tensor, Tensor], Tensor],
) -> Priority:
    """From (log weights (P, N), steps taken (P,)) -> alpha (P,) to a priority."""

    def priority(log_weights: Tensor, taken: Tensor) -> Tensor:
        alpha = alpha_of(log_weights, taken).clamp(FLATTEST, 1)[:, None]
        return torch.where(alpha == 1, log_weights, alpha * log_weights)

    return priority


def power(alpha: float) -> Priority:
    """The same alpha at every step."""
    return flattened(lambda w, taken: w.new_full(w.shape[:1], alpha))


def target_ess(share: float) -> Priority:
    """The largest alpha that leaves `share` of the living particles effective (Jasra et
    al. 2011 choose temperatures so).
    """

    def alpha_of(log_weights: Tensor, taken: Tensor) -> Tensor:
        alive = (log_weights > -torch.inf).sum(-1)
        wanted = share * alive
        low = torch.zeros_like(wanted, dtype=torch.float64)
        high = torch.ones_like(low)
        enough = effective_sample_size(log_weights) >= wanted
        for _ in range(40):  # to 1e-12: halve the interval
            middle = (low + high) / 2
            flat = middle.clamp(min=FLATTEST)[:, None] * log_weights
            fits = effective_sample_size(flat) >= wanted
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return torch.where(enough, 1.0, low)

    return flattened(alpha_of)


def entropic(max_steps: int, threshold: float = 0.5, young: float = 0.5) -> Priority:
    """Entropic annealing (arXiv 2510.05825), as its authors' code has it.

    While the effective sample size is below `threshold` * N and less than the share
    `young` of `max_steps` are taken, alpha is H + (1 - H) * (share of steps taken),
    where H is the entropy of the weights over log N.
    """

    def alpha_of(log_weights: Tensor, taken: Tensor) -> Tensor:
        weights, n = normalise(log_weights), log_weights.shape[-1]
        entropy = torch.special.entr(weights).sum(-1)
        entropy = entropy / torch.tensor(max(n, 2)).double().log()
        progress = taken.double() / max_steps
        low = effective_sample_size(log_weights) < threshold * n
        alpha = entropy + (1 - entropy) * progress
        return torch.where(low & (progress < young), alpha, 1.0)

    return flattened(alpha_of)


def schedule(name: str | None, max_steps: int) -> Priority | None:
    """A priority by the name that `Settings.anneal` has; None for none.

    Raises UserError for a name that it does not know.
    """
    if name is None:
        return None
    kind, _, number = name.partition(":")
    if name == "entropic":
        return entropic(max_steps)
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if kind in ("power", "ess") and 0 < value <= 1:
        return power(value) if kind == "power" else target_ess(value)
    raise UserError(f"there is no annealing {name!r}; choose one of {KINDS}")
