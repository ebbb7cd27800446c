"""Tasks and their problems: from the package, from files and from the hub."""

import json
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from pfref.errors import UserError
from pfref.study import tasks
from pfref.study.grading import grader_version
from pfref.study.tasks import TASKS, Item, graded_by, load_items


def written(file: Path, *objects: object) -> Path:
    file.write_text("".join(json.dumps(entry) + "\n" for entry in objects))
    return file


def test_nothing_slow_is_imported() -> None:
    slow = "torch transformers numpy sympy math_verify huggingface_hub pyarrow"
    program = (
        "import sys, pfref.study.tasks\n"
        f"print([m for m in {slow.split()} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True)
    assert done.stdout.strip() == b"[]"


def test_what_compares_answers_is_named() -> None:
    assert graded_by(TASKS["math500"]) == grader_version()
    assert graded_by(TASKS["minimath"]) == "plain numbers"
    own = replace(TASKS["math500"], same=str.__eq__)
    assert graded_by(own) == "the task's own comparison"


def test_tasks() -> None:
    for name, task in TASKS.items():
        assert task.name == name
        assert task.done(r"so $\boxed{5}$") and not task.done(r"so $\boxed{5")
        assert not task.done("the answer is 5")
        assert task.answer(r"the answer is 4, no: $\boxed{5}$") == "5"
        assert task.same("33", "033") and task.same("33", "33.")
        assert not task.same("20001", "20000")
    for name in ("boxed", "minimath"):
        assert TASKS[name].system is None
        assert TASKS[name].answer("the answer is 5") is None
    for name in ("math", "math500", "aime2024", "gsm8k"):
        assert "\n## Step 1: " in TASKS[name].system
        assert TASKS[name].answer("The answer is 5. I hope so") == "5"
        assert (
            r"Therefore, the final answer is: $\boxed{answer}$. I hope it is correct."
            in TASKS[name].system.splitlines()
        )
    assert TASKS["math500"].same(r"\frac12", "0.5")


@pytest.mark.parametrize(
    "text, answer",
    [
        (r"\boxed{5} of 7", "5"),
        (r"\boxed{} 7 #### 8", "8"),
        ("a 3 #### 1,234", "1,234"),
        ("the answer is $18 in 7 days.", "18"),
        ("the answer is 12 + 6 = 18.", "18"),
        ("the answer is clear. She has 13 left.", "13"),
        ("He has 7 left.", "7"),
        ("none", None),
    ],
)
def test_gsm8k(text: str, answer: str | None) -> None:
    assert TASKS["gsm8k"].answer(text) == answer


def test_shipped_sets() -> None:
    items = load_items("minimath500")
    assert len(items) == 500 and len(load_items("miniaime")) == 30
    assert items[3] == load_items("minimath500", limit=1, skip=3)[0]
    assert load_items("miniaime", limit=50, skip=28) == load_items("miniaime")[28:]
    assert items[0].id == "minimath500/000" and items[0].level == 1
    assert all(item.answer and item.subject for item in items)


def test_files(tmp_path: Path) -> None:
    file = written(
        tmp_path / "set.jsonl",
        {"problem": " a ", "answer": "1", "unique_id": "u", "level": 3, "subject": "S"},
        {"question": "b", "answer": "so 2\n#### 1,000", "id": 7, "level": "Level 4"},
        {"Problem": "c", "Answer": 33, "ID": "2024-I-1", "type": "T"},
        {"problem": "d", "solution": r"so \boxed{\frac12}.", "level": "Level ?"},
        {"problem": "e", "answer": 2.0},
        {"problem": "f", "answer": "#### 3", "solution": r"\boxed{4}"},
    )
    assert load_items(file) == [
        Item("u", "a", "1", 3, "S"),
        Item("7", "b", "1,000", 4, None),
        Item("2024-I-1", "c", "33", None, "T"),
        Item("set/0003", "d", r"\frac12", None, None),
        Item("set/0004", "e", "2", None, None),
        Item("set/0005", "f", "3", None, None),
    ]
    assert load_items(str(file), 2, 1) == load_items(file)[1:3]


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"problem": "a"}, 'line 1: no "answer"'),
        ({"problem": "a", "answer": " "}, 'line 1: no "answer"'),
        ({"problem": "a", "solution": "none"}, 'line 1: no "answer"'),
        ({"answer": "1"}, 'line 1: no text "problem" or "question"'),
        ({"problem": 3, "answer": "1"}, "line 1: no text"),
        (["a"], "entry 1: not a JSON object"),
        ("a", "line 1: not a JSON object"),
    ],
)
def test_bad_files(tmp_path: Path, entry: object, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_items(written(tmp_path / "set.jsonl", entry))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    for arguments, message in (
        (
            ("math-500",),
            "there is no set or file 'math-500'; choose one of minimath500",
        ),
        ((tmp_path,), "cannot read"),
        (("miniaime", 0), "take at least 1"),
        (("miniaime", 1, -1), "skip no fewer than 0"),
        (("miniaime", 1, 30), "holds 30 problems: none after 30"),
    ):
        with pytest.raises(UserError, match=message):
            load_items(*arguments)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A hub of local files; a name that it lacks raises as the hub's client does."""
    hub_client = pytest.importorskip("huggingface_hub")
    files: dict[tuple[str, str], Path] = {}
    asked: list[tuple[object, ...]] = []

    def info(self: object, repository: str, timeout: float) -> None:
        asked.append((repository, timeout))
        if not any(known == repository for known, _ in files):
            raise OSError("no network")

    def download(repository, file, repo_type, local_files_only=False) -> str:
        assert repo_type == "dataset"
        asked.append((repository, file, local_files_only))
        return str(files[repository, file])

    monkeypatch.setattr(hub_client.HfApi, "dataset_info", info)
    monkeypatch.setattr(hub_client, "hf_hub_download", download)
    return types.SimpleNamespace(files=files, asked=asked)


def test_a_set_from_the_hub(hub, tmp_path: Path) -> None:
    hub.files["HuggingFaceH4/MATH-500", "test.jsonl"] = written(
        tmp_path / "blob.jsonl", {"problem": "a", "answer": "1", "level": 5}
    )
    assert load_items("math500") == [Item("math500/0000", "a", "1", 5)]
    assert hub.asked[-1] == ("HuggingFaceH4/MATH-500", "test.jsonl", False)


@pytest.mark.parametrize("name", list(tasks.HUB))
def test_a_hub_that_cannot_be_reached(hub, name: str) -> None:
    with pytest.raises(UserError, match="give a .jsonl file") as caught:
        load_items(name)
    assert "\n" not in str(caught.value) and tasks.HUB[name][0] in str(caught.value)
    assert hub.asked[-1][-1] is True  # the cache was asked


def test_a_parquet_file(hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "blob.parquet"
    hub.files[tasks.HUB["aime2024"]] = file
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match="pip install pyarrow, or give a .jsonl"):
        load_items("aime2024")
    monkeypatch.undo()


def test_a_parquet_file_is_read(hub, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"id": 60, "problem": "a", "answer": "033", "year": "2024"}]
    file = tmp_path / "blob.parquet"
    parquet.write_table(arrow.Table.from_pylist(rows), file)
    hub.files[tasks.HUB["aime2024"]] = file
    assert load_items("aime2024") == [Item("60", "a", "033")]


def test_a_box_that_is_only_promised_ends_nothing() -> None:
    for task in TASKS.values():
        assert not task.done(r"I will put the answer into \boxed{}.")
        assert task.done(r"so \boxed{5}.")
