"""MiniMath's seven subjects: programs told in words or symbols.

Each subject returns the text and the program, or None when a number grew too large.
"""

import random
from collections.abc import Callable

from .programs import Operand, Program, apply, evaluate

LARGEST = 999

Draft = tuple[str, Program]
WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


def chain(rng: random.Random, operations: int, start: int) -> tuple[Program, list[int]]:
    """Apply a random operation to the running value, over and over, within 0 and
    LARGEST.
    """
    program: Program = []
    value, values = start, [start]
    for k in range(operations):
        choices = ["+", "+", "-", "-"] + (
            ["*", "*"] if value <= 111 and value > 0 else []
        )
        symbol = rng.choice(choices)
        if symbol == "*":
            number = rng.randint(2, min(9, LARGEST // value))
        elif symbol == "-":
            if value < 2:
                symbol, number = "+", rng.randint(2, 99)
            else:
                number = rng.randint(1, min(99, value))
        else:
            number = rng.randint(2, 99)
        program.append((symbol, value if k == 0 else f"r{k - 1}", number))
        value = apply(symbol, value, number)
        values.append(value)
    return program, values


def arithmetic(rng: random.Random, operations: int) -> Draft:
    program, values = chain(rng, operations, rng.randint(2, 60))
    text = str(values[0])
    for k, (symbol, _, number) in enumerate(program):
        text = f"{text}{symbol}{number}" if k == 0 else f"({text}){symbol}{number}"
    return f"Compute {text}.", program


def algebra(rng: random.Random, operations: int) -> Draft:
    forward, values = chain(rng, operations, rng.randint(2, 60))
    text = "x"
    for k, (symbol, _, number) in enumerate(forward):
        text = f"{text}{symbol}{number}" if k == 0 else f"({text}){symbol}{number}"
    inverse = {"+": "-", "-": "+", "*": "/"}
    program: Program = []
    for k, (symbol, _, number) in enumerate(reversed(forward)):
        program.append((inverse[symbol], values[-1] if k == 0 else f"r{k - 1}", number))
    return f"Find x if {text}={values[-1]}.", program


def number_theory(rng: random.Random, operations: int) -> Draft:
    modulus = rng.randint(7, 29)
    value = (
        rng.randint(modulus + 1, 99) if operations % 2 else rng.randint(2, modulus - 1)
    )
    program: Program = []
    text = f"Work modulo {modulus}. Start with {value}"
    if operations % 2:
        program.append(("mod", value, modulus))
    while len(program) < operations:
        symbol = rng.choice("+*")
        number = rng.randint(2, 9) if symbol == "*" else rng.randint(2, 60)
        program.append((symbol, f"r{len(program) - 1}" if program else value, number))
        program.append(("mod", f"r{len(program) - 1}", modulus))
        text += f", {WORDS[symbol]} {number}"
    return text + ". What remains?", program


NAMES = ("Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
THINGS = ("apples", "coins", "cards", "shells", "stamps", "beads", "books", "pens")


def word_problems(rng: random.Random, operations: int) -> Draft | None:
    name, other = rng.sample(NAMES, 2)
    thing = rng.choice(THINGS)
    value = rng.randint(5, 99)
    text = [f"{name} has {value} {thing}."]
    program: Program = []

    def follow(symbol: str, right: Operand) -> None:
        program.append((symbol, previous if previous is not None else start, right))

    start, previous = value, None
    while len(program) < operations:
        current = evaluate(program)[int(previous[1:])] if previous else start
        number, bags = rng.randint(2, 99), rng.randint(2, 9)
        each = rng.randint(2, 30)
        kinds = ["buy", "give", "find"]
        if operations - len(program) >= 2:
            kinds += ["bags", "bags", "sell"]
        if current <= 111:
            kinds.append("times")
        kind = rng.choice(kinds)
        if kind == "buy":
            text.append(f"{name} buys {number} more.")
            follow("+", number)
        elif kind == "find":
            text.append(f"{other} brings {number} {thing}.")
            follow("+", number)
        elif kind == "give":
            number = rng.randint(1, min(99, max(current, 1)))
            text.append(f"{name} gives {number} to {other}.")
            follow("-", number)
        elif kind == "times":
            text.append(f"Then a friend makes it {bags} times as many.")
            follow("*", bags)
        else:
            text.append(
                f"{name} buys {bags} bags of {each} {thing}."
                if kind == "bags"
                else f"{name} sells {bags} boxes of {each} {thing}."
            )
            program.append(("*", bags, each))
            follow("+" if kind == "bags" else "-", f"r{len(program) - 1}")
        previous = f"r{len(program) - 1}"
    return " ".join(text) + f" How many {thing} does {name} have now?", program


def sequences(rng: random.Random, operations: int) -> Draft:
    if rng.random() < 0.4:
        first, second = rng.randint(1, 12), rng.randint(1, 20)
        program: Program = []
        for k in range(operations):
            left = first if k == 0 else second if k == 1 else f"r{k - 2}"
            program.append(("+", left, second if k == 0 else f"r{k - 1}"))
        return (
            f"A sequence begins {first}, {second}. Each term is the sum of the two "
            f"before it. "
            f"What is term {operations + 2}?"
        ), program
    start, factor = rng.randint(2, 40), rng.randint(2, 3)
    symbol, number = rng.choice("+-"), rng.randint(2, 50)
    program = []
    for k in range(operations):
        left = start if k == 0 else f"r{k - 1}"
        program.append(("*", left, factor) if k % 2 == 0 else (symbol, left, number))
    change = "add" if symbol == "+" else "subtract"
    return (
        f"Start with {start}. In turn, multiply by {factor} and {change} {number}. "
        f"What is the number after {operations} operations?"
    ), program


def sum_of_products(
    rng: random.Random, operations: int, signs: str
) -> tuple[list[tuple[str, int, int]], Program]:
    """Pairs to multiply and then add or subtract in order; a lone number where the
    count is even.
    """
    terms: list[tuple[str, int, int]] = [("+", rng.randint(4, 30), rng.randint(2, 9))]
    program: Program = [("*", terms[0][1], terms[0][2])]
    total = "r0"
    while len(program) < operations:
        sign = rng.choice(signs)
        if operations - len(program) == 1:
            terms.append((sign, rng.randint(2, 60), 1))
            program.append((sign, total, terms[-1][1]))
        else:
            terms.append((sign, rng.randint(2, 20), rng.randint(2, 9)))
            program.append(("*", terms[-1][1], terms[-1][2]))
            program.append((sign, total, f"r{len(program) - 1}"))
        total = f"r{len(program) - 1}"
    return terms, program


DISHES = ("soups", "salads", "teas", "cakes", "pies", "juices")


def counting(rng: random.Random, operations: int) -> Draft:
    terms, program = sum_of_products(rng, operations, "+")
    dishes = rng.sample(DISHES, len(terms))
    parts = [
        f"{a} {dish} in {b} sizes" if b > 1 else f"{a} {dish} in one size"
        for dish, (_, a, b) in zip(dishes, terms, strict=True)
    ]
    return f"A menu has {', '.join(parts)}. How many choices are there?", program


def geometry(rng: random.Random, operations: int) -> Draft:
    terms, program = sum_of_products(rng, operations, "+-")
    text = f"A wall is {terms[0][1]} by {terms[0][2]}."
    for sign, a, b in terms[1:]:
        size = f"{a} by {b}" if b > 1 else f"of area {a}"
        text += (
            f" A part {size} is added." if sign == "+" else f" A hole {size} is cut."
        )
    return text + " What area is left?", program


SUBJECTS: dict[str, Callable[[random.Random, int], Draft | None]] = {
    "Arithmetic": arithmetic,
    "Algebra": algebra,
    "Number Theory": number_theory,
    "Word Problems": word_problems,
    "Sequences": sequences,
    "Counting": counting,
    "Geometry": geometry,
}
