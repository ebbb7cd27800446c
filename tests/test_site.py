"""The step after the build, and what is made of the book: slides, icon and card.

`make site-check` looks at the built pages themselves, in a browser.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import zlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from book.drawings import badges
from book.slides import __main__ as slides
from tests.book_checks import BOOK, ROOT
from tests.test_viewer import Reader

STATIC = BOOK / "_static"
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def extension() -> ModuleType:
    path = BOOK / "_ext" / "finish_pages.py"
    spec = importlib.util.spec_from_file_location("finish_pages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = extension()
PARAGRAPH = "A model solves more problems when it may try more often. " * 5
PAGE = f"""<html><head><meta name="viewport" content="x" />
<title>A page &#8212; a book</title>
<link rel="stylesheet" href="_static/sphinx-thebe.css?v=1" />
<link rel="stylesheet" href="_static/sphinx-design.min.css?v=1" />
<script>const THEBE_JS_URL = "https://unpkg.com/x"; const y = 1</script>
<script src="_static/searchtools.js"></script><script src="searchindex.js"></script>
<script data-x="sphinx-design-tab-id-" src="_static/design-tabs.js?v=1"></script>
</head><body><div id="pst-primary-sidebar" class="bd-sidebar">
<button class="btn search-button-field x" aria-label="Search">Search Ctrl+K</button>
<i class="fab fa-github"></i></div><article class="bd-article">
<summary aria-label="Toggle hidden content">
<p><strong>Time and seeds.</strong> {PARAGRAPH}</p><p>{PARAGRAPH}</p>
<dl>
<dd><em class="sig-param">a: int</em>,</dd>
<dd><em class="sig-param">b: int</em>,</dd>
</dl>
<th class="head"><p></p></th><th class="head"><p><span class="math n">\\(r_1\\)</span>\
</p></th><th class="head">N</th>
<div class="citation" role="doc-biblioentry"></div>
<div class="math">\\[\\begin{{split}}\\begin{{gathered}}a\\\\b\\end{{gathered}} \
\\tag{{3.9}}\\end{{split}}\\]</div>
</article></body></html>"""


@pytest.fixture(scope="module")
def page() -> str:
    return pages.finished(PAGE, "book/page.html")


@pytest.mark.parametrize(
    "gone",
    ["unpkg", "thebe", "searchtools", "searchindex", "sphinx-design", "design-tabs"]
    + ["fab fa-", 'aria-label="Toggle', "doc-biblioentry", "<dl>", "begin{split}"]
    + ['aria-label="Search"', "\\(r_1\\)"],
)
def test_what_a_page_does_not_need_is_gone(page: str, gone: str) -> None:
    assert gone in PAGE
    assert gone not in page


@pytest.mark.parametrize(
    "there",
    ['role="complementary"', "<td></td>", "<i>r</i><sub>1</sub>", 'role="listitem"']
    + ['<span class="sig-line"><em class="sig-param">b: int</em>,</span>']
    + ["\\[\\begin{gathered}", "\\tag{3.9}\\]", '<th class="head">N</th>'],
)
def test_what_a_reader_needs_is_there(page: str, there: str) -> None:
    assert there not in PAGE or there.startswith("<th")
    assert there in page


def test_a_part_of_the_contents_that_folds_has_a_name() -> None:
    toggle = '<summary><span class="toctree-toggle" role="presentation"></span>'
    named = pages.readable(toggle)
    assert named.startswith('<summary aria-label="Pages below this one"><span class')
    assert pages.readable(named) == named


def test_a_page_is_finished_once(page: str) -> None:
    assert pages.finished(page, "book/page.html") == page
    assert page.count('name="viewport"') == 1


def test_a_page_is_described(page: str) -> None:
    said = dict(
        re.findall(r'<meta (?:name|property)="([^"]+)" content="([^"]*)"', page)
    )
    assert said["description"].startswith("A model solves")
    assert len(said["description"]) <= 202
    assert said["og:title"] == "A page — a book"
    assert said["og:image"] == pages.SITE + pages.CARD
    assert (BOOK / pages.CARD).is_file()


def test_the_real_run_is_the_one_of_its_page() -> None:
    """Chapter 20 shows the record, and links to the page."""
    record = json.loads((BOOK / "results" / "real_run.json").read_text())
    page = (STATIC / "run-real.html").read_text(encoding="utf-8")
    steps, tables = record["results"]["steps"], Reader(page).tables
    assert len(steps) == len(tables) > 1 and "--seed 0 " in record["command"]
    for step, (_, *rows) in zip(steps, tables, strict=True):
        texts = [text.strip("\n") or "(none)" for text in step["texts"]]
        assert [row[2] for row in rows] == texts
        told = [(float(row[3]), float(row[4].rstrip("%")) / 100) for row in rows]
        kept = zip(step["rewards"], step["weights"], strict=True)
        assert torch.allclose(torch.tensor(told), torch.tensor([*kept]), atol=6e-4)


def test_a_run_to_step_through_is_opened_and_not_downloaded() -> None:
    page = (
        '<a class="reference download internal" download="" '
        'href="../_downloads/0af1/run-real.html">one</a>'
    )
    wanted = '<a class="reference internal" href="../_static/run-real.html">one</a>'
    assert pages.readable(page) == wanted
    other = page.replace("run-real.html", "references.bib")
    assert pages.readable(other) == other


def test_an_arrow_that_unfolds_pages_has_a_name() -> None:
    page = '<a class="reference internal" href="x.html">A part</a><details><summary>'
    wanted = page.replace("<summary>", '<summary aria-label="Pages of: A part">')
    assert pages.readable(page) == pages.readable(wanted) == wanted


def test_formulas_of_several_lines_without_a_number_stay() -> None:
    formula = "\\[\\begin{split}a\\\\b\\end{split}\\] and \\(x\\) \\tag{1.1}"
    assert pages.readable(formula) == formula


def test_the_search_page_keeps_its_search() -> None:
    page = pages.lighter(PAGE, "search.html")
    assert "searchtools" in page and "searchindex" in page


def test_scripts_are_quiet_and_stay_scripts() -> None:
    assert pages.quiet("x=1,console.log(`a`),y()") == "x=1,void(`a`),y()"
    assert pages.quiet("console.error(e)") == "console.error(e)"


def test_icons_that_are_shown_stay() -> None:
    style = (
        '.fa-a:before{content:"\\f001"}.fa-b:before,.fa-c:before{content:"\\f002"}p{}'
    )
    assert pages.slim(style, {"fa-c"}) == style[style.index(".fa-b") :]


def test_mathjax_is_shipped() -> None:
    path = CONFIG["sphinx"]["config"]["mathjax_path"]
    assert (STATIC / path).stat().st_size > 1e6
    fonts = STATIC / "mathjax" / "output" / "chtml" / "fonts" / "woff-v2"
    assert len(list(fonts.glob("MathJax_*.woff"))) == 23
    assert (STATIC / "mathjax" / "LICENSE").is_file()


def test_icon_and_card_are_what_the_source_draws() -> None:
    """`make card` writes them anew."""
    assert (STATIC / "icon.svg").read_text(encoding="utf-8") == badges.icon()
    assert (STATIC / "card.svg").read_text(encoding="utf-8") == badges.card()
    assert (ROOT / CONFIG["html"]["favicon"]).is_file()


def test_the_talk_has_slides_with_notes() -> None:
    parts = slides.slides(slides.talk())
    assert 20 <= len(parts) <= 30
    for part in parts:
        assert part.startswith("<h2>") and part.count('class="notes"') == 1
        assert "![" not in part


def test_the_talk_shows_what_the_book_shows() -> None:
    page = slides.page(slides.talk())
    assert slides.figure("fig-05-line") in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    with pytest.raises(KeyError, match="fig-05-nowhere"):
        slides.figure("fig-05-nowhere")


def test_slides_know_bold_code_and_indices() -> None:
    assert slides.inline("**a** `x < y` $x_t$") == (
        "<b>a</b> <code>x &lt; y</code> <i>x</i><sub><i>t</i></sub>"
    )


def test_launch_buttons_find_their_environment() -> None:
    buttons = CONFIG["launch_buttons"]
    assert set(buttons) == {"notebook_interface", "binderhub_url", "colab_url"}
    wanted = (ROOT / ".binder" / "requirements.txt").read_text(encoding="utf-8")
    assert "-r ../requirements.txt" in wanted and "-c ../constraints.txt" in wanted


def test_versions_of_the_check_are_pinned() -> None:
    package = json.loads((ROOT / "site" / "package.json").read_text(encoding="utf-8"))
    assert all(re.fullmatch(r"[\d.]+", v) for v in package["dependencies"].values())
    assert (ROOT / "site" / "package-lock.json").is_file()


# What packs a PDF needs nothing but Node itself.
NODE = shutil.which("node")
OBJECTS = {
    1: b"<</Type /Catalog /Pages 3 0 R>>",
    2: b"<</Length 21>>\nstream\nendobj 9 0 obj stream\nendstream",
    3: b"<</Type /Pages /Count 0 /Kids []>>",
    4: b"(a text with endobj in it, and \xe9)",
}


def plain_pdf() -> bytes:
    """A file as Chromium writes one: an object after the other, and a table."""
    whole, places = b"%PDF-1.4\n", []
    for number, body in OBJECTS.items():
        places.append(len(whole))
        whole += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    rows = b"".join(b"%010d 00000 n \n" % place for place in places)
    table = b"xref\n0 5\n0000000000 65535 f \n" + rows
    trailer = b"trailer\n<</Size 5\n/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(
        whole
    )
    return whole + table + trailer


def unpacked(pdf: bytes) -> dict[int, bytes]:
    """What a reader of PDF 1.5 finds, by its table."""

    def stream(place: int) -> tuple[bytes, bytes]:
        head, _, rest = pdf[place:].partition(b"stream\n")
        length = int(re.findall(rb"/Length (\d+)", head)[0])
        return head, zlib.decompress(rest[:length])

    start = int(re.findall(rb"startxref\n(\d+)\n%%EOF\n$", pdf)[0])
    head, rows = stream(start)
    assert b"/W [1 5 2]" in head and b"/Root 1 0 R" in head
    found = {}
    for number in range(len(rows) // 8):
        row = rows[8 * number : 8 * number + 8]
        kind, place = row[0], int.from_bytes(row[1:6], "big")
        if kind == 1 and place != start:
            body = pdf[place:].partition(b" obj\n")[2].split(b"\nendobj\n")[0]
            found[number] = body
        elif kind == 2:
            of = int.from_bytes(rows[8 * place + 1 : 8 * place + 6], "big")
            head, data = stream(of)
            first = int(re.findall(rb"/First (\d+)", head)[0])
            numbers = [int(n) for n in data[:first].split()]
            at = int.from_bytes(row[6:], "big")
            assert numbers[2 * at] == number
            ends = [*(n + first for n in numbers[3::2]), len(data) + 1]
            found[number] = data[first + numbers[2 * at + 1] : ends[at] - 1]
    return found


@pytest.mark.skipif(NODE is None, reason="needs Node")
def test_a_packed_pdf_has_the_same_objects(tmp_path: Path) -> None:
    (tmp_path / "plain.pdf").write_bytes(plain_pdf())
    script = (
        f'import {{ squeezed }} from "{ROOT}/site/squeeze.mjs";'
        'import { readFileSync, writeFileSync } from "node:fs";'
        'writeFileSync("packed.pdf", squeezed(readFileSync("plain.pdf")));'
    )
    run = [str(NODE), "--input-type=module", "-e", script]
    subprocess.run(run, cwd=tmp_path, check=True)
    found = unpacked((tmp_path / "packed.pdf").read_bytes())
    assert {number: found[number] for number in OBJECTS} == OBJECTS
