"""Chapters 18 to 21: experiments, a probe of the policy, and a policy far away."""

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
)


@drawing(
    "experiment-pipeline",
    500,
    "From a recipe to runs and records, to grading, to a report with intervals",
)
def experiment_pipeline(d: Drawing) -> None:
    d.box(180, 38, 300, 52, "", GREY)
    d.label(180, 28, "recipe", bold=True, size=15)
    d.label(180, 48, "problems, models, methods, $N$, seeds", size=13)
    d.arrow((180, 64), (180, 88))
    d.panel(30, 88, 300, 154, "runs: a line for each problem and key")
    for line in range(6):
        y = 122 + 16 * line + (14 if line > 2 else 0)
        d.line([(48, y), (150 if line == 2 else 196, y)], BLUE, 5)
    d.cross(160, 154, 6)
    d.label(174, 154, "killed here", at="start")
    d.label(210, 184, "then resumed", at="start")
    d.label(48, 230, "records: texts, scores, tokens", at="start")
    d.arrow((180, 242), (180, 266))
    d.box(180, 292, 300, 52, "", GREEN)
    d.label(180, 282, "grading", bold=True, size=15)
    d.label(180, 302, "again at every report: no new run", size=13)
    d.arrow((180, 318), (180, 342))
    d.panel(30, 342, 300, 144, "report: problems resampled")
    d.line([(150, 372), (150, 470)], GREY, 1.2, dash=True)
    ends = ((384, "method A", 160, 240, 0), (414, "method B", 126, 196, 1))
    for y, name, low, high, family in (*ends, (444, "method C", 196, 286, 2)):
        d.label(48, y, name, at="start")
        d.line([(low, y), (high, y)], INK, 2)
        d.line([(low, y - 6), (low, y + 6)], INK, 2)
        d.line([(high, y - 6), (high, y + 6)], INK, 2)
        d.dot((low + high) / 2, y, 7, family)
    d.label(158, 472, "difference, with interval", at="start", size=SMALL)


@drawing(
    "probe",
    452,
    "A linear head reads a middle layer of the policy while it writes",
)
def probe(d: Drawing) -> None:
    d.label(16, 20, "policy", at="start", bold=True, size=15)
    tokens = ("28", "+9", "=37", "¶")
    xs = (44, 100, 156, 212)
    for level in range(4):
        y = 330 - 72 * level
        middle = level == 2
        d.box(128, y, 228, 34, "", ORANGE if middle else BLUE)
        for place, x in enumerate(xs):
            d.arrow(
                (x, y + (36 if level else 38)), (x, y + 18), colour=LIGHT, width=1.4
            )
            if not (middle and place == 3):
                d.dot(x, y, 6, 0, hollow=True)
    d.dot(xs[3], 186, 9, 1)
    for x, token in zip(xs, tokens, strict=True):
        d.box(x, 384, 48, 32, token, GREY, size=14)
    d.label(128, 414, "one step, token by token")
    d.arrow((xs[3], 97), (xs[3], 66))
    d.label(xs[3], 52, "next token", size=14)
    d.arrow((222, 186), (262, 186), colour=ORANGE, width=2.4)
    d.box(304, 186, 82, 50, "linear\nhead", ORANGE, bold=True)
    d.arrow((304, 211), (304, 252), colour=ORANGE, width=2.4)
    d.label(304, 266, "log-odds $z_t$", size=14)
    d.arrow((304, 280), (304, 310))
    d.box(304, 330, 82, 40, "filter", GREEN, bold=True)
    d.label(304, 146, "middle layer", size=SMALL)
    d.label(180, 438, "no second model reads the text", size=14)


@drawing(
    "endpoint",
    424,
    "The filter runs here, the policy behind a server, with many requests in flight",
)
def endpoint(d: Drawing) -> None:
    d.panel(14, 14, 332, 128, "here")
    d.box(116, 86, 172, 76, "", GREY)
    d.label(116, 66, "particle filter", bold=True)
    for place in range(5):
        d.dot(56 + 30 * place, 98, 9, place)
    d.box(276, 86, 116, 76, "reward\nmodel", ORANGE, bold=True)
    d.arrow((202, 78), (218, 78))
    d.arrow((218, 96), (202, 96))
    states = ("down", "up", "wait", "down", "up")
    for place, state in enumerate(states):
        x = 56 + 30 * place
        if state == "up":
            d.arrow((x, 316), (x, 144), colour=GREEN, width=2.4)
        else:
            d.arrow((x, 142), (x, 314 if state == "down" else 236), colour=BLUE)
            d.dot(x, 190 if state == "down" else 214, 6, place)
    d.label(204, 196, "requests in flight:", at="start", bold=True)
    d.label(204, 218, "prompt and path", at="start")
    d.label(204, 236, "go out, steps", at="start")
    d.label(204, 254, "come back, in", at="start")
    d.label(204, 272, "any order", at="start")
    d.panel(14, 316, 332, 94, "a server, elsewhere")
    d.box(180, 372, 300, 52, "", BLUE)
    d.label(180, 362, "policy", bold=True)
    d.label(180, 382, "many requests in one batch")
