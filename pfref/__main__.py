"""The command line: `python -m pfref` or `pfref`.

What takes time to import is imported by the commands, inside `main`'s try.
"""

import argparse
import json
import os
import sys
from functools import partial
from typing import Any

from .arguments import parser
from .errors import UserError
from .inputs import check_picture, check_place, read_problems
from .options import options_of
from .printing import Progress, as_json, as_text, told
from .settings import Settings

MODELS = ("model", "revision", "prm", "prm_revision", "prm_noise")


def run_solve(a: argparse.Namespace) -> None:
    if (a.problem is None) == (a.file is None):
        raise UserError("give one problem in quotes, or --file with many")
    problems = [a.problem] if a.file is None else read_problems(a.file)
    settings = options_of(a)
    check_files(a, settings)
    from .pair import load_models, unreadable

    lm, prm = load_models(vars(a))
    # By the problem's number; others are still solved.
    failures = {
        k + 1: reason for k, reason in unreadable(lm, prm, problems, a.system).items()
    }
    solve_readable(a, problems, settings, lm, prm, failures)
    if failures:
        lines = told(failures) if len(problems) > 1 else failures.values()
        raise UserError("\npfref: ".join(lines))


def check_files(a: argparse.Namespace, settings: Settings) -> None:
    """Can the picture and the page be written? Said now, not after the run."""
    if a.plot:
        check_picture(a.plot)
    if a.html:
        check_place(a.html)
    if a.html and settings.method == "adaptive":
        raise UserError(
            "--html shows one run, and adaptive takes its samples in several; leave it "
            "out, or choose another --method"
        )


def solve_readable(
    a: argparse.Namespace,
    problems: list[str],
    settings: Settings,
    lm: Any,
    prm: Any,
    failures: dict[int, str],
) -> None:
    """Solve what has not failed yet and print it, batch by batch; add to `failures`."""
    from .client import in_flight
    from .history import Recorder
    from .plots import save_genealogy
    from .solver import NONE_LEFT, solve
    from .viewer import page, save

    readable = [k for k in range(1, len(problems) + 1) if k not in failures]
    if not readable:
        return
    left = iter(readable)
    drawn: list[int] = []
    sent = partial(in_flight, lm, prm)
    progress = None if a.quiet else Progress(len(readable), sent)
    recorder = Recorder() if a.html else None
    named = vars(a) | {"prm": a.prm or "minimath-prm"}
    models = {name: named[name] for name in MODELS if named[name] is not None}

    def watch(step: Any) -> None:
        if progress:
            progress(step)
        if recorder and not drawn:
            recorder(step)

    def tell(solutions: list[Any]) -> None:
        if progress:
            progress.add(len(solutions))
        histories = recorder.histories(solutions) if recorder and not drawn else []
        for place, found in enumerate(solutions):
            number = next(left)
            if found.chosen is None:
                failures[number] = NONE_LEFT
                continue
            several = number if len(problems) > 1 else None
            line = as_json(found, number) if a.json else as_text(found, several)
            print(line, flush=True)
            if drawn:
                continue
            drawn.append(number)
            if a.plot:
                save_genealogy(found, a.plot)
            if a.html:
                save(a.html, page(histories[place], found, settings, models))

    try:
        solve(
            [problems[number - 1] for number in readable],
            lm,
            prm,
            watch=watch,
            done=tell,
            **vars(settings),
        )
    finally:
        if progress:
            progress.close()
    for file in (a.plot, a.html):
        if file and drawn not in ([], [1]):
            print(
                f"pfref: {file} shows problem {drawn[0]}, the first that was solved",
                file=sys.stderr,
            )


def run_problems(a: argparse.Namespace) -> None:
    from .study.tasks import load_items

    chosen = [p for p in load_items("minimath500") if a.level in (None, p.level)]
    for problem in chosen[: max(0, a.n)]:
        if a.json:
            names = ("problem", "level", "subject", "answer")
            print(json.dumps({name: getattr(problem, name) for name in names}))
        else:
            print(
                f"{problem.problem}\n    level {problem.level}, {problem.subject}, "
                f"answer {problem.answer}"
            )


def run_study(a: argparse.Namespace) -> None:
    from .study.commands import COMMANDS

    COMMANDS[a.command](a)


COMMANDS = {"solve": run_solve, "problems": run_problems}


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 bad input (one line says what and what to do), 130
    interrupted, 141 nobody reads on.
    """
    try:
        a = parser().parse_args(arguments)
        COMMANDS.get(a.command, run_study)(a)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        print(f"pfref: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a disk that is full, a name that is too long
        named = f"{error.filename}: " if error.filename else ""
        print(f"pfref: {named}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\npfref: stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
