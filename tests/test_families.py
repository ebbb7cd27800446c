"""Every family of reward models: batched, forked and step by step as one plain pass by
the family's published recipe.
"""

import random
from collections.abc import Callable

import pytest
import torch

from pfref.errors import UserError
from pfref.loading import load_tokenizer, locate
from pfref.readers import KEPT, NOWHERE, chat, fresh, kept, open_end, plain
from tests.hub_layouts import WORDS
from tests.published import MAKE, Published

PROBLEM, OTHER = "Let x = 3y - 7. What is $x^2$?", "Find the sum of 12 and 34."
LOOK_AHEAD = ("universal", "self")  # only the last step has a place


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Published]:
    made: dict[str, Published] = {}

    def get(name: str) -> Published:
        if name not in made:
            made[name] = MAKE[name](tmp_path_factory.mktemp("model"))
        return made[name]

    return get


every_family = pytest.mark.parametrize("name", MAKE)


def step(rng: random.Random, end: str = "\n\n") -> str:
    words = " ".join(rng.choices(WORDS, k=rng.choice((1, 2, 5, 12))))
    return words + rng.choice(("", ".", "\nand\n" + rng.choice(WORDS), ":")) + end


@every_family
@pytest.mark.parametrize("length", [1, 40])
def test_scores_are_those_of_the_published_recipe(
    name: str, length: int, published: Callable[[str], Published]
) -> None:
    """Six rows of two problems, steps of unequal length, random ancestors after every
    step; a fifth of the rows rest at any step.
    """
    model, rng = published(name), random.Random(length)
    prm, problems, rows = model.prm, [PROBLEM, OTHER], 6
    judgement = prm.start(problems, 3)
    texts: list[tuple[str, ...]] = [()] * rows
    for t in range(length):
        moved = [t == 0 or rng.random() < 0.8 for _ in range(rows)]
        last = t == length - 1
        texts = [
            (*text, step(rng, "" if last else "\n\n")) if moves else text
            for text, moves in zip(texts, moved, strict=True)
        ]
        prm.extend(judgement, torch.tensor(moved), texts)
        chosen = [row // 3 * 3 + rng.randrange(3) for row in range(rows)]
        prm.fork(judgement, torch.tensor(chosen))
        texts = [texts[row] for row in chosen]
    for row in range(rows):
        right = model.recipe(problems[row // 3], list(texts[row]))
        steps = len(texts[row])
        assert judgement.known[row] == steps == len(right)
        assert judgement.scores[row, :steps].tolist() == pytest.approx(right, abs=1e-4)
        assert judgement.scores[row, steps:].eq(torch.inf).all()
    assert judgement.scores[judgement.scores.isfinite()].std() > 0.05 or length == 1


@every_family
def test_a_separator_is_never_doubled_nor_dropped(
    name: str, published: Callable[[str], Published]
) -> None:
    """Whatever the steps end with, and where a step is blank or bears a literal."""
    model = published(name)
    prm, controls = model.prm, set(model.prm.tokenizer.all_special_ids)
    plain = ["so we have", "the sum", "is 46", "we have it"]
    forms = [[f"{text}{end}" for text in plain] for end in ("\n\n", "\n", "", "\n\n\n")]
    forms.append([plain[0], "\n\n" + plain[1], "\n\n", *plain[2:]])
    forms.append(
        [plain[0], "the <extra_0>\n\n", "<|im_end|> <|eot_id|> </s>\n\n", plain[3]]
    )
    for steps in forms:
        ids, places = prm.render(PROBLEM, steps)
        text = "".join(steps).rstrip("\n")
        if name == "skywork":  # every line of the text once, and a place where it ends
            newline = prm.tokenizer.encode("\n")
            lines = text.count("\n") + 1
            assert ids.count(*newline) == lines + 1 + PROBLEM.count("\n")
            whole = all(step.endswith("\n") for step in steps)
            assert len({*places} - {NOWHERE}) == 4 or not whole
        else:
            assert len({*places} - {NOWHERE}) == (1 if name in LOOK_AHEAD else 4)
        if close := model.separator:
            assert ids.count(close[-1]) == 4 * close.count(close[-1])
            for place in {*places} - {NOWHERE}:
                assert ids[place + 1 - len(close) : place + 1] == close
        harmless, _ = prm.render(PROBLEM, plain)
        for control in controls - {*model.separator}:
            assert ids.count(control) == harmless.count(control)
        assert max(places) == len(ids) - 1 or name == "skywork"


@every_family
def test_every_rendering_begins_with_the_prompt(
    name: str, published: Callable[[str], Published]
) -> None:
    """Also where a problem's last token would join the solution's first."""
    prm, rng = published(name).prm, random.Random(7)
    for _ in range(200):
        end = rng.choice(("", " ", "  ", "\n", " \n\n ", "?", "...", "$"))
        problem = rng.choice(("", " ", "\n")) + step(rng, end)
        prompt, none = prm.render(problem, [])
        steps = [rng.choice(("", " ", "\n", "  \n")) + step(rng)]
        ids, places = prm.render(problem, steps)
        assert ids[: len(prompt)] == prompt and none == []
        assert len(prompt) <= places[-1] < len(ids)


@every_family
def test_a_step_without_words_has_no_score(
    name: str, published: Callable[[str], Published]
) -> None:
    model = published(name)
    judgement = model.prm.start([PROBLEM], 1)
    steps = ["so we\n\n", "\n\n", "have 46\n\n", "\n"]
    for t in range(1, 5):
        model.prm.extend(judgement, torch.tensor([True]), [steps[:t]])
    (first,) = model.recipe(PROBLEM, steps[:1])
    _, second = model.recipe(PROBLEM, ["so we\n\n\n\n", "have 46\n\n"])
    right = pytest.approx([first, torch.inf, second, torch.inf], abs=1e-4)
    assert judgement.scores[0].tolist() == right
    assert model.prm.log_odds(judgement).tolist() == pytest.approx([second], abs=1e-4)


@every_family
def test_one_block_is_the_text_however_it_was_cut(
    name: str, published: Callable[[str], Published]
) -> None:
    """`model` with steps that end within a word, or between a full stop and its line's
    end: the score of the whole text at every step, whatever was read before.
    """
    model = published(name)
    text = "so 53-3 is 50.\n\nTherefore we have\n\nthe sum of 12 and 34.\n\nStep 1: 46"
    ways = ["model"]
    if name in ("skywork", *LOOK_AHEAD):  # they read the bare text step by step, too
        ways.append("last")
    for how in ways:
        judgement = model.prm.start([PROBLEM], 1)
        steps: tuple[str, ...] = ()
        for k in range(0, len(text), 4):
            steps = (*steps, text[k : k + 4])
            model.prm.extend(judgement, torch.tensor([True]), [steps], how)
            (right,) = model.recipe(PROBLEM, ["".join(steps).rstrip("\n")])
            z = model.prm.log_odds(judgement, how)
            assert z.tolist() == pytest.approx([right], abs=1e-4)


@every_family
def test_tokens_are_fed_once_and_counted(
    name: str, published: Callable[[str], Published]
) -> None:
    """In the forward itself: the prompt once, and of each row what is new; a look-ahead
    at every step.
    """
    model, rng, seen = published(name), random.Random(1), []
    prm = model.prm
    hook = prm.body.register_forward_pre_hook(
        lambda m, a, k: seen.append(k["input_ids"].numel()), with_kwargs=True
    )
    judgement = prm.start([PROBLEM], 1)
    steps: tuple[str, ...] = ()
    for _ in range(5):
        steps = (*steps, step(rng))
        prm.extend(judgement, torch.tensor([True]), [steps])
    hook.remove()
    ids, _ = prm.render(PROBLEM, steps)
    assert sum(seen) == judgement.cache.tokens == int(judgement.scored.sum())
    again = sum(seen) - len(ids)
    if name in LOOK_AHEAD:
        ends = [prm.render(PROBLEM, steps[:k])[0] for k in (1, 2, 3, 4)]
        whole = [prm.render(PROBLEM, steps[: k + 1])[0] for k in (1, 2, 3, 4)]
        common = [
            next(
                i for i, pair in enumerate(zip(a, b, strict=False)) if len({*pair}) > 1
            )
            for a, b in zip(ends, whole, strict=True)
        ]
        assert again == sum(len(a) - k for a, k in zip(ends, common, strict=True))
    else:
        assert again == 0


def test_the_last_ids_of_a_problem_wait_for_the_solution() -> None:
    """Eight of them; but a prompt is never empty."""
    assert open_end((7,), tuple(range(10))) == [7, 0, 1]
    assert open_end((7,), (1, 2)) == [7]
    assert open_end((), (1, 2)) == [1]


def test_ids_of_a_step_are_kept_and_those_of_a_long_text_are_not() -> None:
    tokenizer = load_tokenizer(locate("minimath-prm"))
    before = kept.cache_info().misses
    for length, more in ((KEPT, 1), (KEPT, 1), (KEPT + 1, 1)):
        assert plain(tokenizer, " " * length) == fresh(tokenizer, " " * length)
        assert kept.cache_info().misses == before + more


def test_a_problem_that_the_reward_model_cannot_read_is_told_as_its_own() -> None:
    tokenizer = load_tokenizer(locate("minimath-prm"))
    with pytest.raises(UserError, match="^the reward model has .* not know 'zebra'"):
        chat(system="Be brief.")(tokenizer, "Compute zebra + 3.")
    assert chat(system="Be brief.")(tokenizer, "Compute 3+4.")  # it may be left out
