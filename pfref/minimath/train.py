"""Train MiniMath's models: two language models and a process reward model.

    python -m pfref.minimath.train full       # on reference solutions
    python -m pfref.minimath.train practised  # the same, more of what is learnt last
    python -m pfref.minimath.train small      # the policy
    python -m pfref.minimath.train large      # the language model to beat, deeper
    python -m pfref.minimath.train prm        # the reward model

`small` and `large` start where `practised` ends: small goes on with pupils' solutions,
which hold slips. `prm` starts from large and learns on mistakes and on small's samples.

The last three end by writing their model in half precision into the package, under
pfref/minimath/.

Every run saves once a minute under --folder and goes on from there when it is started
again. Batches are drawn from --seed and their number, so a run that was cut off sees
the same data.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from ..loading import SHIPPED
from .export import export_language_model, export_reward_model
from .fitting import Recipe
from .judge import train_judge
from .policy import train_language_model
from .tokenizer import build

RECIPES = {
    "full": Recipe(5000, 5000, 1e-2, 1, 1 / 3),
    "practised": Recipe(3000, 3000, 6e-3, 5),
    "small": Recipe(1600, 1600, 3e-3, 4),
    "large": Recipe(2500, 2500, 6e-3, 2),
    "prm": Recipe(1800, 1800, 6e-3, 3),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(RECIPES))
    parser.add_argument("--folder", type=Path, default=Path("training"))
    parser.add_argument(
        "--out", type=Path, default=SHIPPED, help="where to write the finished model"
    )
    parser.add_argument("--rows", type=int, default=32)
    for name, kind in (("steps", int), ("stop", int), ("rate", float), ("seed", int)):
        parser.add_argument(
            f"--{name}", type=kind, help="default: as the shipped model was trained"
        )
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    recipe = replace(
        RECIPES[a.what],
        **{
            n: v
            for n in ("steps", "stop", "rate", "seed")
            if (v := getattr(a, n)) is not None
        },
    )
    if a.what == "prm":
        judge = train_judge(a.folder, recipe, a.rows)
        export_reward_model(judge.lm.model, judge.head, build(), a.out / a.what)
        return
    model = train_language_model(a.what, a.folder, recipe, a.rows)
    if a.what in ("small", "large"):
        export_language_model(model, build(), a.out / a.what)


if __name__ == "__main__":
    main()
