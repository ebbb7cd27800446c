"""What exercises answer back: right answers are right, slips get their hints, and no
hint gives the answer away.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pfref import exercises
from pfref.exercises import FOLDER, check, same, verdict
from tests.book_checks import chapters, read, source

ALL = {
    f"{int(path.stem)}.{number}": entry
    for path in sorted(FOLDER.glob("*.toml"))
    for number, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()
}


@pytest.mark.parametrize("name", ALL)
def test_an_entry_says_what_it_must(name: str) -> None:
    entry = ALL[name]
    assert set(entry) <= {"ask", "answer", "within", "hint", "slips"}
    assert verdict(name, entry["answer"]) == f"Exercise {name}: right."
    assert entry["ask"] in verdict(name, ...)
    for slip in entry.get("slips", []):
        assert verdict(name, slip["answer"]).endswith(slip["hint"])
    other = wrong(entry["answer"])
    said = verdict(name, other)
    assert said.startswith(f"Exercise {name}: not yet.") and "right." not in said


def wrong(answer: Any) -> Any:
    """Another answer of the same kind, far from every slip."""
    if isinstance(answer, list):
        return [*map(wrong, answer)]
    if isinstance(answer, bool):
        return not answer
    return answer + "?" if isinstance(answer, str) else answer + 12345.678


@pytest.mark.parametrize("name", ALL)
def test_hints_keep_the_answer(name: str) -> None:
    entry = ALL[name]
    answer = entry["answer"]
    values = answer if isinstance(answer, list) else [answer]
    texts = [entry["hint"], *(slip["hint"] for slip in entry.get("slips", []))]
    for value in values:
        if isinstance(value, float) and value not in (0.0, 0.5, 1.0):
            for text in texts:
                assert not re.search(rf"(?<![\d.]){re.escape(str(value))}(?!\d)", text)


def test_a_chapter_checks_each_entry_and_solves_it() -> None:
    """The reader's cell asks; the solution's cell is right."""
    asked: dict[str, list[str]] = {}
    for path in chapters():
        for cell in read(path)["cells"]:
            if cell["cell_type"] != "code":
                continue
            said = "".join("".join(o.get("text", "")) for o in cell["outputs"])
            for name in re.findall(r"\bcheck\(\"(\d+\.\d+)\"", source(cell)):
                assert name.split(".")[0] == str(int(path.stem[:2])), path
                asked.setdefault(name, []).append(said)
    assert sorted(asked) == sorted(ALL)
    for name, texts in asked.items():
        assert any("in place of the dots" in text for text in texts), name
        assert any(f"Exercise {name}: right." in text for text in texts), name


def test_numbers_of_any_kind(capsys: pytest.CaptureFixture[str]) -> None:
    name = next(name for name, e in ALL.items() if isinstance(e["answer"], float))
    for value in (torch.tensor(ALL[name]["answer"]), np.float64(ALL[name]["answer"])):
        check(name, value)
        assert capsys.readouterr().out == f"Exercise {name}: right.\n"
    assert same([1.0, 2.004], [1, 2], 0.01) and not same([1.0], [1, 2], 0.01)
    assert not same(True, 1, 0.01) and same("b  a", "b a", 0.01)
    with pytest.raises(ValueError, match="there is no exercise"):
        check("99.1", 0)


def test_a_wrong_entry_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "01.toml").write_text('[1]\nask = "a"\nanswer = 2\nhint = "think"\n')
    monkeypatch.setattr(exercises, "FOLDER", tmp_path)
    assert verdict("1.1", 3) == "Exercise 1.1: not yet. think"
