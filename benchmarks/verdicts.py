"""Which answers of a record are right, without the answers: for data sets that the
repository does not hold.

    python -m benchmarks.verdicts book/results/gsm8k gsm8k_last300.jsonl

writes `right.json` beside the records. Problems come in the order of their names.

rows     for each method at its largest N, first seed: a character a problem, 1 right,
         0 wrong, - not run; "METHOD, N = 2" at a smaller one that was run itself, and
         "METHOD, seed 1" with another seed
samples  for each problem a hexadecimal number, its first bit the first sample
exact    how many of the right samples give the answer letter by letter
levels   of the problems, a digit each, where the data names them
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pfref.study.grades import Grades, Reader, grade
from pfref.study.tasks import TASKS, Item


def letter(value: float) -> str:
    return "-" if np.isnan(value) else "01"[int(value)]


def rows(grades: Grades) -> dict[str, str]:
    order = np.argsort([item.id for item in grades.items])
    seeds = grades.study.seeds
    found = {}
    for (method, n), row in sorted(grades.rows.items(), key=lambda r: r[0][1]):
        if row is grades.of(method)[-1]:
            name = method
        elif not row.derived:  # of samples every smaller budget can be computed
            name = f"{method}, N = {n}"
        else:
            continue
        for seed, correct in zip(seeds, row.correct, strict=True):
            told = name if seed == seeds[0] else f"{name}, seed {seed}"
            if not np.isnan(correct).all():
                found[told] = "".join(letter(x) for x in correct[order])
    return found


def samples(grades: Grades, items: Sequence[Item]) -> dict[str, Any]:
    cells = grades.study.current()
    own = [cell for cell in cells.values() if cell["label"] == "samples"]
    key = min(own, key=lambda cell: cell["seed"])["cell"]
    found, exact = [], 0
    for item in items:
        reader = Reader(TASKS[grades.task], item)
        run = next(run for run in grades.study.runs(item.id) if run.key == key)
        right = [
            path.finished and reader.grade(reader.answer(path)) for path in run.paths
        ]
        bits = "".join("01"[bool(x)] for x in right)
        found.append(f"{int(bits or '0', 2):0{-(-len(bits) // 4)}x}")
        exact += sum(
            good and reader.answers[path.steps] == item.answer
            for good, path in zip(right, run.paths, strict=True)
        )
    return dict(samples=" ".join(found), exact=exact)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("data")
    options = parser.parse_args()
    grades = grade(options.folder, data=options.data)
    items = sorted(grades.items, key=lambda item: item.id)
    record: dict[str, Any] = dict(
        command=f"python -m benchmarks.verdicts {options.folder} "
        f"{Path(options.data).name}",
        problems=len(grades.items),
        rows=rows(grades),
        **samples(grades, items),
    )
    levels = [item.level for item in items]
    if None not in levels:
        record["levels"] = "".join(map(str, levels))
    text = json.dumps(record, indent=1) + "\n"
    (options.folder / "right.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
