"""Slides for a talk: `python -m book.slides [FILE]` writes one page that needs nothing.

`talk.md` says what is on them. Drawings come from their source and figures from what
the chapters' cells stored, so that a slide shows what the book shows. A line of its own
`![words](name)` is a picture: the name of a drawing, or of a figure (fig-05-line).
A part that begins with `Notes:` is for the speaker.
"""

import base64
import json
import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

from ..drawings import foundations, language, methods, models, studies  # noqa: F401
from ..drawings.kit import DRAWINGS, runs

HERE = Path(__file__).parent
BOOK = HERE.parent
PICTURE = re.compile(r"^!\[([^\]]+)\]\(([\w-]+)\)$")
TAGS = {-1: "sub", 1: "sup"}


def talk() -> str:
    return (HERE / "talk.md").read_text(encoding="utf-8")


def figure(name: str) -> str:
    """The stored picture of a figure, as base64."""
    for path in sorted(BOOK.glob(f"{name[4:6]}_*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            about = cell["metadata"].get("mystnb", {}).get("figure", {})
            if about.get("name") != name:
                continue
            for output in cell["outputs"]:
                if "image/png" in output.get("data", {}):
                    return "".join(output["data"]["image/png"]).replace("\n", "")
    raise KeyError(f"no chapter has stored a figure {name}")


def picture(alt: str, name: str) -> str:
    if name in DRAWINGS:
        kind, data = "svg+xml", base64.b64encode(DRAWINGS[name]().encode()).decode()
    else:
        kind, data = "png", figure(name)
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{data}">'


def mathematics(text: str) -> Iterator[str]:
    for piece, slanted, at in runs(f"${text}$"):
        inner = escape(piece, quote=False)
        inner = f"<i>{inner}</i>" if slanted else inner
        yield f"<{TAGS[at]}>{inner}</{TAGS[at]}>" if at else inner


def inline(text: str) -> str:
    """A line with **bold**, *slanted*, `code` and $x_t$."""
    out = []
    for place, part in enumerate(text.split("$")):
        if place % 2:
            out.append("".join(mathematics(part)))
            continue
        html = escape(part, quote=False)
        html = re.sub(r"`([^`]+)`", r"<code>\1</code>", html)
        html = re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", html)
        out.append(re.sub(r"\*([^*]+)\*", r"<i>\1</i>", html))
    return "".join(out)


def block(text: str) -> str:
    lines = text.splitlines()
    found = PICTURE.match(text)
    if found:
        return picture(found[1], found[2])
    if text.startswith("# "):
        return f"<h2>{inline(text[2:])}</h2>"
    if text.startswith("Notes:"):
        return f'<aside class="notes">{inline(" ".join(lines)[6:].strip())}</aside>'
    if all(line.startswith(("- ", "  ")) for line in lines):
        items = "\n".join(lines)[2:].split("\n- ")
        inner = "".join(f"<li>{inline(' '.join(i.split()))}</li>" for i in items)
        return f"<ul>{inner}</ul>"
    return f"<p>{inline(' '.join(lines))}</p>"


def slides(source: str) -> list[str]:
    """What stands on each slide."""
    texts = re.split(r"^---$", source, flags=re.M)
    return ["\n".join(map(block, re.split(r"\n\n+", text.strip()))) for text in texts]


def page(source: str) -> str:
    parts = slides(source)
    body = "\n".join(
        f'<section class="slide" id="{k}" aria-label="Slide {k} of {len(parts)}">\n'
        f"{part}\n</section>"
        for k, part in enumerate(parts, 1)
    )
    frame = (HERE / "frame.html").read_text(encoding="utf-8")
    return frame.replace("<!-- slides -->", body)


if __name__ == "__main__":
    target = Path((sys.argv[1:] or ["_build/slides/talk.html"])[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(talk()), encoding="utf-8")
    print(f"{target}: {len(slides(talk()))} slides")
