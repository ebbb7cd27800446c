"""The command line's arguments: their names, kinds and defaults.

Imports nothing slow.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, NoReturn

from .errors import UserError

EXAMPLES = """examples:
  pfref problems -n 3                          problems that the shipped models can read
  pfref problems -n 20 --json > problems.jsonl the same as a file
  pfref solve "Compute ((12+30)*3)-26."        with the shipped models, on a CPU
  pfref solve --file problems.jsonl -n 32      many problems
  pfref solve "..." --model Qwen/Qwen2.5-1.5B-Instruct \\
      --prm Qwen/Qwen2.5-Math-PRM-7B --plot tree.png
  pfref solve "..." --model Qwen/Qwen3-1.7B --prm self \\
      --chat-template-args '{"enable_thinking": false}'

A model that thinks before it answers, such as Qwen3, writes thousands of tokens in one
step and meets the limits before its answer: let its chat template turn thinking off, as
above, or raise --max-step-tokens and --max-tokens.

exit codes: 0 done; 2 bad input, or a problem among several that was not solved;
130 interrupted
"""


class Parser(argparse.ArgumentParser):
    """One line for each mistake, as everywhere in pfref."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` lists what there is")


def number(text: str) -> float:
    """A finite number. `float` would take nan and inf too."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a JSON object, such as '{{\"enable_thinking\": false}}'"
        )
    return value


def parser() -> Parser:
    layout = argparse.RawDescriptionHelpFormatter
    top = Parser(
        prog="pfref",
        description="Particle filtering for inference-time scaling of language models.",
        epilog=EXAMPLES,
        formatter_class=layout,
    )
    commands = top.add_subparsers(dest="command", required=True)
    solve = commands.add_parser(
        "solve",
        help="solve problems with a particle filter",
        epilog=EXAMPLES,
        formatter_class=layout,
    )
    solve.add_argument("problem", nargs="?", help="the problem's text")
    solve.add_argument(
        "--file",
        type=Path,
        help='problems: one a line; or JSON Lines (.jsonl) with a "problem" or '
        '"question" each; or a .csv file with such a column',
    )
    add_models(solve.add_argument_group("models"))
    add_filter(solve.add_argument_group("particle filter"))
    add_limits(solve.add_argument_group("proposal"))
    add_output(solve.add_argument_group("run and output"))
    problems = commands.add_parser("problems", help="print problems of MiniMATH-500")
    problems.add_argument("-n", type=int, default=5, help="how many (default: 5)")
    problems.add_argument(
        "--level", type=int, choices=[1, 2, 3, 4, 5], help="of this level only"
    )
    problems.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line, which solve --file reads",
    )
    return top


def add_models(group: Any) -> None:
    group.add_argument(
        "--model",
        default="minimath-small",
        help="language model: a shipped name, folder, .gguf file or hub id",
    )
    group.add_argument("--revision", help="of --model on the hub: branch, tag, commit")
    group.add_argument(
        "--chat-template-args",
        type=json_object,
        metavar="JSON",
        help="a JSON object for --model's chat template, such as "
        "'{\"enable_thinking\": false}' for Qwen3",
    )
    group.add_argument("--system", help="system prompt for the language model")
    group.add_argument(
        "--prm",
        help="process reward model: a shipped name, folder or hub id; or self, which "
        "lets the language model judge itself (default: minimath-prm, for MiniMath's "
        "language models only)",
    )
    group.add_argument("--prm-revision", help="of --prm on the hub: many need one")
    group.add_argument(
        "--prm-family",
        help="how --prm reads a solution, where its configuration does not tell",
    )
    group.add_argument(
        "--prm-separator",
        type=escaped,
        help="what closes a step for a reward model of TRL's, such as '\\n\\n'",
    )
    group.add_argument(
        "--device", help="cpu or cuda (default: cuda where there is one)"
    )
    group.add_argument("--prm-device", help="of the reward model (default: --device)")
    group.add_argument(
        "--dtype",
        default="auto",
        choices=["auto", "float32", "bfloat16", "float16"],
        help="numbers of both models; auto is a checkpoint's own where the hardware "
        "is fast in it, and float32 else (default: auto)",
    )


def escaped(text: str) -> str:
    """A shell has no easy newline: \\n and \\t in the argument stand for theirs."""
    return text.replace("\\n", "\n").replace("\\t", "\t")


def add_filter(group: Any) -> None:
    group.add_argument(
        "-n",
        "--particles",
        type=int,
        default=16,
        help="particles a problem (default: 16)",
    )
    group.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the same seed gives the same particles (default: 0)",
    )
    group.add_argument(
        "--potential",
        default="odds",
        choices=["odds", "score", "telescoping"],
        help="what the reward becomes: r/(1-r), r, or r_t/r_t-1 (default: odds)",
    )
    group.add_argument(
        "--tau", type=number, default=1.0, help="divides the log potential (default: 1)"
    )
    group.add_argument(
        "--aggregation",
        default="last",
        choices=["last", "min", "prod", "model"],
        help="how step scores make a prefix's score (default: last)",
    )
    group.add_argument(
        "--resampling",
        default="systematic",
        choices=["multinomial", "stratified", "systematic", "residual"],
        help="scheme (default: systematic)",
    )
    group.add_argument(
        "--threshold",
        type=number,
        default=0.5,
        help="resample when ESS <= threshold * N (default: 0.5)",
    )
    group.add_argument(
        "--finished",
        default="absorbed",
        choices=["absorbed", "reweighted"],
        help="are finished particles weighed again? (default: absorbed)",
    )
    group.add_argument(
        "--choose",
        default="vote",
        choices=["vote", "argmax", "draw"],
        help="heaviest answer, highest reward, or one draw by weight (default: vote)",
    )


def add_limits(group: Any) -> None:
    group.add_argument(
        "--temperature",
        type=number,
        default=0.8,
        help="of the language model (default: 0.8)",
    )
    for name, default, what in (
        ("--max-steps", 40, "steps a solution"),
        ("--max-tokens", 2048, "tokens a solution"),
        ("--max-step-tokens", 1024, "tokens a step"),
    ):
        group.add_argument(
            name,
            type=int,
            default=default,
            help=f"{what} may take (default: {default})",
        )
    group.add_argument(
        "--step-tokens",
        type=int,
        help="steps of exactly so many tokens instead of blank lines",
    )


def add_output(group: Any) -> None:
    group.add_argument(
        "--batch",
        type=int,
        help="particles in one batch of problems; more suit a GPU with memory to spare "
        "(default: what suits a CPU)",
    )
    group.add_argument(
        "--json", action="store_true", help="print one JSON object a problem"
    )
    group.add_argument(
        "--plot",
        type=Path,
        help="write the genealogy of the first problem that is solved to this picture "
        "file",
    )
    group.add_argument("--quiet", action="store_true", help="no progress")
