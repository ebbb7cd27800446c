"""Files of problems, in the forms in which users have them."""

import json
from pathlib import Path

import pytest

from pfref.__main__ import main
from pfref.errors import UserError
from pfref.inputs import check_place, read_objects, read_problems


def written(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


@pytest.mark.parametrize(
    "name, text, problems",
    [
        ("p.txt", "a\n\n b \r\nc", ["a", "b", "c"]),
        ("p", "\ufeffa\nb\n", ["a", "b"]),
        ("p.txt", "{1,2} is a set.\nb", ["{1,2} is a set.", "b"]),
        ("p.txt", "{1,2}\n{3}", ["{1,2}", "{3}"]),
        ("p.txt", '{"problem": "a"}\nb', ['{"problem": "a"}', "b"]),
        ("p.txt", '{"problem": "a"}\n\n{"question": "b"}', ["a", "b"]),
        ("p.jsonl", '{"problem": "a", "question": "x"}\n{"question": "b"}', ["a", "b"]),
        ("p.json", '[{"problem": "a"},\n {"question": "b"}]', ["a", "b"]),
        ("p.csv", "id,Problem\n1,a\n2,\n3,b\n", ["a", "b"]),
        ("p.csv", '\ufeffquestion,x\n"a, ""b""\nc",1\n', ['a, "b"\nc']),
        ("p.tsv", "x\tproblem\n1\ta, b\n", ["a, b"]),
    ],
)
def test_forms(tmp_path: Path, name: str, text: str, problems: list[str]) -> None:
    assert read_problems(written(tmp_path, name, text)) == problems


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("p.txt", "\n", "holds no problem"),
        ("p.csv", "problem\n", "holds no problem"),
        ("p.csv", "text,answer\na,1\n", 'no column "problem" or "question"'),
        ("p.csv", "", 'no column "problem" or "question"'),
        ("p.csv", "problem\n" + "a" * 200_000, "is not a table that"),
        ("p.jsonl", '{"problem": "a"}\n\nb', 'line 3: not a JSON object with a "prob'),
        ("p", '{"text": "x"}', "line 1: not a JSON object"),
        ("p.json", '[{"problem": "a"}, 3]', "entry 2: not a JSON object"),
        ("p", '{"problem": 3}', 'line 1: its "problem" is not a text'),
        ("p", b"\xff\xfe\x00", "cannot read .*: it is not text"),
    ],
)
def test_mistakes(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_problems(written(tmp_path, name, text))
    told = str(caught.value)
    assert str(tmp_path / name) in told and "\n" not in told


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(UserError, match="cannot read"):
            read_problems(path)


def test_what_json_writes_is_read(tmp_path: Path) -> None:
    text = json.dumps({"problem": "1\u20282"}, ensure_ascii=False)
    assert read_problems(written(tmp_path, "p.jsonl", text)) == ["1\u20282"]


def test_objects(tmp_path: Path) -> None:
    """Each with its place; blank lines count as lines."""
    lines = written(tmp_path, "p.jsonl", '\ufeff{"a": 1}\n\n{"b": 2}\r\n')
    assert read_objects(lines) == [("line 1", {"a": 1}), ("line 3", {"b": 2})]
    whole = written(tmp_path, "p.json", '[{"a": 1},\n{"b": 2}]')
    assert read_objects(whole) == [("entry 1", {"a": 1}), ("entry 2", {"b": 2})]


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": 1}\n\n{"b": ', "line 3: not a JSON object"),
        ('[{"a": 1}, 2]', "entry 2: not a JSON object"),
        (b"\xff\xfe\x00", "cannot read .*: it is not text"),
    ],
)
def test_what_is_no_object(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_objects(written(tmp_path, "p.jsonl", text))


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    check_place(tmp_path / "new.png")
    (tmp_path / "old.png").touch()
    check_place(tmp_path / "old.png")
    for file, message in (
        (tmp_path, "is a folder; name a file in it"),
        (tmp_path / "nowhere/new.png", "there is no folder"),
        (tmp_path / "old.png/new.png", "there is no folder"),
        (tmp_path / ("x" * 300), "cannot write .*: File name too long"),
    ):
        with pytest.raises(UserError, match=message):
            check_place(file)


@pytest.mark.parametrize("text", ["Compute \udcff.", "\ud800"])
def test_half_a_character(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a terminal in another encoding passes it on, or as JSON writes it."""
    assert main(["solve", text, "-n", "2", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "which is no character; save it as UTF-8" in err
    assert len(err.splitlines()) == 1
