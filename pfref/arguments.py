"""The command line's arguments: their names, kinds and defaults.

Imports nothing slow.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NoReturn

from .dialects import DIALECTS
from .errors import UserError
from .options import add_options, escaped, number
from .settings import Proposal, Settings
from .study.arguments import add_study

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
    add_options(solve.add_argument_group("method"), Settings)
    add_options(solve.add_argument_group("proposal"), Proposal)
    add_output(solve.add_argument_group("run and output"))
    add_study(commands, layout)
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
    group.add_argument(
        "--endpoint",
        metavar="URL",
        help="of a server that runs --model (vLLM, SGLang, llama.cpp, transformers "
        "serve), such as http://localhost:8000/v1; only the tokenizer and the settings "
        "of --model are then read here. A key is taken from PFREF_API_KEY",
    )
    group.add_argument(
        "--endpoint-model", metavar="NAME", help="the model's name there, if not alone"
    )
    group.add_argument(
        "--dialect",
        choices=list(DIALECTS),
        help="what serves at --endpoint, if it does not say so itself",
    )
    group.add_argument(
        "--in-flight", type=int, help="requests to a server at once (default: 64)"
    )
    group.add_argument(
        "--prm",
        help="process reward model: a shipped name, folder or hub id; or a probe, "
        "which reads --model's own states, as a .safetensors file; or self, which lets "
        "the language model judge itself (default: minimath-prm, for MiniMath's "
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
        "--prm-endpoint",
        metavar="URL",
        help="of a vLLM that runs --prm, such as http://localhost:8001/v1; only the "
        "tokenizer and the configuration of --prm are then read here. A key is taken "
        "from PFREF_PRM_API_KEY",
    )
    group.add_argument(
        "--prm-endpoint-model",
        metavar="NAME",
        help="the reward model's name there, if not alone",
    )
    group.add_argument(
        "--prm-noise",
        type=number,
        help="makes --prm worse on purpose: standard deviation of an error on the "
        "log-odds of every prefix",
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


def add_output(group: Any) -> None:
    group.add_argument(
        "--json", action="store_true", help="print one JSON object a problem"
    )
    group.add_argument(
        "--plot",
        type=Path,
        help="write the genealogy of the first problem that is solved to this picture "
        "file",
    )
    group.add_argument(
        "--html",
        type=Path,
        help="write the steps of the first problem that is solved to this web page, to "
        "step through: texts, rewards, weights, and who descends from whom",
    )
    group.add_argument("--quiet", action="store_true", help="no progress")
