"""A path that is held fast is written again as it was, by the same passes as the rows
beside it.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch

from pfref import LanguageModel, Proposal
from pfref.randomness import generator, generators
from pfref.reasoning import Reasoning
from pfref.smc import ParticleFilter
from tests.enumerable import PROBLEM, PROPOSAL, world
from tests.scripted import going, random_ancestors, steps_of

TARGET = replace(PROPOSAL, target_temperature=0.7)
TEXTS = [PROBLEM, "ab", "bbbab"]


@lru_cache
def looked_at(every: int) -> LanguageModel:
    lm = LanguageModel(world()[0].model, world()[0].tokenizer)
    lm.look, lm.spare = every, 0.25 if every > 1 else 0.0
    return lm


def first_run(lm: LanguageModel, proposal: Proposal) -> Any:
    """Where references come from: populations that never resample."""
    model = Reasoning(lm, world()[1], TEXTS, proposal)
    return model, ParticleFilter(model, 8, generators(1, 3), threshold=0.0).run()


def long_ones(run: Any) -> list[int]:
    """The particle of each population that took most steps and is finished."""
    state = run.last.state
    return [
        max(
            range(8),
            key=lambda n, p=p: (  # type: ignore[misc]
                bool(state.finished[p * 8 + n]),
                len(state.paths.ends[p * 8 + n]),
            ),
        )
        for p in range(3)
    ]


@pytest.mark.parametrize("look", [1, 8])
@pytest.mark.parametrize(
    "proposal, threshold",
    [
        (PROPOSAL, 1.0),
        (TARGET, 0.0),
        (TARGET, 1.0),
        (replace(TARGET, step_tokens=2), 1.0),
    ],
)
def test_a_held_path_is_as_it_was(
    look: int, proposal: Proposal, threshold: float
) -> None:
    """Tokens, steps, scores, prices, probabilities and so its log potentials, whatever
    its neighbours do; they go on drawing for themselves.
    """
    lm = looked_at(look)
    model, before = first_run(lm, proposal)
    chosen = long_ones(before)
    pinned = [before.path(p, n) for p, n in enumerate(chosen)]
    sums = torch.zeros(3, dtype=torch.float64)
    run = ParticleFilter(model, 4, generators(2, 3), threshold=threshold, pinned=pinned)
    for step in run:
        increment = model.log_potential(step.state, step.t)[:, 0]
        sums += torch.where(step.stepped, increment, 0.0)
    old, new = before.last.state, run.last.state
    for p, n in enumerate(chosen):
        was, now = p * 8 + n, p * 4
        assert new.paths.tokens[now] == old.paths.tokens[was] == pinned[p]
        assert steps_of(new.paths, now) == steps_of(old.paths, was)
        assert new.paths.texts[now] == old.paths.texts[was]
        assert (
            new.finished[now]
            and old.finished[was]
            and new.paths.ended[now] == (old.paths.ended[was])
        )
        for name in ("z", "total"):
            torch.testing.assert_close(
                getattr(new, name)[now], getattr(old, name)[was], atol=1e-4, rtol=1e-4
            )
        assert float(new.paths.log_p[now]) == pytest.approx(
            float(old.paths.log_p[was]), abs=1e-4
        )
        whole = float(before.last.log_weights[p, n])
        assert float(sums[p]) == pytest.approx(whole, abs=1e-4)
    rows = [row for row in range(12) if row % 4]
    assert {new.paths.tokens[row] for row in rows} - set(pinned)


def test_the_rows_beside_it_are_what_they_are_without_it() -> None:
    """It takes nobody's uniform numbers."""
    lm = looked_at(1)
    model, before = first_run(lm, PROPOSAL)
    pinned = [before.path(p, n) for p, n in enumerate(long_ones(before))]
    held, free = (
        ParticleFilter(model, 4, generators(2, 3), threshold=0.0, **options).run()
        for options in (dict(pinned=pinned), {})
    )
    for row in range(12):
        same = held.last.state.paths.tokens[row] == free.last.state.paths.tokens[row]
        assert same or row % 4 == 0


def test_no_further_passes() -> None:
    """As many as its longest step has tokens: never one for the path alone."""
    lm = looked_at(1)
    paths = lm.start([lm.prompt(PROBLEM)], 2, PROPOSAL)
    sources = [generator("free")]
    while (active := going(paths)).any():
        lm.extend(paths, active, sources)
    longest = max(range(2), key=lambda row: len(paths.tokens[row]))
    reference = paths.tokens[longest]
    alone = lm.start([lm.prompt(PROBLEM)], 1, PROPOSAL)
    read = alone.work.cache.calls
    while (active := going(alone)).any():
        lm.extend(alone, active, sources, {0: reference})
    assert alone.tokens[0] == reference
    assert alone.work.cache.calls - read == len(reference)
    assert alone.work.cache.tokens == len(lm.prompt(PROBLEM)) + len(reference)


def forked(lm: LanguageModel, forced: dict[int, tuple[int, ...]]) -> tuple[Any, int]:
    """Twelve populations of four with random forks after each step; the first of each
    stays itself and has an heir. And how many heirs there were.
    """
    heirs = 0
    paths = lm.start([lm.prompt(text) for text in TEXTS], 4, PROPOSAL, copies=4)
    sources = generators(5, 12)
    while (active := going(paths)).any():
        done = lm.extend(paths, active, sources, forced)
        ancestors = random_ancestors(paths, done, 6)
        ancestors[::4] = torch.arange(0, 48, 4)
        after = (done & going(paths)[::4]).nonzero()[:, 0] * 4
        ancestors[after + 1] = after
        heirs += len(after)
        lm.fork(paths, ancestors)
    return paths, heirs


@pytest.mark.parametrize("look", [1, 8])
def test_to_hold_what_is_drawn_anyway_changes_nothing(look: int) -> None:
    """Nor for heirs of the held path, which go on by themselves."""
    lm = looked_at(look)
    free, heirs = forked(lm, {})
    held, _ = forked(lm, {row: free.tokens[row] for row in range(0, 48, 4)})
    assert held.tokens == free.tokens and held.ends == free.ends
    torch.testing.assert_close(held.log_p, free.log_p, atol=1e-4, rtol=1e-4)
    assert heirs >= 3


@pytest.mark.parametrize("look", [1, 8])
def test_held_through_random_forks(look: int) -> None:
    """Whatever path is held, it stays itself."""
    lm = looked_at(look)
    _, before = first_run(lm, PROPOSAL)
    pinned = [before.path(p, n) for p, n in enumerate(long_ones(before))]
    forced = {4 * p: pinned[p // 4] for p in range(12)}
    paths, _ = forked(lm, forced)
    assert [paths.tokens[row] for row in range(0, 48, 4)] == list(forced.values())
