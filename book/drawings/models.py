"""Chapters 11 to 14: training a reward model, values, and solving with both models."""

from .kit import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LARGE,
    LIGHT,
    ORANGE,
    RED,
    Drawing,
    drawing,
    radius,
)


@drawing(
    "prefix-labels",
    424,
    "One sample's outcome becomes the label of all its prefixes",
)
def prefix_labels(d: Drawing) -> None:
    for top, right in ((14, True), (220, False)):
        colour = GREEN if right else RED
        d.panel(
            14, top, 332, 192, f"a sample that ends {'right' if right else 'wrong'}"
        )
        d.label(300, top + 16, "label", bold=True)
        for prefix in range(1, 5):
            y = top + 18 + 34 * prefix
            for step in range(prefix):
                last = step == 3
                d.scribble(48 + 54 * step, y, 46, colour if last else GREY)
            d.arrow((76 + 54 * (prefix - 1), y), (284, y), colour=LIGHT, width=1.4)
            d.label(314, y, "1" if right else "0", size=LARGE, bold=True)
            (d.tick if right else d.cross)(296, y, 6, colour)
        d.label(24, top + 178, "its four prefixes, one label", at="start", colour=GREY)


@drawing(
    "value-of-a-prefix",
    392,
    "From one prefix the policy writes many continuations; a share of them ends right",
)
def value_of_a_prefix(d: Drawing) -> None:
    d.label(180, 20, "a prefix $x_{1:t}$", size=15, bold=True)
    d.scribble(146, 52, 58, BLUE)
    d.arrow((175, 52), (196, 52))
    d.scribble(225, 52, 58, BLUE)
    right = (True, False, True, True, False, True, False, True)
    for place, good in enumerate(right):
        x = 37 + 41 * place
        d.arrow((225 + 0.12 * (x - 225), 66), (x, 126), width=1.4)
        for step in range(2 + place % 2):
            d.scribble(x, 138 + 34 * step, 34)
            if step:
                d.line([(x, 116 + 34 * step), (x, 126 + 34 * step)], width=1.4)
        low = 150 + 34 * (1 + place % 2)
        d.arrow((x, low), (x, 242), width=1.4)
        (d.tick if good else d.cross)(x, 258)
    d.label(180, 288, "eight continuations by the policy", size=14)
    d.box(180, 342, 312, 62, "", GREEN)
    d.label(180, 328, "five of eight end right:", size=14)
    d.label(180, 353, "value $ψ_t(x_{1:t})$ ≈ 5/8", size=LARGE)


@drawing(
    "two-models-one-filter",
    462,
    "The filter calls the policy for steps and the reward model for scores",
)
def two_models_one_filter(d: Drawing) -> None:
    d.box(180, 44, 300, 56, "", BLUE)
    d.label(180, 34, "policy", bold=True, size=15)
    d.label(180, 54, "$p_M(x_t | c, x_{1:t-1})$, with a cache", size=14)
    d.box(180, 234, 300, 156, "", GREY)
    d.label(180, 176, "particle filter", bold=True, size=15)
    for place, (size, family) in enumerate(((1.6, 0), (0.4, 1), (1.2, 2), (0.8, 3))):
        d.dot(102 + 52 * place, 204, radius(size, 10), family)
    d.label(180, 238, "weights $w_t^n$, ESS$_t$, ancestors $a_t^n$", size=14)
    d.label(180, 264, "resampling: copy and drop", size=14)
    d.label(180, 290, "at the end: a vote by weight", size=14)
    d.box(180, 420, 300, 56, "", ORANGE)
    d.label(180, 410, "reward model", bold=True, size=15)
    d.label(180, 430, "score $r_t$ of a prefix, with a cache", size=14)
    d.arrow((120, 156), (120, 72))
    d.label(112, 104, "“one more", at="end")
    d.label(112, 122, "step each”", at="end")
    d.arrow((240, 72), (240, 156))
    d.label(248, 114, "steps $x_t^n$", at="start", size=14)
    d.arrow((120, 312), (120, 392))
    d.label(112, 344, "paths", at="end")
    d.label(112, 364, "$x_{1:t}^n$", at="end", size=14)
    d.arrow((240, 392), (240, 312))
    d.label(248, 354, "log-odds $z_t^n$", at="start", size=14)


@drawing(
    "solve-pipeline",
    486,
    "Problems become populations in a batch, finished particles, votes and answers",
)
def solve_pipeline(d: Drawing) -> None:
    xs = (68, 180, 292)
    weights = (
        (2.0, 0.4, 1.2, 0.4),
        (0.9, 1.5, 0.3, 1.3),
        (0.2, 0.5, 2.5, 0.8),
    )
    d.panel(14, 84, 332, 118)
    d.label(180, 18, "problems, each with its own seed", bold=True)
    for place, x in enumerate(xs):
        d.box(x, 50, 92, 32, f"problem {place + 1}", GREY)
        d.arrow((x, 66), (x, 106))
    d.label(180, 190, "one batch: $P$ populations of $N$ particles")
    for place, x in enumerate(xs):
        for n in range(4):
            d.dot(x - 30 + 20 * n, 118, 7, place)
            d.line([(x - 30 + 20 * n, 128), (x - 30 + 20 * n, 166)], LIGHT, 1.4)
            d.line([(x - 34 + 20 * n, 146), (x - 26 + 20 * n, 146)], GREY, 1.6)
            d.line([(x - 34 + 20 * n, 166), (x - 26 + 20 * n, 166)], GREY, 1.6)
        d.arrow((x, 202), (x, 240))
        for n, weight in enumerate(weights[place]):
            d.dot(x - 36 + 24 * n, 258, radius(weight, 8), place)
    d.label(180, 292, "finished particles: answers, weights $W_T^n$", size=14)
    shares = ((0.8, 0.2), (0.6, 0.4), (0.825, 0.175))
    for x, share in zip(xs, shares, strict=True):
        d.arrow((x, 306), (x, 330))
        for place, part in enumerate(share):
            y = 348 + 22 * place
            d.box(
                x - 40 + 40 * part, y, 80 * part, 14, "", (BLUE, GREY)[place], corner=2
            )
    d.label(180, 398, "vote: each answer's share of the weight", size=14)
    for x, answer in zip(xs, ("37", "12", "5/6"), strict=True):
        d.arrow((x, 412), (x, 436), colour=INK)
        d.box(x, 454, 84, 34, answer, BLUE, bold=True, size=LARGE)
