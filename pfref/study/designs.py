"""Designs of reward models on states, fitted to outcomes.

    linear    logistic regression of the outcome on a layer's state
    pairs     the same weights fitted to pairs of samples of one problem at one step, of
              which one came out right (Bradley and Terry 1952), then scaled to log-odds
    deep      one hidden layer of ReLUs, to see what a linear map leaves

Each sample counts once, however many steps it has.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import softplus

from ..errors import UserError
from ..probe import log_odds, unit
from .outcomes import Outcomes

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
HIDDEN = 256
NOTHING = (
    "no problem has a right and a wrong sample at one step; take more problems or "
    "samples, more --max-tokens, or problems that the policy sometimes solves"
)
# What a reward model must beat.
NULLS: dict[str, Callable[[Outcomes], Tensor]] = {
    "has an answer": lambda data: data.numbers["answered"].double(),
    "fewer tokens": lambda data: -data.numbers["tokens"].double(),
}


@dataclass(frozen=True)
class Deep:
    """A network's scores of standardised states."""

    net: nn.Module
    mean: Tensor
    scale: Tensor

    def __call__(self, states: Tensor) -> Tensor:
        z: Tensor = self.net((unit(states) - self.mean) / self.scale)[:, 0]
        return z


@dataclass(frozen=True)
class Design:
    """Scores of states after `layer`, by a function of states (M, h) to z (M,)."""

    layer: int
    place: int  # of the layer among those that were kept
    score: Callable[[Tensor], Tensor]
    within: float  # AUC within problem and step, on the problems that choose
    linear: tuple[Tensor, Tensor] | None = None  # weight and bias
    told: dict[str, Any] = field(default_factory=dict)


class Split:
    """Training data on a device: a fifth of the problems chooses, the others fit."""

    def __init__(self, data: Outcomes, place: int, device: torch.device | str) -> None:
        self.x = unit(data.states[:, place].to(device))
        problem = data.numbers["problem"]
        self.chooses = (problem % 5 == 0).to(device)
        self.y = data.right.to(device).float()
        samples = int(data.numbers["sample"].max()) + 1
        sample = problem * samples + data.numbers["sample"]
        self.share = (1.0 / sample.bincount()[sample].float()).to(device)
        fits = ~self.chooses
        self.mean = self.x[fits].mean(0)
        self.scale = self.x[fits].std(0) + 1e-3
        self.group = (problem * 1000 + data.numbers["step"]).to(device)

    def z(self, rows: Tensor) -> Tensor:
        """Standardised states."""
        return (self.x[rows] - self.mean) / self.scale

    def within(self, z: Tensor) -> float:
        c = self.chooses
        wins, pairs = pairs_won(
            *(v[c].cpu().numpy() for v in (z.double(), self.y, self.group))
        )
        return float(wins.sum() / pairs.sum()) if pairs.sum() else math.nan

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """A linear map of standardised states as one of states."""
        own = weight / self.scale
        return own, bias - own @ self.mean


def pairs_won(
    z: NDArray[Any], y: NDArray[Any], group: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """In each group the pairs (right, wrong) that z orders well, ties half, and all
    pairs; groups in increasing order.
    """
    names, index = np.unique(group, return_inverse=True)
    wins, pairs = np.zeros(len(names)), np.zeros(len(names))
    order = np.argsort(index, kind="stable")
    bounds = np.searchsorted(index[order], np.arange(len(names) + 1))
    for k in range(len(names)):
        rows = order[bounds[k] : bounds[k + 1]]
        good = z[rows][y[rows] > 0.5]
        bad = z[rows][y[rows] < 0.5]
        if len(good) and len(bad):
            difference = good[:, None] - bad[None]
            wins[k] = (difference > 0).sum() + 0.5 * (difference == 0).sum()
            pairs[k] = difference.size
    return wins, pairs


def minimise(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    """Full-batch L-BFGS (Liu and Nocedal 1989)."""
    solver = torch.optim.LBFGS(
        parameters, max_iter=100, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver.step(closure)


def linear(split: Split, penalty: float) -> tuple[Tensor, Tensor]:
    rows = ~split.chooses
    z, y, share = split.z(rows), split.y[rows], split.share[rows]
    weight = torch.zeros(z.shape[1], device=z.device, requires_grad=True)
    bias = torch.zeros((), device=z.device, requires_grad=True)

    def loss() -> Tensor:
        each = cross_entropy(z @ weight + bias, y, reduction="none")
        return (share * each).sum() / share.sum() + penalty * weight.square().sum()

    minimise(loss, [weight, bias])
    return weight.detach(), bias.detach()


def pairs(split: Split, penalty: float) -> tuple[Tensor, Tensor]:
    rows = ~split.chooses
    z, y, group = split.z(rows), split.y[rows], split.group[rows]
    good, bad = pairs_of(y.cpu(), group.cpu())
    counts = group.bincount(minlength=int(group.max()) + 1).float()
    difference = z[good] - z[bad]
    share = 1.0 / counts[group[good]]
    weight = torch.zeros(z.shape[1], device=z.device, requires_grad=True)

    def loss() -> Tensor:
        each = softplus(-(difference @ weight))
        return (share * each).sum() / share.sum() + penalty * weight.square().sum()

    minimise(loss, [weight])
    raw = z @ weight.detach()
    scale = torch.ones((), device=z.device, requires_grad=True)
    bias = torch.zeros((), device=z.device, requires_grad=True)
    own = split.share[rows]

    def fit() -> Tensor:
        each = cross_entropy(scale * raw + bias, y, reduction="none")
        return (own * each).sum() / own.sum()

    minimise(fit, [scale, bias])
    return weight.detach() * scale.detach(), bias.detach()


def pairs_of(y: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (right, wrong) of all pairs within groups."""
    members: dict[int, tuple[list[int], list[int]]] = {}
    for row, (right, name) in enumerate(zip(y.tolist(), group.tolist(), strict=True)):
        members.setdefault(name, ([], []))[right < 0.5].append(row)
    found = [(g, b) for good, bad in members.values() for g in good for b in bad]
    if not found:
        raise UserError(NOTHING)
    first, second = torch.tensor(found).T
    return first, second


def deep(split: Split, penalty: float, seed: int = 0) -> nn.Module:
    rows = ~split.chooses
    z, y, share = split.z(rows), split.y[rows], split.share[rows]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(z.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1)
        ).to(z.device)
    solver = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=penalty * 100)
    best, kept = -1.0, {k: v.clone() for k, v in net.state_dict().items()}
    every = torch.ones_like(rows)
    for step in range(200):
        each = cross_entropy(net(z)[:, 0], y, reduction="none")
        loss = (share * each).sum() / share.sum()
        solver.zero_grad()
        loss.backward()
        solver.step()
        if step % 50 == 49:
            with torch.no_grad():
                found = split.within(net(split.z(every))[:, 0])
            if found > best:
                best = found
                kept = {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(kept)
    return net.requires_grad_(False)


def fit_all(
    data: Outcomes, layers: tuple[int, ...], device: torch.device | str
) -> dict[str, Design]:
    """Every design after every layer, each with the penalty that orders best the
    problems that choose.
    """
    if data.right.all() or not data.right.any():
        raise UserError(NOTHING)
    found: dict[str, Design] = {}
    for place, layer in enumerate(layers):
        split = Split(data, place, device)
        if place == 0 and math.isnan(split.within(split.y)):
            raise UserError(NOTHING)  # by nothing can one choose
        for name, fit in (("linear", linear), ("pairs", pairs)):
            trials = []
            for penalty in PENALTIES:
                weight, bias = split.folded(*fit(split, penalty))
                trials.append(
                    (split.within(split.x @ weight + bias), penalty, weight, bias)
                )
            within, penalty, weight, bias = max(trials, key=lambda t: t[0])
            held = weight.cpu(), bias.cpu()
            map_ = partial(log_odds, weight=held[0], bias=held[1])
            found[f"{name}, layer {layer}"] = Design(
                layer, place, map_, within, held, dict(penalty=penalty)
            )
        every = torch.ones_like(split.chooses)
        nets = [(p, deep(split, p)) for p in (1e-3, 1e-2)]
        scored = [(split.within(net(split.z(every))[:, 0]), p, net) for p, net in nets]
        within, penalty, net = max(scored, key=lambda t: t[0])
        own = Deep(net.cpu(), split.mean.cpu(), split.scale.cpu())
        found[f"deep, layer {layer}"] = Design(
            layer, place, own, within, None, dict(penalty=penalty)
        )
    return found
