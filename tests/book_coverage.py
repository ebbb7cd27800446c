"""What share of the package the chapters show: `python -m tests.book_coverage`.

What no chapter shows stands in the appendix, book/source/, where every file is whole. A
line is shown if a chapter's cell calls `show(...)` on what holds it, or repeats it in
a cell tagged `pfref-definition`. Blank lines, comments, imports and a module's own
docstring do not count.
"""

import argparse
import ast
import sys
from pathlib import Path

from tests.book_checks import ROOT, Notebook, chapters, read, shown

# What the filter runs through, from the weights to the reward model.
CORE = [
    *("weights", "resampling", "smc", "statespace"),
    *("attention", "groups", "cache", "sampling", "decoding"),
    *("stepping", "prompts", "paths", "lm"),
    *("families", "readers", "judgement", "prm", "reasoning"),
]


def countable(text: str) -> set[int]:
    """The numbers of the lines that a reader should meet."""
    tree = ast.parse(text)
    skipped = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    if ast.get_docstring(tree) is not None:
        skipped |= set(range(1, tree.body[0].end_lineno + 1))
    return {
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#")
    } - skipped


def spans(lines: set[int], text: str) -> list[str]:
    """Line numbers as ranges; blank lines and comments do not break a range."""
    relevant = sorted(countable(text))
    found: list[list[int]] = []
    for before, line in zip([None, *relevant], relevant, strict=False):
        if line in lines:
            if found and found[-1][1] == before:
                found[-1][1] = line
            else:
                found.append([line, line])
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


def coverage(
    notebooks: list[Notebook], files: list[Path]
) -> dict[Path, tuple[set[int], set[int]]]:
    """For each file its countable lines, and those of them that the notebooks show."""
    seen: dict[Path, set[int]] = {}
    for notebook in notebooks:
        for file, lines in shown(notebook)[0].items():
            seen.setdefault(file, set()).update(lines)
    result = {}
    for file in files:
        lines = countable(file.read_text(encoding="utf-8"))
        result[file] = (lines, lines & seen.get(file.resolve(), set()))
    return result


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="all modules, not only those that the filter runs through",
    )
    parser.add_argument(
        "--minimum",
        type=float,
        default=0.0,
        help="exit with 1 if a module is below this percentage",
    )
    a = parser.parse_args(arguments)
    files = [ROOT / "pfref" / f"{name}.py" for name in CORE]
    if a.all:
        files += sorted(set((ROOT / "pfref").rglob("*.py")) - set(files))
    found = coverage(
        [read(path) for path in chapters()], [file for file in files if file.is_file()]
    )
    shares = []
    for file, (lines, met) in found.items():
        shares.append(100 * len(met) / max(1, len(lines)))
        missing = ", ".join(spans(lines - met, file.read_text(encoding="utf-8")))
        name = str(file.relative_to(ROOT / "pfref").with_suffix(""))
        print(
            f"{name:<24}{shares[-1]:>6.1f} %  {len(met):>4} of {len(lines):>4}  "
            f"{'not shown: ' + missing if missing else ''}".rstrip()
        )
    seen = sum(len(met) for _, met in found.values())
    all_of_them = sum(len(lines) for lines, _ in found.values())
    print(
        f"{'together':<24}{100 * seen / max(1, all_of_them):>6.1f} %  {seen:>4} of "
        f"{all_of_them:>4}"
    )
    return int(min(shares, default=100.0) < a.minimum)


if __name__ == "__main__":
    sys.exit(main())
