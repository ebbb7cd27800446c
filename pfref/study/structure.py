"""An answer's outer structure: lists, tuples, intervals, unions, matrices, equations.

Texts are cleaned ones, as `spelling.cleaned` gives them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .spelling import number, quantity

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)
OPENERS = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\langle": r"\rangle"}
CLOSERS = set(OPENERS.values())
NAME = re.compile(
    r"(?:\(\s*[A-Za-z]\s*(?:,\s*[A-Za-z]\s*)+\)|\\text\s*\{[A-Za-z ]+\}"
    r"|\\angle\s*[A-Z]{1,3}|\\(?:alpha|beta|gamma|theta|phi|lambda|mu|omega)"
    r"|[A-Za-z]|[a-z]\([a-z]\)"
    r"|[A-Za-z]_\{?[0-9A-Za-z]\}?)\s*(?:=|\\in(?![A-Za-z]))\s*"
)
MATRIX = re.compile(
    r"\\begin\{([pbvBV]?matrix|array)\}(?:\s*\{[clr| ]*\})?(.*)\\end\{\1\}", re.DOTALL
)


@dataclass(frozen=True)
class Sequence:
    """Parts between commas, and the brackets around them: "", "{}", "()", "(]", ..."""

    brackets: str
    parts: list[str]

    @property
    def several(self) -> bool:
        return len(self.parts) > 1

    @property
    def ordered(self) -> bool:
        return self.brackets not in ("", "{}")


def levels(text: str) -> Iterator[tuple[int, str, int]]:
    """(place, token, depth) of each token; a bracket has its content's outer depth."""
    depth = 0
    for found in TOKEN.finditer(text):
        token = found[0]
        depth -= token in CLOSERS
        yield found.start(), token, depth
        depth += token in OPENERS


def split(text: str, separators: tuple[str, ...]) -> list[str]:
    """The parts between separators outside all brackets."""
    parts, start = [], 0
    for place, token, depth in levels(text):
        if depth == 0 and token in separators:
            parts.append(text[start:place].strip())
            start = place + len(token)
    return [*parts, text[start:].strip()]


def brackets(text: str) -> tuple[str, str]:
    """The pair of brackets around the whole text, and what is inside; none: "" and the
    text. A half-open interval's differ.
    """
    for opening in OPENERS:
        if opening != "{" and text.startswith(opening):
            closings = [t for t in levels(text) if t[1] in CLOSERS and t[2] == 0]
            if len(closings) == 1 and closings[0][0] + len(closings[0][1]) == len(text):
                closing = closings[0][1]
                if closing != "}":
                    inner = text[len(opening) : closings[0][0]].strip()
                    return (opening + closing).replace("\\", ""), inner
    return "", text


def sequence(text: str) -> Sequence:
    """A list, set, tuple or interval; anything else is a list of one part.

    In a list or set, a \\pm b stands for two parts. A comma between thousands separates
    nothing.
    """
    if re.fullmatch(r"\\text\s*\{[^{}]*,[^{}]*\}", text):
        text = text[text.index("{") + 1 : -1]
    pair, inner = brackets(text)
    if pair == "" and number(quantity(inner).value) is not None:
        return Sequence("", [inner])
    parts = split(inner, (",",))
    if len(parts) == 1 and pair == "()":
        pair, parts = "", [inner]
    elif len(parts) == 1 and pair not in ("", "{}"):
        return Sequence("", [text])
    if pair in ("", "{}"):
        parts = [sign for part in parts for sign in both_signs(part)]
    return Sequence(pair, parts)


def both_signs(part: str) -> list[str]:
    """a + b and a - b for a \\pm b."""
    if len(found := re.findall(r"\\(?:pm|mp)(?![A-Za-z])", part)) != 1:
        return [part]
    return [part.replace(found[0], f" {sign} ").strip() for sign in "+-"]


def unions(text: str) -> list[str]:
    return split(text, (r"\cup",))


def matrix(text: str) -> tuple[str, list[list[str]]] | None:
    """A matrix's kind and cells. The kinds that only look different are one."""
    text = text.strip()
    if text[:1] + text[-1:] in ("()", "[]") and text.count(r"\begin") == 1:
        text = text[1:-1].strip()  # \left( \begin{array} ... \right)
    found = MATRIX.fullmatch(text)
    if not found or r"\begin" in found[2]:
        return None
    rows = re.split(r"\\\\", found[2].strip())
    if rows and not rows[-1].strip():
        rows.pop()
    kind = found[1] if found[1] in ("vmatrix", "Vmatrix") else "matrix"
    return kind, [[cell.strip() for cell in row.split("&")] for row in rows]


def named(text: str) -> tuple[str, str]:
    """("x", "3") for x = 3, and likewise for x \\in ...; no name where there is none,
    or where another equation follows.
    """
    found = NAME.match(text)
    value = text[found.end() :].strip() if found else ""
    if not found or not value or re.search(r"=|\\in(?![A-Za-z])", value):
        return "", text
    return re.sub(r"\s*(=|\\in)\s*$", "", found[0]), value


def exact_side(text: str) -> str:
    """Of an approximation what comes before the sign, unless that is a variable."""
    sides = [side for side in split(text, (r"\approx",)) if side]
    exact = [side for side in sides if not re.fullmatch("[A-Za-z]", side)]
    return exact[0] if exact and len(sides) > 1 else (sides or [text])[-1]


def chain(text: str) -> list[str]:
    """The sides of an equation between numbers, such as 1/2 = 0.5; else the text."""
    sides = split(text, ("=",))
    letters = re.search("[A-Za-z]", re.sub(r"\\text\{[^{}]*\}|\\[A-Za-z]+", "", text))
    return [text] if letters or not all(sides) or len(sides) > 4 else sides
