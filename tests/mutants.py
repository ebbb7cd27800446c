"""How many random mutants of pfref do the quick tests kill? `python -m tests.mutants`

    python -m tests.mutants --seed 0 --count 150 [--only smc.py ...] [--json FILE]

tests/mutations.py breaks chosen places and looks at chosen checks; this one draws its
breaks, by mutmut's operators (tests/mutant_sources.py says from what). A mutant runs in
a copy of the repository against the quick tests that run its statement, the quickest
first, until one fails; a test that never runs the statement cannot see it. Left out are
tests that read sources or chapters as text (test_book, test_package), which fail for
any change, and tests that fail unbroken. What runs too long counts as killed. 150
mutants take about half an hour on two cores. Exits with 1 if under 85 % are killed.
Needs the extra `dev`: pip install -e ".[dev]".
"""

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from .mutant_runs import Map, Workers, copy_of_the_repository, draw_map, look
from .mutant_sources import Mutant, sample

GOAL = 0.85
SLACK = 30.0  # seconds of a mutant beyond three times what its tests took unbroken


class Verdicts:
    """What became of each mutant."""

    def __init__(self) -> None:
        self.killed: list[str] = []  # and by what
        self.survivors: list[dict] = []

    def add(self, mutant: Mutant, names: list[str], by: str | None) -> None:
        if by is None:
            row = {k: v for k, v in vars(mutant).items() if k != "source"}
            self.survivors.append(row | dict(tests=len(names)))
        else:
            self.killed.append(by)
        word = "killed  " if by else "SURVIVED"
        print(f"{word}  {mutant}  [{by or f'{len(names)} tests'}]", flush=True)

    @property
    def share(self) -> float:
        return len(self.killed) / max(1, len(self.killed) + len(self.survivors))


def tests_for(mutant: Mutant, known: Map) -> list[str]:
    """The tests that run the mutant's statement, the quickest first.

    What runs when the module is imported is seen by every test that uses the module.
    What other processes run is not recorded: tests that start some join in for the
    command line and for what no test seems to run.
    """
    lines = known.lines.get(mutant.file, {})
    first, last = mutant.span
    wanted = range(first, last + 1) if mutant.inside else lines
    found = {context for line in wanted for context in lines.get(line, ())}
    if not found or mutant.file == "__main__.py":
        found |= set(known.outside)
    names = [
        name
        for name in known.seconds
        if name not in known.failed
        and (name in found or name.partition("::")[0] in found)
    ]
    return sorted(names, key=known.seconds.__getitem__)


def judge(mutants: list[Mutant], known: Map, workers: Workers, clean: Path) -> Verdicts:
    """Every mutant against its tests; `clean` is an unbroken copy."""
    verdicts = Verdicts()

    def start(mutant: Mutant, names: list[str]) -> None:
        def break_it(copy: Path) -> None:
            for file in (clean / "pfref").glob("*.py"):  # mends the last mutant's too
                shutil.copy2(file, copy / "pfref" / file.name)
            (copy / "pfref" / mutant.file).write_text(mutant.source, encoding="utf-8")

        def note(found: dict | str) -> None:
            by = found["by"] if isinstance(found, dict) else found
            verdicts.add(mutant, names, by)

        limit = SLACK + 3 * sum(known.seconds[name] for name in names)
        workers.start(lambda: look(names), note, limit, break_it)

    for mutant in mutants:
        if names := tests_for(mutant, known):
            start(mutant, names)
        else:
            verdicts.add(mutant, [], None)
    workers.join()
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--only", nargs="+", default=[], help="modules, as in smc.py")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where the survivors are written")
    a = parser.parse_args()
    os.environ |= dict(
        OMP_NUM_THREADS="1", TQDM_DISABLE="1", TOKENIZERS_PARALLELISM="false"
    )
    for name in ("torch", "transformers.models.auto.modeling_auto", "coverage"):
        importlib.import_module(name)  # once, for all children
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        clean, *copies = [
            copy_of_the_repository(Path(folder, f"copy{k}").resolve())
            for k in range(a.workers + 1)
        ]
        drawn = sample(clean, a.count, a.seed, a.only)
        workers = Workers(copies)
        known = draw_map(workers)
        failed = known.failed
        print(f"{len(known.seconds)} tests in {sum(known.seconds.values()):.0f} s")
        print(
            f"{len(failed)} fail unbroken, and are not asked:", *failed[:20], sep="\n"
        )
        verdicts = judge(drawn, known, workers, clean)
    late, seconds = verdicts.killed.count("time"), time.monotonic() - began
    summary = (
        f"{len(verdicts.killed)} of {len(drawn)} killed ({verdicts.share:.0%}), "
        f"{late} of them by the time limit; seed {a.seed}, {seconds:.0f} s"
    )
    print("\nSurvivors:", *(json.dumps(row) for row in verdicts.survivors), sep="\n")
    print(summary)
    if a.json:
        a.json.write_text(json.dumps(verdicts.survivors, indent=1) + "\n")
    return int(verdicts.share < GOAL)


if __name__ == "__main__":
    sys.exit(main())
