"""From a solution's text to its answer, and from weighted answers to one."""

from collections.abc import Sequence


def boxed(text: str) -> str | None:
    """The content of the last complete \\boxed{...}, braces matched; None if there is none."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth = 0
        for end in range(start + len("\\boxed"), len(text)):
            depth += (text[end] == "{") - (text[end] == "}")
            if depth == 0:
                return text[start + len("\\boxed{") : end].strip()
        start = text.rfind("\\boxed{", 0, start)
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
