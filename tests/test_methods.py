"""Every method through `solve`: exact distributions, what is spent, and answers."""

import itertools
import math
import time
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pfref import Proposal, RewardModel, UserError, methods, solve
from pfref.methods import ANSWERS, METHODS, SURE, decided, leads
from pfref.paths import Paths
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.resampling import SCHEMES, multinomial
from pfref.schedules import entropic
from pfref.settings import Settings
from pfref.smc import particle_filter
from pfref.solution import VOTES, Particle, choose, told, trace
from pfref.solution import alike as alike_answers
from pfref.study.tasks import Task
from tests.agreement import IMPOSSIBLE, UNLIKELY, agreement
from tests.enumerable import (
    FAMILY,
    PROBLEM,
    PROPOSAL,
    Path,
    enumerate_paths,
    tokenizer_of,
    world,
)

F64 = torch.float64
TEXT = Task(
    "text", None, lambda text: False, lambda text: text.strip() or None, str.__eq__
)
LETTER = Task(
    "letter",
    None,
    lambda text: False,
    lambda text: text.strip()[:1] or None,
    str.__eq__,
)
SMALL = Proposal(temperature=1.5, max_step_tokens=3, max_tokens=6, max_steps=3)


def many(runs: int, particles: int, **options: Any) -> list[Any]:
    batch = runs * particles
    settings: dict[str, Any] = dict(task=TEXT, proposal=SMALL, batch=batch)
    return solve([PROBLEM] * runs, *world(), particles, **(settings | options))


@lru_cache
def known() -> dict[str, tuple[float, float]]:
    """For each text, without white space around it: its probability, and its score."""
    tokenizer = world()[0].tokenizer
    found: dict[str, tuple[float, float]] = {}
    for path in enumerate_paths(*world(), SMALL):
        text = tokenizer.decode(sum(path.steps, ()), skip_special_tokens=True).strip()
        p = found.get(text, (0.0, 0.0))[0] + math.exp(path.log_p)
        found[text] = (p, path.z[-1])
    return found


# ---- samples, and what is chosen among them ----


def best_of(n: int) -> dict[str, float]:
    """The exact distribution of best-of-N's text: F(z)^N less F(before z)^N, with F
    the mass of all that scores no more, and of what never finishes. None for no text.
    """
    ranked = sorted(known().items(), key=lambda item: item[1][1])
    below = 1 - sum(p for p, _ in known().values())
    found = {"none": below**n}
    for text, (p, _) in ranked:
        found[text] = (below + p) ** n - below**n
        below += p
    return found


def test_best_of_n_is_distributed_as_computed() -> None:
    n, exact = 4, best_of(4)
    assert sum(exact.values()) == pytest.approx(1)
    place = {text: k for k, text in enumerate(exact)}
    found = many(800, n, method="samples", choose="argmax")
    texts = [s.chosen.text.strip() if s.chosen else "none" for s in found]
    visits = torch.tensor([[place[text]] for text in texts])
    assert agreement(visits, torch.tensor(list(exact.values()))) > UNLIKELY
    other = torch.tensor(list(best_of(n - 1).values()))
    assert agreement(visits, other) < IMPOSSIBLE


def test_majority_is_distributed_as_computed() -> None:
    """Of three samples, over first letters: by a sum over all triples. A tie is the
    one's who came first.
    """
    p: Counter[str] = Counter()
    for text, (mass, _) in known().items():
        p[text[:1]] += mass  # type: ignore[assignment]
    p["none"] = 1 - sum(p.values())
    p["none"] += p.pop("", 0)
    exact: Counter[str] = Counter()
    for triple in itertools.product(p, repeat=3):
        answers = Counter(letter for letter in triple if letter != "none")
        winner = answers.most_common(1)[0][0] if answers else "none"
        exact[winner] += math.prod(p[letter] for letter in triple)
    letters = list(exact)
    found = many(400, 3, method="samples", task=LETTER)
    visits = torch.tensor([[letters.index(s.answer or "none")] for s in found])
    assert agreement(visits, torch.tensor([exact[k] for k in letters])) > UNLIKELY


def test_greedy_takes_the_likeliest_token() -> None:
    lm, prm = world()
    found = solve(
        [PROBLEM, "ab"], lm, prm, 9, method="greedy", proposal=SMALL, task=TEXT
    )
    for text, solution in zip([PROBLEM, "ab"], found, strict=True):
        tokens: list[int] = []
        while len(tokens) < solution.particles[0].tokens:
            ids = torch.tensor([lm.prompt(text) + tokens])
            tokens.append(int(lm.model(input_ids=ids).logits[0, -1].argmax()))
        written = lm.tokenizer.decode(tokens, skip_special_tokens=True)
        assert solution.particles[0].text == written
        assert len(solution.particles) == 1


# ---- the early-stopped vote ----


def exactly_leads(a: int, b: int) -> float:
    """P(Beta(a + 1, b + 1) > 1/2) by whole numbers."""
    n = a + b + 1
    return sum(math.comb(n, k) for k in range(a + 1)) / 2**n


@pytest.mark.parametrize("a, b", [(0, 0), (4, 0), (3, 1), (9, 3), (2, 5), (60, 41)])
def test_leads_is_the_beta_probability(a: int, b: int) -> None:
    assert leads(a, b) == pytest.approx(exactly_leads(a, b), rel=1e-9)
    points = (torch.arange(100_000, dtype=F64) + 0.5) / 100_000
    density = points**a * (1 - points) ** b
    share = float(density[50_000:].sum() / density.sum())
    assert leads(a, b) == pytest.approx(share, rel=1e-3)


def test_an_early_stop_spends_what_it_says() -> None:
    """In rounds of four, and no more once the leader is safe: by its own particles."""
    found = many(40, 14, method="adaptive", task=LETTER)
    counts = Counter(len(s.particles) for s in found)
    assert set(counts) <= {4, 8, 12, 14} and len(counts) > 1
    for s in found:
        for stop in range(4, len(s.particles) + 1, 4):
            answers = [p.answer for p in s.particles[:stop] if p.finished and p.answer]
            top = [n for _, n in Counter(answers).most_common(2)] + [0, 0]
            safe = exactly_leads(top[0], top[1]) >= SURE
            assert safe == (stop == len(s.particles)) or len(s.particles) == 14
        assert s.answer == choose("majority", s.particles).answer
        tokens = sum(p.tokens for p in s.particles)
        assert s.cost.generated_tokens == tokens
        rounds = -(-len(s.particles) // 4)
        assert s.cost.prompt_tokens == rounds * len(world()[0].prompt(PROBLEM))
        assert sum(p.weight for p in s.particles) == pytest.approx(1)


def test_votes_decide_by_classes_of_equal_answers() -> None:
    class Found:
        particles = [[one("1/2"), one("0.5"), one("1/2"), one("0.5")]]

        class model:  # noqa: N801
            task = replace(TEXT, same=lambda a, b: {a, b} <= {"1/2", "0.5"} or a == b)

    assert decided(Found, 0)
    Found.model.task = TEXT
    assert not decided(Found, 0)


# ---- choices ----


def one(
    answer: str | None,
    weight: float = 0.25,
    reward: float = 0.0,
    finished: bool = True,
    confidence: float = -1.0,
) -> Particle:
    return Particle((answer or "",), answer, weight, reward, finished, 3, confidence)


FOUR = [
    one("a", weight=0.4, reward=-1.0, confidence=-3.0),
    one("b", weight=0.3, reward=2.0, confidence=-0.1),
    one("b", weight=0.0, reward=-2.0, confidence=-2.5),
    one("c", weight=0.25, reward=1.0, confidence=-0.9),
    one("c'", weight=0.2, reward=0.5, confidence=-0.8),
    one("d", weight=9.0, reward=9.0, finished=False, confidence=-0.01),
    one(None, weight=0.9, reward=-0.5),
]


def alike(one: str, other: str) -> bool:
    return one.strip("'") == other.strip("'")


@pytest.mark.parametrize(
    "name, spelled, merged",
    [
        ("vote", "a", "c"),
        ("argmax", "b", "b"),
        ("weighted", "b", "c"),
        ("majority", "b", "b"),
        ("confidence", "b", "b"),
    ],
)
def test_choices(name: str, spelled: str, merged: str) -> None:
    """By spelling, and by equal answers. What is not finished has no voice, nor has a
    missing answer; of an answer's particles the strongest stands for it.
    """
    assert choose(name, FOUR).answer == spelled
    chosen = choose(name, FOUR, alike)
    assert chosen is not None and chosen.answer == merged
    if name in ("vote", "weighted") and merged == "c":
        assert chosen is FOUR[3]


def test_choices_sum_what_they_say() -> None:
    confident = [one("x", confidence=-0.7), one("x", confidence=-0.7)]
    confident.append(one("y", confidence=-0.02))
    assert choose("confidence", confident).answer == "x"
    confident[0] = one("x", confidence=-5.0)
    assert choose("confidence", confident).answer == "y"
    scored = [one("x", reward=0.0), one("x", reward=0.0), one("y", reward=3.0)]
    assert choose("weighted", scored).answer == "x"
    ruled_out = [one("x", reward=-math.inf, weight=0.0), one("y", reward=-4.0)]
    assert choose("argmax", ruled_out).answer == "y"
    nothing = [one("x", finished=False), one(None, finished=False)]
    assert all(
        choose(n, nothing) is None for n in ("vote", "argmax", "majority", "weighted")
    )
    assert choose("vote", [one(None, reward=1.0), one(None, reward=2.0)]).reward == 2.0


def test_a_draw_is_by_weight() -> None:
    three = [one("a", 0.2), one("b", 0.0), one("c", 0.8)]
    drawn = [choose("draw", three, None, u) for u in (0.0, 0.19, 0.2001, 0.999)]
    assert [p.answer for p in drawn if p] == ["a", "a", "c", "c"]
    assert choose("draw", [one("a", 0.0)], None, 0.5) is None


def test_confidence_is_the_mean_log_probability_of_a_token() -> None:
    """Against full passes, with resampling: a path's own tokens, whoever wrote them."""
    lm, prm = world()
    for look in (1, 8):
        lm.look = look
        try:
            found = many(3, 8, threshold=1.0)
        finally:
            lm.look = 1
        exact = {
            lm.tokenizer.decode(sum(path.steps, ()), skip_special_tokens=True): path
            for path in enumerate_paths(lm, prm, SMALL)
        }
        seen = 0
        for p in (p for s in found for p in s.particles if p.finished):
            path: Path = exact[p.text]
            count = len(sum(path.steps, ()))
            assert p.tokens == count
            assert p.confidence == pytest.approx(path.log_p / count, abs=1e-5)
            seen += 1
        assert seen > 10


# ---- the power distribution ----


class Same(nn.Module):
    """A reward model's head that is always sure: r = 1 to rounding."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.new_tensor([-60.0, 60.0]).expand(*hidden.shape[:-1], 2)


def indifferent() -> RewardModel:
    return RewardModel(world()[1].body, Same(), tokenizer_of("<extra_0>"), FAMILY)


@lru_cache
def powers(target: float) -> tuple[dict[str, int], Tensor, Tensor]:
    """Solutions, and two distributions over them: the product over tokens of softmax(
    logits / T), and the sequences' p(x)^(1 / T), both normalised over what is complete.
    """
    lm, prm = world()
    by_token = enumerate_paths(lm, prm, POWER, temperature=target)
    plain = enumerate_paths(lm, prm, POWER, temperature=1.0)
    decode = lm.tokenizer.decode
    number = {decode(sum(path.steps, ())): k for k, path in enumerate(by_token)}
    token = torch.tensor([path.log_p for path in by_token], dtype=F64)
    whole = torch.tensor([path.log_p / target for path in plain], dtype=F64)
    return number, token, whole


RUNS = 400
POWER = Proposal(
    temperature=1.2,
    target_temperature=0.6,
    max_step_tokens=3,
    max_tokens=6,
    max_steps=3,
)


@pytest.mark.parametrize("power", [False, True])
@pytest.mark.parametrize("threshold", [1.0, pytest.param(0.5, marks=pytest.mark.slow)])
def test_the_power_distributions_are_exact(threshold: float, power: bool) -> None:
    """A reward that is always 1, and a target that is sharper than the proposal.

    With a target temperature T it is the product over tokens of
    p(x_t | before)^(1/T) / c(before), each normalised: low-temperature sampling,
    corrected in the weights. With a target power it is Power-SMC's (arXiv 2602.10273)
    p(x)^(1/T) of the whole sequence, without the c's. They differ: the first commits
    to tokens that look good now, the second to prefixes whose continuations are likely.
    """
    number, token, whole = powers(0.6)
    right, wrong = (whole, token) if power else (token, whole)
    sharp = replace(POWER, target_temperature=None, target_power=1 / 0.6)
    proposal = sharp if power else POWER
    model = Reasoning(world()[0], indifferent(), [PROBLEM], proposal, "score")
    run = particle_filter(model, 8, generators(3, RUNS), threshold=threshold)
    z = run.last.log_evidence.exp()
    exact = float(right.exp().sum())
    assert abs(z.mean() - exact) < 3 * z.std() / len(z) ** 0.5
    decode = world()[0].tokenizer.decode
    index = [number.get(decode(t), -1) for t in run.last.state.paths.tokens]
    weights = (run.last.weights * z[:, None]).flatten()
    mass = torch.zeros(RUNS, len(number) + 1, dtype=F64)
    rows = torch.arange(RUNS).repeat_interleave(8)
    mass.index_put_((rows, torch.tensor(index)), weights, accumulate=True)
    assert float(mass[:, -1].sum()) == 0
    common = (right.softmax(0) > 0.004).nonzero()[:, 0]
    seen, wanted = mass[:, common], right.exp()[common]
    error = (seen.mean(0) - wanted) / (seen.std(0) / RUNS**0.5)
    assert len(common) > 5 and float(error.square().mean()) < 2.5
    assert float(error.abs().max()) < 3.6  # one of about ten
    other = wrong.softmax(0)[common]
    far = (seen.mean(0) / exact - other) / (seen.std(0) / exact / RUNS**0.5)
    assert float(far.square().mean()) > 10


def test_the_two_powers_differ() -> None:
    _, token, whole = powers(0.6)
    distance = 0.5 * (token.softmax(0) - whole.softmax(0)).abs().sum()
    assert 0.05 < float(distance) < 0.9


# ---- all methods ----

TEXTS = [PROBLEM, "ab", "bbbab"]


@pytest.mark.parametrize("method", METHODS)
def test_records_do_not_depend_on_the_batch(method: str) -> None:
    """Three problems together, or each alone: particles, weights, answers, evidence
    and what was spent on each.
    """
    lm, prm = world()
    options: dict[str, Any] = dict(
        method=method, proposal=PROPOSAL, task=TEXT, seed=2, threshold=1.0, width=3
    )
    together = solve(TEXTS, lm, prm, 16, batch=48, **options)
    for text, among in zip(TEXTS, together, strict=True):
        alone = solve([text], lm, prm, 16, **options)[0]
        assert [(p.text, p.answer, p.finished, p.tokens) for p in alone.particles] == [
            (p.text, p.answer, p.finished, p.tokens) for p in among.particles
        ]
        for a, b in zip(alone.particles, among.particles, strict=True):
            assert a.weight == pytest.approx(b.weight, abs=1e-4)
            assert a.reward == pytest.approx(b.reward, abs=1e-4)
            assert a.confidence == pytest.approx(b.confidence, abs=1e-4)
        assert alone.answer == among.answer
        for name in ("prompt_tokens", "generated_tokens", "scored_tokens"):
            assert getattr(alone.cost, name) == getattr(among.cost, name)
        assert (alone.log_evidence is None) == (among.log_evidence is None)
        if alone.log_evidence is not None:
            assert alone.log_evidence == pytest.approx(among.log_evidence, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_is_kept(method: str) -> None:
    """Never more particles than N, and N where N divides into what a method needs."""
    kept = dict(greedy=1)
    for s in many(3, 16, method=method):
        assert len(s.particles) <= 16
        if method not in ("adaptive", "tempering"):
            assert len(s.particles) == kept.get(method, 16)
        elif method == "tempering":
            assert len(s.particles) == 8  # of two chains the first one's
        total = sum(p.weight for p in s.particles)
        assert total == pytest.approx(1) or (total == 0 and s.answer is None)


def test_sweeps_are_one_sample_together() -> None:
    """Of particle Gibbs: each sweep's weights sum to its share."""
    for s in many(5, 12, method="gibbs", sweeps=3):
        sums = [sum(p.weight for p in s.particles[k : k + 4]) for k in (0, 4, 8)]
        alive = [total for total in sums if total > 0]
        assert alive == pytest.approx([1 / len(alive)] * len(alive))
        prompt = len(world()[0].prompt(PROBLEM))
        assert s.cost.prompt_tokens == 3 * prompt


def test_tempering_multiplies_the_price_of_odds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, plain = [], methods.tempered

    def noted(chain: Any, inverse: Any, sources: Any) -> Any:
        seen.append(inverse.tolist())
        return plain(chain, inverse, sources)

    monkeypatch.setattr(methods, "tempered", noted)
    many(1, 16, method="tempering", tau=2.0, temperatures=(1.0, 4.0))
    assert seen == [[1 / 2, 1 / 8]]


def test_gibbs_needs_a_target_of_its_own() -> None:
    with pytest.raises(UserError, match="leave finished particles 'absorbed'"):
        many(1, 16, method="gibbs", finished="reweighted")
    with pytest.raises(UserError, match="at least two particles"):
        many(1, 4, method="gibbs", sweeps=4)


# ---- what a method is told, and what it tells ----


def test_every_method_answers_by_a_choice_that_there_is() -> None:
    assert set(ANSWERS) == set(METHODS)
    for method, choice in ANSWERS.items():
        assert Settings(method=method, choose=choice).choose == choice


@pytest.mark.parametrize("target", ["target_temperature", "target_power"])
def test_greedy_has_no_other_target(target: str) -> None:
    found = [
        many(1, 2, method="greedy", proposal=proposal)[0]
        for proposal in (SMALL, replace(SMALL, **{target: 0.5}))
    ]
    assert found[0].particles == found[1].particles


def test_a_run_is_told_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple] = {}

    def note(kind: str) -> None:
        plain = getattr(methods, kind)

        def noted(*args: Any, **named: Any) -> Any:
            seen[kind] = args
            return plain(*args, **named)

        monkeypatch.setattr(methods, kind, noted)

    note("ParticleFilter")
    note("ParticleGibbs")
    options = dict(threshold=0.9, anneal="entropic", resampling="residual")
    many(1, 8, **options)
    many(1, 16, method="tempering", sweeps=2, **options)
    _, size, sources, scheme, threshold, _ = seen["ParticleFilter"]
    assert (size, len(sources), threshold) == (8, 1, 0.9)
    assert scheme is SCHEMES["residual"]
    _, size, sources, threshold, _ = seen["ParticleGibbs"]
    assert (size, len(sources), threshold) == (4, 2, 0.9)
    w = torch.tensor([[0.0, -8.0, -8.0, -9.0]], dtype=F64)
    one = torch.tensor([1])
    wanted = entropic(SMALL.max_steps)(w, one)
    assert not torch.equal(wanted, w)
    for args in seen.values():
        assert torch.equal(args[-1](w, one), wanted)


@pytest.mark.parametrize(
    "method, particles, runs", [("filter", 4, 1), ("gibbs", 8, 2), ("adaptive", 6, 2)]
)
def test_costs_are_of_all_runs(method: str, particles: int, runs: int) -> None:
    states: dict[int, Any] = {}
    s = many(
        *(1, particles),
        method=method,
        sweeps=2,
        task=replace(TEXT, same=lambda a, b: False),
        watch=lambda step: states.update({id(step.state.paths.work): step.state}),
    )[0]
    assert len(states) == runs and s.cost.problems == 1
    assert s.cost.lm_calls == sum(x.paths.work.calls for x in states.values())
    assert s.cost.prm_calls == sum(x.judgement.cache.calls for x in states.values())
    for name, each in (
        ("generated", "paths.generated"),
        ("scored", "judgement.scored"),
    ):
        spent = sum(int(attrgetter(each)(x).sum()) for x in states.values())
        assert getattr(s.cost, f"{name}_tokens") == spent


def test_seconds_are_those_of_the_run() -> None:
    began = time.perf_counter()
    (found,) = many(1, 2)
    assert 0 < found.cost.seconds < time.perf_counter() - began


def test_a_trace_ends_with_its_population() -> None:
    """At its last step, or where a resampling left nobody who goes on."""

    def step(t: int, resampled: list[bool], stepped: list[bool]) -> Any:
        own = torch.full((3,), t)
        names = dict.fromkeys(("log_weights", "ess", "ancestors", "active"), own)
        both = dict(resampled=resampled, stepped=stepped)
        return SimpleNamespace(**names, **{k: torch.tensor(v) for k, v in both.items()})

    steps = [
        step(0, [False, True, False], [True, True, True]),
        step(1, [False, False, True], [False, False, True]),
        step(2, [False, False, False], [False, False, False]),
    ]
    run: Any = SimpleNamespace(steps=steps, resample=None, pinned=None)
    found = [trace(run, p) for p in range(3)]
    assert [t.ess.tolist() for t in found] == [[0], [0, 1], [0, 1, 2]]
    assert not found[0].independent
    run.pinned = []
    assert trace(run, 0).independent
    run.pinned, run.resample = None, multinomial
    assert trace(run, 0).independent


def test_what_is_not_known_has_the_voice_of_an_average() -> None:
    """Nothing of a reward of minus infinity, and 1 of an untold confidence."""
    unsaid = Particle(("a",), "a", 1.0, -math.inf, True)
    assert (unsaid.tokens, unsaid.confidence) == (0, 0.0)
    assert VOTES["weighted"](unsaid) == 0 and VOTES["confidence"](unsaid) == 1
    assert VOTES["confidence"](replace(unsaid, confidence=None)) == 1
    assert choose("draw", [one("a"), one("b")]).answer == "a"
    paths = Paths.empty(1, 4)
    paths.tokens = [(), (5,), (5, 6), (5,)]
    paths.log_p += torch.tensor([0.0, -3.0, -3.0, torch.nan])
    assert [told(paths, row) for row in range(4)] == [0.0, -3.0, -1.5, None]


def test_missing_answers_are_the_same() -> None:
    def anything(one: str, other: str) -> bool:
        return True

    for same in (None, anything):
        assert alike_answers("", None, same) and alike_answers(None, None, same)
        assert not alike_answers("a", None, same)
        assert not alike_answers("", "a", same)
    assert alike_answers("a", "a", lambda one, other: False)
    assert alike_answers("a", "b", anything) and not alike_answers("a", "b", None)


def test_greedy_fills_a_batch() -> None:
    """One row a problem, whatever the budget of the others."""
    settings = Settings(method="greedy", particles=16, batch=128)
    assert settings.together == 1 and settings.at_once == 128
