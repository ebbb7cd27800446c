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
# The 1.5B policy on 100 problems of MATH-500: points from the vote, with the interval.
BARS = {
    "confidence vote": (-1.0, -3.0, 0.0),
    "weighted best-of-8": (-1.0, -5.0, 2.0),
    "filter, telescoping": (-3.0, -10.0, 4.0),
    "beam search": (-4.0, -14.0, 6.0),
    "greedy decoding": (-6.0, -16.0, 4.0),
    "greedy search": (-9.0, -18.0, 0.0),
    "filter, by odds": (-12.0, -20.0, -5.0),
    "DVTS": (-13.0, -22.0, -5.0),
    "one sample": (-13.9, -19.4, -8.6),
    "best-of-8": (-14.0, -23.0, -5.0),
}


@drawing(
    "good-rewards",
    360,
    "With a reward model that is nearly always right, the filter beats best-of-N, "
    "and at N = 16 and 64 is level with the best search",
)
def good_rewards(d: Drawing) -> None:
    d.label(180, 22, "A good reward model: filter and search lead", bold=True)
    d.label(180, 42, "500 generated problems of arithmetic; per cent right", size=SMALL)
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
    d.label(
        180, 42, "100 problems of MATH-500, $N$ = 8; points from the vote", size=SMALL
    )

    def place(points: float) -> float:
        return 140 + 6.2 * (points + 25)

    for points in (-20, -10, 0):
        colour, width = (GREY, 1.8) if points == 0 else (LIGHT, 1)
        d.line([(place(points), 60), (place(points), 326)], colour, width)
        d.label(place(points), 338, str(points).replace("-", "−"), size=SMALL)
    for row, (name, (gap, low, high)) in enumerate(BARS.items()):
        y, filters = 74 + 27 * row, name.startswith("filter")
        colour = BLUE if filters else INK
        d.label(132, y, name, size=SMALL, at="end", bold=filters)
        d.interval(place(low), place(high), y, colour, 5)
        d.dot(place(gap), y, 5, 0 if filters else 5)
