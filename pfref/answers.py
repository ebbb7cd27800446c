"""From a solution's text to its answer, and from weighted answers to one."""

import re
from collections.abc import Sequence

# A box that opens; a backslash and what it escapes, such as a brace; a brace.
BRACES = re.compile(r"(\\(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
# A box without braces: up to the formula's end on its line, or one word.
BARE = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z{])[ \t]*(?:([^\n$]{0,200}?)(?:\$|\\\)|\\\])|(\S+))"
)


def boxed(text: str) -> str | None:
    """The content of the last complete \\boxed{...} or \\fbox{...}, braces matched.

    Escaped braces are not counted. Without any, the last "\\boxed 5" counts; None if
    there is none either. Takes time linear in the text.
    """
    opened: list[tuple[int, bool]] = []  # where the content begins; is it a box's?
    last, content = -1, None
    for found in BRACES.finditer(text):
        if found[1] or found[0] == "{":
            opened.append((found.end(), bool(found[1])))
        elif found[0] == "}" and opened:
            start, is_box = opened.pop()
            if is_box and start > last:
                last, content = start, text[start : found.start()].strip()
    return bare_box(text) if content is None else content


def bare_box(text: str) -> str | None:
    """The last box without braces, such as \\boxed 5, which TeX takes too."""
    for start in reversed([found.start() for found in re.finditer(r"\\[bf]", text)]):
        if found := BARE.match(text, start):
            content = (
                (found[1] if found[1] is not None else found[2]).strip().rstrip(".,;")
            )
            if content and "{" not in content[:1]:
                return content
    return None


def vote(
    answers: Sequence[str | None], weights: Sequence[float]
) -> dict[str | None, float]:
    """The share of all weight that each answer holds, the largest first.

    Weight that gave no answer is seen under None, which comes last: the first key is
    the winner, and is None only where no answer has weight. Of equal answers the one
    that came first leads. What has no weight is left out.
    """
    shares: dict[str | None, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if weight > 0:
            shares[answer or None] = shares.get(answer or None, 0.0) + weight
    total = sum(shares.values())
    order = sorted(shares.items(), key=lambda item: (item[0] is None, -item[1]))
    return {answer: share / total for answer, share in order}
