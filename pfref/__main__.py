"""The command line: `python -m pfref` or `pfref`."""

import argparse
import json
import math
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .errors import UserError
from .solver import BATCH, NONE_LEFT

EXAMPLES = """examples:
  pfref problems -n 3                           problems that the shipped models can read
  pfref problems -n 20 --json > problems.jsonl  the same as a file
  pfref solve "Compute ((12+30)*3)-26."         with the shipped models, on a CPU
  pfref solve --file problems.jsonl -n 32       JSON Lines with "problem", or one problem a line
  pfref solve "..." --model Qwen/Qwen2.5-1.5B-Instruct --prm Qwen/Qwen2.5-Math-PRM-7B --plot tree.png

exit codes: 0 done; 2 bad input, or a problem among several that was not solved; 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="pfref",
        description="Particle filtering for inference-time scaling of language models.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True)
    s = commands.add_parser(
        "solve",
        help="solve problems with a particle filter",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    s.add_argument("problem", nargs="?", help="the problem's text")
    s.add_argument(
        "--file",
        type=Path,
        help='a file of problems: one a line, or JSON Lines with a "problem" each',
    )
    s.add_argument(
        "--model",
        default="minimath-small",
        help="language model: a shipped name, folder, .gguf file or hub id",
    )
    s.add_argument(
        "--prm",
        default="minimath-prm",
        help="process reward model: a shipped name, folder or hub id",
    )
    s.add_argument(
        "-n",
        "--particles",
        type=int,
        default=16,
        help="particles a problem (default: 16)",
    )
    s.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the same seed gives the same particles (default: 0)",
    )
    s.add_argument(
        "--potential",
        default="odds",
        choices=["odds", "score", "telescoping"],
        help="what the reward becomes: r/(1-r), r, or r_t/r_t-1 (default: odds)",
    )
    s.add_argument(
        "--tau", type=float, default=1.0, help="divides the log potential (default: 1)"
    )
    s.add_argument(
        "--aggregation",
        default="last",
        choices=["last", "min", "prod", "model"],
        help="how step scores make a prefix's score (default: last)",
    )
    s.add_argument(
        "--resampling",
        default="systematic",
        choices=["multinomial", "stratified", "systematic", "residual"],
        help="scheme (default: systematic)",
    )
    s.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="resample when ESS <= threshold * N (default: 0.5)",
    )
    s.add_argument(
        "--finished",
        default="absorbed",
        choices=["absorbed", "reweighted"],
        help="are finished particles weighed again? (default: absorbed)",
    )
    s.add_argument(
        "--choose",
        default="vote",
        choices=["vote", "argmax", "draw"],
        help="heaviest answer, highest reward, or one draw by weight (default: vote)",
    )
    s.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        help="of the language model (default: 0.8)",
    )
    s.add_argument(
        "--max-steps",
        type=int,
        default=40,
        help="steps a solution may take (default: 40)",
    )
    s.add_argument(
        "--max-tokens",
        type=int,
        default=2048,
        help="tokens a solution may take (default: 2048)",
    )
    s.add_argument(
        "--max-step-tokens",
        type=int,
        default=1024,
        help="tokens a step may take (default: 1024)",
    )
    s.add_argument(
        "--step-tokens",
        type=int,
        help="steps of exactly so many tokens instead of blank lines",
    )
    s.add_argument("--system", help="system prompt for the language model")
    s.add_argument(
        "--batch",
        type=int,
        default=BATCH,
        help="particles in one batch of problems; more suit a GPU with memory to spare (default: %(default)s)",
    )
    s.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    s.add_argument(
        "--json", action="store_true", help="print one JSON object a problem"
    )
    s.add_argument(
        "--plot",
        type=Path,
        help="write the genealogy of the first problem that is solved to this picture file",
    )
    s.add_argument("--quiet", action="store_true", help="no progress")
    s.set_defaults(run=run_solve)
    p = commands.add_parser("problems", help="print problems of MiniMATH-500")
    p.add_argument("-n", type=int, default=5, help="how many (default: 5)")
    p.add_argument(
        "--level", type=int, choices=[1, 2, 3, 4, 5], help="of this level only"
    )
    p.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line, which solve --file reads",
    )
    p.set_defaults(run=run_problems)
    return top


def read_problems(a: argparse.Namespace) -> list[str]:
    if (a.problem is None) == (a.file is None):
        raise UserError("give one problem in quotes, or --file with many")
    if a.problem is not None:
        return [a.problem]
    try:
        lines = a.file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read {a.file}: {getattr(error, 'strerror', None) or 'it is not text'}"
        ) from error
    problems = []
    for number, line in enumerate(lines, 1):
        if line.strip().startswith("{"):
            try:
                line = json.loads(line)["problem"]
            except (ValueError, KeyError) as error:
                raise UserError(
                    f'{a.file}, line {number}: not a JSON object with a "problem"'
                ) from error
            if not isinstance(line, str):
                raise UserError(f'{a.file}, line {number}: its "problem" is not a text')
        if line.strip():
            problems.append(line.strip())
    if not problems:
        raise UserError(f"{a.file} holds no problem")
    return problems


class Progress:
    """One line a step on standard error; on a terminal the line is rewritten."""

    def __init__(self, problems: int) -> None:
        self.problems, self.solved, self.tokens, self.now = (
            problems,
            0,
            0,
            0,
        )  # now: tokens of this batch
        self.began, self.live, self.open = (
            time.perf_counter(),
            sys.stderr.isatty(),
            False,
        )

    def __call__(self, step: Any) -> None:
        self.now = int(step.state.population.generated.sum())
        speed = (self.tokens + self.now) / (time.perf_counter() - self.began)
        label = (
            f"{self.solved} of {self.problems} problems done, "
            if self.problems > 1
            else ""
        )
        line = (
            f"{label}step {step.t}: {int(step.active.sum())} of {step.active.numel()} particles active, "
            f"ESS {step.ess.mean():.1f}, {self.tokens + self.now} tokens, {speed:.0f} tokens/s"
        )
        self.open = self.live
        print(
            f"\r\033[K{line}" if self.live else line,
            end="" if self.live else "\n",
            file=sys.stderr,
            flush=True,
        )

    def add(self, solved: int) -> None:
        """A batch is done, and with it so many problems."""
        self.solved, self.tokens = self.solved + solved, self.tokens + self.now
        self.close()

    def close(self) -> None:
        if self.open:
            print(file=sys.stderr)
        self.open = False


def run_solve(a: argparse.Namespace) -> None:
    problems = read_problems(a)
    if a.plot and a.plot.suffix.lower() not in (
        ".png",
        ".svg",
        ".pdf",
        ".jpg",
        ".jpeg",
    ):
        raise UserError(
            f"cannot draw {a.plot}: give a name that ends in .png, .svg or .pdf"
        )
    if a.plot and not a.plot.absolute().parent.is_dir():
        raise UserError(f"there is no folder {a.plot.parent} to draw in")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from . import LanguageModel, Proposal, RewardModel, solve
    from .plots import save_genealogy

    proposal = Proposal(
        temperature=a.temperature,
        step_tokens=a.step_tokens,
        max_step_tokens=a.max_step_tokens,
        max_tokens=a.max_tokens,
        max_steps=a.max_steps,
    )
    lm = LanguageModel.load(a.model, a.device)
    prm = RewardModel.load(a.prm, a.device, aggregation=a.aggregation)
    failures: dict[
        int, str
    ] = {}  # by the problem's number; the other problems are still solved
    for number, problem in enumerate(problems, 1):
        try:
            lm.prompt(problem, a.system), prm.prompt(problem)
        except UserError as error:
            failures[number] = str(error)
    readable = [
        number for number in range(1, len(problems) + 1) if number not in failures
    ]
    left, drawn = iter(readable), []
    progress = None if a.quiet else Progress(len(readable))

    def tell(solutions: list[Any]) -> None:
        if progress:
            progress.add(len(solutions))
        for found, number in zip(
            solutions, left
        ):  # in this order, or a number is lost where the batch ends
            if found.chosen is None:
                failures[number] = NONE_LEFT
                continue
            print(
                json.dumps(as_json(found, number), allow_nan=False)
                if a.json
                else as_text(found, number if len(problems) > 1 else None),
                flush=True,
            )
            if a.plot and not drawn:
                save_genealogy(found, a.plot)
                drawn.append(number)

    if readable:
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
                batch=a.batch,
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
    if failures:
        raise UserError(
            "\npfref: ".join(told(failures) if len(problems) > 1 else failures.values())
        )


def told(failures: dict[int, str]) -> list[str]:
    """One line a cause, with the numbers of its problems."""
    by_cause: dict[str, list[int]] = {}
    for number in sorted(failures):
        by_cause.setdefault(failures[number], []).append(number)
    lines = []
    for cause, numbers in by_cause.items():
        more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
        lines.append(
            f"problem{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers[:5]))}{more}: {cause}"
        )
    return lines


def as_json(found: Any, number: int) -> dict[str, Any]:
    """A reward of minus infinity, beyond the reward model's context, becomes null: JSON has no infinity."""
    particles = [
        asdict(p) | dict(reward=p.reward if math.isfinite(p.reward) else None)
        for p in found.particles
    ]
    return dict(
        number=number,
        problem=found.problem,
        answer=found.answer,
        solution=found.chosen.text,
        votes=found.votes,
        log_evidence=found.log_evidence,
        cost=asdict(found.cost),
        particles=particles,
    )


def as_text(found: Any, number: int | None) -> str:
    """For a person; among several problems with its number and text above it and a blank line below."""
    votes = (
        ", ".join(
            f"{answer} {share:.0%}" for answer, share in list(found.votes.items())[:5]
        )
        or "none"
    )
    cost = found.cost
    shared = f" for a batch of {cost.problems}" if cost.problems > 1 else ""
    return (
        (f"problem {number}: {found.problem}\n\n" if number else "")
        + f"{found.chosen.text.strip()}\n\nanswer        {found.answer}\nvote          {votes}\n"
        f"log evidence  {found.log_evidence:.2f}\ncost          {cost.prompt_tokens} prompt + {cost.generated_tokens} "
        f"generated tokens, {cost.scored_tokens} scored, {cost.seconds:.1f} s{shared}"
        + ("\n" if number else "")
    )


def run_problems(a: argparse.Namespace) -> None:
    from .minimath.problems import load_set

    for problem in [p for p in load_set("minimath500") if a.level in (None, p.level)][
        : max(0, a.n)
    ]:
        print(
            json.dumps(
                {
                    name: getattr(problem, name)
                    for name in ("problem", "level", "subject", "answer")
                }
            )
            if a.json
            else f"{problem.problem}\n    level {problem.level}, {problem.subject}, answer {problem.answer}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 bad input (one line says what and what to do), 130 interrupted, 141 nobody reads on."""
    a = parser().parse_args(arguments)
    try:
        a.run(a)
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
