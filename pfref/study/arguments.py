"""Arguments of `pfref run`, `pfref report` and `pfref pack`. Imports nothing slow."""

import argparse
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  pfref run minimath500 --estimate           tokens, hours and memory, before it begins
  pfref run minimath500 --estimate --problems 1e6 --particles 32 --gpus 8
                                             a plan, from records that are there
  pfref run minimath500 --limit 20           the first problems; again: only what lacks
  pfref run minimath500 --part 1/2           half of it; 2/2 at the same time elsewhere
  pfref run minimath500 --prm MODEL --replay runs/minimath500 --out runs/other
                                             its samples, read by another reward model
  pfref report runs/minimath500 --plot book  the table, and its figures
  pfref pack runs/minimath500                one small file of records, to be kept

A run that was stopped, whatever stopped it, goes on when the same command is given.
"""


def add_study(commands: Any, layout: Any) -> None:
    """The three commands of a study."""
    run = commands.add_parser(
        "run",
        help="run a study: methods, budgets and seeds over a set of problems",
        epilog=EXAMPLES,
        formatter_class=layout,
    )
    run.add_argument("recipe", help="a shipped recipe, or a TOML file")
    run.add_argument(
        "--out", type=Path, help="folder of the records (default: runs/RECIPE)"
    )
    run.add_argument(
        "--part",
        type=part,
        default=(1, 1),
        metavar="K/M",
        help="run one of M shares of the problems, so that M processes divide the work",
    )
    run.add_argument(
        "--estimate", action="store_true", help="what it costs; runs little"
    )
    run.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="run on a Ray cluster, such as ray://head:10001; without an address, on "
        "this machine's cores or GPUs (needs pip install 'pfref[ray]')",
    )
    run.add_argument(
        "--workers", type=int, help="of --ray (default: one a GPU or core)"
    )
    run.add_argument(
        "--replay",
        type=Path,
        metavar="FOLDER",
        help="judge the samples that this folder's records hold with another --prm, "
        "instead of writing them; give another --out",
    )
    run.add_argument("--quiet", action="store_true", help="no progress")
    add_scale(run)
    own = run.add_argument_group("instead of the recipe's")
    own.add_argument("--data", help="a data set by name, or a file of problems")
    own.add_argument("--skip", type=int, help="leave out so many problems first")
    own.add_argument("--limit", type=int, help="run so many problems")
    own.add_argument("--seeds", type=int, nargs="+")
    own.add_argument("--budgets", type=int, nargs="+")
    for name in ("model", "prm", "device", "dtype"):
        own.add_argument(f"--{name}", help="as `pfref solve` has it")
    served = ("endpoint", "endpoint-model", "dialect")
    for name in (*served, "prm-endpoint", "prm-endpoint-model"):
        own.add_argument(f"--{name}", help="as `pfref solve` has it")
    own.add_argument("--in-flight", type=int, help="as `pfref solve` has it")

    report = commands.add_parser(
        "report",
        help="grade a study's records and compare its methods",
        epilog=EXAMPLES,
        formatter_class=layout,
    )
    add_folder(report)
    report.add_argument("--json", action="store_true", help="all figures as JSON")
    report.add_argument(
        "--plot", type=Path, metavar="FOLDER", help="draw the figures into this folder"
    )
    report.add_argument(
        "--reference",
        metavar="LABEL",
        help="the method that the others are compared with (default: the first filter)",
    )
    report.add_argument(
        "--choices",
        type=lambda text: text.split(","),
        default=[],
        metavar="NAMES",
        help="other ways to choose among a method's particles, each a row, such as "
        "vote,argmax",
    )
    report.add_argument("--data", help="where the problems lie now, if not as recorded")
    report.add_argument(
        "--skip", type=int, default=0, help="leave out so many problems"
    )
    report.add_argument("--limit", type=int, help="report on so many problems")

    pack = commands.add_parser("pack", help="write a study's records as one small file")
    add_folder(pack)
    pack.add_argument("--out", type=Path, help="(default: records.jsonl.xz in FOLDER)")
    pack.add_argument(
        "--answers",
        action="store_true",
        help="keep of each solution's text its answer only; reports stay the same",
    )


def add_scale(run: argparse.ArgumentParser) -> None:
    """Flags of a plan, whose defaults are those of `scale.scale`."""
    plan = run.add_argument_group("of --estimate, a plan from the records of --out")
    plan.add_argument("--problems", type=float, help="plan for so many, such as 1e6")
    plan.add_argument("--particles", type=int, help="(default: the most recorded)")
    plan.add_argument("--gpus", type=int, help="that share the work (default: 1)")
    plan.add_argument(
        "--policy-speed",
        type=float,
        metavar="TOKENS_PER_S",
        help="that one GPU's policy writes (default: as the records measured)",
    )
    plan.add_argument(
        "--prm-speed",
        type=float,
        metavar="TOKENS_PER_S",
        help="that one GPU's reward model reads",
    )
    plan.add_argument(
        "--price", type=float, metavar="PER_GPU_HOUR", help="of a GPU for an hour"
    )
    plan.add_argument(
        "--slots", type=int, help="rows that a GPU's server writes at once (256)"
    )
    plan.add_argument(
        "--sharing",
        type=int,
        metavar="PROCESSES",
        help="that shared one GPU when the records were made",
    )
    plan.add_argument("--json", action="store_true", help="the plan as JSON")


def add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("folder", type=Path, help="folder of records")


def part(text: str) -> tuple[int, int]:
    """K/M with 1 <= K <= M."""
    k, _, m = text.partition("/")
    if not (k.isdigit() and m.isdigit() and 1 <= int(k) <= int(m)):
        raise argparse.ArgumentTypeError(f"{text} is not a share such as 1/2")
    return int(k), int(m)
