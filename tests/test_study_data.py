"""The problems of a study: changed, doubled, unreadable, somewhere else, or other ones
for another budget.
"""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pfref import UserError
from pfref.__main__ import main
from pfref.minimath.problems import load_set
from pfref.study.grades import Row
from pfref.study.report import at_tokens, report_on
from pfref.study.tables import as_text
from pfref.study.tasks import load_items
from tests.recorded import RECIPE, without_models

LINES = [dict(problem=p.problem, answer=p.answer) for p in load_set("minimath500")[:4]]
UNREADABLE = "the prompt is too long"


class Reader:
    """Of models that cannot read one problem."""

    def prompt(self, problem: str, *_: object) -> list[int]:
        if problem == LINES[1]["problem"]:
            raise UserError(UNREADABLE)
        return [0]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a recipe whose runs need no models."""
    without_models(monkeypatch, Reader())
    monkeypatch.chdir(tmp_path)
    Path("r.toml").write_text(RECIPE.replace('"minimath500"', '"q.jsonl"'))
    return tmp_path


def write(file: str, lines: list[dict[str, str]]) -> None:
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_changed_problems_are_not_graded_with_old_solutions(place, capsys) -> None:
    """Without ids of their own they are named by their places."""
    write("q.jsonl", LINES[:1] + LINES[2:])
    assert main(["run", "r.toml", "--out", "a", "--quiet"]) == 0
    assert main(["report", "a"]) == 0
    first = capsys.readouterr().out.partition("\n")[2]
    write("q.jsonl", LINES[2:])
    for command in (["run", "r.toml", "--out", "a", "--quiet"], ["report", "a"]):
        assert main(command) == 2
        assert "another problem under the id 'q/0000'" in capsys.readouterr().err
    write("q.jsonl", LINES[:1] + LINES[2:])
    assert main(["report", "a"]) == 0 and capsys.readouterr().out in first
    # Records that are older than the marks are believed.
    file = Path("a/records.jsonl")
    file.write_text(re.sub('"text":"[0-9a-f]{8}",', "", file.read_text()))
    write("q.jsonl", LINES[2:])
    assert main(["report", "a"]) == 0


def test_a_folder_keeps_the_marks_when_it_is_packed(place, capsys) -> None:
    write("q.jsonl", LINES[:1])
    assert main(["run", "r.toml", "--out", "a", "--quiet"]) == 0
    assert main(["pack", "a", "--answers", "--out", "records.jsonl.xz"]) == 0
    write("q.jsonl", LINES[2:])
    assert main(["report", "."]) == 2
    assert "another problem under the id" in capsys.readouterr().err


def test_two_problems_of_one_id(place, capsys) -> None:
    write("q.jsonl", [line | dict(id="7") for line in LINES[:2]])
    assert main(["run", "r.toml", "--out", "a", "--quiet"]) == 2
    assert "has the id '7' twice" in capsys.readouterr().err
    write("q.jsonl", [LINES[0] | dict(id="7"), LINES[2] | dict(id=7)])  # type: ignore
    assert main(["run", "r.toml", "--out", "a", "--quiet"]) == 2
    write("q.jsonl", [LINES[0] | dict(id="\ud800")])
    assert main(["run", "r.toml", "--out", "a", "--quiet"]) == 2


def test_two_marks_of_one_problem(place, capsys) -> None:
    """As when two folders' files are laid together: neither is believed. Of lines that
    are older than the marks the packed file says nothing.
    """
    write("q.jsonl", LINES[:1])
    assert main(["run", "r.toml", "--out", "a", "--quiet"]) == 0
    file = Path("a/records.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    k = next(k for k, line in enumerate(lines) if line.startswith('{"id"'))
    new = '"text":"[0-9a-f]{8}",'
    for change, code in (('"text":"deadbeef",', 2), ("", 0)):
        changed = [*lines[:k], re.sub(new, change, lines[k]), *lines[k + 1 :]]
        file.write_text("".join(changed))
        assert main(["report", "a"]) == code
        assert main(["pack", "a", "--out", "records.jsonl.xz"]) == 0
        write("q.jsonl", LINES[2:3])
        assert main(["report", "."]) == 0  # nobody knows
        write("q.jsonl", LINES[:1])


def test_what_cannot_be_read_is_told(place, capsys) -> None:
    """By the run and by every report, since it counts as not solved."""
    write("q.jsonl", LINES[:3])
    assert main(["run", "r.toml", "--out", "a", "--quiet"]) == 0
    told = f"problem q/0001: {UNREADABLE} (samples, filter)"
    assert told in capsys.readouterr().err
    assert main(["report", "a"]) == 0
    assert f"counted as not solved: {told}" in capsys.readouterr().out
    assert main(["run", "r.toml", "--out", "a", "--quiet"]) == 0
    assert UNREADABLE not in capsys.readouterr().err  # not again


def test_nothing_could_be_read(place, capsys, recwarn) -> None:
    write("q.jsonl", LINES[1:2])
    assert main(["run", "r.toml", "--out", "a", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["report", "a", "--json"]) == 0
    rates = json.loads(capsys.readouterr().out)["rates"]
    assert {rate["by"] for rate in rates} == {"n"}  # nothing was spent
    assert not recwarn.list


def test_a_file_on_the_command_line_is_where_one_stands(place, capsys) -> None:
    """One that a recipe names is looked for beside it."""
    write("q.jsonl", LINES[2:])
    write("there/q.jsonl", LINES[:1])
    Path("there/r.toml").write_text(Path("r.toml").read_text())
    for data, count in (([], 1), (["--data", "q.jsonl"], 2)):
        out = f"out{count}"
        assert main(["run", "there/r.toml", "--out", out, "--quiet", *data]) == 0
        assert capsys.readouterr().out.startswith(f"{6 * count} problems run")


def test_a_budget_that_has_only_begun_prices_no_other() -> None:
    """Its one cheap problem is not where the others are compared."""

    def line(n: int, tokens: float, values: list[float]) -> Row:
        at = np.array([values])
        spent = np.where(np.isnan(at), np.nan, tokens)
        return Row("m", n, at, spent, spent, {})

    ours, gone = line(2, 30, [1, 1, 0]), math.nan
    rivals = [line(2, 20, [0, 1, 0]), line(4, 40, [1, 1, 1])]
    begun = line(8, 5, [gone, gone, 1])
    share = math.log(30 / 20) / math.log(2)
    for rows in (rivals, [*rivals, begun]):
        found = at_tokens(rows, ours)
        assert found is not None and found.tolist() == pytest.approx([share, 1, share])


def test_a_row_says_on_which_machine_it_ran(place: Path) -> None:
    write("q.jsonl", LINES)
    assert main(["run", "r.toml", "--out", "out", "--quiet"]) == 0
    assert "on" not in head_of(place / "out")  # one machine needs no column
    file = place / "out" / "records.jsonl"
    lines = file.read_text().splitlines()
    first, *rest = lines
    session = json.loads(first)["session"]
    filters = [cell for cell in session["cells"] if cell[1] == "filter"]
    there = session | dict(environment=session["environment"] | dict(gpu="a GPU"))
    here = [cell for cell in session["cells"] if cell not in filters]
    sessions = [session | dict(cells=here), there | dict(cells=filters)]
    told = [json.dumps(dict(session=one)) for one in sessions]
    file.write_text("\n".join(told + rest) + "\n")
    found = report_on(place / "out")
    assert "a GPU" in found["machines"][1]
    on = {(row["method"], tuple(row["on"])) for row in found["rows"]}
    assert ("filter", (2,)) in on and ("majority", (1,)) in on
    assert head_of(place / "out")[-1] == "on"


def head_of(folder: Path) -> list[str]:
    """The names of the columns of a report's first table."""
    text = as_text(report_on(folder))
    return next(line for line in text.splitlines() if line[:6] == "method").split()


def test_a_copy_without_minimath_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pfref.minimath.problems", None)
    with pytest.raises(UserError, match="no minimath/, in which minimath500 is; give"):
        load_items("minimath500")
