"""The pages of reference say what the code and the chapters say."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests import front_page, package_map
from tests.book_checks import BOOK, ROOT, chapters, named_tests, read, source
from tests.book_coverage import CORE
from tests.reading_time import LIMIT, complaints

PAGES = sorted(BOOK.glob("*.md"))
AGAIN = "`make pages` writes it anew"


def words(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    markdown = (c for c in read(path)["cells"] if c["cell_type"] == "markdown")
    return "\n\n".join(source(cell) for cell in markdown)


# The map of the package, and the front page


def test_every_module_has_one_place_on_the_map() -> None:
    assert package_map.homeless(package_map.names()) == []
    assert package_map.homeless(["smc", "of_nothing"])


def test_the_map_is_as_the_code_gives_it() -> None:
    assert package_map.PAGE.read_text(encoding="utf-8") == package_map.page(), AGAIN


def test_what_a_test_imports_is_found() -> None:
    text = (
        "from pfref import solve\nimport pfref.study.tasks\nfrom pfref.prm import Y\n"
    )
    text += "replace('pfref.hardware.free')\nrun(['-m', 'pfref.demo'])\n"
    assert package_map.mentioned(text) == {
        *("__init__", "solver", "study/tasks", "prm", "hardware", "demo")
    }


def test_the_first_sentence() -> None:
    assert package_map.sentence("A .gguf file.\nMore.\n\nElse.") == "A .gguf file."
    assert package_map.sentence("How far? By\nthat much. More.") == (
        "How far? By that much."
    )


def test_the_front_page_has_the_chapters_times() -> None:
    text = front_page.PAGE.read_text(encoding="utf-8")
    assert front_page.with_tables(text) == text, AGAIN
    assert sum(map(len, front_page.parts().values())) == len(chapters())


@pytest.mark.parametrize("path", chapters(), ids=lambda path: path.stem)
def test_a_chapter_is_read_in_a_sitting(path: Path) -> None:
    """In at most 25 minutes, near those that it states."""
    assert complaints(read(path)) == []
    assert front_page.stated(read(path))[0] <= LIMIT


def test_a_chapter_that_is_too_long_is_seen() -> None:
    long = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": "a " * 9000}]}
    assert len(complaints(long)) == 2  # too long, and does not say how long


def test_the_front_page_says_how_much_is_shown() -> None:
    said = front_page.quoted(front_page.PAGE.read_text(encoding="utf-8"))
    found = front_page.measured()
    assert all(abs(said[k] - found[k]) <= 2 for k in said), (said, found, AGAIN)


def test_all_that_the_filter_runs_through_is_shown_in_pieces() -> None:
    """No module of it is left to the appendix alone."""
    shares = {name: front_page.shown_of(name) for name in CORE}
    assert [name for name, (met, lines) in shares.items() if met < lines / 10] == []
    met, lines = (sum(column) for column in zip(*shares.values(), strict=True))
    assert met > 0.45 * lines


# Claims


def test_named_tests_exist() -> None:
    page = (BOOK / "claims.md").read_text(encoding="utf-8")
    assert named_tests(page) == [] and page.count("`tests/") > 20


def printed(path: Path) -> str:
    """All that a chapter says and prints."""
    texts = []
    for cell in read(path)["cells"]:
        texts.append(source(cell))
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for piece in (output.get("text"), data.get("text/markdown")):
                texts.append("".join(piece or ""))
    return "\n".join(texts)


def unfounded(page: str) -> list[str]:
    """Decimal figures in a row's third column that no chapter of the row has."""
    found = []
    for row in page.splitlines():
        columns = row.split(" | ")
        if not row.startswith("| ") or len(columns) != 4:
            continue
        names = re.findall(r"\((\d\d_\w+)\.ipynb\)", columns[1])
        text = "\n".join(printed(BOOK / f"{name}.ipynb") for name in names)
        told = re.sub(r"\[Fig\. [\d.]+\]", "", columns[2])
        for figure in re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", told):
            if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", text):
                found.append(f"{figure} in `{row[:60]}`")
    return found


def test_measured_figures_stand_in_the_chapters() -> None:
    assert unfounded((BOOK / "claims.md").read_text(encoding="utf-8")) == []
    row = "| it | [19](19_study.ipynb) | 75.9 and 123.4 | none |"
    assert len(unfounded(row)) == 1


# Troubleshooting


@cache
def messages() -> str:
    """All texts in the package, with a mark where a value is filled in."""
    texts = []
    for file in sorted((ROOT / "pfref").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    str(v.value) if isinstance(v, ast.Constant) else "\0"
                    for v in node.values
                )
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(re.sub(r"\{\w+\}", "\0", node.value))
    return "\n".join(texts)


def unknown(page: str) -> list[str]:
    """Messages of the page's tables that are not the package's: `...` stands for what
    is filled in.
    """
    found = []
    for message in re.findall(r"^\| `([^`]+)` \|", page, re.M):
        parts = [re.escape(part) for part in message.split("...")]
        if not re.search(r"[^\n]*?".join(parts), messages()):
            found.append(message)
    return found


def test_messages_are_those_of_the_code() -> None:
    page = (BOOK / "troubleshooting.md").read_text(encoding="utf-8")
    assert unknown(page) == [] and page.count("\n| `") > 30
    assert unknown("| `there is no potion ...` | no |") == ["there is no potion ..."]


# Bibliography and glossary


def cited(text: str) -> set[str]:
    found = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
    found += re.findall(r'\]\(references\.bib "([\w,]+)"\)', text)
    return {key.strip() for keys in found for key in keys.split(",")}


def test_what_is_cited_is_listed_and_what_is_listed_is_cited() -> None:
    bib = (BOOK / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{([^,]+),", bib, re.M)
    assert len(keys) == len(set(keys))
    everywhere = set().union(*(cited(words(path)) for path in [*PAGES, *chapters()]))
    assert everywhere == set(keys)


# Who found what: before 1993, the four schemes, language models before the paper.
FOUNDERS = """kahn1951 hammersley1954 rosenbluth1955 handschin1969 baker1987 gordon1993
kitagawa1996 liu1998 carpenter1999 douc2005 lew2023 zhao2024 loula2025 puri2025"""


def test_those_who_came_first_are_cited_in_a_chapter() -> None:
    assert set(FOUNDERS.split()) <= set().union(*(cited(words(p)) for p in chapters()))


def test_every_reference_says_who_what_and_when() -> None:
    bib = (BOOK / "references.bib").read_text(encoding="utf-8")
    for entry in re.split(r"^(?=@)", bib, flags=re.M)[1:]:
        missing = [
            f for f in ("author", "title", "year") if f"\n  {f} = {{" not in entry
        ]
        assert not missing, entry
        assert re.search(
            r"\n  (journal|booktitle|publisher|howpublished|school) = ", entry
        ), entry


def test_the_glossary_is_in_order() -> None:
    page = (BOOK / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\*\*(.+)\*\*\\\n\S", page, re.M)
    assert len(terms) > 80
    assert terms == sorted(terms, key=str.casefold) and len(set(terms)) == len(terms)


def test_a_reward_model_is_called_so() -> None:
    """And not a judge, checker or examiner, on the pages of reference."""
    for page in [*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        if page.name == "map.md":
            continue  # MiniMath's files keep their names
        plain = re.sub(r"`[^`]*`", "", words(page))
        assert not re.search(r"\b(judges?|checkers?|examiners?)\b", plain), page


# Those who carry it on


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        ".github/pull_request_template.md",
    ],
)
def test_named_files_exist(name: str) -> None:
    """Paths in code, and links; NAME, NN and such stand for the reader's own."""
    text = re.sub(r"https?://\S+", "http", (ROOT / name).read_text(encoding="utf-8"))
    paths = re.findall(r"\b((?:book|pfref|tests|benchmarks)/[\w./-]*\w/?)", text)
    paths += re.findall(r"\]\(((?!http|#)[^)#\s]+)", text)
    paths += [f"tests/{file}" for file in re.findall(r"`(test_\w+\.py)`", text)]
    there = {path for path in paths if not re.search(r"NAME|NN", path)}
    assert {path for path in there if not (ROOT / path).exists()} == set()


def test_chapters_that_the_readme_names_are_links() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    plain = re.sub(r"\[[^\]]*\]\([^)]*\)", "", text)
    assert not re.findall(r"[Cc]hapters? \d+", plain)
    for number, file in re.findall(r"\[(?:[Cc]hapter )?(\d+)\]\(book/([^)]+)\)", text):
        assert int(file[:2]) == int(number)


def test_forms_and_hooks_are_valid() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    for hook in hooks["repos"][0]["hooks"]:
        assert {"id", "name", "entry", "language"} <= set(hook)
        assert hook["entry"].startswith(".venv/bin/")
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["bug", "claim", "config", "question"]
    for form in forms[:2] + forms[3:]:
        parts = yaml.safe_load(form.read_text())
        assert {"name", "description", "body"} <= set(parts)
        ids = [part["id"] for part in parts["body"]]
        assert len(ids) == len(set(ids))
        assert json.dumps(parts)
