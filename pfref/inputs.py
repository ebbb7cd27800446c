"""Files that a user names: of problems, as plain text, JSON Lines or CSV, and those to
write.
"""

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import UserError, writing

PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")
NAMES = ("problem", "question")  # of the field or column that holds a problem


def listed(problems: Iterable[str]) -> list[str]:
    """Problems that are given in Python. Raises UserError for one text, whose letters
    would be taken for problems, for what is no text, and for none.
    """
    several = isinstance(problems, Iterable) and not isinstance(problems, str)
    found: list[Any] = list(problems) if several else [None]
    if not all(isinstance(p, str) for p in found):
        raise UserError("a problem is a text; give a list of texts")
    if not found:
        raise UserError("there is no problem to solve")
    return found


def read_problems(file: str | Path) -> list[str]:
    """The problems of a file, in its order.

    A .csv or .tsv file has a column "problem" or "question". A .jsonl or .json file,
    or any other of which every line is a JSON object, has such a field in each. Of all
    others each line is a problem; empty ones are left out.

    Raises UserError if the file cannot be read, or holds no problem, or a bad one.
    """
    file = Path(file)
    text, suffix = text_of(file), file.suffix.lower()
    if suffix in (".csv", ".tsv"):
        problems = from_table(file, text, "\t" if suffix == ".tsv" else ",")
    else:
        lines = [(k, line) for k, line in enumerate(text.split("\n"), 1)]
        lines = [(k, line.strip()) for k, line in lines if line.strip()]
        objects = [parsed(line) for _, line in lines]
        if suffix == ".json" and isinstance(whole := parsed(text), list):
            problems = [field_of(file, f"entry {k}", e) for k, e in enumerate(whole, 1)]
        elif suffix in (".jsonl", ".ndjson", ".json") or all(
            isinstance(entry, dict) for entry in objects
        ):
            problems = [
                field_of(file, f"line {k}", entry)
                for (k, _), entry in zip(lines, objects, strict=True)
            ]
        else:
            problems = [line for _, line in lines]
    if not problems:
        raise UserError(f"{file} holds no problem")
    return problems


def read_objects(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, or of one JSON list, each with its place.

    Raises UserError if the file cannot be read, or if anything else is in it.
    """
    text = text_of(file)
    if isinstance(whole := parsed(text), list):
        entries = [(f"entry {k}", entry) for k, entry in enumerate(whole, 1)]
    else:
        lines = enumerate(text.split("\n"), 1)
        entries = [(f"line {k}", parsed(line)) for k, line in lines if line.strip()]
    for place, entry in entries:
        if not isinstance(entry, dict):
            raise UserError(f"{file}, {place}: not a JSON object")
    return entries


def text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise UserError(f"cannot read {file}: {reason}") from error


def parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def field_of(file: Path, place: str, entry: Any) -> str:
    """The problem in a JSON object."""
    name = next((n for n in NAMES if isinstance(entry, dict) and n in entry), None)
    if name is None:
        raise UserError(
            f'{file}, {place}: not a JSON object with a "problem" or a "question"'
        )
    if not isinstance(entry[name], str):
        raise UserError(f'{file}, {place}: its "{name}" is not a text')
    return entry[name].strip()


def from_table(file: Path, text: str, delimiter: str) -> list[str]:
    """The problems in a table's column of that name."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise UserError(f"{file} is not a table that can be read: {error}") from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    column = next((header.index(name) for name in NAMES if name in header), None)
    if column is None:
        raise UserError(
            f'{file} has no column "problem" or "question" in its first line; name '
            f"one, "
            "or give the problems as text, one a line"
        )
    found = [row[column].strip() for row in rows[1:] if len(row) > column]
    return [problem for problem in found if problem]


def check_place(file: Path) -> None:
    """Raises UserError if `file` cannot be written: before the work, not after it."""
    folder = file.absolute().parent
    with writing(file):  # a folder that may not be entered, a name too long
        if file.is_dir():
            raise UserError(f"{file} is a folder; name a file in it")
        if not folder.is_dir():
            raise UserError(f"there is no folder {file.parent} for {file.name}")
        if not os.access(file if file.exists() else folder, os.W_OK):
            raise UserError(f"cannot write {file}: permission denied")


def check_picture(file: Path) -> None:
    """Raises UserError if `file` cannot be drawn, by its name or its place."""
    if file.suffix.lower() not in PICTURES:
        raise UserError(
            f"cannot draw {file}: give a name that ends in .png, .svg or .pdf"
        )
    check_place(file)
