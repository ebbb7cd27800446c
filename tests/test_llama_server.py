"""llama.cpp's server with models that solve something, where PFREF_LLAMA is its
command: MiniMath's, converted here, and one from PFREF_WEIGHTS.
"""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pfref import client, solve
from pfref.__main__ import main
from pfref.lm import LanguageModel
from pfref.prm import RewardModel
from pfref.settings import Proposal
from tests.gguf_files import write_gguf
from tests.live import free_port, llama, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not os.environ.get("PFREF_LLAMA"),
        reason="needs PFREF_LLAMA, the path of llama.cpp's server",
    ),
]
PROBLEMS = ["Compute ((12+30)*3)-26.", "Compute ((17+25)*4)-38."]
GRADE_SCHOOL = (
    "A baker fills 6 trays with 8 rolls each and sells half of the rolls. How many "
    "rolls are left?"
)


@pytest.fixture(scope="module")
def minimath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("minimath")
    lm = LanguageModel.load("minimath-small", "cpu", "float32")
    write_gguf(lm.model, lm.tokenizer, folder / "small.gguf")
    port = free_port()
    start = llama(folder / "small.gguf", port, "--parallel", "8", "--threads", "1")
    with running(start, port, folder / "log"):
        yield f"http://127.0.0.1:{port}"


def test_greedy_is_that_of_this_process(minimath: str) -> None:
    """The tokenizer, the positions and the weights are the same ones."""
    prm = RewardModel.load("minimath-prm", "cpu")
    here = LanguageModel.load("minimath-small", "cpu", "float32")
    there = LanguageModel.connect(minimath, "minimath-small")
    assert there.dialect.name == "llama.cpp" and there.context == 511
    options = dict(method="greedy", proposal=Proposal(temperature=0.0))
    wanted = solve(PROBLEMS, here, prm, 1, **options)
    found = solve(PROBLEMS, there, prm, 1, **options)
    for mine, own in zip(found, wanted, strict=True):
        assert mine.particles[0].steps == own.particles[0].steps


def test_the_filter_solves_what_it_solves_here(minimath: str) -> None:
    prm = RewardModel.load("minimath-prm", "cpu")
    there = LanguageModel.connect(minimath, "minimath-small")
    found = solve(PROBLEMS, there, prm, 8, seed=1)
    assert [f.answer for f in found] == ["100", "130"]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Any]]:
    file = Path(os.environ["PFREF_WEIGHTS"]) / "qwen2.5-coder-0.5b-instruct.gguf"
    port, log = free_port(), tmp_path_factory.mktemp("qwen") / "log"
    start = llama(file, port, "--parallel", "4", "--ctx-size", "4096", "--threads", "1")
    with running(start, port, log) as process:
        yield f"http://127.0.0.1:{port}/v1", file, process


def run(url: str, file: Path, *options: str) -> int:
    judge = file.with_name("smollm2-135m-instruct")  # a head is read from a folder
    pair = ["--model", str(file), "--prm", str(judge), "--prm-family", "self"]
    return main(["solve", GRADE_SCHOOL, "--endpoint", url, *pair, "-n", "4", *options])


@pytest.mark.weights
def test_a_problem_from_end_to_end(
    qwen: tuple[str, Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    url, file, _ = qwen
    assert run(url, file, "--max-tokens", "200") == 0
    said = capsys.readouterr()
    assert "24" in said.out and "llama.cpp" in said.err


@pytest.mark.weights
def test_a_server_that_is_killed_is_one_line(
    qwen: tuple[str, Path, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last test, since nothing answers after it."""
    url, file, process = qwen
    monkeypatch.setattr(client, "PAUSES", (0.1, 0.1))
    code = list[int]()
    whole = threading.Thread(target=lambda: code.append(run(url, file)))
    whole.start()
    at_work = False
    while whole.is_alive() and not at_work:
        time.sleep(0.2)
        slots = httpx.get(url.replace("/v1", "/slots")).json()
        at_work = any(slot["is_processing"] for slot in slots)
    process.kill()
    whole.join(60)
    assert at_work
    said = capsys.readouterr().err
    assert code == [2] and "Traceback" not in said
    assert sum("cannot be reached" in line for line in said.splitlines()) == 1
