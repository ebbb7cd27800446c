"""Answers in the boxes that models write, and seeds of any integer kind."""

import time

import numpy as np
import pytest
import torch

from pfref.answers import boxed
from pfref.randomness import generator


@pytest.mark.parametrize(
    "text, answer",
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{\frac{1}{2}} and \boxed{ 7 }", "7"),
        (r"\boxed{\left\{1,2\right.}", r"\left\{1,2\right."),
        (r"\boxed{\left.1,2\right\}}", r"\left.1,2\right\}"),
        (r"\boxed{a \\{b}}", r"a \\{b}"),
        (r"\fbox{5}", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed 5", "5"),
        (r"is $\boxed x+1$. Done", "x+1"),
        (r"is \(\boxed 5\) of them", "5"),
        (r"is \boxed 5. Done", "5"),
        (r"is \boxed .5", ".5"),
        (r"\boxed\frac12", r"\frac12"),
        (r"\boxed{4}, or \boxed 5", "4"),  # braces first
        (r"\boxed{4} and \boxed{5", "4"),
        (r"\boxed{\boxed{4}", "4"),
        (r"} \boxed{4} {", "4"),
        (r"\boxed{}", ""),
        (r"\boxed{5}, in \boxed{} as asked", "5"),
        (r"in \boxed{}: \boxed{5}", "5"),
        (r"\boxed", None),
        (r"\boxed{5", None),
        (r"\boxed {5", None),
        (r"\boxedness 5", None),
        (r"\boxed $", None),
        ("\\", None),
        ("", None),
        ("no box", None),
    ],
)
def test_boxes(text: str, answer: str | None) -> None:
    assert boxed(text) == answer


@pytest.mark.parametrize(
    "part", ["{", "}", "\\", r"\boxed{", r"\boxed . ", r"\boxed ", r"\boxed $", "\\b"]
)
def test_long_texts_take_linear_time(part: str) -> None:
    began = time.perf_counter()
    boxed(part * 100_000)
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("kind", [np.int64, np.int32, torch.tensor])
def test_a_seed_is_its_value(kind: type) -> None:
    wanted = torch.rand(3, generator=generator(3, "text"))
    assert torch.equal(torch.rand(3, generator=generator(kind(3), "text")), wanted)
