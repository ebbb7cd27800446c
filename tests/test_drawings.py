"""The committed drawings are what their source draws, are used, and can be read."""

import re
from xml.etree import ElementTree

import pytest

from book.drawings.__main__ import FOLDER
from book.drawings.front import NEEDS, PLACES
from book.drawings.kit import DRAWINGS
from book.drawings.results import BARS, CURVES
from tests.book_checks import BOOK, ROOT, chapters, read, source
from tests.test_pages import texts

IMAGE = re.compile(r"!\[([^\]]*)\]\(_static/drawings/([\w-]+)\.svg\)")
SVG = "{http://www.w3.org/2000/svg}"


def used() -> dict[str, list[str]]:
    """The alternative texts with which pages show each drawing."""
    found: dict[str, list[str]] = {}
    for path in [*chapters(), *sorted(BOOK.glob("*.md"))]:
        for alt, name in IMAGE.findall("\n".join(texts(path))):
            found.setdefault(name, []).append(alt)
    return found


@pytest.mark.parametrize("name", DRAWINGS)
def test_files_are_what_the_source_draws(name: str) -> None:
    """`python -m book.drawings` writes them anew."""
    assert (FOLDER / f"{name}.svg").read_text(encoding="utf-8") == DRAWINGS[name]()


@pytest.mark.parametrize("name", DRAWINGS)
def test_drawings_can_be_read(name: str) -> None:
    """By eyes on a phone, by a screen reader, and without a network."""
    text = DRAWINGS[name]()
    root = ElementTree.fromstring(text)
    assert len(text.encode()) < 15_000
    assert root.get("role") == "img" and root.findtext(f"{SVG}title")
    assert 360 <= float(root.attrib["width"]) <= 400
    assert min(float(size) for size in re.findall(r'font-size="([^"]+)"', text)) >= 12
    kinds = {element.tag.removeprefix(SVG) for element in root.iter()}
    shapes = {"rect", "circle", "polygon", "polyline"}
    assert kinds <= shapes | {"svg", "title", "text", "tspan"}


def test_no_other_files() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(DRAWINGS)


def test_each_is_shown_and_described() -> None:
    shown = used()
    assert set(shown) == set(DRAWINGS)
    for alts in shown.values():
        assert all(len(alt) > 40 and alt.endswith(".") for alt in alts)


def test_pictures_of_results_are_the_readmes_tables() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (ROOT / "README.md").read_text("utf-8").splitlines()
        if line.startswith("| ")
    ]
    named = {row[0]: row for row in rows}
    columns = named["N"]
    for name, (shares, *_) in CURVES.items():
        at = columns.index(name.replace("$", ""))
        assert [named[n][at].split()[0] for n in ("4", "16", "64")] == [
            str(share) for share in shares
        ]
    for name, (gap, *ends) in BARS.items():
        row = named[name.replace("filter", "the filter")]
        low, high = (f"{end:+.1f}" for end in ends)
        assert row[3] == f"{gap:+.1f} [{low}, {high}]"
    pictures = re.findall(
        r'<img src="book/_static/drawings/([\w-]+)\.svg" width="360" alt="[^"]{40,}',
        (ROOT / "README.md").read_text("utf-8"),
    )
    assert pictures == ["good-rewards", "weak-rewards"]


def before(chapter: int) -> set[int]:
    """All that a chapter needs, by the front page's chart."""
    direct = NEEDS.get(chapter, ())
    return set(direct).union(*(before(other) for other in direct))


def test_the_chart_of_chapters_says_what_they_need() -> None:
    """As each says itself, in the paragraph that begins with "You need"."""
    assert set(PLACES) == {int(path.name[:2]) for path in chapters()}
    for path in chapters():
        chapter = int(path.name[:2])
        said = re.search(r"^You need .*", source(read(path)["cells"][1]), re.M)
        assert said, path
        words = re.split("The symbols|Otherwise", said[0])[0]
        named = {int(number) for number in re.findall(r"\((\d\d)_\w+\.ipynb", words)}
        assert set(NEEDS.get(chapter, ())) <= named <= before(chapter), path
