"""How the shipped models are measured: whole samples, answers, verdicts on steps."""

import math

from pfref import LanguageModel, Proposal, RewardModel
from pfref.minimath.evaluate import SAMPLES, answers, judged_steps
from pfref.minimath.mistakes import whole_samples
from pfref.minimath.problems import load_set
from pfref.randomness import generator


def test_samples_are_whole_solutions_of_their_problems() -> None:
    lm, problems = LanguageModel.load("minimath-small"), load_set("minimath500")[:3]
    proposal = Proposal(temperature=0.8, delimiter="<|end|>", max_tokens=200)
    sources = [generator(p.problem) for p in problems]
    texts = whole_samples(lm, problems, 4, proposal, sources)
    assert len(texts) == 12 and all("\\boxed{" in text for text in texts)
    alone = whole_samples(
        lm, problems[1:2], 4, proposal, [generator(problems[1].problem)]
    )
    assert alone == texts[4:8]


def test_counts_of_right_answers_and_verdicts_on_steps() -> None:
    lm, problems = LanguageModel.load("minimath-small"), load_set("minimath500")[:2]
    counts = answers(lm, problems, 8, 0.8, batch=1)
    assert counts == answers(lm, problems, 8, 0.8) and max(counts) > 0
    rows = judged_steps(lm, RewardModel.load("minimath-prm"), problems)
    assert {row["problem"] for row in rows} == {p.id for p in problems}
    first = [row for row in rows if row["step"] == 0]
    assert len(first) == 2 * SAMPLES and all(row["before"] for row in first)
    assert all(math.isfinite(row["score"]) for row in rows)
    right = [row["score"] for row in rows if row["right"]]
    wrong = [row["score"] for row in rows if not row["right"]]
    assert sum(right) / len(right) > sum(wrong) / max(1, len(wrong))
