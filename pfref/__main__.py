"""The command line: `python -m pfref` or `pfref`.

What takes time to import is imported by the commands, inside `main`'s try.
"""

import argparse
import json
import os
import sys
from typing import Any

from .arguments import parser
from .errors import UserError
from .inputs import read_problems
from .printing import Progress, as_json, as_text, told

PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")


def run_solve(a: argparse.Namespace) -> None:
    if (a.problem is None) == (a.file is None):
        raise UserError("give one problem in quotes, or --file with many")
    problems = [a.problem] if a.file is None else read_problems(a.file)
    if a.plot and a.plot.suffix.lower() not in PICTURES:
        raise UserError(
            f"cannot draw {a.plot}: give a name that ends in .png, .svg or .pdf"
        )
    if a.plot and not a.plot.absolute().parent.is_dir():
        raise UserError(f"there is no folder {a.plot.parent} to draw in")
    from .lm import Proposal

    proposal = Proposal(
        temperature=a.temperature,
        step_tokens=a.step_tokens,
        max_step_tokens=a.max_step_tokens,
        max_tokens=a.max_tokens,
        max_steps=a.max_steps,
    )
    lm, prm = load_models(a)
    failures: dict[int, str] = {}  # by the problem's number; others are still solved
    for number, problem in enumerate(problems, 1):
        try:
            lm.prompt(problem, a.system)
            prm.prompt(problem)
        except UserError as error:
            failures[number] = str(error)
    solve_readable(a, problems, proposal, lm, prm, failures)
    if failures:
        lines = told(failures) if len(problems) > 1 else failures.values()
        raise UserError("\npfref: ".join(lines))


def load_models(a: argparse.Namespace) -> tuple[Any, Any]:
    """The language model and the reward model. Whatever is wrong with a name or a flag
    is said before anything is loaded.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from .hardware import best_device
    from .lm import LanguageModel
    from .prm import RewardModel

    best_device(a.device)
    best_device(a.prm_device)
    own = {
        "--prm-device": a.prm_device,
        "--prm-family": a.prm_family,
        "--prm-separator": a.prm_separator,
        "--prm-revision": a.prm_revision,
    }
    if a.prm == "self" and (given := [name for name in own if own[name] is not None]):
        raise UserError(
            f"--prm self is the language model again and takes no {given[0]}; leave it "
            "out, or name a reward model"
        )
    judge = a.prm or default_reward_model(a.model)
    lm = LanguageModel.load(
        a.model,
        a.device,
        a.dtype,
        revision=a.revision,
        template_args=a.chat_template_args,
    )
    if judge == "self":
        return lm, RewardModel.judging(lm)
    prm = RewardModel.load(
        judge,
        a.prm_device or a.device,
        a.dtype,
        family=a.prm_family,
        separator=a.prm_separator,
        revision=a.prm_revision,
    )
    return lm, prm


def default_reward_model(model: str) -> str:
    """MiniMath's, for MiniMath's language models only: it cannot read other text."""
    from .loading import is_hub_id, is_shipped, locate

    if not is_hub_id(model) and is_shipped(locate(model)):
        return "minimath-prm"
    raise UserError(
        f"{model} needs a reward model that reads what it writes, and the default one "
        "reads MiniMath only; give --prm, such as --prm Qwen/Qwen2.5-Math-PRM-7B, or "
        "--prm self"
    )


def solve_readable(
    a: argparse.Namespace,
    problems: list[str],
    proposal: Any,
    lm: Any,
    prm: Any,
    failures: dict[int, str],
) -> None:
    """Solve what has not failed yet and print it, batch by batch; add to `failures`."""
    from .plots import save_genealogy
    from .solver import BATCH, NONE_LEFT, solve

    readable = [k for k in range(1, len(problems) + 1) if k not in failures]
    if not readable:
        return
    left = iter(readable)
    drawn: list[int] = []
    progress = None if a.quiet else Progress(len(readable))

    def tell(solutions: list[Any]) -> None:
        if progress:
            progress.add(len(solutions))
        for found in solutions:
            number = next(left)
            if found.chosen is None:
                failures[number] = NONE_LEFT
                continue
            several = number if len(problems) > 1 else None
            line = as_json(found, number) if a.json else as_text(found, several)
            print(line, flush=True)
            if a.plot and not drawn:
                save_genealogy(found, a.plot)
                drawn.append(number)

    try:
        solve(
            [problems[number - 1] for number in readable],
            lm,
            prm,
            a.particles,
            seed=a.seed,
            proposal=proposal,
            potential=a.potential,
            tau=a.tau,
            finished=a.finished,
            resampling=a.resampling,
            threshold=a.threshold,
            choose=a.choose,
            system=a.system,
            aggregation=a.aggregation,
            batch=BATCH if a.batch is None else a.batch,
            watch=progress,
            done=tell,
        )
    finally:
        if progress:
            progress.close()
    if a.plot and drawn not in ([], [1]):
        print(
            f"pfref: {a.plot} shows problem {drawn[0]}, the first that was solved",
            file=sys.stderr,
        )


def run_problems(a: argparse.Namespace) -> None:
    from .minimath.problems import load_set

    chosen = [p for p in load_set("minimath500") if a.level in (None, p.level)]
    for problem in chosen[: max(0, a.n)]:
        if a.json:
            names = ("problem", "level", "subject", "answer")
            print(json.dumps({name: getattr(problem, name) for name in names}))
        else:
            print(
                f"{problem.problem}\n    level {problem.level}, {problem.subject}, "
                f"answer {problem.answer}"
            )


COMMANDS = {"solve": run_solve, "problems": run_problems}


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 bad input (one line says what and what to do), 130
    interrupted, 141 nobody reads on.
    """
    try:
        a = parser().parse_args(arguments)
        COMMANDS[a.command](a)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"pfref: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\npfref: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
