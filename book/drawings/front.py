"""The front page: which chapter needs which."""

from .kit import BLUE, GREEN, ORANGE, SMALL, Drawing, drawing

XS, TOP, DOWN = (48, 136, 224, 312), 32, 58
# Column and row of each chapter, and its name in two lines.
PLACES = {
    1: (3, 0, "1\nsamples"),
    2: (3, 1, "2 looking\nearlier"),
    3: (0, 0, "3 exact\nmodels"),
    4: (0, 1, "4\nweights"),
    5: (0, 2, "5\nresampling"),
    6: (0, 3, "6 particle\nfilter"),
    7: (1, 3, "7 descent,\nerror bars"),
    8: (0, 4, "8 language\nmodels"),
    9: (0, 5, "9 many\nat once"),
    10: (0, 6, "10 reward\nmodels"),
    11: (0, 7, "11 training\none"),
    12: (0, 8, "12\nthe value"),
    13: (2, 1, "13\nreasoning"),
    14: (2, 2, "14\nsolving"),
    15: (3, 3, "15\nsearch"),
    16: (1, 4, "16 Gibbs,\ntempering"),
    17: (3, 5, "17 wrong\nrewards"),
    18: (2, 3, "18 experi-\nments"),
    19: (2, 4, "19 the\nstudy"),
    20: (1, 8, "20 a real\nmodel"),
    21: (2, 8, "21\nMATH-500"),
    22: (1, 5, "22 many\nmachines"),
}
# What a chapter needs and has not through another that it needs.
NEEDS = {
    **{2: (1,), 4: (3,), 5: (4,), 6: (5,), 7: (6,), 8: (6,), 9: (8,), 10: (9,)},
    **{11: (10,), 12: (11,), 13: (1,), 14: (13,), 15: (2, 14), 16: (8,)},
    **{17: (11, 15), 18: (14,), 19: (15, 18), 20: (12, 17), 21: (18, 20)},
    22: (9, 13),
}


def place(chapter: int) -> tuple[float, float]:
    column, row, _ = PLACES[chapter]
    return XS[column], TOP + DOWN * row


@drawing("chapters", 530, "Arrows lead from a chapter to those that need it")
def chapters(d: Drawing) -> None:
    for chapter, needed in NEEDS.items():
        x, y = place(chapter)
        for other in needed:
            u, v = place(other)
            if (other, chapter) == (13, 22):  # between two columns
                d.arrow((u - 38, v), (180, v), (180, y), (x + 38, y))
            elif (other, chapter) == (18, 21):
                d.arrow((u + 38, v), (268, v), (268, y), (x + 38, y))
            elif (other, chapter) == (17, 20):
                d.arrow((u - 20, v + 20), (x + 20, y - 20))
            elif v == y or (other, chapter) == (11, 17):
                d.arrow((u + 38, v), (x - 38, y))
            else:
                d.arrow((u + (x - u) / 4, v + 20), (x - (x - u) / 4, y - 20))
    for chapter, (_, _, name) in PLACES.items():
        x, y = place(chapter)
        colour = BLUE if chapter < 8 else GREEN if chapter < 15 else ORANGE
        d.box(x, y, 76, 40, "", colour)
        d.label(x, y, name, size=SMALL)
    key = "blue: foundations\ngreen: language models\norange: experiments"
    d.label(160, 36, key, size=SMALL)
