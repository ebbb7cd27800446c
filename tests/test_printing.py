"""What the command line prints of solutions and failures."""

import json
import math
from types import SimpleNamespace

from pfref.printing import as_json, as_text, told
from pfref.solver import Cost, Particle


def found() -> SimpleNamespace:
    particle = Particle(("so 5\n\n",), "5", 0.75, -math.inf, True)
    votes = {"5": 0.75, None: 0.25}
    return SimpleNamespace(
        problem="2+3?",
        answer="5",
        chosen=particle,
        particles=[particle],
        votes=votes,
        log_evidence=-1.0,
        cost=Cost(1, 2, 3, 1, 4, 5, 0.1),
    )


def test_weight_without_an_answer_is_named() -> None:
    assert "vote          5 75%, no answer 25%\n" in as_text(found(), None)
    assert as_text(found(), 3).startswith("problem 3: 2+3?\n\nso 5\n\nanswer ")


def test_json_has_no_infinity() -> None:
    record = json.loads(as_json(found(), 1))
    assert record["particles"][0]["reward"] is None
    assert record["votes"] == {"5": 0.75, "null": 0.25}


def test_one_line_a_cause() -> None:
    failures = {k: "late" for k in range(1, 8)} | {9: "lost"}
    assert told(failures) == [
        "problems 1, 2, 3, 4, 5 and 2 more: late",
        "problem 9: lost",
    ]
