"""Accuracy against budget on MiniMATH-500: `python -m benchmarks.accuracy --out
book/results/accuracy.json`.

Every method uses the same two models. Intervals resample problems; a problem's value is
its mean over the seeds.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pfref import LanguageModel, RewardModel, Solution, solve
from pfref.baselines import best_of, greedy, majority, weighted_best_of
from pfref.minimath.problems import load_set
from pfref.records import bootstrap, write_record

CHOICES: dict[str, Callable[[Solution], str | None]] = {
    "best-of-N": best_of,
    "weighted best-of-N": weighted_best_of,
    "majority": majority,
}
VARIANTS: dict[str, dict[str, object]] = {
    "as solve does": {},
    "one draw": dict(choose="draw"),
    "threshold 1": dict(threshold=1.0),
    "multinomial, threshold 1": dict(resampling="multinomial", threshold=1.0),
    "score": dict(potential="score"),
    "telescoping": dict(potential="telescoping"),
    "reweighted": dict(finished="reweighted"),
    "tau 0.5": dict(tau=0.5),
    "tau 2": dict(tau=2.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("book/results/accuracy.json"))
    parser.add_argument(
        "--set", default="minimath500", choices=["minimath500", "miniaime"]
    )
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument(
        "--skip",
        type=int,
        default=0,
        help="leave out so many problems at the beginning of the set",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument(
        "--prm",
        default="minimath-prm",
        help="another reward model, such as one that was trained for less long",
    )
    parser.add_argument(
        "--variants",
        action="store_true",
        help="instead: other choices, potentials, schemes and thresholds at N = 16",
    )
    parser.add_argument(
        "--only",
        choices=["samples", "filter"],
        help="one half of the work, so that two processes can share it",
    )
    a = parser.parse_args()
    lm, prm = LanguageModel.load("minimath-small"), RewardModel.load(a.prm)
    problems = load_set(a.set)[a.skip : a.skip + a.rows]
    texts = [p.problem for p in problems]
    rows: list[dict[str, Any]] = []

    def note(
        method: str, n: int, answers: list[list[str | None]], tokens: float
    ) -> None:
        values = [
            sum(seed[k] == p.answer for seed in answers) / len(answers)
            for k, p in enumerate(problems)
        ]
        mean, low, high = bootstrap(values)
        levels = {
            str(v): sum(
                x for x, p in zip(values, problems, strict=True) if p.level == v
            )
            / sum(p.level == v for p in problems)
            for v in sorted({p.level for p in problems})
        }
        rows.append(
            dict(
                method=method,
                n=n,
                accuracy=mean,
                low=low,
                high=high,
                tokens_per_problem=tokens,
                levels=levels,
                values=[round(value, 3) for value in values],
            )
        )  # for differences problem by problem
        print(
            f"{method:<28} N {n:>3}  {mean:.3f} [{low:.3f}, {high:.3f}]  {tokens:.0f} "
            f"tokens a problem",
            flush=True,
        )

    def repeated(n: int, **options: Any) -> tuple[list[list[Solution]], float]:
        """One run a seed, and the tokens that a problem took on average."""
        runs = [
            solve(
                texts,
                lm,
                prm,
                n,
                seed=seed,
                progress=f"N {n}, seed {seed}, {options}",
                **options,
            )
            for seed in range(a.seeds)
        ]
        return runs, sum(s.cost.generated_tokens for seed in runs for s in seed) / len(
            problems
        ) / a.seeds

    def sampled(n: int) -> None:
        runs, tokens = repeated(n, threshold=0.0)
        for method, choice in CHOICES.items():
            note(method, n, [[choice(s) for s in seed] for seed in runs], tokens)

    def filtered(method: str, n: int, **options: object) -> None:
        runs, tokens = repeated(n, **options)
        note(method, n, [[s.answer for s in seed] for seed in runs], tokens)
        if not options:  # the same particles, another choice among them
            note(
                "filter, best-scored",
                n,
                [[best_of(s) for s in seed] for seed in runs],
                tokens,
            )

    if a.variants:
        for method, options in VARIANTS.items():
            filtered(method, 16, **options)
    if not a.variants and a.only != "filter":
        note("greedy", 1, [greedy(texts, lm)], 0.0)
        note(
            "large model, greedy",
            1,
            [greedy(texts, LanguageModel.load("minimath-large"))],
            0.0,
        )
        for n in a.sizes:
            sampled(n)
    if not a.variants and a.only != "samples":
        for n in a.sizes:
            filtered("particle filter", n)
    settings = dict(
        set=a.set,
        skipped=a.skip,
        problems=len(problems),
        seeds=a.seeds,
        temperature=0.8,
        model="minimath-small",
        reward_model=Path(a.prm).name,
    )
    if (
        a.out.exists()
        and (old := json.loads(a.out.read_text()))["settings"] == settings
    ):  # sizes and halves may be run one by one
        fresh = {(row["method"], row["n"]) for row in rows}
        rows = sorted(
            [
                row
                for row in old["results"]["rows"]
                if (row["method"], row["n"]) not in fresh
            ]
            + rows,
            key=lambda row: row["n"],
        )
    write_record(
        a.out,
        "python -m benchmarks.accuracy" + (" --variants" if a.variants else ""),
        dict(rows=rows),
        **settings,
    )


if __name__ == "__main__":
    main()
