"""The map of the package: `python -m tests.package_map` writes book/map.md.

What a file is for is its docstring's first sentence; its chapters are those that show
its lines; its tests are those that import it. A test compares the page with the code.
"""

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pfref
from tests.book_checks import BOOK, ROOT, chapters, read, shown
from tests.book_coverage import countable

PAGE = BOOK / "map.md"
NAMED = 3  # tests named for each file
# Every module has a place in one room, in the order in which one would read.
ROOMS = {
    "The particle filter, for any model": (
        *("smc", "weights", "resampling", "randomness", "variance", "schedules"),
        *("statespace", "gibbs"),
    ),
    "The language model as a proposal": (
        *("lm", "prompts", "paths", "stepping", "decoding", "sampling"),
    ),
    "Under the proposal: caches, attention, devices": (
        *("cache", "groups", "attention", "kernels", "graphs"),
        *("loading", "supported", "hardware", "packing"),
    ),
    "The policy behind an endpoint": (
        *("policy", "server", "client", "connection", "dialects"),
    ),
    "Reward models": (
        *("prm", "families", "readers", "judgement", "probe"),
        *("reward_function", "prm_endpoint"),
    ),
    "Reasoning and answers": (
        *("__init__", "solver", "settings", "reasoning", "methods", "search"),
        *("baselines", "solution", "answers"),
    ),
    "The command line, the viewer and the book": (
        *("__main__", "arguments", "options", "pair", "inputs", "printing", "errors"),
        *("history", "viewer", "plots", "records", "demo", "show"),
        "exercises/__init__",
    ),
    "Studies: from a recipe to records": (
        *("study/arguments", "study/commands", "study/recipe", "study/tasks"),
        *("study/experiment", "study/estimate", "study/memory", "study/journal"),
        *("study/records", "study/archive", "study/replay"),
    ),
    "Studies: right or wrong": (
        *("study/grades", "study/grading", "study/spelling", "study/structure"),
        *("study/verifier", "study/verify_worker"),
    ),
    "Studies: measures and reports": (
        *("study/measures", "study/report", "study/tables", "study/curves"),
        "study/verdicts",
    ),
    "Studies: reward models": (
        *("study/rewards", "study/noisy", "study/probing", "study/outcomes"),
        "study/designs",
    ),
    "Studies: many machines": (*("study/fleet", "study/scale", "study/stragglers"),),
    "MiniMath": (
        *("minimath/problems", "minimath/subjects", "minimath/programs"),
        *("minimath/tokenizer", "minimath/pupils", "minimath/mistakes"),
        *("minimath/fitting", "minimath/policy", "minimath/judge", "minimath/train"),
        *("minimath/export", "minimath/evaluate"),
    ),
}
# Each room's page of the appendix, which tests.source_pages writes.
PAGES = dict(
    zip(
        ROOMS,
        [
            *("filter", "proposal", "engine", "endpoint", "rewards", "reasoning"),
            *("command_line", "study_runs", "study_grading", "study_reports"),
            *("study_rewards", "study_machines", "minimath"),
        ],
        strict=True,
    )
)

OPENING = """# Map of the package

What each file of `pfref/` is for, the chapters that show its source, and tests that
import it. A file's name leads to its whole source, on a page of
[the package, whole](source/index.md). A chapter in brackets shows a part only. Of the
tests, at most three are named: first the one of the same name, then those that import
the fewest other files.
A dash says that no test imports the file itself: those that use it are tested.
The page is written from the code by `python -m tests.package_map`, and a test compares
the two.

A reader of one afternoon starts with `pfref/smc.py`, the whole filter, then reads
`pfref/reasoning.py`, which makes a language model and a reward model into a model for
it, and `pfref/solver.py`, which puts the two together.
"""


@cache
def names() -> list[str]:
    """The modules, as paths below pfref/; those without a docstring are empty."""
    found = []
    for file in sorted((ROOT / "pfref").rglob("*.py")):
        if docstring(file):
            found.append(str(file.relative_to(ROOT / "pfref").with_suffix("")))
    return found


def homeless(modules: Iterable[str]) -> list[str]:
    """Modules without a room, and names in a room that are no module."""
    placed = [name for room in ROOMS.values() for name in room]
    twice = {name for name in placed if placed.count(name) > 1}
    return sorted(set(modules) ^ set(placed) | twice)


def docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def sentence(text: str) -> str:
    """The first sentence, on one line; after a question the answer too."""
    text = " ".join(text.split("\n\n")[0].split())
    first, *rest = re.split(r"(?<=[.?!])\s", text)
    return f"{first} {rest[0]}" if first.endswith("?") and rest else first


@cache
def lines_shown() -> dict[str, dict[Path, set[int]]]:
    """For each chapter, by its file's name, the lines of the package that it shows."""
    return {path.name: shown(read(path))[0] for path in chapters()}


@cache
def chapter_lines(name: str) -> dict[str, set[int]]:
    """The chapters that show a module's lines, by their files' names, and the lines."""
    file = (ROOT / "pfref" / f"{name}.py").resolve()
    counted = countable(file.read_text(encoding="utf-8"))
    found = {
        chapter: counted & lines.get(file, set())
        for chapter, lines in lines_shown().items()
    }
    return {chapter: lines for chapter, lines in found.items() if lines}


def shown_by(name: str) -> str:
    """Links to the chapters that show the module, in brackets if only a part."""
    file = ROOT / "pfref" / f"{name}.py"
    counted = countable(file.read_text(encoding="utf-8"))
    links = []
    for chapter, lines in chapter_lines(name).items():
        link = f"[{int(chapter[:2])}]({chapter})"
        links.append(link if lines == counted else f"({link})")
    return ", ".join(links) or "–"


def anchor(name: str) -> str:
    """Where a file stands on its page: the anchor of its heading `name.py`."""
    return re.sub(r"[^\w-]", "", f"{name}.py").lower()


def mentioned(test: str) -> set[str]:
    """The modules of pfref that a test's text imports, or names by their dotted path as
    a string: to replace a part of one, or to run one by `python -m`.
    """
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.ImportFrom):
            place = (node.module or "").split(".")
            for alias in node.names:
                home = pfref.HOMES.get(alias.name, alias.name)
                name = home if place == ["pfref"] else alias.name
                found |= {tuple(place), (*place, name)}
        elif isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.Constant) and re.fullmatch(
            r"pfref(\.\w+)*", str(node.value)
        ):
            found.add(tuple(str(node.value).split(".")))
            if node.value == "pfref":
                found.add(("pfref", "__main__"))
    paths = {"/".join(parts[1:]) for parts in found if parts[0] == "pfref"}
    # Of pfref.study.tasks.HUB the module is the part that is one.
    paths |= {path.rpartition("/")[0] for path in paths}
    paths |= {f"{path}/__init__".lstrip("/") for path in paths}
    return paths & set(names())


@cache
def tests_of() -> dict[str, list[str]]:
    """For each module the tests that import it, the closest first."""
    found: dict[str, list[tuple[bool, int, str]]] = {}
    for file in sorted((ROOT / "tests").glob("test_*.py")):
        modules = mentioned(file.read_text(encoding="utf-8"))
        for name in modules:
            same = file.stem.removeprefix("test_") == name.rpartition("/")[2]
            found.setdefault(name, []).append((not same, len(modules), file.stem))
    return {name: [test for *_, test in sorted(tests)] for name, tests in found.items()}


def tested_by(name: str) -> str:
    tests = tests_of().get(name, [])
    text = ", ".join(f"`{test}`" for test in tests[:NAMED]) or "–"
    return text + (f" and {len(tests) - NAMED} more" if len(tests) > NAMED else "")


def page() -> str:
    """The page, as it should be."""
    parts = [OPENING]
    for room, modules in ROOMS.items():
        rows = [f"## {room}", "", "| file | what it is for | chapter | tests |"]
        rows.append("| --- | --- | --- | --- |")
        for name in modules:
            file = ROOT / "pfref" / f"{name}.py"
            purpose = sentence(docstring(file)).replace("|", "\\|")
            link = f"[`{name}.py`](source/{PAGES[room]}.md#{anchor(name)})"
            rows.append(
                f"| {link} | {purpose} | {shown_by(name)} | {tested_by(name)} |"
            )
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def main() -> None:
    if wrong := homeless(names()):
        raise SystemExit(f"give a room in tests/package_map.py to: {', '.join(wrong)}")
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
