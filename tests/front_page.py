"""The tables of book/index.md, and its figures on how much of the package the chapters
show: `python -m tests.front_page` writes them anew.

Minutes and run times are those that the chapters state; a test holds the minutes near
what `tests.reading_time` measures.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.book_checks import BOOK, ROOT, Notebook, cells, read, source
from tests.book_coverage import CORE, countable
from tests.package_map import lines_shown, names

PAGE = BOOK / "index.md"
STATED = re.compile(r"About (\d+) minutes to read; runs in (.+?) on ", re.S)
SHARES = {
    "all": r"of the package's [\d,]+ lines they show (\d+) %",
    "filter": r"(\d+) % of what the filter runs through",
    "core": r"(\d+) % of what lies in `pfref/` itself",
    "study": r"(\d+) % of `pfref/study/`",
    "minimath": r"(\d+) % of `pfref/minimath/`",
    "whole": r"Of (\d+) of its \d+ modules they show every line",
}


def title(notebook: Notebook) -> str:
    return re.findall(r"^# (.+)$", source(cells(notebook, "markdown")[0]), re.M)[0]


def stated(notebook: Notebook) -> tuple[int, str]:
    """Minutes to read, and the time that a chapter takes to run."""
    text = "\n".join(source(cell) for cell in cells(notebook, "markdown"))
    minutes, run = STATED.findall(text)[0]
    return int(minutes), " ".join(run.removeprefix("about ").split())


def table(files: list[str]) -> str:
    """Number, title, reading time and run time of the chapters of a part."""
    rows = ["| no. | chapter | to read | to run |", "| ---: | --- | ---: | --- |"]
    total = 0
    for file in files:
        path = ROOT / f"{file}.ipynb"
        minutes, run = stated(read(path))
        total += minutes
        number = int(path.name[:2])
        rows.append(
            f"| {number} | [{title(read(path))}]({path.name}) | {minutes} min | {run} |"
        )
    rows.append(f"| | together | {total // 60} h {total % 60} min | |")
    return "\n".join(rows)


def parts() -> dict[str, list[str]]:
    """The chapters of each part that has chapters."""
    toc: dict[str, Any] = yaml.safe_load((ROOT / "_toc.yml").read_text())
    found = {}
    for part in toc["parts"]:
        files = [chapter["file"] for chapter in part["chapters"]]
        if all(re.match(r"book/\d\d_", file) for file in files):
            found[part["caption"]] = files
    return found


def with_tables(text: str) -> str:
    """The page with each part's table in its place, under the part's heading."""
    for caption, files in parts().items():
        place = rf"^### {caption}\n.*?\n\n(\| no\. \|.*?\n)(?!\|)"
        found = re.search(place, text, re.S | re.M)
        if not found:
            raise SystemExit(f"the page has no heading `### {caption}` with a table")
        text = text[: found.start(1)] + table(files) + "\n" + text[found.end(1) :]
    return text


def shown_of(name: str) -> tuple[int, int]:
    """Of a module's lines, how many the chapters show, and how many there are."""
    file = (ROOT / "pfref" / f"{name}.py").resolve()
    lines = countable(file.read_text(encoding="utf-8"))
    seen: set[int] = set().union(*(d.get(file, ()) for d in lines_shown().values()))
    return len(lines & seen), len(lines)


def measured() -> dict[str, float]:
    """Shares of the package's lines that chapters show, in per cent; how many modules
    are shown whole; and how many lines and modules there are.
    """
    counts = {name: shown_of(name) for name in names()}

    def share(room: str | None, among: Iterable[str] = tuple(counts)) -> float:
        chosen = [
            counts[name]
            for name in among
            if room is None or name.rpartition("/")[0] == room
        ]
        return 100 * sum(met for met, _ in chosen) / sum(all_ for _, all_ in chosen)

    return {
        "all": share(None),
        "filter": share(None, CORE),
        "core": share(""),
        "study": share("study"),
        "minimath": share("minimath"),
        "whole": sum(met == all_ for met, all_ in counts.values()),
        "modules": len(counts),
        "lines": sum(all_ for _, all_ in counts.values()),
    }


def quoted(text: str) -> dict[str, int]:
    """What the page says of the same."""
    text = " ".join(text.split())
    return {name: int(re.findall(form, text)[0]) for name, form in SHARES.items()}


def with_shares(text: str) -> str:
    found = measured()
    for name, form in SHARES.items():
        wanted = form.replace(r"(\d+)", f"{found[name]:.0f}")
        wanted = wanted.replace(r"[\d,]+", f"{round(found['lines'], -2):,.0f}")
        wanted = wanted.replace(r"\d+ modules", f"{found['modules']:.0f} modules")
        place = re.search(form, text)
        if not place:
            raise SystemExit(f"the page does not say: {form}")
        text = text[: place.start()] + wanted + text[place.end() :]
    return text


def main(page: Path = PAGE) -> None:
    text = page.read_text(encoding="utf-8")
    page.write_text(with_shares(with_tables(text)), encoding="utf-8")


if __name__ == "__main__":
    main()
