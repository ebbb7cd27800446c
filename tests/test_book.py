"""The chapters hold to book_checks; and each check can fail, shown on small notebooks
made here.
"""

import base64
import copy
import io
import subprocess
import sys
from typing import Any

import nbformat
import pytest
import yaml
from PIL import Image

from tests.book_checks import (
    BOOK,
    INSTALL,
    ROOT,
    anatomy,
    chapters,
    compared,
    definitions,
    executed,
    exercises,
    formulas,
    images,
    imports,
    listed,
    named_tests,
    notation,
    notation_of,
    package_definitions,
    read,
    shown,
    shows,
    symbols,
    toc_complaints,
)
from tests.book_coverage import countable, coverage, spans
from tests.reading_time import complaints
from tests.tidy_notebooks import joined, shrink

KNOWN = listed((BOOK / "notation.md").read_text())
ALL = {
    "executed": executed,
    "anatomy": anatomy,
    "exercises": exercises,
    "images": images,
    "imports": imports,
    "definitions": definitions,
    "shows": shows,
    "reading": complaints,
}
every_chapter = pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)


@every_chapter
@pytest.mark.parametrize("check", ALL)
def test_chapter(path, check) -> None:
    assert ALL[check](read(path)) == []


@every_chapter
def test_chapter_is_compared_by_nbval(path) -> None:
    assert compared(read(path), path.name) == []


@every_chapter
def test_chapter_obeys_the_notation(path) -> None:
    assert notation_of(read(path), KNOWN) == []


@every_chapter
def test_chapter_is_a_valid_notebook(path) -> None:
    nbformat.validate(read(path))


@pytest.mark.parametrize("page", sorted(BOOK.glob("*.md")), ids=lambda page: page.stem)
def test_page_obeys_the_notation(page) -> None:
    assert notation(page.read_text(), KNOWN) == []


def test_contents_are_the_pages_that_exist() -> None:
    assert toc_complaints(yaml.safe_load((ROOT / "_toc.yml").read_text())) == []


def test_named_tests_exist() -> None:
    for page in ("reproducibility.md", "claims.md", "troubleshooting.md"):
        assert named_tests((BOOK / page).read_text()) == []


def test_files_are_small() -> None:
    assert [
        str(file)
        for file in BOOK.rglob("*")
        if file.is_file() and file.stat().st_size > 5e6
    ] == []


@every_chapter
def test_pictures_are_small(path) -> None:
    """A page, pictures and all, stays below 500 KB; about half of it is text."""
    pictures = [
        output["data"]["image/png"]
        for cell in read(path)["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert sum(len(base64.b64decode(picture)) for picture in pictures) < 250_000


def test_small_pictures_are_the_same_pictures() -> None:
    picture = Image.new("RGB", (60, 40), "white")
    picture.paste("#0072B2", (10, 10, 30, 30))
    large = io.BytesIO()
    picture.save(large, "PNG", compress_level=0)
    small = shrink(large.getvalue())
    assert len(small) < len(large.getvalue()) / 2
    assert Image.open(io.BytesIO(small)).convert("RGB").tobytes() == picture.tobytes()


def test_printed_pieces_are_joined() -> None:
    piece = {"output_type": "stream", "name": "stdout", "text": ["a\n"]}
    assert joined([dict(piece), dict(piece), PNG, dict(piece)]) == [
        piece | {"text": ["a\n", "a\n"]},
        PNG,
        piece,
    ]


def test_the_build_runs_nothing() -> None:
    assert (
        yaml.safe_load((ROOT / "_config.yml").read_text())["execute"][
            "execute_notebooks"
        ]
        == "off"
    )


# Each check can fail

PNG = {
    "output_type": "display_data",
    "data": {"image/png": "iVBORw0KGgo="},
    "metadata": {},
}


def text(*lines: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": "\n".join(lines)}


def code(
    source: str, count: int, *tags: str, outputs: tuple = (), alt: str = ""
) -> dict:
    metadata: dict = {"tags": list(tags)}
    if alt:
        caption = "The error against the number of particles."
        metadata["mystnb"] = {
            "image": {"alt": alt},
            "figure": {"caption": caption, "name": "fig-01-error"},
        }
    if "hide-cell" in tags:
        metadata["jupyter"] = {"source_hidden": True}
    return {
        "cell_type": "code",
        "metadata": metadata,
        "source": source,
        "execution_count": count,
        "outputs": list(outputs),
    }


def good() -> dict:
    """A chapter without a fault. Cells 4, 5 and 7 are code before the exercises."""
    cells = [
        text("# A title", "**Time and seeds.** About 1 minutes to read; seed 0."),
        text("## Objectives", "$W_t^n$"),
        text("## What goes wrong"),
        code(INSTALL, 1, "remove-cell"),
        code(
            "from pfref import smc\nfrom pfref.weights import normalise\nfrom "
            "pfref.show import show",
            2,
        ),
        code("show(normalise, smc.ParticleFilter.run)", 3),
        text("A picture"),
        code(
            "plot()",
            4,
            outputs=(PNG,),
            alt="The error falls as one over the root of N.",
        ),
        text("## Exercises"),
    ]
    for k in (1, 2, 3):
        cells += [
            text(f"### Exercise {k}", "Do it."),
            code(f"print({k})", 4 + k, "hide-cell"),
        ]
    return {
        "cells": [*cells, text("## Summary"), text("## References")],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


@pytest.fixture
def chapter() -> dict:
    return copy.deepcopy(good())


def test_a_good_chapter_passes_everything(chapter) -> None:
    assert [check(chapter) for check in (*ALL.values(), compared)] == [[]] * 9
    assert notation_of(chapter, KNOWN) == []


@pytest.mark.parametrize(
    "change",
    [
        {"execution_count": None},
        {"execution_count": 7},
        {"source": " "},
        {
            "outputs": [
                {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
            ]
        },
    ],
)
def test_execution_is_checked(chapter, change) -> None:
    chapter["cells"][5] |= change
    assert executed(chapter)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"tags": ["nbval-skip"]}},
        {"metadata": {"tags": ["raises-exception"]}},
        {"source": "# NBVAL_IGNORE_OUTPUT\n1"},
        {"outputs": [{"output_type": "stream", "name": "stderr", "text": "a warning"}]},
        {
            "outputs": [
                {
                    "output_type": "stream",
                    "name": "stdout",
                    "text": "<Model at 0x7f2e1c2d3e40>",
                }
            ]
        },
    ],
)
def test_exemptions_from_nbval_are_checked(chapter, change) -> None:
    chapter["cells"][5] |= change
    assert compared(chapter)


def test_an_exemption_may_be_granted_with_a_reason(chapter) -> None:
    chapter["cells"][7]["metadata"]["tags"] = ["nbval-skip"]
    assert compared(chapter, "x.ipynb", {("x.ipynb", "plot()"): "a reason"}) == []
    assert compared(chapter, "y.ipynb", {("x.ipynb", "plot()"): "a reason"})


@pytest.mark.parametrize(
    "k, new",
    [
        (0, "# A title"),
        (0, "**Time and seeds.** No title."),
        (1, "# Objectives"),
        (2, "```\n## What goes wrong\n```"),
        (-1, "## Literature"),
        (-1, "## References\n## Summary"),
    ],
)
def test_anatomy_is_checked(chapter, k, new) -> None:
    chapter["cells"][k]["source"] = new
    assert anatomy(chapter)


def test_order_of_headings_is_checked(chapter) -> None:
    chapter["cells"][-1], chapter["cells"][-2] = (
        chapter["cells"][-2],
        chapter["cells"][-1],
    )
    assert anatomy(chapter)


def test_exercises_are_checked(chapter) -> None:
    flaws: list[dict[str, Any]] = [{"metadata": {}}, {"execution_count": None}]
    for broken in flaws:
        other = copy.deepcopy(chapter)
        other["cells"][10] |= broken
        assert exercises(other)
    numbered = copy.deepcopy(chapter)
    numbered["cells"][11]["source"] = "### Exercise 4"
    assert exercises(numbered)
    del chapter["cells"][12:14]
    assert exercises(chapter)


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {}},
        {"metadata": {"mystnb": {"image": {"alt": "a plot"}}}},
        {
            "outputs": [
                {
                    "output_type": "display_data",
                    "data": {"image/svg+xml": "<svg/>"},
                    "metadata": {},
                }
            ]
        },
    ],
)
def test_images_are_checked(chapter, change) -> None:
    chapter["cells"][7] |= change
    assert images(chapter)


def test_markdown_images_are_checked(chapter) -> None:
    chapter["cells"][6]["source"] = "![](x.png)"
    assert images(chapter)


@pytest.mark.parametrize(
    "source",
    [
        "from pfref.weights import normalize",
        "from pfref.nowhere import x",
        "import pfref.nowhere",
        "import pfref.smc as s\ns.filter_particles",
        "import pfref\npfref.slove",
    ],
)
def test_imports_are_checked(chapter, source) -> None:
    chapter["cells"][4]["source"] = source
    assert imports(chapter)


def test_submodules_and_magics_are_fine(chapter) -> None:
    chapter["cells"][4]["source"] = (
        "%matplotlib inline\nfrom pfref import weights\nimport "
        "pfref.smc\nweights.normalise"
    )
    assert imports(chapter) == []


MULTINOMIAL = """def multinomial(weights: Tensor, uniforms: Tensor) -> Tensor:
    # another comment
    return inverse_cdf(weights, uniforms)"""


def test_repeated_definitions_are_checked(chapter) -> None:
    chapter["cells"][5] = code(MULTINOMIAL, 2, "pfref-definition")
    assert definitions(chapter) == []
    chapter["cells"][5]["source"] = MULTINOMIAL.replace(
        "weights, uniforms)", "weights, 1 - uniforms)"
    )
    assert definitions(chapter)
    chapter["cells"][5]["source"] = "def no_such_function(): pass"
    assert definitions(chapter)
    chapter["cells"][5]["source"] = "print(1)"
    assert definitions(chapter)
    chapter["cells"][5] = code(
        "def multinomial(w): return 0", 2
    )  # untagged: the chapter's own development
    assert definitions(chapter) == []


def test_every_definition_of_the_package_is_found() -> None:
    found = package_definitions()
    assert {"ParticleFilter", "SCHEMES", "solve", "State"} <= set(found)


def test_what_is_shown(chapter) -> None:
    import pfref.weights

    lines, unclear = shown(chapter)
    assert unclear == [] and {file.name for file in lines} == {"weights.py", "smc.py"}
    chapter["cells"][5]["source"] = "show(unknown)"
    assert shows(chapter)
    chapter["cells"][5]["source"] = "show(*[normalise])"
    assert shows(chapter)
    chapter["cells"][5]["source"] = "from pfref import weights\nshow(weights)"
    file = ROOT / "pfref" / "weights.py"
    everything, met = coverage([chapter], [file])[file]
    assert everything == met == countable(file.read_text()) and file.samefile(
        pfref.weights.__file__
    )
    assert coverage([], [file])[file] == (everything, set())


def test_countable_lines_and_their_ranges() -> None:
    module = (
        '"""What it is.\n\nMore."""\nimport os\n\n# a comment\nA = 1\n'
        '\n\ndef f():\n    """Doc."""\n    return A\n'
    )
    assert countable(module) == {7, 10, 11, 12}
    assert spans({7, 10, 11}, module) == ["7-11"] and spans({7, 11}, module) == [
        "7",
        "11",
    ]


@pytest.mark.slow
def test_coverage_runs_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.book_coverage"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1].startswith("together")


@pytest.mark.parametrize(
    "tex, expected",
    [
        (r"W_t^n = w_t^n / \sum_{i=1}^N w_t^i", {"W", "w", "t", "n", "N", "i"}),
        (r"\log \hat Z_{t}, \widehat{Z}", {r"\hat Z", "t"}),
        (r"\mathrm{ESS}_t \le \alpha N", {"t", r"\alpha", "N"}),
        (
            r"\mathbb{E}\left[f(x)\right] \text{ if } x \in \mathbb R",
            {r"\mathbb E", "f", "x", r"\mathbb R"},
        ),
        (r"\begin{array}{ll} a & b \end{array}", {"a", "b"}),
        (r"\mathbf{1}\{x = 3\}\,", {r"\mathbf 1", "x"}),
        (r"\operatorname{softmax}(\ell / \gamma)^\top", {r"\ell", r"\gamma"}),
        (r"\epsilon + \varphi'", {r"\varepsilon", r"\varphi"}),
    ],
)
def test_symbols(tex, expected) -> None:
    assert symbols(tex) == expected


def test_formulas_are_found_and_code_is_not() -> None:
    page = (
        "A $a$, costs \\$5, `$b$`.\n\n$$\nc\n$$ (eq:c)\n\n```sh\necho $d "
        "$e\n```\n\n```{math}\n:label: x\nf\n```\n\\begin{align}g\\end{align}"
    )
    assert {s for tex in formulas(page) for s in symbols(tex)} >= {"a", "c", "f", "g"}
    assert not {"b", "d", "e"} & {s for tex in formulas(page) for s in symbols(tex)}


def test_unknown_symbols_are_reported(chapter) -> None:
    known = listed("| $a_t$ | ancestor |\n\nBound indices: $i$.")
    assert known == {"a", "t", "i"}
    assert notation(r"$a_i$ and $\hat a_t$ and $\xi$", known) and not notation(
        "$a_i$", known
    )
    chapter["cells"][1]["source"] = r"## Objectives" + "\n" + r"$\mathfrak{B}$"
    assert notation_of(chapter, KNOWN)


def test_contents_are_checked(tmp_path) -> None:
    (tmp_path / "book").mkdir()
    for name in ("index.md", "01_x.ipynb"):
        (tmp_path / "book" / name).touch()
    toc: dict[str, Any] = {
        "root": "book/index",
        "parts": [{"chapters": [{"file": "book/01_x"}]}],
    }
    assert toc_complaints(toc, tmp_path) == []
    assert toc_complaints({"root": "book/index"}, tmp_path) and toc_complaints(
        toc | {"root": "book/nothing"}, tmp_path
    )
    toc["parts"] *= 2
    assert toc_complaints(toc, tmp_path)


def test_named_tests_are_checked() -> None:
    assert named_tests("`tests/test_book.py::test_named_tests_are_checked`") == []
    assert named_tests("`tests/test_book.py::test_of_nothing`") and named_tests(
        "`tests/test_nothing.py::test_x`"
    )
