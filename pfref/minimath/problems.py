"""MiniMath: word and symbol problems in seven subjects and five levels.

A problem is a straight-line program of binary operations told in words or symbols.
Its solution writes one operation a step, so there is exactly one right next step,
and every step of a candidate solution can be checked against the reference.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from .programs import Program, evaluate, write_steps
from .subjects import LARGEST, SUBJECTS

DELIMITER = "\n\n"
LEVELS = (1, 2, 3, 4, 5)
OPERATIONS_AT_LEVEL = {1: 2, 2: 4, 3: 5, 4: 6, 5: 8, 6: 10}  # 6 is MiniAIME's


@dataclass(frozen=True)
class Problem:
    id: str
    subject: str
    level: int
    problem: str  # the text a model reads
    steps: list[str]  # the reference solution, one operation a step
    answer: str

    @property
    def solution(self) -> str:
        return DELIMITER.join(self.steps)


def check_steps(problem: Problem, steps: list[str]) -> list[bool]:
    """For every step of a candidate: are this step and all before it right?"""
    right, verdicts = True, []
    for k, step in enumerate(steps):
        right = right and k < len(problem.steps) and step.strip() == problem.steps[k]
        verdicts.append(right)
    return verdicts


def draw(
    rng: random.Random, level: int, subject: str | None = None
) -> tuple[str, str, Program]:
    """A random problem as (subject, text, program), every value within 0 and 999."""
    subject = subject or rng.choice(list(SUBJECTS))
    while True:
        draft = SUBJECTS[subject](rng, OPERATIONS_AT_LEVEL[level])
        if draft is None:
            continue
        text, program = draft
        if all(0 <= value <= LARGEST for value in evaluate(program)):
            return subject, text, program


# The shipped sets: how many problems, their levels, and the seed that they are made by.
SETS = {"minimath500": (500, LEVELS, 500), "miniaime": (30, (6,), 2024)}


def make_set(
    name: str, count: int, levels: tuple[int, ...], seed: int
) -> list[Problem]:
    """`count` different problems, the levels and subjects in turn."""
    rng, subjects = random.Random(seed), list(SUBJECTS)
    problems: dict[str, Problem] = {}
    while len(problems) < count:
        k = len(problems)
        level = levels[k % len(levels)]
        subject, text, program = draw(
            rng, level, subjects[(k // len(levels)) % len(subjects)]
        )
        steps = write_steps(program, evaluate(program))
        answer = str(evaluate(program)[-1])
        problems.setdefault(
            text, Problem(f"{name}/{k:03d}", subject, level, text, steps, answer)
        )
    return list(problems.values())


def load_set(name: str) -> list[Problem]:
    """A shipped set by name, one of SETS, read from the file that it was written to."""
    lines = (Path(__file__).parent / f"{name}.jsonl").read_text().splitlines()
    return [Problem(**json.loads(line)) for line in lines]
