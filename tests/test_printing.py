"""What the command line prints of progress, solutions and failures."""

import io
import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pfref import printing
from pfref.printing import Progress, as_json, as_text, told
from tests.recorded import found


def test_weight_without_an_answer_is_named() -> None:
    assert "vote          5 75%, no answer 25%\n" in as_text(found(), None)
    assert as_text(found(), 3).startswith("problem 3: 2+3?\n\nso 5\n\nanswer ")


def test_a_solution_in_full() -> None:
    one = found()
    assert as_text(one, None) == (
        "so 5\n\n"
        "answer        5\n"
        "vote          5 75%, no answer 25%\n"
        "log evidence  -1.00\n"
        "cost          1 prompt + 2 generated tokens, 3 scored, 0.1 s"
    )
    one.log_evidence, one.votes = None, {}
    one.cost = replace(one.cost, problems=2)
    assert as_text(one, 3) == (
        "problem 3: 2+3?\n\n"
        "so 5\n\n"
        "answer        5\n"
        "vote          none\n"
        "cost          1 prompt + 2 generated tokens, 3 scored, 0.1 s for a batch of 2"
        "\n"
    )
    one.votes = {letter: 0.1 for letter in "abcdef"}
    assert "vote          a 10%, b 10%, c 10%, d 10%, e 10%\n" in as_text(one, None)


def test_json_has_no_infinity() -> None:
    record = json.loads(as_json(found(), 1))
    assert record["particles"][0]["reward"] is None
    assert record["votes"] == {"5": 0.75, "null": 0.25}
    for value in (math.inf, math.nan):
        endless = found()
        endless.log_evidence = value
        assert json.loads(as_json(endless, 1))["log_evidence"] is None


def test_json_in_full() -> None:
    one = found()
    one.particles = [replace(one.chosen, reward=2.5)]
    line = as_json(one, 7)
    assert "\n" not in line and json.loads(line) == {
        "number": 7,
        "problem": "2+3?",
        "answer": "5",
        "solution": "so 5\n\n",
        "votes": {"5": 0.75, "null": 0.25},
        "log_evidence": -1.0,
        "cost": {
            "prompt_tokens": 1,
            "generated_tokens": 2,
            "scored_tokens": 3,
            "problems": 1,
            "lm_calls": 4,
            "prm_calls": 5,
            "seconds": 0.1,
            "scored_prompt_tokens": 0,
        },
        "particles": [
            {
                "steps": ["so 5\n\n"],
                "answer": "5",
                "weight": 0.75,
                "reward": 2.5,
                "finished": True,
                "tokens": 0,
                "confidence": 0.0,
            }
        ],
    }


def test_one_line_a_cause() -> None:
    failures = {k: "late" for k in range(1, 8)} | {9: "lost"}
    assert told(failures) == [
        "problems 1, 2, 3, 4, 5 and 2 more: late",
        "problem 9: lost",
    ]
    failures = {5: "late", 2: "lost", 4: "late", 1: "late", 3: "late", 6: "late"}
    assert told(failures) == ["problems 1, 3, 4, 5, 6: late", "problem 2: lost"]
    assert told({}) == []


class Screen(io.StringIO):
    """A standard error that shows what was flushed."""

    live, shown = False, ""

    def isatty(self) -> bool:
        return self.live

    def flush(self) -> None:
        self.shown = self.getvalue()


def watched(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """With a clock that begins at 10 s and shows 14 s ever after."""
    times = iter([10.0])
    clock = SimpleNamespace(perf_counter=lambda: next(times, 14.0))
    monkeypatch.setattr(printing, "time", clock)
    monkeypatch.setattr(sys, "stderr", shown := Screen())
    return shown


def step(t: int, tokens: list[int], active: list[bool]) -> SimpleNamespace:
    paths = SimpleNamespace(generated=torch.tensor(tokens))
    ess = torch.tensor([1.0, 2.5])
    state = SimpleNamespace(paths=paths)
    return SimpleNamespace(t=t, state=state, active=torch.tensor([active]), ess=ess)


def test_progress_is_a_line_a_step_and_counts_tokens_of_all_runs(monkeypatch) -> None:
    screen = watched(monkeypatch)
    progress = Progress(1)
    progress(step(1, [10, 6], [True, False]))
    first = "step 1: 1 of 2 particles active, ESS 1.8, 16 tokens, 4 tokens/s\n"
    assert screen.shown == first
    progress(step(2, [10, 6], [True, True]))  # nothing was written
    progress(step(1, [1, 3], [True, True]))  # fewer: the next run
    progress.add(1)
    progress(step(1, [4, 0], [True, False]))  # the next batch
    progress.close()
    assert screen.getvalue() == (
        f"{first}"
        "step 2: 2 of 2 particles active, ESS 1.8, 16 tokens, 4 tokens/s\n"
        "step 1: 2 of 2 particles active, ESS 1.8, 20 tokens, 5 tokens/s\n"
        "step 1: 1 of 2 particles active, ESS 1.8, 24 tokens, 6 tokens/s\n"
    )


def test_progress_on_a_terminal_rewrites_its_line_and_ends_it_once(monkeypatch) -> None:
    screen, more = watched(monkeypatch), ["", "3 requests"]
    screen.live = True
    progress = Progress(2, lambda: more.pop(0))
    progress.close()
    assert screen.getvalue() == ""  # there is no line to end
    progress(step(1, [8, 0], [True, False]))
    zero = "\r\033[K0 of 2 problems done, step 1: 1 of 2 particles active, ESS 1.8, "
    assert screen.shown == f"{zero}8 tokens, 2 tokens/s"
    progress.add(1)
    progress.close()
    progress(step(1, [0, 0], [True, True]))
    one = "\r\033[K1 of 2 problems done, step 1: 2 of 2 particles active, ESS 1.8, "
    assert screen.shown == (
        f"{zero}8 tokens, 2 tokens/s\n{one}8 tokens, 2 tokens/s, 3 requests"
    )
