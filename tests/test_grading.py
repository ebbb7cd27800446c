"""Which answers are equal, and that grading neither raises nor hangs, whatever a model
writes.
"""

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pfref import prompts
from pfref.study import grading
from pfref.study.grades import Reader
from pfref.study.grading import grader_version, same, same_number
from pfref.study.tasks import TASKS, Item
from pfref.study.verifier import Verifier, installed
from tests.graded_pairs import DIFFERENT, EQUAL, pairs

ROOT = Path(__file__).resolve().parent.parent
needs_math_verify = pytest.mark.skipif(
    not installed(), reason="math-verify is not installed"
)
READY = "import sys, time; print('ready', flush=True); "


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[Verifier]:
    """A verifier with little patience, and no verdict from before."""
    own = Verifier(seconds=0.5, patience=10)
    monkeypatch.setattr(grading, "verifier", own)
    same.cache_clear()
    yield own
    own.stop()
    same.cache_clear()


def worker(program: str) -> tuple[str, ...]:
    return sys.executable, "-c", READY + program


@needs_math_verify
@pytest.mark.parametrize("gold, answer", pairs(EQUAL))
def test_equal(gold: str, answer: str) -> None:
    assert same(gold, answer)


@needs_math_verify
@pytest.mark.parametrize("gold, answer", pairs(DIFFERENT))
def test_different(gold: str, answer: str) -> None:
    assert not same(gold, answer)


def test_enough_pairs() -> None:
    assert len(pairs(EQUAL)) + len(pairs(DIFFERENT)) >= 80


def test_numbers_need_no_math_verify(strict: Verifier) -> None:
    for gold, answer in (("42", "042"), ("1/2", "0.5"), ("20001", "20000"), ("", "")):
        assert same(gold, answer) == same_number(gold, answer)
    assert same_number("42", r"\text{42}.") and not same_number("x", "y")
    assert not same("", "") and same("(1, 2/4)", "(1, 0.5)")
    assert strict.worker is None


@needs_math_verify
def test_the_gold_answer_comes_first(strict: Verifier) -> None:
    seen = []
    ask = strict.verify
    strict.verify = lambda *texts: seen.append(texts) or ask(*texts)  # type: ignore
    assert same("2(x+1)", "2x+2")
    assert seen == [("2(x+1)", "2x+2")]


def test_verdicts_are_kept_and_not_too_many(strict: Verifier) -> None:
    strict.command = worker("sys.exit()")
    assert not same("x+1", "1+x+0") and same.cache_info().currsize == 1
    assert not same("x+1", "1+x+0") and same.cache_info().hits == 1
    assert (same.cache_info().maxsize or 0) >= 1000


def test_without_math_verify(
    strict: Verifier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(grading, "installed", lambda: False)
    monkeypatch.setattr(prompts, "told", set())
    assert same(r"\frac12", "0.5") and same("(1,x)", "( 1, x )")
    assert not same("x+1", "1+x") and not same("x+2", "2+x")
    assert capsys.readouterr().err.count("pip install math-verify") == 1
    assert strict.worker is None
    assert grader_version() == "normal forms, without math-verify"


@needs_math_verify
def test_the_version_names_what_decides() -> None:
    assert re.fullmatch(
        r"math-verify [\d.]+, latex2sympy2_extended [\d.]+, sympy [\d.]+",
        grader_version(),
    )


PARTS = (
    *(r"\frac{", "}", "{", r"\sqrt{", "^", "_", "(", ")", "[", "]", r"\{", "|", "!"),
    *(r"\left(", r"\right]", r"\begin{pmatrix}", r"\\", "&", r"\end{pmatrix}", "\\"),
    *(r"\pm", r"\cup", ",", "=", "<", r"\in", r"\int_0^x", r"\sum_{k=1}^{9}", "'", "$"),
    *("0", "1", "9", "10^{9}", "x", "k", "i", "e", r"\pi", r"\infty", "%", r"\circ"),
    *(
        r"\text{ cm}",
        "\u221a",
        "\u00b2",
        "\uff13",
        "\ud800",
        "\x00",
        "\n",
        "\U0001d7d9",
    ),
)
MONSTERS = (
    *("9^9^9^9", "9^{9^{9^{9}}}", "2^{2^{2^{2^{2^{2}}}}}", "99999999!", "9!!!!!!!"),
    *(
        "{" * 400,
        "(" * 900,
        r"\frac{1}{" * 100 + "2" + "}" * 100,
        "[" * 300 + "]" * 300,
    ),
    *("1" * 999, "x" * 999, "1," * 400, "9" * 5000, "x+" * 300 + "1", r"\sqrt" * 150),
    *(r"\sum_{k=1}^{10^9} k^k", r"\int_0^\infty e^{x^{x^x}} dx", r"\frac{1}{0}"),
    *(r"10^{10^{10}}", "1e999999999", r"0.1^{10^{12}}", r"\binom{10^8}{10^7}"),
)


def hostile(count: int, every: int) -> list[tuple[str, str]]:
    """Gold answers with mutations of them, and two pairs with monsters in so many."""
    rng = random.Random(12)
    golds = [gold for gold, _ in pairs(EQUAL)]
    found = []
    for k in range(count):
        gold = rng.choice(golds)
        text = list(rng.choice(golds))
        for _ in range(rng.randint(1, 8)):
            place = rng.randint(0, len(text))
            text[place : place + rng.randint(0, 2)] = [rng.choice(PARTS)]
        found.append((gold, "".join(text)))
        if k % every == 0:
            found[-1] = (gold, MONSTERS[k // every % len(MONSTERS)])
        elif k % every == 1:
            found[-1] = (rng.choice(MONSTERS), rng.choice(MONSTERS))
    return found


def survive(cases: list[tuple[str, str]], limit: float) -> None:
    """Within so many seconds each, most for a worker to start on a busy machine."""
    for pair in cases:
        began = time.perf_counter()
        assert same(*pair) in (True, False)
        assert time.perf_counter() - began < limit, pair


@needs_math_verify
def test_hostile_strings(strict: Verifier) -> None:
    survive(hostile(100, 100), 60)


@pytest.mark.slow
@needs_math_verify
def test_two_thousand_hostile_strings(strict: Verifier) -> None:
    cases = hostile(2000, 50)
    survive([*cases[:1000], *((answer, gold) for gold, answer in cases[1000:])], 60)


def test_long_answers_are_right_letter_by_letter(strict: Verifier) -> None:
    assert same("1" * 5000, "1" * 5000) and not same("1" * 5000, "1" * 5000 + ".0")
    assert strict.worker is None


def test_a_worker_that_sleeps_is_killed(strict: Verifier) -> None:
    strict.limit, strict.command = 0.3, worker("time.sleep(60)")
    began = time.perf_counter()
    assert strict.verify("x", "y") is None and not same("x+1", "1+x")
    assert time.perf_counter() - began < 10 and strict.worker is None


def test_a_worker_that_never_starts_says_so_by_its_silence(strict: Verifier) -> None:
    strict.command = (sys.executable, "-c", "raise SystemExit")
    assert strict.verify("x", "y") is None
    strict.command = ("/there/is/no/such/program",)
    assert strict.verify("x", "y") is None and not same("x+1", "1+x")


def test_a_worker_that_died_is_asked_again(strict: Verifier, tmp_path: Path) -> None:
    """Only if it had served others, who may be to blame; and only once."""
    log = tmp_path / "log"
    strict.command = worker(
        f"log = open({str(log)!r}, 'a'); log.write('s'); log.flush()\n"
        "for k, line in enumerate(sys.stdin):\n"
        "    if k or 'never' in line: sys.exit()\n"
        "    print('true', flush=True)"
    )
    assert strict.verify("a", "b") is True and strict.verify("a", "c") is True
    assert strict.verify("a", "never") is None
    assert log.read_text() == "sss"
    assert strict.verify("a", "never") is None
    assert log.read_text() == "ssss"


@needs_math_verify
def test_what_takes_too_long_is_not_asked_again(strict: Verifier) -> None:
    starts = []
    begin = strict.start
    strict.start = lambda: starts.append(1) or begin()  # type: ignore
    strict.limit = 200  # by the clock, so that its own time is what ends it
    assert strict.verify("x+1", "1+x") is True
    began = time.perf_counter()
    assert strict.verify("9^{9^{9^9}}", "9^{9^{9^8}}") is None
    assert time.perf_counter() - began < 100
    assert strict.worker is None and len(starts) == 1
    assert strict.verify("x+1", "1+x") is True and len(starts) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="others may not limit memory")
@needs_math_verify
def test_memory_is_limited(strict: Verifier) -> None:
    strict.command = (*strict.command[:-1], str(40 << 20))
    assert strict.verify("x+1", "1+x") is None  # too little to import math-verify


@needs_math_verify
def test_threads(strict: Verifier) -> None:
    """Any thread may ask, several at once, and each gets its own verdict."""
    cases = [(f"x+{k}", f"{k + k % 3}+x") for k in range(60)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda case: same(*case), cases))
    assert found == [k % 3 == 0 for k in range(60)]
    assert threading.active_count() < 10


PROGRAM = """
import multiprocessing, os, sys
from pfref.study.grading import same, verifier

def grade(k):
    found = same(f"x+{k}", f"{k}+x") and not same(f"x+{k}", f"{k + 1}+x")
    return found, verifier.worker.pid

if __name__ == "__main__":
    ok, own = grade(0)
    workers = {own}
    for method in sys.argv[1:]:
        with multiprocessing.get_context(method).Pool(2) as pool:
            for good, pid in pool.map(grade, range(1, 9), 1):
                ok = ok and good and pid != own
                workers.add(pid)
    again, pid = grade(9)
    print(ok and again and pid == own, *workers, flush=True)
    if len(sys.argv) == 1:
        os.kill(os.getpid(), 9)
"""


def run_program(folder: Path, *methods: str) -> tuple[str, list[int]]:
    file = folder / "program.py"
    file.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(file), *methods],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    verdict, *workers = done.stdout.split()
    return verdict, [int(pid) for pid in workers]


def ended(pid: int) -> bool:
    """Within ten seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@needs_math_verify
@pytest.mark.parametrize(
    "methods", [(), pytest.param(("fork", "spawn"), marks=pytest.mark.slow)]
)
def test_processes(tmp_path: Path, methods: tuple[str, ...]) -> None:
    """Each has a worker of its own, and none is left, also after SIGKILL."""
    verdict, workers = run_program(tmp_path, *methods)
    assert verdict == "True" and len(workers) >= 1 + len(methods)
    assert all(ended(pid) for pid in workers)


def spellings(answer: str) -> list[str]:
    """Three more spellings of an answer."""
    spaced = re.sub(r"([,+=])", r"\1 ", answer)
    if r"\left" not in answer:
        spaced = spaced.replace("(", r"\left( ").replace(")", r" \right)")
    return [
        "$" + answer.replace(r"\frac", r"\dfrac") + "$.",
        rf"\( {spaced} \)",
        f"x = {answer}" if not re.search(r"=|\\in\b", answer) else f" {answer} ",
    ]


@pytest.mark.skipif(
    "PFREF_MATH500" not in os.environ, reason="PFREF_MATH500 names no file of MATH-500"
)
def test_gold_answers_of_math500_equal_themselves() -> None:
    lines = Path(os.environ["PFREF_MATH500"]).read_text().splitlines()
    golds = [json.loads(line)["answer"] for line in lines]
    assert len(golds) == 500
    assert [g for g in golds if not all(same(g, s) for s in spellings(g))] == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_verdict_does_not_depend_on_what_came_first(order: int) -> None:
    """`same` is not symmetric: 15 is 15 cm and 15 m, and 15 m is not 15 cm."""
    for gold, right, wrong in (
        (r"15\text{ cm}", "15", r"15\text{ m}"),
        ("(1,2)", "1, 2", "2, 1"),
        ("x = 3", "3", "y = 3"),
    ):
        reader = Reader(TASKS["math"], Item("", "", gold))
        found = {a: reader.number(a) for a in (right, wrong)[::order]}
        assert reader.grade(found[right]) and not reader.grade(found[wrong])
