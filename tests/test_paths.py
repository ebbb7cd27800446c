"""What was written, as text: the decode of all tokens, whatever the tokenizer does to
one token.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from pfref import LanguageModel, Proposal
from pfref.paths import UNFINISHED, Paths, Written
from pfref.prompts import plain_ids
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.smc import particle_filter
from tests.scripted import Scripted, finish, scripted
from tests.test_prompts import byte_level, metaspace

TOKENIZERS = {"byte-level": byte_level, "metaspace": metaspace}


def decode(tokenizer: Any, ids: Any) -> str:
    return tokenizer.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


def written(tokenizer: Any, ids: list[int], **limits: Any) -> Paths:
    """Let a model with this tokenizer write these tokens and end."""
    end = tokenizer.eos_token_id
    model = Scripted([*ids, end], len(tokenizer), context=512, ends=end)
    lm = LanguageModel(model, tokenizer)
    return finish(lm, lm.start([[3]], 1, Proposal(**limits)), generators(0, 1))


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("step_tokens", [1, 2, 3])
def test_characters_of_several_tokens(name: str, step_tokens: int) -> None:
    """Steps that end inside a character: it belongs to the step that completes it."""
    text = "a \\boxed{😀🜁½𝛼} is é, and 日本."
    tokenizer = TOKENIZERS[name]()
    paths = written(tokenizer, plain_ids(tokenizer, text), step_tokens=step_tokens)
    assert paths.text(0) == text and UNFINISHED not in "".join(paths.texts[0])
    assert len(paths.texts[0]) > 8 and all(paths.texts[0])
    assert "😀" in " ".join(paths.texts[0]), "no step has the whole character"


@pytest.mark.parametrize(
    "text, steps",
    [
        ("a a\n\n aa", ["a a\n\n", " aa"]),
        (" a\n\n  a\n\na", [" a\n\n", "  a\n\n", "a"]),
        ("a.\n\n\n a", ["a.\n\n\n", " a"]),
    ],
)
def test_a_decoder_that_strips_a_leading_space(text: str, steps: list[str]) -> None:
    """Of the whole text alone, not of every step."""
    tokenizer = metaspace()
    ids = plain_ids(tokenizer, text)
    assert decode(tokenizer, ids) == text
    paths = written(tokenizer, ids)
    assert paths.text(0) == text
    if "\n\n\n" not in text:
        assert list(paths.texts[0]) == steps


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", TOKENIZERS)
def test_steps_joined_are_the_decode_of_all_tokens(name: str, seed: int) -> None:
    """Cut anywhere; in byte-level tokens also for bytes that are no text at all. Before
    the end what is there is a beginning of it.
    """
    rng, tokenizer = random.Random(seed), TOKENIZERS[name]()
    letters = "ab n.<|\n 😀é日½"
    ids = plain_ids(tokenizer, "".join(rng.choice(letters) for _ in range(40)))
    if name == "byte-level" and seed % 2:
        ids = [rng.randrange(len(tokenizer)) for _ in range(40)]
    paths, texts, left = Paths.empty(1, 1), [], list(ids)
    while left:
        size = rng.randint(1, 4)
        step, left = left[:size], left[size:]
        paths.ended[0] = not left
        paths.append([0], [step], tokenizer)
        texts.append(paths.text(0))
    whole = decode(tokenizer, ids)
    assert texts[-1] == whole and list(paths.tokens[0]) == ids
    assert all(whole.startswith(text) for text in texts)
    assert paths.ends[0][-1] == len(ids) and len(paths.ends[0]) == len(paths.texts[0])
    assert sorted(set(paths.ends[0])) == list(paths.ends[0])
    assert int(paths.generated) == len(ids)
    assert all(text.strip() for text in paths.texts[0][1:])


def test_an_unfinished_character_is_shown_once_nothing_can_finish_it() -> None:
    """Where the solution ended, or was cut."""
    tokenizer = byte_level()
    ids = plain_ids(tokenizer, "a😀")[:-1]
    for how in ("ended", "truncated"):
        paths = Paths.empty(1, 1)
        paths.append([0], [ids], tokenizer)
        assert paths.texts[0] == ("a",)
        getattr(paths, how)[0] = True
        paths.append([0], [[]], tokenizer)
        assert paths.text(0) == "a" + UNFINISHED


@pytest.mark.parametrize("name, fed", [("byte-level", 1), ("metaspace", 3)])
def test_a_byte_level_step_is_decoded_alone(name: str, fed: int) -> None:
    """So that a step of a long solution costs no more than one of a short one."""
    tokenizer, sizes = TOKENIZERS[name](), []
    paths, inner = Paths.empty(1, 1), tokenizer.batch_decode

    def counting(rows: list[list[int]], **options: Any) -> list[str]:
        sizes.append(len(rows[0]))
        return inner(rows, **options)

    tokenizer.batch_decode = counting
    for token in plain_ids(tokenizer, "a n"):
        paths.append([0], [[token]], tokenizer)
    assert sizes[2] == fed


def test_only_the_rows_that_are_given_move() -> None:
    tokenizer = byte_level()
    a, n = tokenizer.convert_tokens_to_ids(["a", "n"])
    paths = Paths.empty(2, 2)
    paths.append([1, 2], [[a], [n, n]], tokenizer)
    assert paths.texts == [(), ("a",), ("nn",), ()]
    assert paths.spoke.tolist() == [False, True, True, False]
    assert paths.generated.tolist() == [1, 2] and paths.rows == 4
    paths.log_ratio += torch.arange(4)
    paths.fork(torch.tensor([1, 1, 3, 2]))
    assert paths.texts == [("a",), ("a",), (), ("nn",)]
    assert paths.parents == [1, 1, 3, 2] and paths.log_ratio.tolist() == [1, 1, 3, 2]
    assert paths.ends == [(1,), (1,), (), (2,)]
    assert paths.spoke.tolist() == [True, True, False, True]
    paths.fork(torch.tensor([3, 1, 2, 0]))  # parents of parents
    assert paths.parents == [2, 1, 3, 1]
    assert paths.generated.tolist() == [1, 2], "dead branches cost what they cost"


# An end token alone


@dataclass
class Fixed:
    """A reward model that gives every step the same log-odds, and counts what it is
    asked to read.
    """

    z: float = 2.0
    read: list[tuple[str, ...]] = field(default_factory=list)

    def prompt(self, problem: str) -> list[int]:
        return [0]

    def start(self, problems: list[str], copies: int) -> Any:
        return torch.full((len(problems) * copies,), torch.inf, dtype=torch.float64)

    def extend(self, judgement: Tensor, moved: Tensor, steps: Any, *_: Any) -> None:
        judgement[moved] = self.z
        self.read += [steps[row] for row in moved.nonzero()[:, 0].tolist()]

    def fork(self, judgement: Tensor, ancestors: Tensor) -> None:
        judgement[:] = judgement[ancestors]

    def log_odds(self, judgement: Tensor, aggregation: str) -> Tensor:
        return judgement


def weighed(text: list[str], **options: Any) -> tuple[float, list[str], Fixed]:
    """The log weight of a solution of these pieces, its steps, and its judge."""
    prm: Any = Fixed()
    proposal = Proposal(step_tokens=options.pop("step_tokens", None))
    model = Reasoning(scripted(text), prm, ["a"], proposal, **options)
    run = particle_filter(model, 2, generators(0, 1))
    assert run.last.state.finished.all()
    log_weights = run.last.log_weights[0]
    assert log_weights[0] == log_weights[1]
    return float(log_weights[0]), list(run.last.state.paths.texts[0]), prm


@pytest.mark.parametrize("potential, weight", [("odds", 2.0), ("score", -0.126928)])
def test_an_end_token_alone_adds_no_step_and_no_weight(
    potential: str, weight: float
) -> None:
    """Nor does white space before it: the weight is that of the words."""
    for text, steps in (
        (["a", "<e>"], ["a"]),
        (["a", "\n\n", "<e>"], ["a\n\n"]),
        (["a", "\n\n", "\n", "\n\n", "<e>"], ["a\n\n\n\n\n"]),
    ):
        found, texts, prm = weighed(text, potential=potential)
        assert texts == steps and len(prm.read) == 2  # one step of two particles
        assert found == pytest.approx(weight, abs=1e-5)
    assert weighed(["a", "\n\n", "b", "<e>"], potential=potential)[0] == pytest.approx(
        2 * weight, abs=1e-5
    )


def test_telescoping_is_the_last_score_however_a_solution_ends() -> None:
    for text in (["a", "<e>"], ["a", "\n\n", "<e>"], ["a", "\n\n", "b", "<e>"]):
        found, _, _ = weighed(text, potential="telescoping")
        assert found == pytest.approx(-0.126928, abs=1e-5)


def test_white_space_in_steps_of_one_token_is_not_weighed() -> None:
    """It belongs to the step before, or to the one that it begins."""
    text = ["\n", "a", "\n", " ", "b", "\n\n", "<e>"]
    found, steps, prm = weighed(text, step_tokens=1)
    assert steps == ["\na\n ", "b\n\n"] and found == 4.0
    assert prm.read == [("\na",)] * 2 + [("\na\n ", "b")] * 2


def test_who_ends_without_a_word_is_read_once() -> None:
    """There is no other chance to weigh an empty solution."""
    for text in (["<e>"], ["\n\n", "<e>"]):
        found, _, prm = weighed(text)
        assert found == 2.0 and len(prm.read) == 2
    found, _, prm = weighed(["\n\n", "<e>"], step_tokens=1)
    assert found == 2.0 and len(prm.read) == 2


@pytest.mark.parametrize("answered", [True, False])
def test_an_answer_that_just_fits_is_finished_and_half_an_answer_is_cut(
    answered: bool,
) -> None:
    """At the limit of tokens, without an end token."""
    tokenizer = byte_level(None)
    prm: Any = Fixed()
    ids = plain_ids(tokenizer, "a \\boxed{5}")
    model = Scripted([*ids, *ids], len(tokenizer), context=512, ends=0)
    proposal = Proposal(max_tokens=len(ids) - (not answered))
    reasoning = Reasoning(LanguageModel(model, tokenizer), prm, ["a"], proposal)
    run = particle_filter(reasoning, 2, generators(0, 1))
    state, log_weights = run.last.state, run.last.log_weights[0]
    assert state.paths.text(0) == ("a \\boxed{5}" if answered else "a \\boxed{5")
    assert state.finished.tolist() == [answered] * 2
    assert state.paths.truncated.tolist() == [not answered] * 2
    assert log_weights.tolist() == [2.0 if answered else -torch.inf] * 2
    assert len(prm.read) == (2 if answered else 0), "what was cut short is not read"


def test_who_rests_while_its_population_steps_has_no_price() -> None:
    tokenizer = byte_level()
    step = Written([tokenizer.convert_tokens_to_ids("a")], False, True, -0.5, -2.0)
    paths = Paths.empty(2, 2)
    paths.take(torch.tensor([True, True]), range(4), [step] * 4, tokenizer)
    paths.parents = [1, 1, 2, 2]
    paths.take(torch.tensor([True, False]), [1], [step], tokenizer)
    assert paths.log_ratio.tolist() == [0.0, -0.5, -0.5, -0.5]
    assert paths.spoke.tolist() == [False, True, True, True]
    assert paths.log_p.tolist() == [-2.0, -4.0, -2.0, -2.0]
    assert paths.parents == [0, 1, 2, 2]
    paths.take(torch.tensor([False, True]), [], [], tokenizer)
    assert paths.parents == [0, 1, 2, 3] and paths.truncated.all()
