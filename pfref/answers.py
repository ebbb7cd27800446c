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


def vote(answers: Sequence[str | None], weights: Sequence[float]) -> dict[str, float]:
    """The share of the weight that each answer holds, largest first. No answer, no vote."""
    shares: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer:
            shares[answer] = shares.get(answer, 0.0) + weight
    total = sum(shares.values())
    return {
        answer: share / total
        for answer, share in sorted(shares.items(), key=lambda item: -item[1])
        if total > 0
    }
