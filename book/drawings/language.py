"""Chapters 8 to 10: language models, their caches, and what a reward model reads."""

from .kit import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LARGE,
    LIGHT,
    ORANGE,
    RED,
    SMALL,
    Drawing,
    drawing,
)


@drawing(
    "lm-as-state-space",
    434,
    "A language model's steps are states; a reward model's verdicts are observations",
)
def lm_as_state_space(d: Drawing) -> None:
    d.label(124, 22, "policy: writes steps", bold=True)
    d.label(302, 22, "reward model", bold=True)
    d.label(124, 41, "states, by $p_M(x_t | c, x_{1:t-1})$")
    d.label(302, 41, "observations")
    d.box(124, 78, 168, 38, "$c$:  What is 4·7 + 9?", GREY, size=14)
    steps = ((152, "1", "4·7 = 28"), (232, "2", "28 + 9 = 37"), (352, "T", "boxed: 37"))
    d.line([(40, 78), (18, 78), (18, 352)])
    for y, index, text in steps:
        d.arrow((18, y), (39, y))
        d.box(124, y, 168, 44, "", BLUE)
        d.label(124, y - 1, f"$x_{index}$:  {text}", size=14)
        d.arrow((208, y), (271, y))
        d.box(302, y, 62, 44, "", ORANGE, corner=3)
        d.label(302, y - 2, f"$o_{index}$ = 1", size=15)
        d.label(238, y - 14, f"$r_{index}$", size=15)
    d.arrow((124, 97), (124, 129))
    d.arrow((124, 174), (124, 209))
    d.arrow((124, 254), (124, 280))
    d.label(124, 290, "⋮", size=LARGE)
    d.arrow((124, 302), (124, 329))
    d.label(180, 398, "accepted, $o_t$ = 1, with probability $r_t$;", size=14)
    d.label(180, 418, "$r_t$ judges all that is written so far", size=14)


def row(d: Drawing, x: float, y: float, family: int, length: int, ended: bool) -> None:
    """A row of cached keys: its family's mark, then a cell for each token."""
    d.dot(x, y, 7, family)
    colour = (BLUE, ORANGE, GREEN, RED, GREY, INK)[family]
    for token in range(length):
        d.box(x + 20 + 15 * token, y, 13, 16, "", colour, corner=2, width=1.2)
    if ended:
        d.line(
            [(x + 15 + 15 * length, y - 10), (x + 15 + 15 * length, y + 10)], INK, 3.5
        )


@drawing(
    "cache-fork-drop",
    494,
    "Rows of cached keys: forked into the slots of dropped rows, and swapped",
)
def cache_fork_drop(d: Drawing) -> None:
    d.box(180, 34, 320, 36, "the prompt's keys: held once, for all rows", GREY)
    d.label(20, 74, "before", at="start", bold=True)
    d.label(200, 74, "after fork and drop", at="start", bold=True)
    lengths = (5, 4, 3, 5, 3, 4)
    heirs = (0, 1, 0, 3, 0, 3)
    for slot in range(6):
        y = 102 + 34 * slot
        d.label(20, y, str(slot), colour=GREY, size=SMALL)
        row(d, 42, y, slot, lengths[slot], False)
        if slot not in heirs:
            d.cross(150, y, 6)
        child = heirs[slot]
        row(d, 226, y, child, lengths[child], False)
        if child != slot:
            d.arrow(
                (142, 102 + 34 * child), (212, y), colour=(BLUE, "", "", RED)[child]
            )
    d.label(180, 304, "the first heir stays, others are copies of slots")
    d.line([(20, 322), (340, 322)], LIGHT, 1)
    d.label(20, 342, "a row ended", at="start", bold=True)
    d.label(206, 342, "after the swap", at="start", bold=True)
    order = ((0, 5), (1, 4), (3, 6))
    for slot, (family, length) in enumerate(order):
        y = 370 + 34 * slot
        row(d, 42, y, family, length, family == 1)
        other, size = (order[0], order[2], order[1])[slot]
        row(d, 226, y + (12 if other == 1 else 0), other, size, other == 1)
    d.arrow((160, 406), (212, 446))
    d.arrow((160, 436), (212, 408))
    d.line([(218, 428), (344, 428)], INK, 1.4, dash=True)
    d.label(180, 476, "rows that write stand at the front, above the line")


@drawing(
    "step-automaton",
    392,
    "A row's states: writing, step ended, solution ended, cut off",
)
def step_automaton(d: Drawing) -> None:
    d.arrow((150, 14), (150, 42))
    d.box(150, 66, 130, 46, "writing", BLUE, bold=True, corner=23, size=15)
    d.bow((212, 52), (212, 80), 38)
    d.label(258, 60, "one more\ntoken", at="start")
    d.box(150, 192, 130, 46, "step ended", GREEN, bold=True, corner=23, size=15)
    d.arrow((170, 90), (170, 168))
    d.label(178, 134, "delimiter (blank line)", at="start")
    d.arrow((130, 169), (130, 91))
    d.label(122, 130, "next step:\nweighed and\nresampled", at="end")
    for x, text in ((96, "solution\nended"), (262, "cut off")):
        colour = ORANGE if x < 180 else RED
        d.box(x, 322, 124, 54, "", colour, corner=26)
        d.box(x, 322, 114, 44, text, colour, corner=22, bold=True)
    d.arrow((86, 72), (16, 72), (16, 262), (60, 296))
    d.label(24, 232, "end token", at="start")
    d.arrow((140, 216), (108, 293))
    d.label(132, 256, "answer\nboxed", at="start")
    d.arrow((190, 89), (190, 102), (344, 102), (344, 262), (304, 297))
    d.label(336, 186, "limit of\ntokens", at="end")
    d.arrow((190, 216), (240, 293))
    d.label(228, 256, "limit of\nsteps", at="start")
    d.label(96, 370, "waits, weight kept")
    d.label(262, 370, "weight 0")


@drawing(
    "reward-text",
    396,
    "What a reward model reads: problem and steps, a score under each separator",
)
def reward_text(d: Drawing) -> None:
    d.label(20, 22, "one text, read from top to bottom", at="start", bold=True)
    d.box(128, 58, 216, 36, "What is 4·7 + 9?", GREY, size=14)
    d.label(252, 58, "problem", at="start", colour=GREY)
    rows = (
        ("4·7 = 28", "0.95", 0.95),
        ("28 + 9 = 38", "0.10", 0.1),
        ("", "0.08", 0.08),
    )
    for place, (text, score, share) in enumerate(rows):
        y = 122 + 92 * place
        d.arrow((128, y - (46 if place == 0 else 74)), (128, y - 19), colour=LIGHT)
        d.box(128, y, 216, 36, "", BLUE)
        step = f"$x_{place + 1}$:  " + (text or "\\boxed{38}")
        d.label(128, y - 1, step, size=14)
        d.box(270, y, 56, 36, "sep", INK, corner=3, bold=True)
        d.line([(236, y), (242, y)])
        d.arrow((270, y + 18), (270, y + 40), colour=ORANGE)
        d.label(270, y + 50, f"$r_{place + 1}$ = {score}", size=14)
        d.box(324, y + 50, 30, 12, "", GREY, plain=True, corner=2, width=1)
        if share > 0.1:
            d.box(309 + 15 * share, y + 50, 30 * share, 12, "", ORANGE, corner=2)
        else:
            d.box(311, y + 50, 4, 12, "", ORANGE, corner=1)
    d.label(180, 384, "a score judges all that stands above it")
