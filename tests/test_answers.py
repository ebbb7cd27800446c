"""Answers that are stated without a box, and votes by weight and by equivalence."""

import random
import time

import pytest

from pfref.answers import hashed, numbers, stated, vote


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Therefore, the final answer is: 5. I hope it is correct.", "5"),
        ("the final answer is: $x + 1$. I hope it is correct.", "$x + 1$"),
        ("So the answer is 3.5 apples.\nThat was it", "3.5 apples"),
        ("**Answer:** 42", "42"),
        ("The answer is **13**.", "13"),
        ("Answer = 7", "7"),
        ("the answer is\n\n7", "7"),
        ("The answer is 12. No, the answer is 13!", "13"),
        ("the answer is", None),
        ("the answer is .", None),
        ("an answerable question", None),
        ("", None),
    ],
)
def test_stated(text: str, answer: str | None) -> None:
    assert stated(text) == answer


@pytest.mark.parametrize(
    "text, answer",
    [
        ("2 + 3 = 5\n#### 5", "5"),
        ("#### 1,234\n\n", "1,234"),
        ("#### 1\n#### 2\nend", "2"),
        ("####", None),
        ("5", None),
    ],
)
def test_hashed(text: str, answer: str | None) -> None:
    assert hashed(text) == answer


@pytest.mark.parametrize(
    "text, found",
    [
        ("3, 4, and 5.", ["3", "4", "5"]),
        ("He pays $1,234.50.", ["1234.50"]),
        ("it falls to -4", ["-4"]),
        ("10-7", ["10", "7"]),
        ("about .5", [".5"]),
        ("none", []),
    ],
)
def test_numbers(text: str, found: list[str]) -> None:
    assert numbers(text) == found


@pytest.mark.parametrize("find", [stated, hashed, numbers])
@pytest.mark.parametrize(
    "part", ["answer is ", "answer ", "####", "1,", "-", ". ", "a"]
)
def test_long_texts_take_linear_time(find, part: str) -> None:
    began = time.perf_counter()
    find(part * 100_000)
    assert time.perf_counter() - began < 5


def asked(pairs: list[tuple[str, str]]):
    """Equality of numbers, which notes what it is asked."""

    def same(gold: str, answer: str) -> bool:
        pairs.append((gold, answer))
        return float(gold) == float(answer)

    return same


def test_a_vote_by_spelling() -> None:
    shares = vote(["1", "2", "", None, "1.0", "2"], [1, 2, 4, 2, 2, 1])
    assert shares == pytest.approx({"2": 3 / 12, "1.0": 2 / 12, "1": 1 / 12, None: 0.5})
    assert list(shares) == ["2", "1.0", "1", None]
    assert vote([], []) == {} and vote(["1"], [0.0]) == {}


def test_a_vote_by_equivalence_adds_the_weights_of_all_spellings() -> None:
    """Neither spelling of 1 leads, both together do, and the heavier one is shown."""
    answers, weights = ["2", "1", "1.0", None], [3.0, 1.5, 2.5, 3.0]
    assert next(iter(vote(answers, weights))) == "2"
    shares = vote(answers, weights, asked([]))
    assert shares == pytest.approx({"1.0": 0.4, "2": 0.3, None: 0.3})
    assert list(shares) == ["1.0", "2", None]


def test_of_equal_answers_the_first_leads_and_of_equal_spellings_the_first_is_shown():
    same = asked([])
    assert list(vote(["2", "1", "1.0", "2.0"], [1, 1, 1, 1], same)) == ["2", "1"]
    assert list(vote(["3", "2", "3.0", "2.0"], [1, 1, 1, 1], same)) == ["3", "2"]
    # The class that appeared first leads, although its shown spelling came later.
    assert list(vote(["1", "2", "1.0"], [1, 3, 2], same)) == ["1.0", "2"]


def test_equality_is_asked_no_more_than_needed() -> None:
    """Never about one spelling twice or about no answer, and for each spelling at most
    once a class.
    """
    rng = random.Random(0)
    pairs: list[tuple[str, str]] = []
    answers = [
        rng.choice(["1", "1.0", "01", "2", "2.0", "3", None]) for _ in range(200)
    ]
    shares = vote(answers, [1.0] * 200, asked(pairs))
    assert len(shares) == 4 and sum(shares.values()) == pytest.approx(1)
    assert len(pairs) <= 6 * 3 and len(set(pairs)) == len(pairs)
    assert all(a != b and None not in (a, b) for a, b in pairs)
    pairs.clear()
    vote(["1"] * 9 + [None], [1.0] * 10, asked(pairs))
    assert pairs == []


def test_what_has_no_weight_is_not_compared() -> None:
    pairs: list[tuple[str, str]] = []
    assert vote(["1", "1.0"], [1.0, 0.0], asked(pairs)) == {"1": 1.0} and not pairs
