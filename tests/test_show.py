"""What chapters show of the package's source."""

import functools
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pfref.show import Piece, opening, show, source


class Fields:
    """Two."""

    one: int = 1
    two: int = 2


class Full:
    """A field and a method that is decorated."""

    one: int = 1

    @functools.cache  # noqa: B019
    def method(self) -> int:
        return self.one


def test_a_class_opens_with_its_fields() -> None:
    assert opening(Fields) == (
        'class Fields:\n    """Two."""\n\n    one: int = 1\n    two: int = 2'
    )
    assert opening(Full).splitlines()[-1] == "    one: int = 1"


def test_a_piece_is_shown_as_it_stands() -> None:
    text = "    x = 1"
    assert source(Piece(text)) == text
    assert source(Full.method).startswith("@functools.cache")


def test_a_module_or_class_opens_up_to_its_first_function(tmp_path: Path) -> None:
    """Though no empty line stands between, and whatever decorates it."""
    text = "X = 1\n@staticmethod\n@staticmethod\ndef f():\n    Y = 2\n\n\nZ = 3\n"
    text += "class C:\n    x = 1\n    class D:\n        y = 2\n"
    (tmp_path / "piece.py").write_text(text)
    spec = importlib.util.spec_from_file_location("piece", tmp_path / "piece.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    assert opening(module) == "X = 1"
    sys.modules["piece"] = module  # where inspect looks for a class
    try:
        assert opening(module.C) == "class C:\n    x = 1"
        assert opening(module.C.D) == "class D:\n    y = 2"
    finally:
        del sys.modules["piece"]


def test_what_is_shown_is_code_with_space_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[str] = []
    notebook = SimpleNamespace(Markdown=str, display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython.display", notebook)
    method = "@functools.cache  # noqa: B019\ndef method(self) -> int:\n"
    show(Piece("x = 1\n"), Full.method)
    show(Piece("'```'"))
    assert shown == [
        f"```python\nx = 1\n\n\n{method}    return self.one\n```",
        "````python\n'```'\n````",
    ]
