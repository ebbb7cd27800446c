"""Chapters 1 to 7: samples, state-space models and the particle filter."""

from statistics import NormalDist

from .kit import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LARGE,
    LIGHT,
    ORANGE,
    SMALL,
    TINTS,
    Drawing,
    drawing,
    radius,
)


@drawing(
    "many-samples",
    444,
    "One problem, five whole solutions, one answer",
)
def many_samples(d: Drawing) -> None:
    kinds = (0, 1, 0, 2, 0)
    answers = ("282", "242", "282", "2442", "282")
    scores = ("0.9", "0.3", "0.5", "0.99", "0.5")
    d.box(180, 26, 130, 28, "one problem", BLUE)
    for place, (steps, kind) in enumerate(zip((3, 4, 2, 3, 4), kinds, strict=True)):
        x = 44 + 68 * place
        d.arrow((180 + 0.25 * (x - 180), 40), (x, 72))
        for step in range(steps):
            d.scribble(x, 86 + 38 * step)
            end = (x, 112 + 38 * step if step < steps - 1 else 248)
            d.arrow((x, 98 + 38 * step), end)
        d.dot(x, 260, 9, kind)
        d.label(x, 284, answers[place], bold=True)
        d.label(x, 304, f"$r$ = {scores[place]}")
    d.panel(30, 326, 300, 106, "a rule: say, the commonest answer")
    for row, (answer, kind, votes) in enumerate(
        (("282", 0, 3), ("242", 1, 1), ("2442", 2, 1))
    ):
        y = 366 + 24 * row
        d.label(100, y, answer, at="end", bold=row == 0)
        for vote in range(votes):
            d.dot(122 + 26 * vote, y, 8, kind)
    d.arrow((214, 390), (250, 390), colour=INK)
    d.box(286, 390, 64, 32, "282", BLUE, bold=True, size=LARGE)


@drawing(
    "looking-earlier",
    440,
    "Partial solutions are scored after every step; weak ones are dropped early",
)
def looking_earlier(d: Drawing) -> None:
    columns = (52, 137, 222, 307)
    scores = ((0.8, 0.3, 0.7, 0.2), (0.9, 0.4, 0.6, 0.2), (0.9, 0.9, 0.3, 0.7))
    parents = ((0, 0, 2, 2), (0, 0, 2, 2))
    d.box(180, 24, 130, 28, "one problem", BLUE)
    for x in columns:
        d.arrow((180 + 0.3 * (x - 180), 38), (x, 74))
    for step, row in enumerate(scores):
        y = 90 + 125 * step
        for place, (x, score) in enumerate(zip(columns, row, strict=True)):
            last = step == len(scores) - 1
            dropped = not last and place not in parents[step]
            d.scribble(x, y, 56, GREY if dropped else BLUE)
            text = f"$r_{step + 1}$ = {score}"
            d.label(x, y + 26, text, size=14, colour=GREY if dropped else INK)
            if dropped:
                d.cross(x, y + 46)
            elif not last:
                for child, parent in enumerate(parents[step]):
                    if parent == place:
                        d.arrow((x, y + 37), (columns[child], y + 108), colour=BLUE)
    d.label(180, 394, "the reward model scores every step;")
    d.label(180, 412, "places of dropped solutions go to copies")


@drawing(
    "state-space-graph",
    268,
    "A state-space model: hidden states above, observations below",
)
def state_space_graph(d: Drawing) -> None:
    d.label(20, 24, "hidden: the path, moved by $M_t$", at="start", bold=True)
    d.label(
        20, 248, "seen: $y_t$, which weighs the path by $G_t$", at="start", bold=True
    )
    nodes = ((44, "1"), (130, "2"), (216, "3"), (320, "T"))
    d.arrow((44, 44), (44, 68))
    d.label(54, 54, "$M_1$", at="start", size=15)
    for place, (x, index) in enumerate(nodes):
        if place < 2:
            d.arrow((x + 21, 90), (nodes[place + 1][0] - 21, 90))
            d.label(x + 43, 76, f"$M_{place + 2}$", size=15)
        d.arrow((x, 111), (x, 178))
        d.label(x + 8, 142, f"$G_{index}$", at="start", size=15)
        d.box(x, 90, 42, 42, "", BLUE, corner=21)
        d.label(x, 88, f"$x_{index}$", size=18)
        d.box(x, 199, 42, 42, "", ORANGE, corner=3)
        d.label(x, 196, f"$y_{index}$", size=18)
    d.arrow((237, 90), (256, 90))
    d.label(269, 88, "…", size=18)
    d.arrow((279, 90), (299, 90))


@drawing(
    "importance-sampling",
    402,
    "Draws from the model are weighed, so that they stand for the target",
)
def importance_sampling(d: Drawing) -> None:
    model, target = NormalDist(150, 62), NormalDist(222, 34)
    base, scale = 176, 128 / target.pdf(222)

    def curve(density: NormalDist) -> list[tuple[float, float]]:
        return [(x, base - scale * density.pdf(x)) for x in range(18, 343, 6)]

    d.line([(18, base), *curve(target), (342, base)], BLUE, 2.4, fill=TINTS[BLUE])
    d.line(curve(model), ORANGE, 2.6, dash=True)
    d.line([(18, base), (342, base)], INK, 1.4)
    d.label(262, 48, "target $π$", at="start", size=15)
    d.label(88, 92, "model $M$", at="end", size=15)
    draws = [model.inv_cdf((place + 0.5) / 11) for place in range(11)]
    ratios = [target.pdf(x) / model.pdf(x) for x in draws]
    mean = sum(ratios) / len(ratios)
    for x, ratio in zip(draws, ratios, strict=True):
        d.line([(x, base), (x, 206)], LIGHT, 1)
        d.line([(x, 254), (x, 318)], LIGHT, 1)
        d.dot(x, 212, 6, 1)
        d.dot(x, 318, radius(ratio / mean, 8), 0)
    d.label(18, 240, "drawn from $M$: all alike", at="start", size=14)
    d.label(
        18,
        362,
        "weighed by $G$, for $π$ is in proportion to $MG$:",
        at="start",
        size=14,
    )
    d.label(18, 380, "many count little, a few count much", at="start", size=14)


@drawing(
    "weigh-and-resample",
    406,
    "Six particles are weighed; heavy ones get copies, light ones die out",
)
def weigh_and_resample(d: Drawing) -> None:
    xs = [55 + 50 * place for place in range(6)]
    weights = (0.33, 0.05, 0.26, 0.03, 0.29, 0.04)
    offspring = (0, 0, 2, 2, 4, 4)
    d.label(14, 20, "moved: six particles, equal weights", at="start", bold=True)
    d.label(14, 112, "weighed: size is weight $W_t^n$", at="start", bold=True)
    d.label(14, 386, "resampled: copies, equal weights again", at="start", bold=True)
    for place, x in enumerate(xs):
        d.arrow((x, 66), (x, 96) if place > 4 else (x, 98), colour=LIGHT)
        d.dot(x, 52, 9, place)
        r = radius(6 * weights[place], 11)
        if place not in offspring:
            d.cross(x, 206, 6)
        for child, parent in enumerate(offspring):
            if parent == place:
                d.arrow((x, 160 + r), (xs[child], 334), colour=GREY)
    for place, x in enumerate(xs):
        d.dot(x, 156, radius(6 * weights[place], 11), place)
        d.dot(x, 348, 10, offspring[place])
    d.label(292, 240, "lines of\ndescent", size=SMALL, at="start", colour=GREY)


@drawing(
    "filter-loop", 470, "The particle filter's loop: move, weigh, resample, and again"
)
def filter_loop(d: Drawing) -> None:
    weights = (1.9, 0.3, 1.3, 0.5)
    d.label(150, 20, "$N$ particles of equal weight")
    d.arrow((150, 31), (150, 56))
    rows = (
        (96, "Move", "$x_t^n$ from $M_t$", (1, 1, 1, 1), (0, 1, 2, 3)),
        (212, "Weigh", "$w_t^n$ = $w_{t-1}^n G_t$", weights, (0, 1, 2, 3)),
        (352, "Resample", "by $W_t^n$", (1, 1, 1, 1), (0, 0, 2, 3)),
    )
    for y, name, rule, sizes, families in rows:
        d.box(150, y, 180, 78, "", BLUE)
        d.label(70, y - 22, name, at="start", bold=True, size=14)
        d.label(230, y - 22, rule, at="end", size=14)
        for place, (size, family) in enumerate(zip(sizes, families, strict=True)):
            d.dot(87 + 42 * place, y + 14, radius(size, 9), family)
    d.arrow((150, 135), (150, 173))
    d.arrow((150, 251), (150, 313))
    d.label(158, 282, "if ESS$_t$ ≤ $αN$", at="start", size=14)
    d.arrow((150, 391), (150, 420), (24, 420), (24, 96), (60, 96))
    d.line([(60, 212), (24, 212)], dash=True)
    d.arrow((24, 230), (24, 150))
    d.label(28, 226, "else", at="start", size=SMALL)
    d.label(150, 440, "next step, until all particles have ended")
    d.arrow((240, 212), (280, 212), colour=GREEN)
    d.label(311, 60, "evidence:\nmean weight", size=SMALL)
    for place in range(3):
        y = 212 - 52 * (2 - place)
        d.box(311, y, 60, 34, "", GREEN)
        d.label(311, y - 1, f"Ẑ$_{place + 1}$", size=LARGE)
        if place:
            d.arrow((311, y - 35), (311, y - 17), colour=GREEN)
    d.label(311, 240, "⋮", size=LARGE)


@drawing(
    "finished-particles",
    432,
    "Finished particles keep their weight and wait; ruled-out ones lose their place",
)
def finished_particles(d: Drawing) -> None:
    xs, ys = (106, 176, 246, 316), (64, 124, 184, 244)
    d.label(52, 26, "particle", colour=GREY)
    for step, x in enumerate(xs):
        d.label(x, 26, f"$t$ = {step + 1}", colour=GREY)
        d.line([(x, 40), (x, 266)], LIGHT, 1, dash=True)
    for row, y in enumerate(ys):
        d.label(52, y, f"$n$ = {row + 1}")
    for row, family in ((0, 0), (3, 2)):
        d.line([(xs[0], ys[row]), (xs[3], ys[row])])
        for x in xs:
            d.dot(x, ys[row], 9, family)
    d.line([(xs[0], ys[1]), (xs[1], ys[1])])
    d.line([(xs[1], ys[1]), (xs[3], ys[1])], dash=True)
    for x in xs:
        d.dot(x, ys[1], 9, 1, hollow=x > xs[1])
    d.line([(xs[1] + 16, ys[1] - 14), (xs[1] + 16, ys[1] + 14)], INK, 4)
    d.line([(xs[0], ys[2]), (xs[1], ys[2])])
    d.dot(xs[0], ys[2], 9, 3)
    d.cross(xs[1], ys[2], 8)
    d.arrow((xs[1] + 5, ys[0] + 10), (xs[2] - 8, ys[2] - 12), colour=BLUE)
    d.line([(xs[2], ys[2]), (xs[3], ys[2])])
    d.dot(xs[2], ys[2], 9, 0)
    d.dot(xs[3], ys[2], 9, 0)
    d.line([(30, 300), (30, 324)], INK, 4)
    d.label(46, 312, "the solution has ended", at="start")
    d.dot(30, 342, 8, 1, hollow=True)
    d.label(46, 342, "absorbed: $G_t$ = 1, it keeps its weight", at="start")
    d.cross(30, 372, 7)
    d.label(46, 372, "ruled out by a limit: weight 0", at="start")
    d.arrow((20, 402), (42, 402), colour=BLUE)
    d.label(50, 402, "a copy takes the empty place", at="start")
