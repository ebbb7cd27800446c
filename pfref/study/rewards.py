"""How good is a reward model? Measured on samples whose outcomes are known."""

from typing import Any

import numpy as np
from torch import Tensor

from ..solution import Particle, choose
from . import measures
from .designs import pairs_won
from .outcomes import Outcomes, Plan
from .tasks import TASKS

STEPS = {"1": (0, 1), "2": (1, 2), "3-4": (2, 4), "5-8": (4, 8), "9-": (8, 10**6)}
BINS = 10
CHOICES = {"majority": "majority", "best": "argmax", "weighted": "weighted"}


def measured(z: Tensor, data: Outcomes, plan: Plan) -> dict[str, Any]:
    """Of log-odds z (M,): AUC within a problem and step with its interval over
    problems, by step and by level; over all prefixes; calibration; and what is gained
    with all samples of a problem.
    """
    scores, right = z.double().numpy(), data.right.numpy()
    problem, step = (data.numbers[name].numpy() for name in ("problem", "step"))
    level = np.array([item.level or 0 for item in plan.items])[problem]
    everywhere = np.ones(len(right), dtype=bool)

    def within(rows: Any) -> dict[str, Any]:
        return auc_within(scores[rows], right[rows], problem[rows], step[rows])

    overall = pairs_won(scores, right, np.zeros(len(right)))
    return dict(
        within=within(everywhere),
        by_step={
            name: within((step >= low) & (step < high))
            for name, (low, high) in STEPS.items()
        },
        by_level={str(k): within(level == k) for k in sorted(set(level))},
        overall=float(overall[0].sum() / max(1.0, overall[1].sum())),
        calibration=calibration(scores, right),
        chosen=gains(scores, data, plan),
    )


def auc_within(z: Any, right: Any, problem: Any, step: Any) -> dict[str, Any]:
    """With a bootstrap over problems."""
    if not len(z):
        return dict(auc=None, interval=None, pairs=0)
    group = problem * 1000 + step
    wins, pairs = pairs_won(z, right, group)
    owner = np.unique(group) // 1000
    own_wins, own_pairs = (np.bincount(owner, v) for v in (wins, pairs))
    if not own_pairs.sum():
        return dict(auc=None, interval=None, pairs=0)
    weights = measures.resamples(len(own_pairs))
    with np.errstate(invalid="ignore", divide="ignore"):
        draws = (weights @ own_wins) / (weights @ own_pairs)
    return dict(
        auc=float(own_wins.sum() / own_pairs.sum()),
        interval=measures.interval(draws),
        pairs=int(own_pairs.sum()),
    )


def calibration(z: Any, right: Any) -> dict[str, Any]:
    """Mean score and share of right prefixes in ten bins, and their mean distance."""
    score = np.exp(-np.logaddexp(0, -z))  # 1 / (1 + exp(-z)), for any z
    bins = np.minimum((score * BINS).astype(int), BINS - 1)
    table = [
        [float(score[bins == k].mean()), float(right[bins == k].mean())]
        + [int((bins == k).sum())]
        for k in range(BINS)
        if (bins == k).any()
    ]
    error = sum(n * abs(mean - share) for mean, share, n in table) / len(z)
    return dict(error=float(error), bins=table)


def gains(z: Any, data: Outcomes, plan: Plan) -> dict[str, Any]:
    """Accuracy with all n samples of each problem, with intervals over problems: one
    sample, majority, best-of-n, weighted; and paired differences.
    """
    same, n = TASKS[plan.task].same, plan.samples
    final = np.full(len(data.solutions), -np.inf)
    place = data.numbers["problem"] * n + data.numbers["sample"]
    final[place.numpy()] = z  # steps come in order, so that the last one stays
    columns: dict[str, list[float]] = {k: [] for k in ("one", *CHOICES)}
    for k in range(len(plan.items)):
        own = data.solutions[k * n : (k + 1) * n]
        columns["one"].append(float(np.mean([s["right"] for s in own])))
        particles = [
            Particle((), s["answer"], 1.0, float(score), s["finished"])
            for s, score in zip(own, final[k * n : (k + 1) * n], strict=True)
        ]
        for title, choice in CHOICES.items():
            chosen = choose(choice, particles, same)
            right = [
                s["right"]
                for s, particle in zip(own, particles, strict=True)
                if particle is chosen
            ]
            columns[title].append(float(any(right)))
    values = {name: np.array(column) for name, column in columns.items()}
    for name in ("best", "weighted"):
        for rival in ("one", "majority"):
            values[f"{name} - {rival}"] = values[name] - values[rival]
    weights = measures.resamples(len(plan.items))
    return dict(
        samples=n,
        **{k: list(measures.estimate(v, weights)) for k, v in values.items()},
    )
