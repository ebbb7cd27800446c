"""Tasks: what to ask, when a solution is complete, where its answer is, and which
answers are equal. And their problems, shipped, from the hub or from a file.

Imports nothing slow.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..answers import boxed, hashed, numbers, stated
from ..errors import UserError
from ..inputs import NAMES, read_objects
from .grading import grader_version, same, same_number


@dataclass(frozen=True)
class Task:
    """How one kind of problem is asked and graded.

    system  system prompt for the language model; None: none
    done    is there a complete answer in a partial solution's text?
    answer  the answer in a solution's text, or None
    same    is an answer (given second) the gold answer?
    """

    name: str
    system: str | None
    done: Callable[[str], bool]
    answer: Callable[[str], str | None]
    same: Callable[[str, str], bool]


@dataclass(frozen=True)
class Item:
    """A problem and its gold answer."""

    id: str
    problem: str
    answer: str
    level: int | None = None
    subject: str | None = None


# Headings, last line and its closing words as the paper's policy prompt has them.
STEPS = """Solve the mathematics problem step by step, clearly and without detours.

- If two steps or fewer are enough, answer briefly, with little explanation.
- Otherwise write one step after another in this form, a blank line between them:

## Step 1: [what this step does]
[a short explanation and the calculation]

## Step 2: [what this step does]
[a short explanation and the calculation]

...

Whichever you choose, the last line is:

Therefore, the final answer is: $\\boxed{answer}$. I hope it is correct.

where [answer] is only the final number or expression that solves the problem."""
AIME = STEPS + " It is an integer from 0 to 999."
GSM8K = STEPS + " It is a number without its unit."


def complete(text: str) -> bool:
    return bool(boxed(text))  # not by "in \\boxed{}", which a plan may say


def boxed_or_stated(text: str) -> str | None:
    """The last box; without any, what "the answer is" states."""
    return boxed(text) or stated(text)


def number_found(text: str) -> str | None:
    """The last box's content; without any, what follows GSM8K's own mark, then the
    first number that "the answer is" states (after its equals sign), then the last of
    all.
    """
    for find in (boxed, hashed):
        if (found := find(text)) and re.search("[0-9]", found):
            return found
    said = numbers((stated(text) or "").rpartition("=")[2])
    return next(iter(said or numbers(text)[-1:]), None)


TASKS = {
    task.name: task
    for task in (
        Task("boxed", None, complete, boxed, same),
        Task("minimath", None, complete, boxed, same_number),
        Task("math", STEPS, complete, boxed_or_stated, same),
        Task("math500", STEPS, complete, boxed_or_stated, same),
        Task("aime2024", AIME, complete, boxed_or_stated, same),
        Task("gsm8k", GSM8K, complete, number_found, same),
    )
}

SHIPPED = ("minimath500", "miniaime")
# On the hub: repository and file.
HUB = {
    "math500": ("HuggingFaceH4/MATH-500", "test.jsonl"),
    "aime2024": ("HuggingFaceH4/aime_2024", "data/train-00000-of-00001.parquet"),
    "gsm8k": ("openai/gsm8k", "main/test-00000-of-00001.parquet"),
}
HUB_SECONDS = 10


def graded_by(task: Task) -> str:
    """What decides whether answers are equal; versions of it move figures."""
    if task.same is same:
        return grader_version()
    return "plain numbers" if task.same is same_number else "the task's own comparison"


def task_named(name: str) -> Task:
    """Raises UserError if there is none, such as one of your own in another program."""
    if name not in TASKS:
        raise UserError(
            f"there is no task {name!r}; take one of {', '.join(TASKS)}, or add yours "
            "to pfref.study.tasks.TASKS first"
        )
    return TASKS[name]


def load_items(name: str | Path, limit: int | None = None, skip: int = 0) -> list[Item]:
    """The problems of a set, `skip` left out at its beginning, `limit` at most.

    name  "minimath500" and "miniaime" are shipped; "math500", "aime2024" and "gsm8k"
          (its test split) come from the hub; anything else is a JSON Lines file, each
          line with a "problem" or "question" and an "answer" (or a "solution" with it
          in a box), and perhaps "id" or "unique_id", "level", "subject" or "type"

    Raises UserError if there is no such set or file, if it cannot be had or read, if
    two problems have one id, or if nothing is left of it.
    """
    if skip < 0 or (limit is not None and limit < 1):
        raise UserError("skip no fewer than 0 problems and take at least 1")
    if name in SHIPPED:
        try:
            from ..minimath.problems import load_set
        except ImportError as error:
            raise UserError(
                f"this copy of pfref has no minimath/, in which {name} is; give "
                "problems of your own"
            ) from error

        items = [
            Item(p.id, p.problem, p.answer, p.level, p.subject)
            for p in load_set(str(name))
        ]
    elif name in HUB:
        items = items_of(str(name), from_hub(str(name)), str(name))
    else:
        file = Path(name)
        if not os.path.exists(file):  # False too for a name that is too long
            known = ", ".join((*SHIPPED, *HUB))
            raise UserError(
                f"there is no set or file {str(name)!r}; choose one of {known}, or "
                "give a .jsonl file"
            )
        items = items_of(str(file), read_objects(file), file.stem)
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise UserError(f"{name} has the id {item.id!r} twice; give each its own")
        if not item.id.isprintable():
            raise UserError(f"{name} has the id {item.id!r}; give it another")
        seen.add(item.id)
    if len(items) <= skip:
        raise UserError(f"{name} holds {len(items)} problems: none after {skip}")
    return items[skip:][:limit]


def items_of(
    source: str, objects: list[tuple[str, dict[str, Any]]], prefix: str
) -> list[Item]:
    """Items from objects with the usual field names, in capitals or not."""
    items = []
    for number, (place, entry) in enumerate(objects):
        fields = {str(key).lower(): value for key, value in entry.items()}
        problem = next((fields[n] for n in NAMES if n in fields), None)
        if not isinstance(problem, str):
            raise UserError(f'{source}, {place}: no text "problem" or "question"')
        answer = gold_of(fields)
        if not answer:
            raise UserError(
                f'{source}, {place}: no "answer", and no "solution" with one in a box'
            )
        ids = (fields.get(n) for n in ("unique_id", "id"))
        own = next((i for i in ids if i is not None), f"{prefix}/{number:04d}")
        subject = fields.get("subject", fields.get("type"))
        items.append(
            Item(
                str(own),
                problem.strip(),
                answer,
                level_of(fields.get("level")),
                subject if isinstance(subject, str) else None,
            )
        )
    return items


def gold_of(fields: dict[str, Any]) -> str | None:
    """The gold answer: as it is, after GSM8K's ####, or in the solution's box."""
    answer = fields.get("answer")
    if answer is None:
        solution = fields.get("solution")
        return boxed_or_hashed(solution) if isinstance(solution, str) else None
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)
    text = str(answer).strip()
    return hashed(text) if "####" in text else text


def boxed_or_hashed(text: str) -> str | None:
    return boxed(text) or hashed(text)


def level_of(level: Any) -> int | None:
    """3 of "Level 3", "3" and 3."""
    digits = re.search("[0-9]+", str(level)) if isinstance(level, str | int) else None
    return int(digits[0]) if digits else None


def from_hub(name: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a set's file on the hub; without a network, in the hub's cache."""
    from huggingface_hub import HfApi, hf_hub_download

    repository, file = HUB[name]
    fetch = partial(hf_hub_download, repository, file, repo_type="dataset")
    try:
        try:
            # One question; the download itself would retry for long.
            HfApi().dataset_info(repository, timeout=HUB_SECONDS)
            local = Path(fetch())
        except Exception:  # the hub client's own, httpx's and the system's errors
            local = Path(fetch(local_files_only=True))
    except Exception as error:
        raise UserError(
            f"{repository} is not in the hub's cache, and the hub cannot be reached "
            f"({type(error).__name__}); check the network, or give a .jsonl file with "
            f"its problems instead of {name}"
        ) from error
    if local.suffix != ".parquet":
        return read_objects(local)
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{repository} is a Parquet file: pip install pyarrow, or give a .jsonl "
            f"file with its problems instead of {name}"
        ) from error
    rows = parquet.read_table(local).to_pylist()
    return [(f"row {k}", row) for k, row in enumerate(rows, 1)]
