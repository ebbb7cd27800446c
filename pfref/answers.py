"""From a solution's text to its answer, and from weighted answers to one."""

import re
from collections.abc import Callable, Sequence

# A box that opens; a backslash and what it escapes, such as a brace; a brace.
BRACES = re.compile(r"(\\(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
# A box without braces: up to the formula's end on its line, or one word.
BARE = re.compile(
    r"\\(?:boxed|fbox)(?![A-Za-z{])[ \t]*(?:([^\n$]{0,200}?)(?:\$|\\\)|\\\])|(\S+))"
)

# The words before an answer that is stated, and the end of that sentence.
STATED = re.compile(r"\banswer\s{0,3}(?:is|=)\s{0,3}:?|\banswer\s{0,3}:", re.IGNORECASE)
SENTENCE = re.compile(r"[.!]\*{0,2}(?:\s|$)|\s+I hope")
NUMBERS = re.compile(r"(?<![\w.])-?[0-9][0-9,]*(?:\.[0-9]+)?|(?<![\w.])-?\.[0-9]+")


def boxed(text: str) -> str | None:
    """The content of the last complete \\boxed{...} or \\fbox{...}, braces matched.

    An empty one counts only if no other does. Escaped braces are not counted. Without
    any, the last "\\boxed 5" counts; None if there is none either. Takes time linear in
    the text.
    """
    if "box" not in text:  # most steps end before there is one
        return None
    opened: list[tuple[int, bool]] = []  # where the content begins; is it a box's?
    last, content = -1, None
    for found in BRACES.finditer(text):
        if found[1] or found[0] == "{":
            opened.append((found.end(), bool(found[1])))
        elif found[0] == "}" and opened:
            start, is_box = opened.pop()
            inner = text[start : found.start()].strip()
            if is_box and start > last and (inner or not content):
                last, content = start, inner
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


def stated(text: str) -> str | None:
    """What the last "answer is ..." states: to the end of its sentence, or its line."""
    ends = [found.end() for found in STATED.finditer(text)]
    if not ends:
        return None
    rest = text[ends[-1] :][:300].lstrip().split("\n", 1)[0]
    return SENTENCE.split(rest, maxsplit=1)[0].strip(" *.,;:") or None


def hashed(text: str) -> str | None:
    """What follows the last ####, as in GSM8K's solutions."""
    _, mark, rest = text.rpartition("####")
    return rest.strip().split("\n", 1)[0].strip() or None if mark else None


def numbers(text: str) -> list[str]:
    """The numbers in the text, in order, their thousands' commas taken out."""
    return [found.replace(",", "") for found in NUMBERS.findall(text)]


def vote(
    answers: Sequence[str | None],
    weights: Sequence[float],
    same: Callable[[str, str], bool] | None = None,
) -> dict[str | None, float]:
    """The share of all weight that each answer holds, the largest first.

    Weight that gave no answer is seen under None, which comes last: the first key is
    the winner, and is None only where no answer has weight. Of equal answers the one
    that came first leads. What has no weight is left out.

    same  says whether two spellings are one answer, the heavier one given first. Their
          weights are added, under the heaviest spelling. It is asked once for each
          spelling and each answer already found, at most; None: every spelling is an
          answer of its own
    """
    shares: dict[str | None, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if weight > 0:
            shares[answer or None] = shares.get(answer or None, 0.0) + weight
    total = sum(shares.values())
    if same is not None:
        shares = merged(shares, same)
    order = sorted(shares.items(), key=lambda item: (item[0] is None, -item[1]))
    return {answer: share / total for answer, share in order}


def merged(
    shares: dict[str | None, float], same: Callable[[str, str], bool]
) -> dict[str | None, float]:
    """Shares by answer from shares by spelling, in the order of first appearance."""
    first = {answer: place for place, answer in enumerate(shares)}
    classes: dict[str, float] = {}  # the heaviest spelling of each -> its weight
    for answer, share in sorted(shares.items(), key=lambda item: -item[1]):
        if answer is None:
            continue
        known = next((seen for seen in classes if same(seen, answer)), answer)
        classes[known] = classes.get(known, 0.0) + share
        first[known] = min(first[known], first[answer])
    found = sorted(classes.items(), key=lambda item: first[item[0]])
    return {**dict(found), **({None: shares[None]} if None in shares else {})}
