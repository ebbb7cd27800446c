"""Where a chapter names another one, a reader can go there; and code fits the page."""

import re
from pathlib import Path

import pytest

from tests.book_checks import BOOK, chapters, read, source

# Code, formulas, links, tags and roles, in which nothing is to be linked.
APART = re.compile(
    r"```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$\n]*\$|\[[^\]\[]*\]\([^)]*\)|<[^>]+>", re.S
)
NAMED = re.compile(r"\b[Cc]hapters? (\d{1,2})\b(?!\.\d)")
LINK = re.compile(r"\]\(([^)#:\s]+\.(?:ipynb|md|html|bib))")


def texts(path: Path) -> list[str]:
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    return [source(c) for c in read(path)["cells"] if c["cell_type"] == "markdown"]


def unlinked(path: Path) -> list[str]:
    """Chapters that are named without a link, headings and the page itself aside."""
    numbers = {int(p.name[:2]) for p in chapters()} - {int(path.name[:2] or 0)}
    found = []
    for text in texts(path):
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        plain = APART.sub("", "\n".join(lines))
        found += [m[0] for m in NAMED.finditer(plain) if int(m[1]) in numbers]
    return found


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_chapters_are_linked(path: Path) -> None:
    assert unlinked(path) == []


@pytest.mark.parametrize(
    "path", [*chapters(), *sorted(BOOK.glob("*.md"))], ids=lambda path: path.stem
)
def test_linked_pages_exist(path: Path) -> None:
    for text in texts(path):
        for target in LINK.findall(text):
            assert (path.parent / target).exists(), target


def test_a_missing_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "99_page.ipynb"
    page.write_text(
        '{"cells": [{"cell_type": "markdown", "source": ["# Chapter 2\\n", '
        '"As in chapter 3, [chapter 4](x.ipynb), `chapter 5` and chapter 99."]}]}'
    )
    assert unlinked(page) == ["chapter 3"]


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_code_has_88_columns(path: Path) -> None:
    """Longer lines are cut off on the page, or scroll."""
    cells = [source(c) for c in read(path)["cells"] if c["cell_type"] == "code"]
    long = [line for cell in cells for line in cell.splitlines() if len(line) > 88]
    assert long == []
