"""Solutions as pupils write them, for the small model to learn from: each step may hold
a slip.

A slip is one of the known bugs of school arithmetic (Brown and Burton 1978), such as a
forgotten carry. It can happen only where there is something to forget, and then happens
at the level's rate. The pupil goes on from the wrong value. So the small model's
mistakes are local: most beginnings can still be finished well, and a wrong step looks
likely.
"""

import random

from .programs import Program, apply, value_of

SLIP_RATE = {
    1: 0.66,
    2: 0.6,
    3: 0.5,
    4: 0.42,
    5: 0.33,
    6: 0.28,
}  # those who solve longer problems are more careful


def digits(number: int, places: int) -> list[int]:
    """The lowest digit first."""
    return [number // 10**k % 10 for k in range(places)]


def without_carry(columns: list[int]) -> int:
    """Columns written down one by one: of each but the highest only the last digit."""
    return sum(
        (c if k == len(columns) - 1 else c % 10) * 10**k for k, c in enumerate(columns)
    )


def slip(symbol: str, left: int, right: int) -> int:
    """What a pupil with this operation's bug writes; the right result where the bug
    makes no difference.
    """
    places = len(str(max(left, right)))
    columns = list(zip(digits(left, places), digits(right, places), strict=True))
    if symbol == "+":  # the carry is forgotten
        return without_carry([a + b for a, b in columns])
    if symbol == "-":  # in each column the smaller digit from the larger
        return without_carry([abs(a - b) for a, b in columns])
    if symbol == "*":  # the carry is forgotten
        return without_carry(
            [min(left, right) * a for a in digits(max(left, right), places)]
        )
    result = apply(symbol, left, right)
    if symbol == "/":  # the quotient is estimated one too small
        return max(result - 1, min(result, 1))
    return (
        right - result if result > 0 and right < left else result
    )  # the multiple just above is taken, not the one below


def pupils_results(rng: random.Random, program: Program, level: int) -> list[int]:
    """The result of every operation, slips and all."""
    results: list[int] = []
    for symbol, *operands in program:
        left, right = (value_of(operand, results) for operand in operands)
        work = slip if rng.random() < SLIP_RATE[level] else apply
        results.append(max(0, work(symbol, left, right)))
    return results
