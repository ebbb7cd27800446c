"""What the drawings are made of: dots, boxes, arrows, labels and panels, as SVG.

Coordinates are in units of a drawing 360 wide, which a phone shows at about its own
size. A label is plain text with `$...$` for mathematics: letters there are slanted,
and `_` and `^` set an index, of one character or in braces.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from math import hypot, sqrt

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY, LIGHT = "#222222", "#6B6B6B", "#C8C8C8"
TINTS = {
    BLUE: "#DCEBF5",
    ORANGE: "#FCEFCF",
    GREEN: "#D6F0E7",
    RED: "#F9E1D3",
    GREY: "#F1F1F1",
    INK: "#F1F1F1",
}
# A family of particles has a colour and a shape, so that either tells it.
FAMILIES = (
    (BLUE, "circle"),
    (ORANGE, "square"),
    (GREEN, "triangle"),
    (RED, "diamond"),
    (GREY, "circle"),
    (INK, "square"),
)
SMALL, TEXT, LARGE = 12, 13.5, 16
WIDTH = 360

DRAWINGS: dict[str, Callable[[], str]] = {}


def number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-0", "0", value == 0)


def runs(label: str) -> Iterator[tuple[str, bool, int]]:
    """The pieces of a label: text, whether slanted, and -1, 0 or 1 for an index."""
    for place, part in enumerate(label.split("$")):
        if place % 2 == 0:
            yield part, False, 0
            continue
        for mark, inner, plain in re.findall(
            r"([_^])(\{[^}]*\}|.)|([^_^]+)", part.replace("-", "−")
        ):
            text = plain or inner.strip("{}")
            level = {"_": -1, "^": 1, "": 0}[mark]
            for piece in re.findall(r"[^\W\d_]+|[\W\d_]+", text):
                yield piece, piece.isalpha(), level


def spans(label: str, size: float) -> str:
    """A label as the content of a <text>; indices are never smaller than 12."""
    drop, rise = round(0.28 * size, 1), round(0.42 * size, 1)
    offsets = {-1: drop, 0: 0.0, 1: -rise}
    out, level, below = [], 0, 0
    for piece, slanted, at in runs(label):
        if not piece:
            continue
        marks = []
        if offsets[at] != offsets[level]:
            marks.append(f'dy="{number(offsets[at] - offsets[level])}"')
        if (level, at) == (-1, 1):  # above its fellow index, not behind it
            marks.append(f'dx="{number(-6.5 * below)}"')
            below -= len(piece)
        elif level == 1 and below > 0:  # and what follows stands behind both
            marks.append(f'dx="{number(6.5 * below)}"')
        if at:
            marks.append(f'font-size="{SMALL}"')
        if slanted:
            marks.append('font-style="italic"')
        if at == -1:
            below = (below if level == -1 else 0) + len(piece)
        elif at == 0:
            below = 0
        level = at
        text = escape(piece, quote=False)
        out.append(f"<tspan {' '.join(marks)}>{text}</tspan>" if marks else text)
    return "".join(out)


class Drawing:
    """A white card on which the primitives draw, later ones on top."""

    def __init__(self, name: str, title: str, height: int) -> None:
        self.name, self.title, self.height = name, title, height
        self.parts: list[str] = []

    def add(self, part: str) -> None:
        self.parts.append(part)

    def label(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = TEXT,
        at: str = "middle",
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        """Lines of text about the height y; at: start, middle or end."""
        lines = text.split("\n")
        top = y + 0.35 * size - 0.62 * size * (len(lines) - 1)
        look = f'font-size="{number(size)}" fill="{colour}"'
        look += f' text-anchor="{at}"' if at != "start" else ""
        look += ' font-weight="bold"' if bold else ""
        for place, line in enumerate(lines):
            height = number(top + 1.24 * size * place)
            inner = spans(line, size)
            self.add(f'<text x="{number(x)}" y="{height}" {look}>{inner}</text>')

    def line(
        self,
        points: Sequence[tuple[float, float]],
        colour: str = GREY,
        width: float = 1.8,
        dash: bool = False,
        fill: str = "none",
    ) -> None:
        path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        dashes = ' stroke-dasharray="5 4"' if dash else ""
        self.add(
            f'<polyline points="{path}" fill="{fill}" stroke="{colour}" '
            f'stroke-width="{number(width)}"{dashes}/>'
        )

    def arrow(
        self,
        *points: tuple[float, float],
        colour: str = GREY,
        width: float = 1.8,
        dash: bool = False,
    ) -> None:
        """Through the points, with a head at the last."""
        (x0, y0), (x, y) = points[-2:]
        length = hypot(x - x0, y - y0)
        ux, uy = (x - x0) / length, (y - y0) / length
        bx, by = x - 9 * ux, y - 9 * uy
        self.line([*points[:-1], (bx, by)], colour, width, dash)
        head = [
            (x, y),
            (bx - 4.5 * uy, by + 4.5 * ux),
            (bx + 4.5 * uy, by - 4.5 * ux),
        ]
        path = " ".join(f"{number(a)},{number(b)}" for a, b in head)
        self.add(f'<polygon points="{path}" fill="{colour}"/>')

    def interval(
        self, low: float, high: float, y: float, colour: str = INK, r: float = 6
    ) -> None:
        """A bar from low to high at the height y, with a tick of 2r at either end."""
        self.line([(low, y), (high, y)], colour, 2)
        for end in (low, high):
            self.line([(end, y - r), (end, y + r)], colour, 2)

    def bow(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        bend: float,
        colour: str = GREY,
        dash: bool = False,
    ) -> None:
        """A curved arrow; bend is how far its middle is to the left of the chord."""
        (x0, y0), (x1, y1) = start, end
        length = hypot(x1 - x0, y1 - y0)
        cx = (x0 + x1) / 2 + 2 * bend * (y1 - y0) / length
        cy = (y0 + y1) / 2 - 2 * bend * (x1 - x0) / length
        curve = []
        for step in range(13):
            s = step / 12
            a, b, c = (1 - s) ** 2, 2 * s * (1 - s), s * s
            curve.append((a * x0 + b * cx + c * x1, a * y0 + b * cy + c * y1))
        self.arrow(*curve, colour=colour, dash=dash)

    def dot(
        self,
        x: float,
        y: float,
        r: float = 9,
        family: int = 0,
        hollow: bool = False,
    ) -> None:
        """A particle, in its family's colour and shape."""
        colour, shape = FAMILIES[family]
        paint = f'fill="{"#fff" if hollow else colour}" stroke="{colour}"'
        paint += f' stroke-width="{1.8 if hollow else 1}"'
        if shape == "circle":
            place = f'cx="{number(x)}" cy="{number(y)}" r="{number(r)}"'
            self.add(f"<circle {place} {paint}/>")
            return
        s = r * {"square": 0.9, "triangle": 1.25, "diamond": 1.25}[shape]
        corners = {
            "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
            "triangle": ((0, -0.95), (0.95, 0.75), (-0.95, 0.75)),
            "diamond": ((0, -1), (1, 0), (0, 1), (-1, 0)),
        }[shape]
        path = " ".join(f"{number(x + s * a)},{number(y + s * b)}" for a, b in corners)
        self.add(f'<polygon points="{path}" {paint}/>')

    def box(
        self,
        x: float,
        y: float,
        w: float,
        h: float,
        text: str = "",
        colour: str = GREY,
        *,
        plain: bool = False,
        dash: bool = False,
        size: float = TEXT,
        bold: bool = False,
        corner: float = 6,
        width: float = 1.6,
    ) -> None:
        """A box about the point (x, y), tinted unless it is plain."""
        place = f'x="{number(x - w / 2)}" y="{number(y - h / 2)}"'
        dashes = ' stroke-dasharray="5 4"' if dash else ""
        self.add(
            f'<rect {place} width="{number(w)}" height="{number(h)}" '
            f'rx="{number(corner)}" fill="{"#fff" if plain else TINTS[colour]}" '
            f'stroke="{colour}" stroke-width="{number(width)}"{dashes}/>'
        )
        if text:
            self.label(x, y, text, size=size, bold=bold)

    def panel(self, x: float, y: float, w: float, h: float, text: str = "") -> None:
        """A pale ground from the corner (x, y), with a heading."""
        place = f'x="{number(x)}" y="{number(y)}"'
        size = f'width="{number(w)}" height="{number(h)}"'
        self.add(f'<rect {place} {size} rx="8" fill="#F6F6F6" stroke="{LIGHT}"/>')
        if text:
            self.label(x + 10, y + 16, text, at="start", bold=True)

    def scribble(
        self, x: float, y: float, w: float = 44, colour: str = GREY, lines: int = 2
    ) -> None:
        """A step: a box with lines of writing that need not be read."""
        h = 10 + 7 * lines
        self.box(x, y, w, h, "", colour, corner=4, width=1.3)
        for row in range(lines):
            height = y - h / 2 + 8.5 + 7 * row
            end = x + w / 2 - (7 if row < lines - 1 else 0.38 * w)
            self.line([(x - w / 2 + 7, height), (end, height)], colour, 2)

    def cross(self, x: float, y: float, r: float = 7, colour: str = RED) -> None:
        self.line([(x - r, y - r), (x + r, y + r)], colour, 2.6)
        self.line([(x - r, y + r), (x + r, y - r)], colour, 2.6)

    def tick(self, x: float, y: float, r: float = 7, colour: str = GREEN) -> None:
        corners = [(x - r, y), (x - 0.25 * r, y + 0.75 * r), (x + r, y - 0.8 * r)]
        self.line(corners, colour, 2.8)

    def svg(self) -> str:
        size = f'width="{WIDTH}" height="{self.height}"'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
            f'viewBox="0 0 {WIDTH} {self.height}" role="img" '
            f'aria-labelledby="{self.name}" font-family="Helvetica, Arial, sans-serif">'
        )
        title = f'<title id="{self.name}">{escape(self.title, quote=False)}</title>'
        ground = f'<rect {size} rx="10" fill="#fff"/>'
        return "\n".join([head, title, ground, *self.parts, "</svg>", ""])


def drawing(
    name: str, height: int, title: str
) -> Callable[[Callable[[Drawing], None]], Callable[[Drawing], None]]:
    """Files a function that draws under its name."""

    def file(paint: Callable[[Drawing], None]) -> Callable[[Drawing], None]:
        def draw() -> str:
            sheet = Drawing(name, title, height)
            paint(sheet)
            return sheet.svg()

        DRAWINGS[name] = draw
        return paint

    return file


def radius(share: float, r: float = 9) -> float:
    """Of a dot whose area is `share` times that of a dot of radius r."""
    return max(2.0, r * sqrt(share))
