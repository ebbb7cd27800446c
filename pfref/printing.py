"""What the command line prints: progress, solutions and failures."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple


class Progress:
    """One line a step on standard error; on a terminal the line is rewritten.

    more  says what else stands at the line's end, if anything
    """

    def __init__(self, problems: int, more: Callable[[], str] = str) -> None:
        self.problems, self.solved, self.more = problems, 0, more
        self.tokens, self.now = 0, 0  # now: tokens of this batch
        self.began, self.live = time.perf_counter(), sys.stderr.isatty()
        self.open = False

    def __call__(self, step: Any) -> None:
        """One step of the filter is done."""
        written = int(step.state.paths.generated.sum())
        if written < self.now:  # the method's next run on this batch
            self.tokens += self.now
        self.now = written
        tokens = self.tokens + self.now
        speed = tokens / (time.perf_counter() - self.began)
        several = self.problems > 1
        label = f"{self.solved} of {self.problems} problems done, " if several else ""
        line = (
            f"{label}step {step.t}: {int(step.active.sum())} of {step.active.numel()} "
            f"particles active, ESS {step.ess.mean():.1f}, {tokens} tokens, "
            f"{speed:.0f} tokens/s"
        )
        line += f", {more}" if (more := self.more()) else ""
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
        self.now = 0
        self.close()

    def close(self) -> None:
        if self.open:
            print(file=sys.stderr)
        self.open = False


def watching(progress: Any, pair: Any) -> Callable[[Any], None] | None:
    """Shows beside the bar how many requests are in flight, less often than steps come;
    None if nothing is served.
    """
    from .client import in_flight

    if progress.disable or not in_flight(*pair):
        return None
    shown = time.monotonic()

    def watch(step: Any) -> None:
        nonlocal shown
        progress.set_postfix_str(in_flight(*pair), refresh=False)
        if time.monotonic() - shown >= progress.mininterval:
            shown = time.monotonic()
            progress.refresh()

    return watch


def bar(particles: int, quiet: bool) -> Any:
    """A progress bar over particles: they are what takes time. TQDM_DISABLE=1 turns it
    off too.
    """
    from tqdm import tqdm

    hidden = dict(disable=True) if quiet else {}
    return tqdm(total=particles, unit=" particles", smoothing=0.05, **hidden)


def told(failures: Mapping[Any, str]) -> list[str]:
    """One line a cause, with the numbers or ids of its problems."""
    by_cause: dict[str, list[Any]] = {}
    for number in sorted(failures):
        by_cause.setdefault(failures[number], []).append(number)
    lines = []
    for cause, numbers in by_cause.items():
        more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
        listed = ", ".join(map(str, numbers[:5]))
        lines.append(
            f"problem{'s' if len(numbers) > 1 else ''} {listed}{more}: {cause}"
        )
    return lines


class Failure(NamedTuple):
    """A method of a study could not read a problem."""

    id: str
    reason: str
    method: str


def unread(failures: Iterable[Failure]) -> list[str]:
    """One line a cause, with the problems' ids and the methods."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    for id, reason, method in failures:
        found.setdefault(id, {}).setdefault(reason, {})[method] = None
    return told(
        {
            id: "; ".join(f"{why} ({', '.join(who)})" for why, who in own.items())
            for id, own in found.items()
        }
    )


def as_json(found: Any, number: int) -> str:
    """One line. What is not finite, such as the reward of a text beyond the reward
    model's context, becomes null: JSON has no infinity.
    """

    def finite(x: float | None) -> float | None:
        return x if x is not None and math.isfinite(x) else None

    particles = [
        asdict(p) | dict(reward=finite(p.reward), confidence=finite(p.confidence))
        for p in found.particles
    ]
    record = dict(
        number=number,
        problem=found.problem,
        answer=found.answer,
        solution=found.chosen.text,
        votes=found.votes,
        log_evidence=finite(found.log_evidence),
        cost=asdict(found.cost),
        particles=particles,
    )
    return json.dumps(record, allow_nan=False)


def as_text(found: Any, number: int | None) -> str:
    """For a person; among several problems with its number and text above it and a
    blank line below.
    """
    shares = [
        f"{answer or 'no answer'} {share:.0%}" for answer, share in found.votes.items()
    ]
    cost = found.cost
    shared = f" for a batch of {cost.problems}" if cost.problems > 1 else ""
    evidence = found.log_evidence
    lines = [
        f"{found.chosen.text.strip()}\n",
        f"answer        {found.answer}",
        f"vote          {', '.join(shares[:5]) or 'none'}",
        *([] if evidence is None else [f"log evidence  {evidence:.2f}"]),
        f"cost          {cost.prompt_tokens} prompt + {cost.generated_tokens} "
        f"generated tokens, {cost.scored_tokens} scored, {cost.seconds:.1f} s{shared}",
    ]
    if number:
        lines = [f"problem {number}: {found.problem}\n", *lines, ""]
    return "\n".join(lines)
