"""The main job on the embedded world: `python -m pfref.demo`.

Solves a slice of MiniMATH-500 by greedy decoding, by best-of-16, by greedy search with
the reward model and by a 16-particle filter, with the same two models; prints what each
reached and cost, and draws the genealogy of one problem, if possible of one that the
filter solved and best-of-16 did not.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from transformers.utils import logging

from . import LanguageModel, RewardModel, Solution, solve
from .baselines import greedy
from .errors import UserError
from .inputs import check_picture
from .minimath.problems import load_set
from .plots import save_genealogy
from .records import bootstrap
from .solver import NONE_LEFT


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, default=200, help="problems (default: 200 of MiniMATH-500)"
    )
    parser.add_argument("-n", "--particles", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, default=Path("genealogy.png"))
    a = parser.parse_args()
    try:
        demonstrate(a)
    except UserError as error:
        parser.error(str(error))


def demonstrate(a: argparse.Namespace) -> None:
    for flag, value in (("--rows", a.rows), ("--particles", a.particles)):
        if value < 1:
            raise UserError(f"{flag} is at least 1, not {value}")
    check_picture(a.plot)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    lm, prm = LanguageModel.load("minimath-small"), RewardModel.load("minimath-prm")
    problems = load_set("minimath500")[: a.rows]
    texts, truth = [p.problem for p in problems], [p.answer for p in problems]
    print(
        f"{len(problems)} problems of MiniMATH-500, levels 1 to 5, the same two "
        f"models throughout\n"
    )

    began = time.perf_counter()
    guesses = greedy(texts, lm)
    seconds = {"greedy": time.perf_counter() - began}
    hits = {
        "greedy": [guess == right for guess, right in zip(guesses, truth, strict=True)]
    }
    tokens: dict[str, int | None] = {"greedy": None}
    runs: dict[str, list[Solution]] = {}
    n = a.particles
    best, search, filtered = f"best of {n}", f"greedy search, {n}", f"filter, {n}"
    settings: dict[str, dict[str, Any]] = {
        best: dict(method="samples", choose="argmax"),
        search: dict(method="greedy-search"),
        filtered: dict(method="filter"),
    }
    for name, options in settings.items():
        began = time.perf_counter()
        runs[name] = solve(
            texts, lm, prm, a.particles, seed=a.seed, progress=name, **options
        )
        seconds[name] = time.perf_counter() - began
        tokens[name] = sum(found.cost.generated_tokens for found in runs[name])
        hits[name] = [
            found.answer == right
            for found, right in zip(runs[name], truth, strict=True)
        ]
    print(
        f"{'method':<24}{'accuracy':>9}  {'95 % interval':<16}"
        f"{'generated tokens':>17}{'seconds':>9}"
    )
    for name in hits:
        mean, low, high = bootstrap(hits[name])
        print(
            f"{name:<24}{mean:>9.1%}  {f'{low:.1%} to {high:.1%}':<16}"
            f"{tokens[name] or '':>17}{seconds[name]:>9.1f}"
        )
    print()
    for rival in (best, search):
        gains = zip(hits[filtered], hits[rival], strict=True)
        mean, low, high = bootstrap([float(x) - float(y) for x, y in gains])
        print(
            f"{filtered} minus {rival}, problem by problem: {mean:+.1%}, 95 % interval "
            f"{low:+.1%} to {high:+.1%}."
        )
    gained = [k for k in range(len(texts)) if hits[filtered][k] and not hits[best][k]]
    shown = max(
        gained or range(len(texts)), key=lambda k: len(runs[filtered][k].trace.ess)
    )
    example = runs[filtered][shown]
    save_genealogy(example, a.plot)
    print(
        f"\n{texts[shown]}\n\n{example.chosen.text if example.chosen else NONE_LEFT}"
        f"\n\nIts {a.particles} particles are drawn in {a.plot}."
    )


if __name__ == "__main__":
    main()
