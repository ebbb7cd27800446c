"""MiniMath: references that check, fixed sets, a tokenizer that loses nothing, shipped
files that are small and plain.
"""

import hashlib
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pfref.minimath.evaluate import auc
from pfref.minimath.export import as_llama
from pfref.minimath.fitting import Recipe, fit
from pfref.minimath.judge import TRUNK, judge_batches, new_judge, targets
from pfref.minimath.mistakes import corrupted, unseen_problem
from pfref.minimath.policy import PRACTICE, language_batches, language_loss, new_model
from pfref.minimath.problems import (
    DELIMITER,
    LEVELS,
    OPERATIONS_AT_LEVEL,
    SETS,
    check_steps,
    draw,
    load_set,
    make_set,
)
from pfref.minimath.programs import evaluate, write_steps
from pfref.minimath.pupils import SLIP_RATE, pupils_results, slip
from pfref.minimath.subjects import SUBJECTS
from pfref.minimath.tokenizer import build
from pfref.study.measures import pass_at

PACKAGE = Path(__file__).parents[1] / "pfref" / "minimath"
SYMBOLS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    " mod ": lambda a, b: a % b,
}


@pytest.mark.parametrize(
    "name, count, levels", [("minimath500", 500, set(LEVELS)), ("miniaime", 30, {6})]
)
def test_fixed_sets(name: str, count: int, levels: set[int]) -> None:
    problems = load_set(name)
    assert (
        len({p.problem for p in problems}) == count
        and {p.level for p in problems} == levels
    )
    assert {p.subject for p in problems} == set(SUBJECTS) and len(SUBJECTS) >= 4
    for p in problems:
        assert (
            len(p.steps) == OPERATIONS_AT_LEVEL[p.level] and 0 <= int(p.answer) <= 999
        )
        for step in p.steps:  # every step is true arithmetic, worked out here anew
            left, symbol, right, result = re.match(
                r"(\d+)(\D+?)(\d+)=(\d+)", step
            ).groups()
            assert SYMBOLS[symbol](int(left), int(right)) == int(result)
        assert p.steps[-1].endswith(f"so \\boxed{{{p.answer}}}")


def test_sets_are_what_their_seeds_make() -> None:
    assert set(SETS) == {path.stem for path in PACKAGE.glob("*.jsonl")}
    for name, (count, levels, seed) in SETS.items():
        assert make_set(name, count, levels, seed) == load_set(name)
    digest = hashlib.sha256((PACKAGE / "minimath500.jsonl").read_bytes()).hexdigest()
    assert digest.startswith(MINIMATH500_SHA256)


MINIMATH500_SHA256 = "624c6973c3b6ae41"


def test_steps_are_judged_by_the_reference() -> None:
    p = load_set("minimath500")[1]
    assert (
        all(check_steps(p, p.steps))
        and check_steps(p, p.steps + ["1+1=2"])[-1] is False
    )
    wrong = [p.steps[0], "1+1=3", *p.steps[2:]]
    assert check_steps(p, wrong) == [True] + [False] * (len(wrong) - 1)


def test_mistakes_are_made_once_and_gone_on_from() -> None:
    rng, untouched = random.Random(1), 0
    for _ in range(500):
        problem, program = unseen_problem(rng, set())
        _, steps, reference = corrupted(rng, problem, program)
        verdicts = check_steps(problem, steps)
        assert reference == problem.steps and sorted(verdicts, reverse=True) == verdicts
        untouched += steps == reference
    assert 0.1 < untouched / 500 < 0.35


@pytest.mark.parametrize(
    "symbol, left, right, wrong",
    [
        ("+", 47, 38, 75),
        ("+", 471, 552, 923),
        ("+", 475, 58, 423),
        ("+", 5, 8, 13),
        ("-", 52, 38, 26),
        ("-", 300, 7, 307),
        ("-", 58, 32, 26),
        ("*", 47, 6, 242),
        ("*", 6, 47, 242),
        ("*", 9, 9, 81),
        ("*", 30, 5, 150),
        ("mod", 85, 17, 0),
        ("mod", 90, 17, 12),
        ("mod", 5, 17, 5),
        ("/", 387, 9, 42),
        ("/", 9, 9, 1),
        ("/", 0, 9, 0),
    ],
)
def test_slips_are_those_of_school_arithmetic(
    symbol: str, left: int, right: int, wrong: int
) -> None:
    """A forgotten carry, the smaller digit from the larger, a multiple misjudged; and
    nothing where there is nothing to forget.
    """
    assert slip(symbol, left, right) == wrong


def test_pupils_slip_at_their_rate_and_go_on_from_there() -> None:
    rng, program = (
        random.Random(2),
        [("+", 47, 38), ("*", "r0", 2)],
    )  # 85, 170; with the slip 75, 150; a slip in 75 * 2 or 85 * 2
    found = Counter(tuple(pupils_results(rng, program, 3)) for _ in range(4000))
    rate = SLIP_RATE[3]
    for results, share in {
        (85, 170): (1 - rate) ** 2,
        (85, 160): (1 - rate) * rate,
        (75, 150): rate * (1 - rate),
        (75, 140): rate**2,
    }.items():
        assert (
            abs(found[results] / 4000 - share) < 3 * (share * (1 - share) / 4000) ** 0.5
        )
    assert sum(found.values()) == 4000 and len(found) == 4


def test_a_judge_learns_a_verdict_at_every_token() -> None:
    """Right while all tokens are the reference's, with its next token to predict; 0
    from the first difference on.
    """
    assert targets([5, 6, 7], [5, 6, 7, 2]) == [7, 8, 3]
    assert targets([5, 9, 7], [5, 6, 7, 2]) == [7, 0, 0]
    assert targets([5, 6, 7, 8, 8], [5, 6, 7, 2]) == [7, 8, 3, 0, 0] and targets(
        [9], [5, 2]
    ) == [0]
    tokenizer = build()
    ids, wanted = judge_batches(
        tokenizer, [("Compute 1+1.", ["1+1=3"], ["1+1=2"])] * 64, 8, 0
    )(0)
    closing = ids == tokenizer.convert_tokens_to_ids("<extra_0>")
    assert (
        (wanted[closing] >= 0).all()
        and closing.any(1).all()
        and (wanted[closing] == 0).any()
    )


def test_a_new_judge_still_knows_what_the_large_model_knows() -> None:
    """Its frozen layers are the large model's function, in a smaller stream; the first
    new layer looks one token back.
    """
    torch.manual_seed(0)
    tokenizer = build()
    policy = new_model("large", tokenizer).eval()
    judge = new_judge(tokenizer, policy)
    judge.lm.set_attn_implementation("eager")
    ids = torch.randint(7, 100, (2, 30))
    out = judge.lm.model(
        input_ids=ids, output_hidden_states=True, output_attentions=True
    )
    assert torch.allclose(
        judge.expect[1](judge.notice_norm(out.hidden_states[TRUNK])),
        policy(ids).logits,
        atol=1e-4,
    )
    assert (out.attentions[TRUNK][:, :, 1:].argmax(-1) == torch.arange(29)).all()
    assert not any(p.requires_grad for p in judge.lm.model.layers[0].parameters())


def test_tokenizer_loses_nothing() -> None:
    ours, theirs = build(), AutoTokenizer.from_pretrained(PACKAGE / "small")
    for p in load_set("minimath500") + load_set("miniaime"):
        for text in (p.problem, p.solution):
            ids = ours(text)["input_ids"]
            assert (
                ours.unk_token_id not in ids
                and ours.decode(ids) == text
                and theirs(text)["input_ids"] == ids
            )
    assert ours(DELIMITER)["input_ids"] == ours("1" + DELIMITER)["input_ids"][1:]


def test_shipped_files_are_safetensors_and_small() -> None:
    files = [
        f for f in PACKAGE.rglob("*") if f.is_file() and "__pycache__" not in f.parts
    ]
    assert sum(f.stat().st_size for f in files) < 20_000_000
    assert {f.suffix for f in files} <= {
        ".py",
        ".jsonl",
        ".json",
        ".jinja",
        ".safetensors",
    }


def test_shipped_language_models_load_as_any_hub_model_does() -> None:
    sizes = [
        AutoModelForCausalLM.from_pretrained(PACKAGE / size).num_parameters()
        for size in ("small", "large")
    ]
    assert sizes[0] < 1.2e6 < sizes[1]


def test_llama_twin_is_the_same_function() -> None:
    torch.manual_seed(0)
    model = new_model("small", build()).eval()
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(p)
    ids = torch.randint(0, 100, (2, 30))
    assert torch.allclose(model(ids).logits, as_llama(model)(ids).logits, atol=1e-5)


@pytest.mark.slow
def test_training_goes_on_where_it_was_cut_off(tmp_path) -> None:
    """Four steps at once, and two then two more, give the same weights."""

    def train(folder: Path, *stops: int) -> dict[str, torch.Tensor]:
        for stop in stops:
            torch.manual_seed(0)
            model = new_model("small", build())
            fit(
                model,
                language_batches(build(), 4, 0, {}),
                language_loss,
                folder,
                Recipe(4, stop, 1e-2, 0),
                lambda m: "",
                "test",
            )
        return model.state_dict()

    whole, parts = train(tmp_path / "a", 4), train(tmp_path / "b", 2, 4)
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)


def test_practice_draws_a_subject_more_often() -> None:
    tokenizer = build()
    for practice, share in (({}, 1 / 7), (PRACTICE, 4 / 12)):
        batches = language_batches(tokenizer, 32, 0, practice)
        texts = [
            text
            for step in range(16)
            for text in tokenizer.batch_decode(batches(step)[0])
        ]
        found = sum("modulo" in text for text in texts) / len(texts)
        assert abs(found - share) < 3 * (share * (1 - share) / len(texts)) ** 0.5


def test_draws_stay_in_range() -> None:
    rng = random.Random(3)
    for _ in range(300):
        level = rng.choice(LEVELS)
        subject, text, program = draw(rng, level)
        values = evaluate(program)
        assert (
            all(0 <= v <= 999 for v in values)
            and len(write_steps(program, values)) == OPERATIONS_AT_LEVEL[level]
        )


def test_pass_at_k_and_auc() -> None:
    assert (
        pass_at(4, 16, 1) == pytest.approx(0.25)
        and pass_at(0, 16, 8) == 0
        and pass_at(9, 16, 8) == 1
    )
    rows = [
        dict(problem=p, step=0, right=r, score=s)
        for p, r, s in [
            ("easy", True, 5.0),
            ("easy", True, 4.0),
            ("easy", False, 4.5),
            ("hard", False, 0.0),
            ("hard", True, -1.0),
            ("hard", False, 1.0),
        ]
    ]
    assert auc(rows, "problem", "step") == pytest.approx(
        1 / 4
    )  # within a problem this score misleads
    assert auc(rows) == pytest.approx(
        (3 + 2 + 0) / 9
    )  # and over all it looks better than that
