"""Chapters 18 to 21: experiments, a probe of the policy, and a policy far away."""

from .kit import (
    BLUE,
    GREEN,
    GREY,
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
        d.interval(low, high, y)
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


@drawing(
    "study-at-a-glance",
    500,
    "The study: 500 problems, three kinds of methods, records, grades, three measures",
)
def study_at_a_glance(d: Drawing) -> None:
    d.box(180, 40, 320, 56, "", BLUE)
    d.label(180, 29, "500 problems, 7 subjects, 5 levels", bold=True)
    d.label(180, 51, "one policy, one reward model", size=13)
    kinds = (
        ("samples,\n64 at once", "majority,\nbest-of-$N$, votes:\nblocks of these"),
        ("filter and\nvariants", "sweeps, chains\nshare the $N$\nparticles"),
        ("search by\nscore", "one survivor, or\n$N/4$ survivors,\nor $N/4$ trees"),
    )
    ends = (
        "accuracy\nby $N$ and\nby tokens",
        "paired\ndifferences,\nall at once",
        "scaling\nrates",
    )
    for place, (name, note) in enumerate(kinds):
        x = 66 + 114 * place
        d.arrow((x, 68), (x, 92))
        d.box(x, 114, 100, 44, name, GREEN, bold=True)
        d.label(x, 164, note, size=SMALL)
        d.arrow((x, 192), (x, 216))
        d.arrow((x, 370), (x, 394))
        d.box(x, 430, 100, 70, ends[place], ORANGE)
    d.box(180, 240, 320, 46, "", BLUE)
    d.label(180, 230, "records", bold=True)
    d.label(180, 250, "texts, scores, weights, counted tokens", size=13)
    d.arrow((180, 263), (180, 286))
    d.box(180, 328, 320, 82, "", BLUE)
    d.label(180, 305, "grades: right or wrong", bold=True)
    d.label(180, 327, "problems × methods × budgets × seeds", size=13)
    for place, right in enumerate((1, 0, 1, 1, 0, 1, 0, 1, 1, 1)):
        x = 81 + 22 * place
        (d.tick if right else d.cross)(x, 351, 5)
    d.label(180, 484, "who beats whom, at equal cost, and how surely")


@drawing(
    "gsm8k-split",
    470,
    "Problems in three parts: to fit probes, to measure them, and to run the filter",
)
def gsm8k_split(d: Drawing) -> None:
    d.box(180, 38, 320, 52, "", BLUE)
    d.label(180, 28, "policy", bold=True)
    d.label(180, 48, "Qwen2.5-Coder-0.5B-Instruct on GSM8K", size=13)
    parts = (
        ("1,008\nproblems", "4 samples\neach"),
        ("126\nothers", "16 samples\neach"),
        ("300\nothers", "$N$ = 16"),
    )
    for place, (name, note) in enumerate(parts):
        x = 66 + 114 * place
        d.arrow((x, 64), (x, 90))
        d.box(x, 113, 100, 46, name, GREY, bold=True)
        d.label(x, 158, note, size=13)
    d.arrow((66, 180), (66, 206))
    d.box(66, 240, 100, 68, "probes\nfitted to\noutcomes", GREEN)
    d.arrow((116, 240), (130, 240))
    d.arrow((180, 180), (180, 206))
    d.box(180, 240, 100, 68, "AUC within\nproblem,\ncalibration", ORANGE)
    d.arrow((66, 274), (66, 306))
    d.box(66, 340, 100, 68, "the best\non a fifth\nof its 1,008", GREEN)
    d.arrow((116, 340), (244, 340))
    d.label(180, 326, "scores steps", size=SMALL)
    d.arrow((294, 180), (294, 306))
    d.box(294, 340, 100, 68, "samples\nand a filter", GREEN)
    d.arrow((294, 374), (294, 402))
    d.box(
        232, 426, 224, 46, "votes, best-of-$N$, filter:\nwhich answer is right?", ORANGE
    )
