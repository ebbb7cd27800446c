"""The book's .md pages are plain Markdown: JupyterLab shows them as the site does."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.book_checks import BOOK, chapters, read

# Written from the docstrings when the book is built, and so in Sphinx's own language.
APART = {"api.md"}
PAGES = sorted(page for page in BOOK.glob("*.md") if page.name not in APART)
RAW = re.compile(r"\{[\w:-]+\}`|^ *:::+ *\{|^ *```+ *\{|^\([\w-]+\)=$", re.M)
FIGURE = re.compile(r"\[Fig\. (\d+\.\d+)\]\((\w+\.ipynb)#([\w-]+)\)")


def extension() -> ModuleType:
    path = BOOK / "_ext" / "plain_pages.py"
    spec = importlib.util.spec_from_file_location("plain_pages", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plain_pages = extension()


def figures(path: Path) -> Iterator[str]:
    """The names of a chapter's figures, in the order in which they are numbered."""
    for cell in read(path)["cells"]:
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if "name" in figure:
            yield figure["name"]


def misnamed(page: str) -> list[str]:
    """Links to figures whose chapter, name or number is wrong."""
    numbers = {
        (path.name, name): f"{int(path.name[:2])}.{k}"
        for path in chapters()
        for k, name in enumerate(figures(path), 1)
    }
    return [
        f"Fig. {number} is not {name} of {chapter}"
        for number, chapter, name in FIGURE.findall(page)
        if numbers.get((chapter, name)) != number
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_pages_have_no_raw_markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert RAW.findall(text) == []
    assert misnamed(text) == []
    assert len(FIGURE.findall(text)) == text.count(".ipynb#fig-")


@pytest.mark.parametrize(
    "text",
    ["see {doc}`x`", "{cite:t}`x`", ":::{note}", "```{eval-rst}", "(a-label)="],
)
def test_raw_markup_is_seen(text: str) -> None:
    assert RAW.search(f"A line.\n{text}\n")


def test_a_figure_that_moved_is_seen() -> None:
    there = "[Fig. 6.2](06_particle_filter.ipynb#fig-06-error)"
    assert misnamed(there) == []
    for old, new in (("6.2", "6.3"), ("06-error", "06-nowhere"), ("06_p", "07_p")):
        assert len(misnamed(there.replace(old, new))) == 1


def test_citations_become_sphinxs() -> None:
    text = 'Puri and others [(2025)](references.bib "puri2025") say so.\n\n'
    assert plain_pages.cite(text) == "Puri and others {cite}`puri2025` say so.\n\n"
    whole = plain_pages.cite((BOOK / "bibliography.md").read_text(encoding="utf-8"))
    assert whole.count("```{bibliography}") == 1 and "references.bib" not in whole


def test_the_glossary_becomes_a_list_of_definitions() -> None:
    text = "# Glossary\n\n**a term**\\\nA line.\n\n**other**\\\nOne.\n"
    assert plain_pages.define(text) == (
        "# Glossary\n\n:::{glossary}\na term\n  A line.\n\nother\n  One.\n:::\n"
    )
    with pytest.raises(ValueError, match="no terms"):
        plain_pages.define("# Glossary\n")
    whole = plain_pages.define((BOOK / "glossary.md").read_text(encoding="utf-8"))
    assert "**\\" not in whole
