"""Is an answer the gold answer? Normal forms first, and math-verify where these differ.

The rules, of which each has its rows in the tests. In doubt an answer is wrong.

- Plain numbers are compared exactly: 1/2 is 0.5, 1/3 is not 0.333, 20001 not 20000.
  Elsewhere a decimal fraction must agree to 12 decimals with an exact value.
- Units count only if both sides name one: as in MATH, 15 is 15 cm^2, and 90 is 90
  degrees. So is a per cent sign: 50 is 50%, but 0.5 is not.
- A name is not part of the value: x = 3 is 3, unless both have one and these differ.
- Lists and sets have no order, tuples have one, and an interval's brackets count. A
  tuple without its brackets may be a list in the same order.
- Words are compared as words, capitals aside; R and r are two variables. Numbers in
  another base must be written alike.
"""

import re
import time
from fractions import Fraction
from functools import lru_cache
from importlib import metadata

from ..prompts import tell_once
from .spelling import cleaned, key, number, quantity, same_unit
from .structure import Sequence, chain, exact_side, matrix, named, sequence, unions
from .verifier import installed, verifier

LONGEST = 1000  # characters; a longer answer is the gold answer letter by letter or not
DEEPEST = 6  # lists within lists
ENOUGH = 40.0  # seconds after which a comparison of many parts is given up
CACHED = 1 << 16  # verdicts


class GivenUp(Exception):
    """No verdict within the limits, which makes the answer wrong."""


@lru_cache(CACHED)
def same(gold: str, answer: str) -> bool:
    """Is `answer` the gold answer? Not symmetric: the gold answer's form decides.

    Both are what a box holds, in LaTeX without delimiters or in plain text. Never
    raises, and takes no longer than its limits of time; safe in threads, and in
    processes, each of which has a worker of its own.
    """
    if (verdict := at_sight(gold, answer)) is not None:
        return verdict
    try:
        return Comparison().alike(cleaned(gold), cleaned(answer), DEEPEST)
    except (GivenUp, RecursionError):
        return False


def same_number(gold: str, answer: str) -> bool:
    """For tasks whose answers are plain numbers, as `same` without math-verify."""
    if (verdict := at_sight(gold, answer)) is not None:
        return verdict
    value = plain(gold)
    return value is not None and value == plain(answer)


def at_sight(gold: str, answer: str) -> bool | None:
    """The verdict on what is equal letter by letter, or too long; None for others."""
    if gold.strip() == answer.strip():
        return bool(gold.strip())
    return False if max(len(gold), len(answer)) > LONGEST else None


@lru_cache(CACHED)
def plain(text: str) -> Fraction | None:
    """The plain number that an answer is."""
    return number(quantity(cleaned(text)).value)


def grader_version() -> str:
    """What decides in `same`."""
    if not installed():
        return "normal forms, without math-verify"
    names = ("math-verify", "latex2sympy2_extended", "sympy")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


class Comparison:
    """One comparison of a gold answer with an answer, both cleaned."""

    def __init__(self) -> None:
        self.until = time.monotonic() + ENOUGH

    def alike(self, gold: str, answer: str, depth: int) -> bool:
        """By their structure as far as there is one, then by their value."""
        if key(gold) == key(answer):
            return True
        if not gold or not answer or depth == 0:
            return False
        gold, answer = exact_side(gold), exact_side(answer)
        pairs = [named(gold), named(answer)]
        if all(name for name, _ in pairs) and pairs[0][0] != pairs[1][0]:
            # x = 1 and y = 1 differ; y = 2x and x = y/2 do not.
            if any(number(value) is not None for _, value in pairs):
                return False
            return self.verified(gold, answer)
        if any(name for name, _ in pairs):
            if self.alike(pairs[0][1], pairs[1][1], depth - 1):
                return True
            whole = all("=" in text for text in (gold, answer))
            return whole and self.verified(gold, answer)
        sides = chain(gold), chain(answer)
        if len(sides[0]) > 1:
            return any(self.alike(side, answer, depth - 1) for side in sides[0])
        if len(sides[1]) > 1:
            return all(self.alike(gold, side, depth - 1) for side in sides[1])
        return self.structures(gold, answer, depth)

    def structures(self, gold: str, answer: str, depth: int) -> bool:
        tables = matrix(gold), matrix(answer)
        if tables[0] or tables[1]:
            return bool(tables[0] and tables[1]) and self.tables(*tables, depth)
        several = unions(gold), unions(answer)
        if all(len(parts) > 1 for parts in several):
            return self.unordered(*several, depth)
        if any(len(parts) > 1 for parts in several):
            return self.verified(gold, answer)
        lists = sequence(gold), sequence(answer)
        if any(found.several for found in lists):
            return self.sequences(*lists, gold, answer, depth)
        return self.values(lists[0].parts[0], lists[1].parts[0])

    def tables(self, gold, answer, depth: int) -> bool:
        """Matrices of the same kind, cell by cell."""
        shapes = [(kind, [len(row) for row in rows]) for kind, rows in (gold, answer)]
        return shapes[0] == shapes[1] and all(
            self.alike(a, b, depth - 1)
            for left, right in zip(gold[1], answer[1], strict=True)
            for a, b in zip(left, right, strict=True)
        )

    def sequences(
        self, one: Sequence, other: Sequence, gold: str, answer: str, depth: int
    ) -> bool:
        if not (one.several and other.several):
            # An interval and an inequality may be one set; 1, 2 and 3 are no number.
            relation = re.search(
                r"[<>]|\\(?:leq|geq|neq|in|mathbb)(?![A-Za-z])", "".join((gold, answer))
            )
            return bool(relation) and self.verified(gold, answer)
        if not one.ordered and not other.ordered:
            return self.unordered(one.parts, other.parts, depth)
        if one.brackets != other.brackets and {one.brackets, other.brackets} != {
            "()",
            "",
        }:
            return False
        return len(one.parts) == len(other.parts) and all(
            self.alike(a, b, depth - 1)
            for a, b in zip(one.parts, other.parts, strict=True)
        )

    def unordered(self, gold: list[str], answer: list[str], depth: int) -> bool:
        """The same parts, each as often, in any order."""
        left = list(answer)
        if len(gold) != len(left):
            return False
        for part in sorted(gold, key=lambda part: number(part) is None):
            match = next((b for b in left if self.alike(part, b, depth - 1)), None)
            if match is None:
                return False
            left.remove(match)
        return True

    def values(self, gold: str, answer: str) -> bool:
        """Numbers, words, numbers of another base, and expressions."""
        one, other = quantity(gold), quantity(answer)
        if not same_unit(one.unit, other.unit):
            return False
        if key(one.value) == key(other.value):
            return bool(one.value)
        exact = number(one.value), number(other.value)
        if None not in exact:
            return exact[0] == exact[1]
        spoken = word(one.value), word(other.value)
        if any(spoken):
            plain = [
                said or plain_word(q.value)
                for said, q in zip(spoken, (one, other), strict=True)
            ]
            return bool(plain[0]) and plain[0] == plain[1]
        left = [r"\text" in q.value for q in (one, other)]
        if left[0] != left[1] and any(value is not None for value in exact):
            return False  # 3 and 3 dozen; math-verify leaves texts out
        if any(BASE.fullmatch(key(q.value)) or ":" in q.value for q in (one, other)):
            return False
        return self.verified(one.value, other.value)

    def verified(self, gold: str, answer: str) -> bool:
        """By math-verify. Raises GivenUp at the limits.

        It reads R and r as one variable, and leaves primes out.
        """
        names = letters(gold), letters(answer)
        if names[0] != names[1] and fold(names[0]) == fold(names[1]):
            return False
        if not installed():
            tell_once(
                "math-verify is not installed, so answers are compared by their normal "
                "forms only: pip install math-verify"
            )
            return False
        if time.monotonic() > self.until:
            raise GivenUp
        verdict = verifier.verify(in_radians(gold), in_radians(answer))
        if verdict is None:
            raise GivenUp
        return verdict


BASE = re.compile(r"-?[0-9A-F.]+_\{?[0-9]+\}?")  # 52_8
WORD = re.compile(r"\\text\s*\{([^{}]*)\}|([A-Za-z][a-z]{3,}(?: [A-Za-z]+)*)")


def word(value: str) -> str:
    """The text of \\text{...}, or of a word of four letters or more; else nothing.

    Shorter ones may be products of variables.
    """
    found = WORD.fullmatch(value)
    if not found:
        return ""
    return normal_word(found[1] if found[1] is not None else found[2])


def plain_word(value: str) -> str:
    return (
        normal_word(value) if re.fullmatch(r"\(?[A-Za-z][A-Za-z .]*\)?", value) else ""
    )


def normal_word(text: str) -> str:
    return " ".join(text.casefold().strip(" .()").split())


def letters(text: str) -> set[str]:
    return set(re.findall("[A-Za-z']", re.sub(r"\\[A-Za-z]+", "", text)))


def fold(names: set[str]) -> set[str]:
    return {name.lower() for name in names} - {"'"}


def in_radians(text: str) -> str:
    """Degrees inside an expression as math-verify, which drops their sign, reads them
    right.
    """
    text = re.sub(r"([0-9]+(?:\.[0-9]+)?)\s*\^\\circ", r"(\\frac{\1 \\pi}{180})", text)
    return re.sub(r"\\?\$", "", text)
