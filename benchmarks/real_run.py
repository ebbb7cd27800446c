"""One problem, solved by a real language model while one watches: the page
book/_static/run-real.html and the record book/results/real_run.json of chapter 20.

    hf download Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF --local-dir . \\
        qwen2.5-coder-0.5b-instruct-q4_k_m.gguf
    python -m benchmarks.real_run qwen2.5-coder-0.5b-instruct-q4_k_m.gguf

It gives the command line its arguments, and keeps the run's history on its way to the
page. The problem was written for this book and picked: of two that were run it is the
one with right and wrong particles.
"""

import argparse
import math
import shlex
from pathlib import Path
from typing import Any

from pfref import viewer
from pfref.__main__ import main as command_line
from pfref.history import History
from pfref.records import write_record
from pfref.study.tasks import TASKS

PAGE, RECORD = Path("book/_static/run-real.html"), Path("book/results/real_run.json")
PROBLEM = (
    "A baker fills 6 trays with 8 rolls each. In the morning she sells three quarters "
    "of the rolls, and in the afternoon half of those that are left. How many rolls "
    "are left in the evening?"
)
RIGHT = "6"


def arguments(model: str) -> list[str]:
    """Of `pfref`: chapter 20's policy, prompt and limits, and its probe."""
    options = (
        f"--prm qwen2.5-coder-0.5b-probe --dtype bfloat16 -n 8 --seed 0 --html {PAGE}"
    )
    limits = "--max-tokens 512 --max-step-tokens 512 --quiet"
    asked = ["--system", str(TASKS["gsm8k"].system)]
    return [
        "solve",
        PROBLEM,
        "--model",
        model,
        *options.split(),
        *limits.split(),
        *asked,
    ]


def told(history: History, solution: Any) -> dict[str, Any]:
    """The history as plain numbers and texts, by step; places count from 0."""
    steps = []
    for t, moment in enumerate(history.moments):
        steps.append(
            dict(
                texts=history.added(t),
                parents=list(history.parents(t)),
                rewards=[r and round(r, 4) for r in moment.rewards],
                weights=[round(w, 4) for w in moment.weights],
                states=[history.state(t, n) for n in range(history.particles)],
                ess=round(moment.ess, 3),
                resampled=moment.resampled,
            )
        )
    evidence = solution.log_evidence
    return dict(
        problem=solution.problem,
        right=RIGHT,
        answer=solution.answer,
        answers=[particle.answer for particle in solution.particles],
        chosen=history.chosen,
        votes={str(answer): share for answer, share in solution.votes.items()},
        log_evidence=evidence if evidence and math.isfinite(evidence) else None,
        seconds=round(solution.cost.seconds, 1),
        steps=steps,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("model", help="the file, by the name that the hub gives it")
    given = arguments(parser.parse_args().model)
    kept: list[dict[str, Any]] = []
    write = viewer.page

    def page(history: History, solution: Any, *more: Any) -> str:
        kept.append(told(history, solution))
        return write(history, solution, *more)

    viewer.page = page  # type: ignore[assignment]
    if code := command_line(given):
        raise SystemExit(code)
    write_record(RECORD, "pfref " + shlex.join(given), kept[0])


if __name__ == "__main__":
    main()
