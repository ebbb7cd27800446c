"""The package, whole, as an appendix: `python -m tests.source_pages` writes the pages
of book/source/ from the code.

Each room of the map has a page; each file of the room stands on it once, whole, under
its docstring's first paragraph, the chapters that show its lines and the tests that
import it. A test compares the pages with the code.
"""

import re
from pathlib import Path

from tests.book_checks import BOOK, ROOT
from tests.book_coverage import countable
from tests.package_map import (
    PAGES,
    ROOMS,
    chapter_lines,
    docstring,
    homeless,
    names,
    tested_by,
)

FOLDER = BOOK / "source"
OPENING = """# The package, whole

Chapters show the package in pieces, those that there is something to say about. Here
is all of it: every Python file of `pfref/` that is not empty, once and whole, on one
page for each room of the [map](../map.md). Under each file's name stand what it is for,
in the words of its own docstring, which chapters show how many of its lines, and tests
that import it, at most three by name. The source itself is folded.

Lines are counted as [the front page](../index.md) counts them: without blank lines,
comments, imports and the modules' own docstrings. These pages are written by
`make pages` from the code, and a test compares the two.
"""


def module(name: str) -> Path:
    return ROOT / "pfref" / f"{name}.py"


def counted(name: str) -> int:
    return len(countable(module(name).read_text(encoding="utf-8")))


def shown(name: str) -> int:
    """How many of the counted lines some chapter shows."""
    return len(set().union(*chapter_lines(name).values()))


def prose(text: str) -> str:
    """A docstring's first paragraph as Markdown, in which its signs stay signs."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    signs = re.compile(r"(`[^`]*`)|([\\*_<>\[\]$])")
    return signs.sub(lambda found: found[1] or "\\" + found[2], paragraph)


def chapters_of(name: str) -> str:
    """Which chapters show how much of a file."""
    lines = counted(name)
    links = [
        f"[{int(chapter[:2])}](../{chapter}) ({len(met)})"
        for chapter, met in chapter_lines(name).items()
    ]
    if not links:
        return f"none of its {lines:,} lines"
    return f"{shown(name):,} of {lines:,} lines, in {', '.join(links)}"


def tests_of(name: str) -> str:
    return tested_by(name).replace("–", "none imports the file itself")


def listing(name: str) -> str:
    """A file's heading, what is known of it, and the file itself, folded."""
    length = len(module(name).read_text(encoding="utf-8").splitlines())
    path = f"../../pfref/{name}.py"
    return f"""## `{name}.py`

{prose(docstring(module(name)))}

- Shown in chapters: {chapters_of(name)}
- Tests that import it: {tests_of(name)}
- The file itself: [`pfref/{name}.py`]({path})

<details class="listing">
<summary><code>{name}.py</code>, {length} lines</summary>

```{{literalinclude}} {path}
:language: python
:linenos:
```

</details>
"""


def share(modules: tuple[str, ...]) -> tuple[int, int]:
    """Of the counted lines of some files, how many chapters show, and how many."""
    return sum(map(shown, modules)), sum(map(counted, modules))


def page(room: str) -> str:
    """The page of a room, as it should be."""
    modules = ROOMS[room]
    met, lines = share(modules)
    opening = (
        f"# {room}\n\n{len(modules)} files of [the package](index.md). "
        f"Of their {lines:,} lines chapters show {met:,}.\n"
    )
    return "\n".join([opening, *map(listing, modules)])


def contents() -> str:
    """The appendix's first page: its rooms, and what chapters show of them."""
    rows = ["| page | files | lines | in chapters |", "| --- | ---: | ---: | ---: |"]
    for room, modules in ROOMS.items():
        met, lines = share(modules)
        link = f"[{room}]({PAGES[room]}.md)"
        rows.append(
            f"| {link} | {len(modules)} | {lines:,} | {100 * met / lines:.0f} % |"
        )
    everything = tuple(name for modules in ROOMS.values() for name in modules)
    met, lines = share(everything)
    rows.append(
        f"| together | {len(everything)} | {lines:,} | {100 * met / lines:.0f} % |"
    )
    return OPENING + "\n" + "\n".join(rows) + "\n"


def pages() -> dict[Path, str]:
    """All pages of the appendix, by their files."""
    found = {FOLDER / f"{PAGES[room]}.md": page(room) for room in ROOMS}
    return {FOLDER / "index.md": contents(), **found}


def main() -> None:
    if wrong := homeless(names()):
        raise SystemExit(f"give a room in tests/package_map.py to: {', '.join(wrong)}")
    FOLDER.mkdir(exist_ok=True)
    wanted = pages()
    for old in set(FOLDER.glob("*.md")) - set(wanted):
        old.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
