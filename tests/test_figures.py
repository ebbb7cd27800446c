"""Figures that stand on a page without the cell that gave them: they are those of the
pages that the same paragraph, or row, links to.
"""

import re
from pathlib import Path

import pytest

from tests.book_checks import BOOK, ROOT
from tests.test_docs import printed

LINK = re.compile(r"\[[^\]]*\]\(((?:book/)?[\w/]+\.(?:ipynb|md|bib))[^)]*\)")
NUMBER = re.compile(r"(?<![\w.,])(?<![A-Za-z]-)\d[\d,]*(?:\.\d+)?(?![\w]|\.\d)")


def numbers(text: str) -> list[str]:
    """The numbers of a text, links and code aside."""
    plain = re.sub(r"`[^`]*`", " ", LINK.sub(" ", text))
    return [found.rstrip(",") for found in NUMBER.findall(plain)]


def said(link: str) -> str:
    path = BOOK / Path(link).name
    if path.suffix == ".bib" or not path.is_file():
        return ""
    return printed(path) if path.suffix == ".ipynb" else path.read_text("utf-8")


def unfounded(paragraph: str) -> list[str]:
    """Numbers of a paragraph that no page has to which it links."""
    text = "\n".join(said(link) for link in LINK.findall(paragraph))
    return [
        number
        for number in numbers(paragraph)
        if not re.search(rf"(?<![\d.]){re.escape(number)}(?!\d|\.\d)", text)
    ]


def paragraphs(page: str) -> list[str]:
    """Paragraphs, rows of tables and items of lists that link to a page."""
    pieces = re.split(r"\n\n|\n(?=\|)", page)
    return [piece for piece in pieces if LINK.search(piece)]


@pytest.mark.parametrize("name", ["which_method", "troubleshooting"])
def test_figures_of_a_page(name: str) -> None:
    text = (BOOK / f"{name}.md").read_text(encoding="utf-8")
    if name == "troubleshooting":  # the rest explains messages
        text = text.partition("## The filter does not help")[2].partition("\n## ")[0]
        text = re.sub(r"\n\d+\. ", "\n\n", text)
    pieces = paragraphs(text)
    assert len(pieces) > 8
    assert {p[:60]: w for p in pieces if (w := unfounded(p))} == {}


def test_figures_of_the_readme() -> None:
    """What the filter gains: its section of results."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = text[text.index("## Results") : text.index("## What is where")]
    assert len(numbers(part)) > 60
    assert unfounded(part) == []


def test_a_wrong_figure_is_seen() -> None:
    link = "[19](19_study.ipynb)"
    assert unfounded(f"| filter 53.3 at N = 4 of MiniMATH-500 | {link} |") == []
    assert unfounded(f"| filter 53.4 at N = 4 | {link} |") == ["53.4"]
    assert unfounded("75.9 [2025](references.bib 'puri2025')") == ["75.9"]
