"""What the shipped models can do, on MiniMATH-500, which no training saw.

python -m pfref.minimath.evaluate --out book/results/minimath.json
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..answers import boxed
from ..lm import LanguageModel, Proposal
from ..prm import RewardModel
from ..randomness import generator
from ..reasoning import Reasoning
from ..records import write_record
from ..smc import particle_filter
from ..study.measures import pass_at
from .mistakes import whole_samples
from .problems import LEVELS, Problem, check_steps, load_set

SAMPLES = 16


def answers(
    lm: LanguageModel,
    problems: list[Problem],
    samples: int,
    temperature: float,
    batch: int = 20,
) -> list[int]:
    """For each problem, how many of its samples have the right answer."""
    counts: list[int] = []
    proposal = Proposal(temperature=temperature, delimiter="<|end|>", max_tokens=200)
    for k in tqdm(range(0, len(problems), batch), desc=f"{samples} samples a problem"):
        chunk = problems[k : k + batch]
        sources = [generator(p.problem) for p in chunk]
        texts = whole_samples(lm, chunk, samples, proposal, sources)
        found = [boxed(text) for text in texts]
        counts += [
            sum(a == p.answer for a in found[i * samples : (i + 1) * samples])
            for i, p in enumerate(chunk)
        ]
    return counts


def judged_steps(
    lm: LanguageModel, prm: RewardModel, problems: list[Problem], batch: int = 20
) -> list[dict[str, Any]]:
    """Every step of every sample: its problem, place, verdict, the verdict before it,
    and its score.
    """
    rows = []
    for k in tqdm(range(0, len(problems), batch), desc="steps judged"):
        chunk = problems[k : k + batch]
        model = Reasoning(lm, prm, [p.problem for p in chunk])
        state = particle_filter(
            model, SAMPLES, [generator("judge", p.problem) for p in chunk], threshold=0
        ).last.state
        for row, (texts, scores) in enumerate(
            zip(state.paths.texts, state.judgement.scores.tolist(), strict=True)
        ):
            problem = chunk[row // SAMPLES]
            verdicts = check_steps(problem, list(texts))
            for t, (verdict, score) in enumerate(zip(verdicts, scores, strict=False)):
                if not math.isfinite(score):  # a step cut short is not read
                    continue
                rows.append(
                    dict(
                        problem=problem.id,
                        level=problem.level,
                        step=t,
                        right=verdict,
                        score=score,
                        before=t == 0 or verdicts[t - 1],
                    )
                )
    return rows


def area(right: list[float], wrong: list[float]) -> tuple[float, int]:
    """Pairs (right, wrong) that the score orders well, ties half, and all pairs."""
    difference = torch.tensor(right)[:, None] - torch.tensor(wrong)[None]
    return float(
        (difference > 0).sum() + 0.5 * (difference == 0).sum()
    ), difference.numel()


def auc(rows: list[dict[str, Any]], *keys: str) -> float | None:
    """Area under the ROC curve, over pairs that agree in `keys`."""
    groups: dict[tuple[Any, ...], tuple[list[float], list[float]]] = defaultdict(
        lambda: ([], [])
    )
    for row in rows:
        groups[tuple(row[key] for key in keys)][not row["right"]].append(row["score"])
    counts = [area(right, wrong) for right, wrong in groups.values() if right and wrong]
    pairs = sum(n for _, n in counts)
    return sum(good for good, _ in counts) / pairs if pairs else None


def calibration(rows: list[dict[str, Any]], bins: int = 10) -> dict[str, Any]:
    """The mean score and the share of right steps in each bin, and the expected
    calibration error.
    """
    r = torch.sigmoid(torch.tensor([row["score"] for row in rows], dtype=torch.float64))
    right = torch.tensor([row["right"] for row in rows], dtype=torch.float64)
    index = (r * bins).long().clamp(max=bins - 1)
    table = [
        dict(
            mean_score=float(r[index == k].mean()),
            share_right=float(right[index == k].mean()),
            steps=int((index == k).sum()),
        )
        for k in range(bins)
        if (index == k).any()
    ]
    error = sum(
        b["steps"] * abs(b["mean_score"] - b["share_right"]) for b in table
    ) / len(rows)
    return dict(expected_calibration_error=error, bins=table)


def judge_report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Overall AUC; within a problem and step; and there among candidates that were
    right so far.
    """
    report = dict(
        auc_overall=auc(rows),
        auc_within=auc(rows, "problem", "step"),
        auc_within_first_mistake=auc(
            [row for row in rows if row["before"]], "problem", "step"
        ),
        **calibration(rows),
    )
    report["levels"] = {
        str(level): dict(
            auc_overall=auc(some),
            auc_within=auc(some, "problem", "step"),
            auc_within_first_mistake=auc(
                [r for r in some if r["before"]], "problem", "step"
            ),
            expected_calibration_error=calibration(some)["expected_calibration_error"],
        )
        for level in LEVELS
        if (some := [row for row in rows if row["level"] == level])
    }
    return report


def language_model_report(
    lm: LanguageModel, problems: list[Problem], temperature: float
) -> dict[str, Any]:
    sampled, greedy = (
        answers(lm, problems, SAMPLES, temperature),
        answers(lm, problems, 1, 0.0),
    )
    levels = {}
    for level in LEVELS:
        chosen = [k for k, p in enumerate(problems) if p.level == level]
        levels[str(level)] = {
            "pass@1": sum(pass_at(sampled[k], SAMPLES, 1) for k in chosen)
            / len(chosen),
            "pass@8": sum(pass_at(sampled[k], SAMPLES, 8) for k in chosen)
            / len(chosen),
            "greedy": sum(greedy[k] for k in chosen) / len(chosen),
        }
    return levels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("book/results/minimath.json"))
    parser.add_argument("--rows", type=int, default=500, help="problems")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--only", choices=["small", "large", "prm"])
    parser.add_argument("--prm", default="minimath-prm", help="another reward model")
    a = parser.parse_args()
    problems, results = load_set("minimath500")[: a.rows], {}
    for size in ("small", "large"):
        if a.only in (None, size):
            results[size] = language_model_report(
                LanguageModel.load(f"minimath-{size}"), problems, a.temperature
            )
    if a.only in (None, "prm"):
        rows = judged_steps(
            LanguageModel.load("minimath-small"), RewardModel.load(a.prm), problems
        )
        results["prm"] = judge_report(rows)
    print(results)
    write_record(
        a.out,
        "python -m pfref.minimath.evaluate",
        results,
        problems=a.rows,
        samples=SAMPLES,
        temperature=a.temperature,
        reward_model=Path(a.prm).name,
    )


if __name__ == "__main__":
    main()
