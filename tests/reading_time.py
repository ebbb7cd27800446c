"""How long a chapter takes to read: `python -m tests.reading_time` prints a table.

200 words a minute and 20 lines of code; formulas set apart, the list of references and
what is folded do not count. Lines of the package that `show` displays do, and so does
text that a cell computes.
"""

import re
from pathlib import Path

from tests.book_checks import Cell, Notebook, chapters, read, source, tags

LIMIT = 25  # minutes
PIECE = 40  # lines of the package shown at once, unless folded
STATED = re.compile(r"^\*\*Time and seeds\.\*\* About (\d+) minutes to read", re.M)


def displayed(cell: Cell) -> int:
    """The lines of package source under a cell."""
    if not shows(cell):
        return 0
    return sum(
        bool(line.strip())
        for text in texts(cell)
        for line in text.strip().splitlines()[1:-1]
    )


def shows(cell: Cell) -> bool:
    return bool(re.search(r"\bshow\(", source(cell)))


def texts(cell: Cell) -> list[str]:
    """What a cell puts on the page as text, not as print."""
    found = (o.get("data", {}).get("text/markdown", "") for o in cell["outputs"])
    return ["".join(text) for text in found]


def count(text: str) -> int:
    """The words of a text without its formulas, code and links."""
    text = re.sub(r"\$\$.*?\$\$|```.*?```|<[^>]+>", " ", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)", "] ", text)
    return len(re.sub(r"\$[^$]*\$", "x", text).split())


def parts(notebook: Notebook) -> tuple[int, int]:
    """Words and visible lines of code."""
    words = lines = 0
    for cell in notebook["cells"]:
        folded = {tag for tag in tags(cell) if tag.startswith(("hide-", "remove-"))}
        if cell["cell_type"] == "markdown":
            if not source(cell).startswith("## References"):
                words += count(source(cell))
        elif not folded & {"hide-cell", "remove-cell"}:
            if not folded & {"hide-input", "remove-input"}:
                lines += sum(bool(line.strip()) for line in source(cell).splitlines())
            if not folded & {"hide-output", "remove-output"}:
                lines += displayed(cell)
                words += 0 if shows(cell) else sum(map(count, texts(cell)))
    return words, lines


def minutes(notebook: Notebook) -> float:
    words, lines = parts(notebook)
    return words / 200 + lines / 20


def complaints(notebook: Notebook) -> list[str]:
    """A chapter is read in a sitting, says how long it takes, and shows the package in
    pieces.
    """
    time = minutes(notebook)
    found = []
    if time > LIMIT:
        words, lines = parts(notebook)
        found.append(
            f"takes {time:.0f} minutes to read ({words} words, {lines} visible lines), "
            f"not {LIMIT}"
        )
    stated = [m[1] for c in notebook["cells"] for m in [STATED.search(source(c))] if m]
    if len(stated) != 1 or abs(int(stated[0]) - time) > 2:
        found.append(
            "does not begin `**Time and seeds.** About "
            f"{time:.0f} minutes to read`; it says {stated}"
        )
    for cell in notebook["cells"]:
        if displayed(cell) > PIECE and not tags(cell) & {"hide-output", "hide-cell"}:
            found.append(f"shows {displayed(cell)} lines at once: {source(cell)}")
    return found


def main(paths: list[Path]) -> None:
    print("chapter                      words  lines  minutes")
    for path in paths:
        words, lines = parts(read(path))
        print(f"{path.stem:28}{words:>6}{lines:>7}{words / 200 + lines / 20:>9.0f}")


if __name__ == "__main__":
    main(chapters())
