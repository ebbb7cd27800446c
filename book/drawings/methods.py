"""Chapters 15 to 17: searches, particle Gibbs, tempering, and wrong reward models."""

from math import exp

from .kit import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    SMALL,
    Drawing,
    drawing,
    radius,
)


@drawing(
    "beam-against-population",
    430,
    "Beam search keeps the two best of six; the filter draws six places by weight",
)
def beam_against_population(d: Drawing) -> None:
    scores = (0.8, 0.3, 0.7, 0.6, 0.2, 0.6)
    xs = [50 + 52 * place for place in range(6)]
    rules = (
        (14, "beam search: the best two, three each", (0, 0, 0, 2, 2, 2)),
        (222, "particle filter: by weight, at random", (0, 0, 2, 3, 4, 5)),
    )
    for top, name, parents in rules:
        d.panel(14, top, 332, 194, name)
        for place, x in enumerate(xs):
            y = top + 78
            d.label(x, top + 46, f"{scores[place]}", size=14)
            for child, parent in enumerate(parents):
                if parent == place:
                    d.arrow((x, y), (xs[child], top + 160))
            d.dot(x, y, radius(2 * scores[place], 9), place)
            if place not in parents:
                d.cross(x, y + 21, 5)
            d.dot(x, top + 172, 9, parents[place])


@drawing(
    "dvts-subtrees",
    424,
    "Two trees that never meet: in each, the best of four candidates goes on",
)
def dvts_subtrees(d: Drawing) -> None:
    d.box(180, 26, 130, 28, "one problem", BLUE)
    d.line([(180, 62), (180, 352)], INK, 1.6, dash=True)
    best = ((1, 2, 0), (3, 1, 2))
    for tree, (left, family) in enumerate(((14, 0), (190, 1))):
        xs = [left + 22 + 37 * place for place in range(4)]
        top = (180 + (-30 if tree == 0 else 30), 40)
        for level in range(3):
            y = 96 + 100 * level
            for place, x in enumerate(xs):
                won = place == best[tree][level]
                d.arrow(top, (x, y - 12), colour=GREY if won else LIGHT, width=1.5)
                d.dot(x, y, 9, family, hollow=not won)
            top = (xs[best[tree][level]], y + 11)
        d.arrow(top, (180 + (-46 if tree == 0 else 46), 366))
    d.label(20, 64, "tree 1", at="start", bold=True)
    d.label(340, 64, "tree 2", at="end", bold=True)
    d.box(180, 384, 200, 32, "choose among the ends", GREEN)
    d.label(180, 412, "filled: best score of its four, goes on", size=SMALL)


@drawing(
    "gibbs-pinned-path",
    440,
    "A sweep: one path is held fast, the others are free; one is drawn for the next",
)
def gibbs_pinned_path(d: Drawing) -> None:
    xs, ys = (66, 150, 230, 310), (84, 164, 244)
    d.label(66, 22, "reference", bold=True)
    d.label(66, 40, "$x'_{1:T}$, held fast", size=14)
    d.label(230, 22, "free particles", bold=True)
    d.label(230, 40, "$n$ = 2, 3, 4", size=14)
    d.box(66, 164, 76, 216, "", ORANGE, dash=True, corner=10)
    parents = ((0, 1, 1, 0), (0, 1, 3, 3))
    family = [1, 0, 2, 3]
    for step, y in enumerate(ys):
        if step:
            chosen = parents[step - 1]
            for child, parent in enumerate(chosen):
                start = (xs[parent], ys[step - 1] + 12)
                d.arrow(
                    start,
                    (xs[child], y - 12),
                    colour=INK if child == 0 else GREY,
                    width=3 if child == 0 else 1.8,
                )
            family = [family[parent] for parent in chosen]
        for x, kind in zip(xs, family, strict=True):
            d.dot(x, y, 10, kind)
    for x in xs:
        d.line([(x, 256), (180 + 0.3 * (x - 180), 300)], LIGHT)
    d.box(180, 316, 190, 32, "draw one path by weight", BLUE)
    d.arrow((180, 332), (180, 358))
    d.label(180, 374, "the reference of the next sweep", size=14)
    d.arrow((62, 374), (16, 374), (16, 84), (27, 84), dash=True)
    d.label(180, 404, "free ones may descend from the reference,", size=14)
    d.label(180, 423, "the reference always from itself", size=14)


@drawing(
    "tempering-ladder",
    414,
    "Chains at rising temperatures; neighbours swap their references",
)
def tempering_ladder(d: Drawing) -> None:
    rungs = (
        (72, "hot", "τ_3 = 4", 0.2),
        (192, "", "τ_2 = 2", 0.5),
        (312, "cold", "τ_1 = 1", 1.0),
    )
    places = (205, 262, 130)
    for rung, (y, name, tau, depth) in enumerate(rungs):
        d.label(16, y - 22, f"${tau}$", at="start", size=15)
        if name:
            d.label(16, y + 2, name, at="start", bold=True)
        d.panel(84, y - 52, 262, 92)

        def height(x: float, y: float = y, depth: float = depth) -> float:
            first = exp(-(((x - 130) / 24) ** 2))
            second = 1.15 * exp(-(((x - 290) / 26) ** 2))
            return y + 32 - 54 * depth * (first + second)

        curve = [(float(x), height(x)) for x in range(90, 341, 5)]
        d.line(curve, INK, 2)
        x = places[rung]
        d.dot(x, height(x) - 10, 9, (0, 1, 2)[rung])
    for y in (132, 252):
        d.arrow((200, y - 18), (200, y + 7))
        d.arrow((216, y + 7), (216, y - 18))
        d.label(226, y - 5, "swap?", at="start")
    d.label(180, 378, "hot: the valley is shallow, and easy to cross;", size=14)
    d.label(180, 397, "cold: it is deep; this is the target we want", size=14)


@drawing(
    "collapse",
    432,
    "With an overconfident reward model one family takes every place, even a wrong one",
)
def collapse(d: Drawing) -> None:
    halves = (
        (14, "honest", (1.3, 0.6, 1.5, 0.8, 0.8), (0, 0, 2, 3, 4)),
        (186, "overconfident", (0.2, 0.05, 4.6, 0.1, 0.1), (2, 2, 2, 2, 2)),
    )
    right = 0
    for left, name, sizes, parents in halves:
        d.panel(left, 14, 160, 330, name)
        xs = [left + 22 + 29 * place for place in range(5)]
        for place, x in enumerate(xs):
            for child, parent in enumerate(parents):
                if parent == place:
                    d.arrow((x, 150), (xs[child], 252), width=1.5)
        for place, x in enumerate(xs):
            d.dot(x, 76, 9, place)
            d.dot(x, 144, radius(sizes[place], 7.5), place)
            d.dot(x, 266, 9, parents[place])
            if place not in parents:
                d.cross(x, 174, 5)
        d.tick(xs[right], 54, 6)
        if right in parents:
            d.tick(xs[0], 288, 6)
        d.label(left + 80, 106, "weighed", size=SMALL, colour=GREY)
    d.label(94, 318, "four families live", size=SMALL)
    d.label(266, 318, "one family is left", size=SMALL)
    d.tick(30, 368, 6)
    d.label(46, 368, "the family that would end right:", at="start", size=14)
    d.label(46, 388, "lost by one overconfident score, and no", at="start", size=14)
    d.label(46, 408, "later score can bring it back", at="start", size=14)
