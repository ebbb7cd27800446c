"""The reward model: incremental scores against full passes, counted tokens, log-odds,
aggregation, rows that rest.
"""

import random
from functools import partial

import pytest
import torch
from torch import nn

import pfref.prm
from pfref.errors import UserError
from pfref.families import trl
from pfref.groups import in_groups
from pfref.judgement import Judgement, consecutive, last, lowest, product
from pfref.prm import RewardModel
from tests.enumerable import FAMILY, SEPARATOR, world

STEPS = [["a", "ab", "b"], ["bbb", "a", "ba"], ["ab", "bb", "aaab"], ["b", "b", "b"]]


def ids_of(prm: RewardModel, problem: str, steps: list[str]) -> list[int]:
    """Each step's words closed by one separator."""
    ids = prm.prompt(problem)
    for step in steps:
        text = step.strip("\n")
        ids = ids + prm.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids.append(prm.tokenizer.convert_tokens_to_ids("<extra_0>"))
    return ids


def full_pass(prm: RewardModel, problem: str, steps: list[str]) -> list[float]:
    """Every step's log-odds from one pass over the whole text, without a cache."""
    ids = ids_of(prm, problem, steps)
    separator = prm.tokenizer.convert_tokens_to_ids("<extra_0>")
    ends = [k for k, token in enumerate(ids) if token == separator]
    hidden = prm.body(input_ids=torch.tensor([ids])).last_hidden_state[0, ends]
    logits = prm.head.net(hidden.float())
    return (logits[:, 1] - logits[:, 0]).tolist()


def feed(prm: RewardModel, j: Judgement, texts: list, moved: list[int], how="last"):
    mask = torch.zeros(len(texts), dtype=torch.bool)
    mask[moved] = True
    prm.extend(j, mask, texts, how)


def written(j: Judgement, row: int) -> list[float]:
    return j.scores[row, : j.known[row]].tolist()


def test_step_by_step_equals_one_full_pass() -> None:
    _, prm = world()
    judgement = prm.start(["abba", "ba"], 2)
    for t in range(1, 4):
        feed(prm, judgement, [steps[:t] for steps in STEPS], [0, 1, 2, 3])
    for row, steps in enumerate(STEPS):
        right = full_pass(prm, ["abba", "ba"][row // 2], steps)
        assert written(judgement, row) == pytest.approx(right, abs=1e-5)


def test_steps_may_come_several_at_once() -> None:
    _, prm = world()
    judgement = prm.start(["abba"], 1)
    feed(prm, judgement, [STEPS[0][:1]], [0])
    feed(prm, judgement, [STEPS[0]], [0])
    right = full_pass(prm, "abba", STEPS[0])
    assert written(judgement, 0) == pytest.approx(right, abs=1e-5)


def test_forks_and_rows_that_rest() -> None:
    """Row 1 rests after it was forked from row 2, whose slot others then write in; when
    it moves again, it has lost what it had read, and reads it anew.
    """
    _, prm = world()
    judgement, texts = prm.start(["abba"], 4), [steps[:1] for steps in STEPS]
    feed(prm, judgement, texts, [0, 1, 2, 3])
    prm.fork(judgement, torch.tensor([2, 2, 0, 3]))
    texts = [texts[a][:] for a in (2, 2, 0, 3)]
    before, fed = written(judgement, 1), judgement.cache.tokens
    for t in (1, 2):
        for row in (0, 2, 3):
            texts[row].append(STEPS[row][t])
            fed += len(STEPS[row][t]) + 1
        feed(prm, judgement, texts, [0, 2, 3])
        assert written(judgement, 1) == before and judgement.cache.tokens == fed
    texts[1].append("ba")
    feed(prm, judgement, texts, [1])
    for row in range(4):
        right = full_pass(prm, "abba", texts[row])
        assert written(judgement, row) == pytest.approx(right, abs=1e-5)


def test_what_a_slot_happens_to_hold_is_not_taken_for_scored() -> None:
    """Row 1 has lost what it had read, and its slot holds the very text that it writes
    next, left by a branch that died: it is read once more for its scores.
    """
    _, prm = world()
    judgement = prm.start(["abba"], 2)
    feed(prm, judgement, [["a"], ["a", "b", "bb"]], [0, 1])
    prm.fork(judgement, torch.tensor([0, 0]))
    feed(prm, judgement, [["a", "ab"], ["a"]], [0])
    fed = judgement.cache.tokens
    feed(prm, judgement, [["a", "ab"], ["a", "b", "bb"]], [1])
    right = full_pass(prm, "abba", ["a", "b", "bb"])
    assert written(judgement, 1) == pytest.approx(right, abs=1e-5)
    assert judgement.cache.tokens == fed + 4  # from b's separator on


def test_a_blank_step_has_no_score() -> None:
    """It is not counted a second time in a product, nor does it hide the last score."""
    _, prm = world()
    steps = ["a\n\n", "\n\n", "b", "\n\n"]
    judgement = prm.start(["abba"], 2)
    for t in range(1, 5):
        feed(prm, judgement, [steps[:t], steps], [0] if t < 4 else [0, 1])
    found = full_pass(prm, "abba", ["a", "b"])
    for row in (0, 1):
        each = [found[0], torch.inf, found[1], torch.inf]
        assert written(judgement, row) == pytest.approx(each, abs=1e-5)
    assert prm.log_odds(judgement, "last").tolist() == pytest.approx([found[1]] * 2)
    nothing = prm.start(["abba"], 2)  # who ends without a word is scored all the same
    feed(prm, nothing, [["\n\n"], []], [0, 1])
    right = full_pass(prm, "abba", [""]) * 2
    assert prm.log_odds(nothing).tolist() == pytest.approx(right, abs=1e-5)
    r = torch.sigmoid(torch.tensor(found).double()).prod()
    z = float((r / (1 - r)).log())
    assert prm.log_odds(judgement, "prod").tolist() == pytest.approx([z] * 2, abs=1e-5)


@pytest.mark.parametrize("how", ["last", "min", "prod", "model"])
def test_a_resting_row_keeps_its_aggregate(how: str) -> None:
    """Before its first step a prefix is certain, r = 1."""
    _, prm = world()
    judgement = prm.start(["abba"], 3)
    feed(prm, judgement, [["a"], ["b"], []], [0, 1], how)
    z = prm.log_odds(judgement, how)
    for steps in (["a", "ab"], ["a", "ab", "b", "bb"]):
        feed(prm, judgement, [steps, ["b"], []], [0], how)
    after = prm.log_odds(judgement, how)
    assert after[1] == z[1] and after[2] == z[2] == torch.inf and after[0] != z[0]
    assert after.dtype == torch.float64
    found = full_pass(prm, "abba", ["a", "ab", "b", "bb"])
    r = torch.sigmoid(torch.tensor(found).double())
    whole = full_pass(prm, "abba", ["aabbbb"])[0]
    right = dict(last=found[-1], min=min(found), model=whole)
    right["prod"] = float((r.prod() / (1 - r.prod())).log())
    assert float(after[0]) == pytest.approx(right[how], abs=1e-5)


def test_each_token_once_counted_in_the_forward() -> None:
    _, prm = world()
    seen = []
    hook = prm.body.register_forward_pre_hook(
        lambda m, a, k: seen.append(k["input_ids"].shape), with_kwargs=True
    )
    judgement = prm.start(["abba"], 4)
    for t in range(1, 4):
        feed(prm, judgement, [["ab"] * t] * 4, [0, 1, 2, 3])
        prm.fork(judgement, torch.tensor([1, 1, 3, 0]))
    hook.remove()
    fed = sum(rows * width for rows, width in seen)
    assert fed == 4 + 3 * 4 * 3  # the prompt, then two letters and a separator
    assert judgement.cache.tokens == 4 + 36 and judgement.scored.tolist() == [40]


def test_passes_are_bounded_and_hold_rows_of_like_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, prm = world()
    rng, seen = random.Random(3), []
    steps = [["ab" * rng.choice((1, 1, 1, 9))] for _ in range(24)]
    judgement = prm.start(["abba", "ba", "b"], 8)
    monkeypatch.setattr(pfref.prm, "in_groups", partial(in_groups, at_once=40))
    hook = prm.body.register_forward_pre_hook(
        lambda m, a, k: seen.append(k["input_ids"].numel()), with_kwargs=True
    )
    feed(prm, judgement, steps, list(range(24)))
    hook.remove()
    words = sum(len(s[0]) + 1 for s in steps)
    assert max(seen) <= 40 and len(seen) > 3 and sum(seen) <= words + 40
    for row in range(24):
        right = full_pass(prm, ["abba", "ba", "b"][row // 8], steps[row])
        assert written(judgement, row) == pytest.approx(right, abs=1e-5)


def test_model_aggregation_reads_one_block() -> None:
    """One separator at the end of the whole partial solution, and none within it."""
    _, prm = world()
    judgement, steps = prm.start(["abba"], 1), ["ab\n\n", "b", "aab\n\n", "\n\n", "b"]
    for t in range(1, 6):
        feed(prm, judgement, [steps[:t]], [0], "model")
        right = full_pass(prm, "abba", ["".join(steps[:t])])
        assert written(judgement, 0) == pytest.approx(right, abs=1e-5)
        ids, _ = prm.render("abba", steps[:t], "model")
        assert ids.count(SEPARATOR) == 1


def test_aggregations() -> None:
    z = torch.tensor([[1.0, -2.0, 0.5], [12.0, 9.0, 20.0]])
    assert lowest(z).tolist() == [-2.0, 9.0]
    r = torch.sigmoid(z.double()).prod(-1)
    right = (r / (1 - r)).log().tolist()
    assert last(torch.tensor([[1.0, 2.0, torch.inf]])).tolist() == [2.0]
    assert product(z).tolist() == pytest.approx(right, rel=1e-9)
    with pytest.raises(UserError, match="no aggregation 'mean'"):
        world()[1].render("ab", ["a"], "mean")


def test_log_odds_survive_where_probabilities_round_to_one() -> None:
    """PEERS 7: from the two logits in float32, also for a body in bfloat16; 9 and 12
    both have r = 1.0 in bfloat16.
    """
    _, prm = world()
    body = type(prm.body)(prm.body.config).bfloat16().eval()
    head = nn.Linear(16, 2)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([-2.0, 10.0]))
    sure = RewardModel(body, head, prm.tokenizer, FAMILY)
    judgement = sure.start(["ab"], 1)
    feed(sure, judgement, [["a"]], [0])
    assert judgement.scores.dtype == torch.float32
    assert sure.log_odds(judgement).item() == 12.0


def test_a_row_beyond_the_context_is_ruled_out_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The context holds exactly so many tokens, and not one more."""
    _, prm = world()
    steps = [["a", "ab"], ["a", "ab" * 3]]
    monkeypatch.setattr(prm, "context", len(ids_of(prm, "abba", steps[1])))
    for less in (0, 1):
        monkeypatch.setattr(prm, "context", prm.context - less)
        judgement = prm.start(["abba"], 2)
        feed(prm, judgement, [s[:1] for s in steps], [0, 1])
        feed(prm, judgement, steps, [0, 1])
        assert judgement.scores[0].isfinite().all()
        assert bool(judgement.scores[1, -1] == -torch.inf) == bool(less)
        for how in ("last", "min", "prod"):
            finite = prm.log_odds(judgement, how).isfinite().tolist()
            assert finite == [True, not less]
    with pytest.raises(UserError, match=f"context is {prm.context}; shorten it"):
        prm.prompt("a" * prm.context)
    assert prm.prompt("a" * (prm.context - 1))


def test_literals_in_words_are_words() -> None:
    prm = RewardModel.load("minimath-prm")
    problem, steps = "Compute <extra_0>", ["53-34=<extra_0>9\n\n", "<|end|>"]
    with pytest.raises(UserError, match="does not know"):  # MiniMath has no letters <
        prm.prompt(problem)
    words = RewardModel(prm.body, prm.head, prm.tokenizer, trl("\n\n"))
    with pytest.raises(UserError, match="does not know 'prime'"):  # in a chat or not
        words.prompt("Compute prime 7")
    ids, places = prm.render("Compute (53-34)*9.", steps)
    separator, end = prm.tokenizer.convert_tokens_to_ids(["<extra_0>", "<|end|>"])
    assert [k for k, token in enumerate(ids) if token == separator] == places
    assert end not in ids


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_scores_are_reported(broken: float) -> None:
    _, prm = world()
    head = nn.Linear(16, 2)
    with torch.no_grad():
        head.bias.fill_(0.0)
        head.bias[1] = broken
    bad = RewardModel(prm.body, head, prm.tokenizer, FAMILY)
    judgement = bad.start(["ab"], 2)
    with pytest.raises(UserError, match="NaN or infinite"):
        feed(bad, judgement, [["a"], ["b"]], [0, 1])


def test_the_shipped_reward_model_step_by_step_equals_one_full_pass() -> None:
    prm = RewardModel.load("minimath-prm")
    problem, steps = "Compute (53-34)*9.", ["53-34=19\n\n", "19*9=181, so \\boxed{181}"]
    judgement = prm.start([problem], 3)
    for t in (1, 2):
        feed(prm, judgement, [steps[:t]] * 3, [0, 1, 2])
        prm.fork(judgement, torch.tensor([2, 0, 0]))
    for row in range(3):
        right = full_pass(prm, problem, steps)
        assert written(judgement, row) == pytest.approx(right, abs=1e-4)


def test_slots_that_follow_one_another_are_a_range() -> None:
    assert consecutive([3]) == range(3, 4) and consecutive([2, 3, 4]) == range(2, 5)
    assert consecutive([2, 4]) == [2, 4]


def test_room_for_scores_is_made_once() -> None:
    judgement = world()[1].start(["abba"], 2)
    assert judgement.scores.shape == (2, 1) and judgement.known == [0, 0]
    for steps, width in ((3, 3), (2, 3), (4, 4)):
        judgement.make_room(steps)
        assert judgement.scores.tolist() == [[torch.inf] * width] * 2
