"""Writes the drawings: `python -m book.drawings [NAME ...]`."""

import sys
from pathlib import Path

from . import (  # noqa: F401
    foundations,
    front,
    language,
    methods,
    models,
    results,
    studies,
)
from .kit import DRAWINGS

FOLDER = Path(__file__).parents[1] / "_static" / "drawings"


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or DRAWINGS:
        (FOLDER / f"{name}.svg").write_text(DRAWINGS[name](), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
