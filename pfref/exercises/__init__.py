"""Answers to the book's exercises, and hints: `check("5.1", [1, 1, 2, 3])`.

Each chapter's answers are in a file of its own beside this one. An entry has

    ask      what the answer should be
    answer   a number, a truth value, a text, or a list of those
    within   how far a number may be off (relative to the answer; default 0.01)
    hint     said to a wrong answer
    slips    wrong answers that are easily made, each with a hint of its own
"""

import math
import textwrap
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def plain(value: Any) -> Any:
    """A tensor, an array or a tuple as numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def same(given: Any, wanted: Any, within: float) -> bool:
    """Whether two plain values are equal, numbers up to `within` of their size."""
    if isinstance(wanted, list):
        return (
            isinstance(given, list)
            and len(given) == len(wanted)
            and all(same(g, w, within) for g, w in zip(given, wanted, strict=True))
        )
    if isinstance(wanted, bool) or isinstance(given, bool):
        return given is wanted
    if isinstance(wanted, str):
        return isinstance(given, str) and given.split() == wanted.split()
    return isinstance(given, int | float) and math.isclose(
        given, wanted, rel_tol=within, abs_tol=within if wanted == 0 else 1e-12
    )


def entry(name: str) -> dict[str, Any]:
    """What is known of exercise `name`, such as "5.1"; ValueError if nothing is."""
    chapter, _, number = name.partition(".")
    path = FOLDER / f"{chapter:0>2}.toml"
    if not path.is_file() or number not in (
        found := tomllib.loads(path.read_text(encoding="utf-8"))
    ):
        raise ValueError(f"there is no exercise {name} with an answer to check")
    return found[number]


def verdict(name: str, answer: Any) -> str:
    """What `check` prints."""
    known = entry(name)
    if answer is ...:
        return f"Exercise {name}: in place of the dots, {known['ask']}"
    given, within = plain(answer), known.get("within", 0.01)
    if same(given, known["answer"], within):
        return f"Exercise {name}: right."
    for slip in known.get("slips", []):
        if same(given, slip["answer"], within):
            return f"Exercise {name}: not yet. {slip['hint']}"
    return f"Exercise {name}: not yet. {known['hint']}"


def check(name: str, answer: Any) -> None:
    """Say whether `answer` is right, and give a hint if it is not.

    `...` as the answer asks what is wanted. Raises ValueError for an unknown exercise.
    """
    print(textwrap.fill(verdict(name, answer), 76))
