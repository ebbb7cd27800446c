"""The appendix has every file of the package, once and whole, and says of it what the
code says.
"""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests import package_map, source_pages
from tests.book_checks import BOOK, ROOT, chapters, contents, read, source

PAGES = sorted(source_pages.FOLDER.glob("*.md"))
LISTING = re.compile(r"^```\{literalinclude\} (\S+)\n(.*?)^```$", re.S | re.M)


def listed(pages: dict[Path, str]) -> Counter[Path]:
    """The files that pages include, and how often."""
    return Counter(
        (page.parent / path).resolve()
        for page, text in pages.items()
        for path, _ in LISTING.findall(text)
    )


def complaints(pages: dict[Path, str]) -> list[str]:
    """Every Python file of the package that is not empty is on one page, whole."""
    files = {f for f in (ROOT / "pfref").rglob("*.py") if f.read_text().strip()}
    found = listed(pages)
    wrong = [f"{file} is not there" for file in sorted(files - set(found))]
    wrong += [f"{file} is no file of the package" for file in set(found) - files]
    wrong += [f"{file} is there {n} times" for file, n in found.items() if n > 1]
    for page, text in pages.items():
        for path, options in LISTING.findall(text):
            if options != ":language: python\n:linenos:\n":
                wrong.append(f"{page.name} shows {path} with {options!r}, not whole")
    return wrong


def texts() -> dict[Path, str]:
    return {page: page.read_text(encoding="utf-8") for page in PAGES}


def test_every_file_of_the_package_is_on_one_page() -> None:
    assert complaints(texts()) == []


def test_a_file_that_is_missing_or_there_twice_or_in_part_is_seen() -> None:
    pages = texts()
    page = source_pages.FOLDER / "filter.md"
    first, second = [m[0] for m in LISTING.finditer(pages[page])][:2]
    for old, new, wrong in [
        (first, "", 1),
        (first, first + "\n" + first, 1),
        (first, second, 2),  # one is missing, the other there twice
        (first, first.replace(":linenos:", ":lines: 1-9"), 1),
    ]:
        broken = pages | {page: pages[page].replace(old, new)}
        assert len(complaints(broken)) == wrong, (old, new)


def test_the_pages_are_as_the_code_gives_them() -> None:
    wanted = source_pages.pages()
    assert set(wanted) == set(PAGES), "`make pages` writes them anew"
    for page, text in texts().items():
        assert text == wanted[page], f"{page.name}: `make pages` writes it anew"


def test_every_page_is_in_the_contents() -> None:
    listed_there = contents(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    for page in PAGES:
        assert str(page.relative_to(ROOT).with_suffix("")) in listed_there


def test_every_file_says_what_it_is_for_who_shows_it_and_what_holds_it() -> None:
    for page, text in texts().items():
        for part in re.split(r"^## ", text, flags=re.M)[1:]:
            assert re.match(
                r"`\S+\.py`\n\n\S.+\n\n- Shown in chapters: \S.+\n"
                r"- Tests that import it: \S.+\n"
                r"- The file itself: \[`pfref/\S+`\]\(\S+\)"
                r"\n\n<details class=\"listing\">\n<summary>.+</summary>\n\n```",
                part,
            ), (page.name, part[:300])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    """In JupyterLab too, where a listing is not shown and the file is opened."""
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_map_leads_to_each_file() -> None:
    headings = {
        (page.name, package_map.anchor(name))
        for page, text in texts().items()
        for name in re.findall(r"^## `(\S+)\.py`$", text, re.M)
    }
    links = re.findall(r"source/(\w+\.md)#([\w-]+)", package_map.page())
    assert set(links) == headings and len(links) == len(headings)


def test_chapters_show_pieces_and_no_long_module_whole() -> None:
    """What a page does not explain stands in the appendix."""
    for path in chapters():
        for cell in read(path)["cells"]:
            if cell["cell_type"] == "code" and "show(" in source(cell):
                assert package_lines(cell) <= 120, (path.name, source(cell))


def package_lines(cell: dict) -> int:
    return sum(
        len("".join(output.get("data", {}).get("text/markdown", "")).splitlines())
        for output in cell["outputs"]
    )


def test_signs_of_markdown_in_a_docstring_stay_signs() -> None:
    assert source_pages.prose("A *b* of `x_1*`,\nfor $c$ <d>.\n\nMore.") == (
        r"A \*b\* of `x_1*`, for \$c\$ \<d\>."
    )


def test_a_file_without_chapters_says_so() -> None:
    assert source_pages.chapters_of("study/verify_worker").startswith("none of its")
    text = source_pages.chapters_of("smc")
    assert re.match(r"\d+ of \d+ lines, in \[6\]\(\.\./06_particle_filter", text)


def test_the_front_page_says_where_the_rest_is() -> None:
    assert "](source/index.md)" in (BOOK / "index.md").read_text(encoding="utf-8")
