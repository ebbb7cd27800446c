"""`make demo` on two problems."""

import sys
from pathlib import Path
from typing import Any

import pytest

from pfref import demo, solve


def test_the_demonstration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[tuple[str, str | None, int]] = []

    def noted(*given: Any, **options: Any) -> Any:
        asked.append((options["method"], options.get("choose"), given[3]))
        return solve(*given, **options)

    monkeypatch.setattr(demo, "solve", noted)
    picture = tmp_path / "lines.png"
    words = ["demo", "--rows", "2", "-n", "2", "--plot", str(picture)]
    monkeypatch.setattr(sys, "argv", words)
    demo.main()
    told = capsys.readouterr().out
    assert asked == [
        ("samples", "argmax", 2),
        ("greedy-search", None, 2),
        ("filter", None, 2),
    ]
    assert told.startswith("2 problems of MiniMATH-500")
    for name in ("greedy ", "best of 2 ", "greedy search, 2 ", "filter, 2 "):
        rows = [line for line in told.splitlines() if line.startswith(name)]
        assert rows and "%" in rows[0] and " to " in rows[0], name
    assert "accuracy  95 % interval" in told
    assert picture.read_bytes().startswith(b"\x89PNG")
