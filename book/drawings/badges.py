"""The book's icon, and the card that stands for it where a link to it is shown.

`python -m book.drawings.badges` writes both; `make card` then makes the card a picture,
because those who show previews of links take no SVG.
"""

from pathlib import Path

from .kit import GREY, WIDTH, Drawing, radius

STATIC = Path(__file__).parents[1] / "_static"
# A particle's place, its family and its weight; then whose copies fill the places.
WEIGHED = ((0, 0.5), (1, 1.9), (2, 0.3), (3, 1.3))
COPIES = (0, 1, 1, 3)


def icon() -> str:
    """One particle of three has two descendants, in a square of 32 units."""
    d = Drawing("icon", "pfref", 32)
    for x in (9, 23):
        d.line([(16, 9), (x, 22)], GREY, 2)
    d.dot(16, 8, 5.5)
    d.dot(5.5, 8, 2.5, 1)
    d.dot(26.5, 8, 2.5, 2)
    d.dot(9, 24, 5)
    d.dot(23, 24, 5)
    return (
        d.svg().replace(f'width="{WIDTH}"', 'width="32"').replace("0 0 360", "0 0 32")
    )


def card() -> str:
    """Weighed and resampled particles below the title, in the ratio 1200 to 630."""
    d = Drawing("card", "Particle filtering for inference-time scaling", 189)
    d.label(180, 34, "Particle filtering", size=28, bold=True)
    d.label(180, 63, "for inference-time scaling", size=19, bold=True)
    xs = (66, 142, 218, 294)
    for place, parent in enumerate(COPIES):
        d.arrow((xs[parent], 116), (xs[place], 141))
    for family, weight in WEIGHED:
        d.dot(xs[family], 102, radius(weight, 10), family)
    for place, parent in enumerate(COPIES):
        d.dot(xs[place], 152, 9, parent)
    d.label(180, 177, "an executable book and its package, pfref", size=12)
    return d.svg()


if __name__ == "__main__":
    (STATIC / "icon.svg").write_text(icon(), encoding="utf-8")
    (STATIC / "card.svg").write_text(card(), encoding="utf-8")
