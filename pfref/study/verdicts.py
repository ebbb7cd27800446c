"""Which answers of a record are right, without the problems: for data sets whose texts
may not stand beside the records.

    python -m pfref.study.verdicts runs/gsm8k gsm8k_last300.jsonl

writes `right.json` into the folder, and `Samples` reads it. Problems come in the order
of their names.

rows     for each method at its largest N, first seed: a character a problem, 1 right,
         0 wrong, - not run; "METHOD, N = 2" at a smaller one that was run itself, and
         "METHOD, seed 1" with another seed
samples  for each problem a hexadecimal number, its first bit the first sample
exact    how many of the right samples give the answer letter by letter
levels   of the problems, a digit each, where the data names them
"""

import argparse
import json
import sys
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, writing
from . import measures
from .designs import pairs_won
from .grades import Grades, Reader, grade
from .measures import Array
from .recipe import ORACLE
from .records import Run, read
from .tasks import TASKS, Item, graded_by

FILE = "right.json"
LETTERS = {"0": 0.0, "1": 1.0, "-": np.nan}


class Samples:
    """The plain samples of a folder, first seed, with their verdicts: (problems, n).

    ended   did it finish by itself?          tokens  that it wrote
    good    is its answer right?              answers a number for each, -1 for none
    z       log-odds after its last step
    log_w, log_r  log weights by the odds of all steps and by the last score; -inf for
            a sample that did not end. Weights are recorded as shares of a problem's;
            one below 1e-6 counts as 1e-6
    rows    verdicts of the methods that ran, (problems,), nan where one did not
    levels  of the problems, (problems,), if the data names them
    """

    def __init__(self, folder: Path, n: int) -> None:
        """Raises UserError if the folder holds no such samples, or no verdicts."""
        self.study = read(folder, check=False)
        cells = self.study.current()
        seeds = [seed for label, size, seed in cells if (label, size) == ("samples", n)]
        if not (folder / FILE).is_file() or not seeds:
            raise UserError(
                f"{folder} has no {FILE} or no samples with N = {n}; `python -m "
                "pfref.study.verdicts` makes the one, `pfref run` the other"
            )
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        self.rows = {
            method: np.array([LETTERS[letter] for letter in row])
            for method, row in told["rows"].items()
        }
        self.exact: int = told["exact"]
        self.levels = np.array([*map(int, told.get("levels", ""))])
        runs = self.runs("samples", n, min(seeds))
        self.ended, self.z, self.tokens = (
            np.array([[getattr(path, field) for path in run.paths] for run in runs])
            for field in ("finished", "reward", "tokens")
        )
        self.good = self.ended & bits(told["samples"].split(), n)
        weights = np.array([run.weights for run in runs])
        logs = np.log(np.maximum(weights, 1e-6)), -np.logaddexp(0, -self.z)
        self.log_w, self.log_r = (np.where(self.ended, x, -np.inf) for x in logs)
        task = TASKS[cells["samples", n, min(seeds)]["task"]]
        readers = [Reader(task, Item("", "", "unknown")) for _ in runs]
        self.answers = np.array(
            [
                [reader.answer(path) if path.finished else -1 for path in run.paths]
                for reader, run in zip(readers, runs, strict=True)
            ]
        )

    def runs(self, label: str, n: int, seed: int = 0) -> list[Run]:
        """A cell's runs, in the order of the problems' names."""
        key = self.study.current()[label, n, seed]["cell"]
        return [
            run
            for id in sorted(self.study.lines)
            for run in self.study.runs(id)
            if run.key == key
        ]

    def chosen(self, n: int) -> dict[str, Array]:
        """By choice, the share of each problem's blocks of n samples that it answers
        rightly, (problems,).
        """
        r = 1 / (1 + np.exp(-self.z))
        weights = {
            "majority": np.ones_like(r),
            "weighted best-of-N": r,
            "weighted by odds": np.exp(self.log_w),
        }
        won: dict[str, list[float]]
        won = {name: [] for name in (ORACLE, *weights, "best-of-N")}
        for p, good in enumerate(self.good):
            won[ORACLE].append(measures.pass_at(good.sum(), len(good), n))
            at = measures.best(self.z[p], self.ended[p], n)
            won["best-of-N"].append(float(np.append(good, False)[at].mean()))
            right = self.answers[p][good]
            for name, w in weights.items():
                votes = measures.votes(self.answers[p], w[p], n)
                won[name].append(float(np.isin(votes, right).mean()))
        return {name: np.array(values) for name, values in won.items()}

    def part(self, ids: Sequence[str]) -> "Samples":
        """The samples of some problems alone, without the methods' verdicts."""
        names = sorted(self.study.lines)
        at = [names.index(id) for id in sorted(ids)]
        found = copy(self)
        found.rows = {}
        for name, value in vars(self).items():
            if isinstance(value, np.ndarray) and len(value):
                setattr(found, name, value[at])
        return found


def ranking(
    x: Array, good: NDArray[np.bool_], among: NDArray[np.bool_] | None = None
) -> tuple[float, float, float]:
    """How often a right sample has the larger x than a wrong one of its problem, ties
    counting half, and its 95 % interval over problems: (problems, n) all. With `among`
    of these samples only.
    """
    here = np.ones_like(good) if among is None else among
    wins, pairs = pairs_won(x[here], good[here].astype(float), here.nonzero()[0])
    weights = measures.resamples(len(pairs))
    with np.errstate(invalid="ignore"):  # a draw may have no pair
        low, high = measures.interval((weights @ wins) / (weights @ pairs))
    return float(wins.sum() / pairs.sum()), low, high


def bits(words: Sequence[str], n: int) -> NDArray[np.bool_]:
    """(problems, n) of hexadecimal numbers."""
    return np.array(
        [[int(word, 16) >> (n - 1 - k) & 1 for k in range(n)] for word in words],
        dtype=bool,
    ).reshape(len(words), n)


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
    if not own:
        raise UserError("the records hold no row of samples; run one, of that label")
    key = min(own, key=lambda cell: cell["seed"])["cell"]
    found, exact = [], 0
    for item in items:
        reader = Reader(TASKS[grades.task], item)
        run = next(run for run in grades.study.runs(item.id) if run.key == key)
        right = [
            path.finished and reader.grade(reader.answer(path)) for path in run.paths
        ]
        word = "".join("01"[bool(x)] for x in right)
        found.append(f"{int(word or '0', 2):0{-(-len(word) // 4)}x}")
        exact += sum(
            good and reader.answers[path.steps] == item.answer
            for good, path in zip(right, run.paths, strict=True)
        )
    return dict(samples=" ".join(found), exact=exact)


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="of records, as `pfref run` wrote it")
    parser.add_argument("data", help="the file of problems that was run")
    options = parser.parse_args(given)
    try:
        grades = grade(options.folder, data=options.data)
        items = sorted(grades.items, key=lambda item: item.id)
        own = samples(grades, items)
    except UserError as error:
        print(f"{FILE} was not written: {error}", file=sys.stderr)
        return 2
    record: dict[str, Any] = dict(
        command=f"python -m pfref.study.verdicts {options.folder} "
        f"{Path(options.data).name}",
        grader=graded_by(TASKS[grades.task]),
        problems=len(grades.items),
        rows=rows(grades),
        **own,
    )
    levels = [item.level for item in items]
    if None not in levels:
        record["levels"] = "".join(map(str, levels))
    text = json.dumps(record, indent=1) + "\n"
    with writing(options.folder / FILE):
        (options.folder / FILE).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
