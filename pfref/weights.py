"""Arithmetic on log weights. Every function works along the last axis, in float64.

A population all of whose weights are zero is *dead*: its log mean is -inf, its
normalised weights are zeros and its effective sample size is 0. Nothing here returns
NaN for it.
"""

import math

import torch
from torch import Tensor


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """log of the mean weight: (..., N) -> (...). The largest term is taken out first,
    so nothing overflows.
    """
    return torch.logsumexp(log_weights.double(), -1) - math.log(log_weights.shape[-1])


def normalise(log_weights: Tensor) -> Tensor:
    """Weights that sum to one: (..., N) -> (..., N); zeros where the population is
    dead.
    """
    log_weights = log_weights.double()
    dead = (log_weights == -torch.inf).all(-1, keepdim=True)
    return torch.softmax(log_weights.masked_fill(dead, 0.0), -1).masked_fill(dead, 0.0)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Kong's effective sample size 1 / sum W^2, between 1 and N: (..., N) -> (...); 0
    where dead.
    """
    total = normalise(log_weights).square().sum(-1)
    return torch.where(total > 0, 1 / total, 0.0)
