"""Beam search, greedy search and DVTS: against a plain beam search on trees, and on the
transformer with a value function that is never wrong.
"""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from pfref import LanguageModel, Proposal, Solution, UserError, solve
from pfref.randomness import generator, generators, split, uniforms
from pfref.reasoning import Reasoning
from pfref.search import BeamSearch
from pfref.study.tasks import Task
from tests.enumerable import END, PROBLEM, world
from tests.enumerable import PROPOSAL as WIDE

# ---- trees ----

BRANCHES, DEEPEST = 4, 5
Node = tuple[int, ...]


@dataclass
class Nodes:
    shape: tuple[int, int]
    paths: list[Node]

    @property
    def z(self) -> Tensor:
        return torch.tensor([value(path) for path in self.paths], dtype=torch.float64)

    @property
    def finished(self) -> Tensor:
        return torch.tensor([complete(path) for path in self.paths])


@cache
def numbers(path: Node) -> tuple[float, float, float]:
    one, two, three = torch.rand(3, generator=generator("node", path)).tolist()
    return one, two, three


def value(path: Node) -> float:
    return 6 * numbers(path)[0] - 3


def complete(path: Node) -> bool:
    return numbers(path)[1] < 0.25 or len(path) == DEEPEST


def dead(path: Node) -> bool:
    return numbers(path)[2] < 0.15


class Tree:
    """A node's children are numbered; some nodes are complete, some are ruled out."""

    def start(self, particles: int, sources: Sequence[Generator]) -> Nodes:
        rows = len(sources) * particles
        nodes = Nodes((len(sources), particles), [()] * rows)
        everyone = torch.ones(nodes.shape, dtype=torch.bool)
        return self.mutate(nodes, 1, everyone, sources)

    def mutate(
        self, state: Nodes, t: int, active: Tensor, sources: Sequence[Generator]
    ) -> Nodes:
        branch = (uniforms(sources, state.shape[1]) * BRANCHES).long().flatten()
        grown = [
            (*path, k) if on else path
            for path, k, on in zip(
                *(state.paths, branch.tolist(), active.flatten().tolist()), strict=True
            )
        ]
        return Nodes(state.shape, grown)

    def log_potential(self, state: Nodes, t: int) -> Tensor:
        cut = torch.tensor([dead(path) for path in state.paths])
        return torch.where(cut, -torch.inf, 0.0).view(state.shape)

    def finished(self, state: Nodes, t: int) -> Tensor:
        return state.finished.view(state.shape)

    def ready(self, state: Nodes, t: int) -> None:
        return None

    def fork(self, state: Nodes, ancestors: Tensor) -> Nodes:
        n = state.shape[1]
        paths = [
            state.paths[p * n + k]
            for p, row in enumerate(ancestors.tolist())
            for k in row
        ]
        return Nodes(state.shape, paths)


def plain(source: Generator, beams: int, width: int) -> list[Node]:
    """Beam search as one would write it: the complete nodes that it ends with."""
    paths: list[Node] = [()] * beams
    grows = [True] * beams
    while any(grows):
        branch = (uniforms([source], beams)[0] * BRANCHES).long().tolist()
        paths = [
            (*path, k) if on else path
            for path, k, on in zip(paths, branch, grows, strict=True)
        ]
        left = sorted((p for p in paths if not dead(p)), key=value, reverse=True)
        best = left[: max(1, beams // width)]
        through = [p for p in best if complete(p)]
        parents = [p for p in best if not complete(p)]
        if not parents:
            return sorted(p for p in left if complete(p))
        room = beams - len(through)
        shares = [room // len(parents)] * len(parents)
        for k in range(room % len(parents)):
            shares[k] += 1
        children = [p for p, m in zip(parents, shares, strict=True) for _ in range(m)]
        paths = through + children
        grows = [False] * len(through) + [True] * len(children)
    return []


@pytest.mark.parametrize("beams", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 16])
def test_as_a_plain_beam_search(beams: int, width: int) -> None:
    """Forty searches: the same complete nodes, and weight for these alone."""
    sources = [generator("search", beams, width, k) for k in range(40)]
    run: Any = BeamSearch(Tree(), beams, sources, width).run()
    weights = run.last.weights.flatten().tolist()
    ends = 0
    for p in range(40):
        rows = range(p * beams, (p + 1) * beams)
        found = sorted(run.last.state.paths[k] for k in rows if weights[k] > 0)
        assert found == plain(generator("search", beams, width, p), beams, width)
        ends += bool(found)
        if found:
            assert all(weights[k] in (0.0, pytest.approx(1 / len(found))) for k in rows)
    assert ends > 10 and not run.last.active.any()


def survivors(run: Any, p: int) -> list[set[int]]:
    """For each step before the last, the particles that have heirs."""
    return [set(step.ancestors[p].tolist()) for step in run.steps if step.resampled[p]]


def test_the_best_survive_and_not_the_first() -> None:
    run: Any = BeamSearch(Tree(), 8, generators(3, 30), 4)
    first = next(run)
    z = first.state.z.view(30, 8)
    alive = first.log_weights > -math.inf
    changed = 0
    for p in range(30):
        ranked = z[p].masked_fill(~alive[p], -math.inf).argsort(descending=True)
        assert (
            set(first.ancestors[p].tolist()) <= set(ranked[:2].tolist())
            or not (first.resampled[p])
        )
        changed += set(ranked[:2].tolist()) != {0, 1}
    assert changed > 20
    assert first.log_evidence.isnan().all()  # a search estimates no evidence


@pytest.mark.parametrize("beams", [2, 3, 4])
def test_below_the_width_one_survives(beams: int) -> None:
    """Mistake 15: and as many next steps are looked at as there are beams."""
    run: Any = BeamSearch(Tree(), beams, generators(4, 60), 4).run()
    left = [heirs for p in range(60) for heirs in survivors(run, p)]
    assert left and all(len(heirs) == 1 for heirs in left)
    second = run.steps[1]
    looked = [
        {path for path in second.state.paths[p * beams : (p + 1) * beams]}
        for p in range(60)
        if run.steps[0].resampled[p]
    ]
    assert max(map(len, looked)) == min(beams, BRANCHES)


# ---- the transformer, and a value function that is never wrong ----

DEPTH = 3
WORDS = ("a", "b", "aa", "ab", "ba", "bb")
RARE = ("ba", "bb")  # words that the transformer seldom writes
THREE_WORDS = Task(
    "three words",
    None,
    lambda text: len(text.split()) >= DEPTH,
    lambda text: " ".join(text.split()) or None,
    str.__eq__,
)
PROPOSAL = Proposal(temperature=1.5, max_step_tokens=3, max_tokens=9, max_steps=DEPTH)


@lru_cache
def endless() -> LanguageModel:
    """The enumerable transformer, which never writes its end token."""
    model = copy.deepcopy(world()[0].model)
    head = nn.Linear(16, 4).requires_grad_(False)
    head.weight.copy_(model.lm_head.weight)
    head.bias.zero_()
    head.bias[END] = -60.0
    model.set_output_embeddings(head)
    return LanguageModel(model, world()[0].tokenizer)


@cache
def worth(words: Node | tuple[str, ...], salt: int) -> float:
    """Of a prefix, the worth of the best solution that begins so."""
    if len(words) == DEPTH:
        rare = sum(word in RARE for word in words)
        noise = torch.rand((), generator=generator("worth", salt, words))
        return 2 * float(noise) - rare
    return max(worth((*words, word), salt) for word in WORDS)


class Value:
    """Stands for a reward model: a prefix's log-odds is its worth, times `sign`."""

    def __init__(self, salt: int, sign: int = 1) -> None:
        self.salt, self.sign = salt, sign

    def prompt(self, problem: str) -> list[int]:
        return [0]

    def start(self, problems: Sequence[str], copies: int) -> Any:
        rows = len(problems) * copies
        z = torch.full((rows,), torch.inf, dtype=torch.float64)
        scored = torch.zeros(len(problems), dtype=torch.long)
        prompts: list[list[int]] = [[] for _ in scored]
        cache = SimpleNamespace(calls=0)
        return SimpleNamespace(z=z, scored=scored, prompts=prompts, cache=cache)

    def fork(self, judgement: Any, rows: Tensor) -> None:
        judgement.z = judgement.z[rows]

    def extend(self, judgement: Any, read: Tensor, texts: Any, *_: Any) -> None:
        judgement.z = judgement.z.clone()
        for row in read.nonzero()[:, 0].tolist():
            words = tuple("".join(texts[row]).split())
            judgement.z[row] = self.sign * worth(words, self.salt)

    def log_odds(self, judgement: Any, rule: str) -> Tensor:
        return judgement.z


def best(salt: int) -> str:
    every = itertools.product(WORDS, repeat=DEPTH)
    return " ".join(max(every, key=lambda words: worth(words, salt)))


def searched(method: str, salt: int = 0, sign: int = 1, **options: Any) -> Any:
    settings: dict[str, Any] = dict(
        method=method, task=THREE_WORDS, proposal=PROPOSAL, seed=1, particles=256
    )
    prm: Any = Value(salt, sign)
    return solve([PROBLEM], endless(), prm, **(settings | options))[0]


@pytest.mark.parametrize("salt", range(3))
@pytest.mark.parametrize(
    "method, width", [("beam", 4), ("beam", 64), ("greedy-search", 4), ("dvts", 128)]
)
def test_a_perfect_value_finds_the_optimum(method: str, width: int, salt: int) -> None:
    """As far as its steps are among those that are sampled: of 256 they are."""
    found = searched(method, salt, width=width, choose="argmax")
    assert found.answer == best(salt)
    assert found.chosen.reward == pytest.approx(
        max(worth(w, salt) for w in itertools.product(WORDS, repeat=DEPTH))
    )


def test_a_value_upside_down_does_not() -> None:
    """So it is the value function that finds it, and not the number of samples."""
    for method in ("beam", "greedy-search", "dvts"):
        assert searched(method, sign=-1).answer != best(0)


def members(solution: Solution) -> list[tuple]:
    return [(p.text, p.answer, p.finished, p.weight) for p in solution.particles]


@pytest.mark.parametrize("particles", [1, 2, 3, 5, 8])
def test_one_tree_is_greedy_search_is_a_beam_as_wide_as_its_budget(
    particles: int,
) -> None:
    """On the transformer and its own reward model, with the same seeds."""
    found = [
        solve(
            [PROBLEM, "ab"],
            *world(),
            particles,
            method=method,
            width=8 if method == "dvts" else particles,
            proposal=WIDE,
            seed=3,
        )
        for method in ("dvts", "beam", "greedy-search")
    ]
    for k in range(2):
        one, *others = [members(solutions[k]) for solutions in found]
        assert all(one == other for other in others)


def test_trees_never_meet() -> None:
    """DVTS is as many greedy searches as there are trees, each by its own generator."""
    lm, prm = world()
    found = solve(
        [PROBLEM, "ba"], lm, prm, 12, method="dvts", width=4, proposal=WIDE, seed=5
    )
    for k, text in enumerate([PROBLEM, "ba"]):
        own = split([generator(5, text, 0)], 3)
        expected: list[str] = []
        for source in own:
            model = Reasoning(lm, prm, [text], WIDE)
            run = BeamSearch(model, 4, [source], 4).run()
            paths = run.last.state.paths
            expected += [paths.text(row) for row in range(4)]
        assert [p.text for p in found[k].particles] == expected
        assert len({tuple(expected[j : j + 4]) for j in (0, 4, 8)}) == 3


@pytest.mark.parametrize("method", ["beam", "greedy-search", "dvts"])
def test_a_search_ends_with_complete_solutions(method: str) -> None:
    """Weight is for finished ones alone; the answer is of the best of them."""
    seen = 0
    for solution in solve(
        [PROBLEM] * 20, *world(), 8, method=method, proposal=WIDE, choose="argmax"
    ):
        alive = [p for p in solution.particles if p.weight > 0]
        assert all(p.finished and p.reward > -math.inf for p in alive)
        assert not alive or sum(p.weight for p in alive) == pytest.approx(1)
        if alive:
            best = max(p.reward for p in alive)
            assert solution.chosen.reward == best and solution.chosen.weight > 0
        assert solution.log_evidence is None
        seen += bool(alive)
    assert seen > 10


def test_a_budget_equal_to_the_width_is_more_than_one_chain() -> None:
    """Mistake 15: four next steps are generated each time, and paid for."""
    four = searched("beam", particles=4, width=4)
    one = searched("beam", particles=1, width=1)
    assert four.cost.generated_tokens > 2.5 * one.cost.generated_tokens
    assert len({p.text for p in four.particles}) > 1


def test_of_equal_scores_the_first_survive() -> None:
    """Equal to four digits. What is not scored yet has a score of 0."""
    run: Any = BeamSearch(Tree(), 32, generators(0, 2), 8)
    z = torch.ones(2, 32, dtype=torch.float64)
    z[0, 16:] += 2e-5
    z[1, :9], z[1, 9:30], z[1, 30:] = -0.1, torch.inf, 0.5
    state = SimpleNamespace(z=z.flatten(), finished=torch.zeros(64, dtype=torch.bool))
    log_w = torch.zeros(2, 32, dtype=torch.float64)
    log_w[1, 9] = -torch.inf
    step = run.record(1, state, log_w, log_w == 0, torch.tensor([True, True]))
    assert sorted(set(step.ancestors[0].tolist())) == [0, 1, 2, 3]
    assert sorted(set(step.ancestors[1].tolist())) == [10, 11, 30, 31]
    assert step.ess.tolist() == [32, 31]


@pytest.mark.parametrize("width", [0, -1])
def test_a_beam_has_a_width(width: int) -> None:
    with pytest.raises(UserError, match="width is at least 1"):
        BeamSearch(Reasoning(*world(), [PROBLEM]), 4, generators(0, 1), width)
