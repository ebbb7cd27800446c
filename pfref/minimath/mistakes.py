"""Partial solutions with a verdict on every step: what the reward model learns from.

Half are reference programs with a mistake put in, cheap and of every kind; half are
samples of the language model that is to be judged. Each stands beside its reference,
which has exactly one right next step: a step, and likewise a token, is right if it and
all before it are the reference's. Once wrong, wrong to the end.
"""

import random
from collections.abc import Sequence

from torch import Generator

from ..lm import LanguageModel, Proposal
from ..randomness import generators
from .problems import (
    DELIMITER,
    LEVELS,
    Problem,
    draw,
)
from .programs import (
    Operation,
    Program,
    apply,
    evaluate,
    value_of,
    write_step,
    write_steps,
)
from .pupils import slip

Example = tuple[
    str, list[str], list[str]
]  # problem, steps of a candidate, steps of the reference


def unseen_problem(rng: random.Random, held_out: set[str]) -> tuple[Problem, Program]:
    """A random problem that is in no fixed set."""
    while True:
        subject, text, program = draw(rng, level := rng.choice(LEVELS))
        if text not in held_out:
            results = evaluate(program)
            return Problem(
                "",
                subject,
                level,
                text,
                write_steps(program, results),
                str(results[-1]),
            ), program


def wrong_result(rng: random.Random, symbol: str, left: int, number: int) -> int:
    """A pupil's slip, or a result near the right one: off by a little, or one digit
    changed.
    """
    right, slipped = apply(symbol, left, number), slip(symbol, left, number)
    kind = rng.random()
    if kind < 0.5 and slipped != right:
        return slipped
    if kind < 0.75:
        wrong = right + rng.choice([-20, -10, -10, -2, -1, -1, 1, 1, 2, 10, 10, 20])
    else:
        digits = list(str(right))
        digits[rng.randrange(len(digits))] = rng.choice("0123456789")
        wrong = int("".join(digits))
    return wrong if wrong != right and wrong >= 0 else right + 1


def wrong_operation(
    rng: random.Random, operation: Operation, results: list[int], numbers: list[int]
) -> tuple[str, int, int]:
    """Another operator, or another number from the problem or from the steps before."""
    symbol, left, right = (
        operation[0],
        value_of(operation[1], results),
        value_of(operation[2], results),
    )
    kind = rng.random()
    if kind < 0.4:
        return rng.choice([s for s in "+-*" if s != symbol]), left, right
    other = rng.choice(numbers + results)
    return (symbol, other, right) if kind < 0.6 else (symbol, left, other)


def corrupted(rng: random.Random, problem: Problem, program: Program) -> Example:
    """The reference with one mistake, after which the program goes on from the wrong
    value; sometimes none.
    """
    numbers = [
        operand
        for _, *operands in program
        for operand in operands
        if isinstance(operand, int)
    ]
    results: list[int] = []
    steps: list[str] = []
    place = rng.randrange(len(program)) if rng.random() < 0.85 else len(program)
    kind = rng.choices(["result", "operation", "skip"], [0.6, 0.3, 0.1])[0]
    for k, operation in enumerate(program):
        last = k == len(program) - 1
        symbol, left, right = (
            operation[0],
            value_of(operation[1], results),
            value_of(operation[2], results),
        )
        if k == place and kind == "operation":
            symbol, left, right = wrong_operation(rng, operation, results, numbers)
        result = apply(symbol, left, right)
        if k == place and kind == "result":
            result = wrong_result(rng, symbol, left, right)
        result = max(0, result)
        results.append(result)
        if k == place and kind == "skip" and not last:
            continue
        steps.append(write_step(symbol, left, right, result, last))
    return problem.problem, steps, problem.steps


def sampled(
    lm: LanguageModel,
    count: int,
    seed: int,
    held_out: set[str],
    per_problem: int = 4,
    batch: int = 32,
) -> list[Example]:
    """Samples of the language model on random problems."""
    rng = random.Random(f"samples {seed}")
    examples: list[Example] = []
    while len(examples) < count:
        problems = [unseen_problem(rng, held_out)[0] for _ in range(batch)]
        proposal = Proposal(
            temperature=rng.choice([0.6, 0.8, 1.0]), delimiter="<|end|>", max_tokens=200
        )
        seeds = generators(seed * 1_000_000 + len(examples), batch)
        texts = whole_samples(lm, problems, per_problem, proposal, seeds)
        for row, text in enumerate(texts):
            problem = problems[row // per_problem]
            examples.append((problem.problem, text.split(DELIMITER), problem.steps))
    return examples


def whole_samples(
    lm: LanguageModel,
    problems: Sequence[Problem],
    samples: int,
    proposal: Proposal,
    sources: Sequence[Generator],
) -> list[str]:
    """So many solutions of each problem as the language model writes them: row
    p * samples + n is sample n of problem p.
    """
    prompts = [lm.prompt(problem.problem) for problem in problems]
    paths = lm.start(prompts, samples, proposal)
    while (active := ~(paths.ended | paths.truncated)).any():
        lm.extend(paths, active, sources)
    return [paths.text(row) for row in range(paths.rows)]
