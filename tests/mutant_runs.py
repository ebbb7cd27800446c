"""Runs of the quick tests in copies of the repository, for tests/mutants.py.

First unbroken, with coverage: which test runs which lines, and how long does it take?
Then with a mutant, against chosen tests.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {"test_book.py", "test_package.py"}


@dataclass
class Map:
    """What the unbroken tests do; a test is named by its node id."""

    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)  # unbroken: they say nothing
    lines: dict[str, dict[int, list[str]]] = field(default_factory=dict)  # by module
    outside: list[str] = field(default_factory=list)  # start processes of their own


class Recorder:
    """Tells coverage which test runs, and counts its seconds.

    A fixture of a whole module belongs to all its tests. Caches are emptied before each
    test, so that what it needs is run in its own name.
    """

    def __init__(self, coverage: Any) -> None:
        self.coverage, self.map = coverage, Map()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        for name, module in list(sys.modules.items()):
            if name.startswith(("pfref", "test")):
                for value in list(vars(module).values()):
                    if callable(clear := getattr(value, "cache_clear", None)):
                        clear()
        self.coverage.switch_context(item.nodeid)
        if "subprocess" in item.obj.__code__.co_names:  # type: ignore[attr-defined]
            self.map.outside.append(item.nodeid)
        began = time.perf_counter()
        result = yield
        self.map.seconds[item.nodeid] = time.perf_counter() - began
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        test = request._pyfuncitem.nodeid
        if fixturedef.scope != "function":
            self.coverage.switch_context(test.partition("::")[0])
        result = yield
        self.coverage.switch_context(test)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.map.failed.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.map.failed.append(report.nodeid)


class Chosen:
    """Keeps the tests that are named, in this order, and notes the first that fails."""

    def __init__(self, names: list[str]) -> None:
        self.place = {name: k for k, name in enumerate(names)}
        self.by: str | None = None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted(
            (item for item in items if item.nodeid in self.place),
            key=lambda item: self.place[item.nodeid],
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.by is None:
            self.by = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.by is None:
            self.by = report.nodeid


def copy_of_the_repository(target: Path) -> Path:
    """Its files as they lie there now, without what git ignores."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


class Workers:
    """Children of this process, one in each copy of the repository.

    They share its imports, pfref not among them: no mutant waits for torch.
    """

    def __init__(self, copies: list[Path]) -> None:
        self.free = list(copies)
        self.running: dict[int, tuple[Path, float, Callable[[Any], None]]] = {}

    def start(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], None],
        limit: float,
        prepare: Callable[[Path], None] = lambda copy: None,
    ) -> None:
        """`work` in a child, as soon as a copy is free and was prepared.

        `done` gets what it returned; "time" if it ran longer than `limit`; or "crash"
        if its process died.
        """
        while not self.free:
            self.wait()
        copy = self.free.pop()
        (copy / ".result.json").unlink(missing_ok=True)
        prepare(copy)
        sys.stdout.flush()  # or the child would say it again
        if (pid := os.fork()) == 0:
            in_child(copy, work)
        self.running[pid] = copy, time.monotonic() + limit, done

    def wait(self) -> None:
        """Until one child is done."""
        while True:
            for pid, (copy, until, done) in list(self.running.items()):
                finished = os.waitpid(pid, os.WNOHANG)[0]
                late = not finished and time.monotonic() > until
                if late:
                    os.killpg(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                if finished or late:
                    del self.running[pid]
                    self.free.append(copy)
                    done("time" if late else result_in(copy))
                    return
            time.sleep(0.02)

    def join(self) -> None:
        while self.running:
            self.wait()


def result_in(copy: Path) -> Any:
    left = copy / ".result.json"
    result = json.loads(left.read_text()) if left.exists() else "crash"
    if "error" in result:
        sys.exit(f"a run went wrong: {result['error']}")
    return result


def in_child(copy: Path, work: Callable[[], Any]) -> None:
    """Run `work` with the copy's pfref and tests, leave its result there, and end."""
    try:
        os.setsid()
        os.chdir(copy)
        quiet = os.open("output.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        for name in [n for n in sys.modules if n.partition(".")[0] == "tests"]:
            del sys.modules[name]
        sys.path.insert(0, str(copy))
        os.environ["PYTHONPATH"] = str(copy)
        place = importlib.util.find_spec("pfref")
        assert "pfref" not in sys.modules and place and place.origin
        assert Path(place.origin).is_relative_to(copy), place.origin
        result = work()
    except Exception:  # of these lines, for pytest keeps those of mutants to itself
        result = dict(error=traceback.format_exc())
    try:
        Path(copy, ".result.json").write_text(json.dumps(result))
    finally:
        os._exit(0)


def run_pytest(files: list[str], plugin: object) -> int:
    options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return int(pytest.main([*options, *files], plugins=[plugin]))


def record(file: str) -> dict:
    """One test file, unbroken: what of pfref its tests run."""
    import coverage

    here = Path("pfref").resolve()
    watch = coverage.Coverage(
        data_file=None, include=[f"{here}/*.py"], config_file=False
    )
    recorder = Recorder(watch)
    watch.start()
    run_pytest([file], recorder)
    watch.stop()
    data, found = watch.get_data(), recorder.map
    for path in data.measured_files():
        if Path(path).parent == here:
            found.lines[Path(path).name] = data.contexts_by_lineno(path)
    return vars(found)


def draw_map(workers: Workers) -> Map:
    """Every quick test once, file by file."""
    whole = Map()

    def add(part: Any) -> None:
        if isinstance(part, str):
            sys.exit(f"a test file's unbroken run ended by {part}")
        whole.seconds |= part["seconds"]
        whole.failed += part["failed"]
        whole.outside += part["outside"]
        for module, lines in part["lines"].items():
            there = whole.lines.setdefault(module, {})
            for line, contexts in lines.items():  # JSON made the numbers texts
                there.setdefault(int(line), []).extend(filter(None, contexts))

    files = [p for p in (ROOT / "tests").glob("test_*.py") if p.name not in LEFT_OUT]
    for path in sorted(files, key=lambda p: -p.stat().st_size):
        workers.start(partial(record, f"tests/{path.name}"), add, 1800)
    workers.join()
    return whole


def look(names: list[str]) -> dict:
    """The chosen tests of a mutant, until one fails: which?"""
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    chosen = Chosen(names)
    files = sorted({name.partition("::")[0] for name in names})
    code = run_pytest(["-x", *files], chosen)
    return dict(by=chosen.by or (None if code in (0, 5) else f"pytest's end, {code}"))
