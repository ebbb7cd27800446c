"""What came out, for README and front page; tests hold it to the README's tables."""

from .kit import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    RED,
    SMALL,
    Drawing,
    drawing,
)

# Per cent right of MiniMATH-500 at N = 4, 16 and 64; place of the name at the right.
CURVES = {
    "the filter": ((53.3, 76.1, 80.4), BLUE, 0, 85.5),
    "beam search": ((58.8, 77.5, 79.1), GREY, 4, 80),
    "greedy search": ((58.8, 76.6, 75.0), GREEN, 2, 74.5),
    "best-of-$N$": ((44.2, 63.3, 72.5), ORANGE, 1, 69),
    "majority": ((25.8, 27.5, 28.6), RED, 3, 28.6),
}
# Per cent right of 100 problems of MATH-500 by the 1.5B policy, with its interval.
BARS = {
    "majority": (43, 33, 53),
    "filter, telescoping": (40, 31, 50),
    "beam search": (39, 30, 49),
    "greedy decoding": (37, 28, 46),
    "greedy search": (34, 25, 44),
    "filter, by odds": (31, 22, 40),
    "DVTS": (30, 21, 39),
    "best-of-8": (29, 21, 38),
    "one sample": (29, 22, 36),
}


@drawing(
    "good-rewards",
    360,
    "With a reward model that is nearly always right, the filter beats best-of-N, "
    "and at N = 16 and 64 is level with the best search",
)
def good_rewards(d: Drawing) -> None:
    d.label(180, 22, "A good reward model: filter and search lead", bold=True)
    d.label(180, 42, "500 problems of MiniMath; per cent right", size=SMALL)
    xs, low = (52, 142, 232), 322

    def height(share: float) -> float:
        return low - 3.2 * (share - 10)

    for share in (20, 40, 60, 80):
        d.line([(36, height(share)), (240, height(share))], LIGHT, 1)
        d.label(30, height(share), str(share), size=SMALL, at="end")
    for x, n in zip(xs, (4, 16, 64), strict=True):
        d.label(x, low + 10, str(n), size=SMALL)
    d.label(142, low + 28, "$N$, solutions written at a time", size=SMALL)
    for name, (shares, colour, family, at) in reversed(CURVES.items()):
        points = [(x, height(y)) for x, y in zip(xs, shares, strict=True)]
        d.line(points, colour, 3 if family == 0 else 1.8)
        for x, y in points:
            d.dot(x, y, 5, family)
        d.label(246, height(at), name, at="start", bold=family == 0, size=SMALL)


@drawing(
    "weak-rewards",
    360,
    "With a reward model that hardly ranks, no method that uses it beats the vote",
)
def weak_rewards(d: Drawing) -> None:
    d.label(180, 22, "A weak reward model: nothing beats the vote", bold=True)
    d.label(180, 42, "100 problems of MATH-500, $N$ = 8; per cent right", size=SMALL)

    def place(share: float) -> float:
        return 140 + 3.3 * share

    for share in (0, 20, 40, 60):
        d.line([(place(share), 62), (place(share), 326)], LIGHT, 1)
        d.label(place(share), 338, str(share), size=SMALL)
    for row, (name, (share, low, high)) in enumerate(BARS.items()):
        y, filters = 78 + 29 * row, name.startswith("filter")
        colour = BLUE if filters else RED if name == "majority" else INK
        d.label(132, y, name, size=SMALL, at="end", bold=filters)
        d.line([(place(low), y), (place(high), y)], colour, 2)
        for end in (low, high):
            d.line([(place(end), y - 5), (place(end), y + 5)], colour, 2)
        d.dot(place(share), y, 5, 0 if filters else 3 if name == "majority" else 5)
