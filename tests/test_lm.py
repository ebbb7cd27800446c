"""The proposal: each token once, populations out of step, steps that end where they
should, and particles that depend on their own seed only.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import MistralConfig, MistralForCausalLM

from pfref import LanguageModel, Proposal, UserError
from pfref.baselines import greedy
from pfref.decoding import AHEAD, NOBODY, Decoder
from pfref.lm import ELSEWHERE, SPARE
from pfref.minimath.problems import load_set
from pfref.paths import Paths
from pfref.prompts import end_tokens
from pfref.randomness import generator, generators, uniforms
from pfref.reasoning import Reasoning
from pfref.sampling import sample
from pfref.smc import particle_filter
from tests.enumerable import PROBLEM, world
from tests.scripted import (
    PIECES,
    Scripted,
    finish,
    going,
    random_ancestors,
    scripted,
    steps_of,
    tokenizer_of,
    write,
)

LEVELS = {
    level: [p.problem for p in load_set("minimath500") if p.level == level]
    for level in (1, 3, 5)
}


@pytest.fixture(scope="module")
def small() -> LanguageModel:
    return LanguageModel.load("minimath-small")


def seen_from(lm: LanguageModel, look: int = 8, spare: float = 0.25) -> LanguageModel:
    """The same model, looked at as an accelerator is: seldom."""
    other = LanguageModel(lm.model, lm.tokenizer)
    assert (other.look, other.spare) == (1, 0.0)
    other.look, other.spare = look, spare
    return other


def own_tokens(paths: Paths) -> int:
    return sum(map(len, paths.tokens))


# Each token once


class TokensInside:
    """Counts what passes through every attention layer of a model, and what its head
    makes, by hooks inside it.
    """

    def __init__(self, model: Any) -> None:
        self.layers = [
            layer
            for name, layer in model.named_modules()
            if name.endswith("self_attn.q_proj")
        ]
        self.head: nn.Module = model.get_output_embeddings()

    def __enter__(self) -> "TokensInside":
        self.counts = [0] * len(self.layers)
        self.shapes: list[tuple[int, ...]] = []  # of the first layer's calls
        self.logits: list[tuple[int, ...]] = []
        self.hooks = [
            layer.register_forward_pre_hook(lambda _, args, k=k: self.add(k, args[0]))
            for k, layer in enumerate(self.layers)
        ]
        self.hooks.append(
            self.head.register_forward_hook(
                lambda _, args, out: self.logits.append(tuple(out.shape))
            )
        )
        return self

    def add(self, layer: int, hidden: Tensor) -> None:
        self.counts[layer] += hidden.shape[0] * hidden.shape[1]
        if layer == 0:
            self.shapes.append(tuple(hidden.shape[:2]))

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()


def equally_long(lm: LanguageModel, level: int, count: int) -> list[list[int]]:
    prompts = [lm.prompt(text) for text in LEVELS[level]]
    return [p for p in prompts if len(p) == len(prompts[0])][:count]


@pytest.mark.parametrize("shuffle", [None, 1, 2])
def test_each_token_passes_once_through_every_layer(
    small: LanguageModel, shuffle: int | None
) -> None:
    """Prompts once a problem, generated tokens once, forks after every step or none:
    counted inside the model.
    """
    prompts = equally_long(small, 3, 3)
    with TokensInside(small.model) as inside:
        paths = small.start(prompts, 8, Proposal())
        finish(small, paths, generators(0, 3), shuffle)
    decoder, generated = paths.work, int(paths.generated.sum())
    assert max(map(len, paths.ends)) > 3 and len(prompts) == 3
    expected = sum(map(len, prompts)) + generated
    assert inside.counts == [expected] * 4 and decoder.cache.tokens == expected
    assert decoder.fed_slots == generated, "a slot was fed that had nothing to write"
    assert inside.shapes[0] == (3, len(prompts[0]))
    assert all(width == 1 for _, width in inside.shapes[1:])
    assert len(inside.shapes) == decoder.cache.calls
    if shuffle is None:
        assert generated == own_tokens(paths)
    else:  # dead branches are part of the cost
        each = [sum(map(len, paths.tokens[k : k + 8])) for k in (0, 8, 16)]
        assert paths.generated.tolist() != each


@pytest.mark.parametrize("shuffle", [None, 1])
def test_seldom_looked_at_only_rows_that_are_through_are_fed_again(
    small: LanguageModel, shuffle: int | None
) -> None:
    """Counted: tokens are those that were generated, slots those that passed."""
    lm = seen_from(small)
    prompts = equally_long(lm, 3, 3)
    with TokensInside(lm.model) as inside:
        paths = lm.start(prompts, 8, Proposal())
        finish(lm, paths, generators(0, 3), shuffle)
    decoder, generated = paths.work, int(paths.generated.sum())
    once = sum(map(len, prompts))
    assert decoder.cache.tokens == once + generated
    assert inside.counts == [once + decoder.fed_slots] * 4
    assert generated < decoder.fed_slots < 2.5 * generated
    rows = [count for count, _ in inside.shapes[1:]]
    looks = [rows[k : k + 8] for k in range(0, len(rows), 8)]
    assert all(len(set(look)) == 1 and len(look) == 8 for look in looks)


def test_unequal_prompts_cost_padding_once_and_only_there(small: LanguageModel) -> None:
    prompts = [small.prompt(LEVELS[level][0]) for level in (1, 5, 3)]
    counts = [len(prompt) for prompt in prompts]
    assert len(set(counts)) == 3
    with TokensInside(small.model) as inside:
        paths = small.start(prompts, 4, Proposal())
        finish(small, paths, generators(0, 3), shuffle=3)
    generated = int(paths.generated.sum())
    assert paths.work.cache.tokens == sum(counts) + generated
    assert inside.counts[0] == 3 * max(counts) + generated


def test_logits_of_prompts_at_their_last_token_only(small: LanguageModel) -> None:
    """Inside the head: one row a prompt, then one a particle."""
    prompts = [small.prompt(text) for text in LEVELS[3][:20]]
    assert len({len(prompt) for prompt in prompts}) > 3
    with TokensInside(small.model) as inside:
        paths = small.start(prompts, 2, Proposal())
        small.extend(paths, going(paths), generators(0, 20))
    assert inside.logits[0] == (20, 1, small.vocabulary)
    assert inside.logits[1] == (40, 1, small.vocabulary)


def test_a_prompt_is_read_once_for_several_populations(small: LanguageModel) -> None:
    """Population p works on prompt p // copies."""
    prompts = [small.prompt(LEVELS[level][0]) for level in (1, 3)]
    paths = small.start(prompts, 3, Proposal(), copies=2)
    finish(small, paths, generators(3, 4), shuffle=1)
    twice = [prompt for prompt in prompts for _ in range(2)]
    apart = finish(
        small, small.start(twice, 3, Proposal()), generators(3, 4), shuffle=1
    )
    assert paths.shape == apart.shape == (4, 3) and paths.tokens == apart.tokens
    saved = apart.work.cache.tokens - paths.work.cache.tokens
    assert saved == sum(map(len, prompts))


def test_greedy_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many problems: 128 at a time, and the answers in their order."""
    lm, _ = world()
    texts = [PROBLEM[: 1 + k % 4] + "ab" * (k // 40) for k in range(150)]
    batches: list[int] = []
    start = lm.start

    def counted(prompts: Any, *others: Any) -> Paths:
        batches.append(len(prompts))
        return start(prompts, *others)

    monkeypatch.setattr(lm, "start", counted)
    monkeypatch.setattr("pfref.baselines.boxed", lambda text: text)
    with TokensInside(lm.model) as inside:
        found = greedy(texts, lm, max_tokens=5)
    assert batches == [128, 22]
    assert max(rows * width for rows, width, _ in inside.logits) == 128
    assert len(set(found)) > 1
    for k in (0, 41, 127, 128, 149):
        assert greedy([texts[k]], lm, max_tokens=5) == [found[k]]


def test_the_hosts_looks_and_the_numbers_drawn_ahead_meet() -> None:
    """A look between two draws would reuse numbers."""
    assert AHEAD % ELSEWHERE == 0 and 0 < SPARE < 1


# Rows in slots


@torch.inference_mode()
def check_slots(lm: LanguageModel, paths: Paths, prompts: list[list[int]]) -> int:
    """Who sits where after a call of `extend`, and that each slot's logits are those of
    one pass over its row, also in mid-step. Returns how many were compared.
    """
    d: Decoder = paths.work
    assert d.writing == d.row_of[: d.width]
    seated = [row for row in d.row_of if row != NOBODY]
    assert len(set(seated)) == len(seated)
    assert all(d.slot_of[row] != NOBODY for row in seated)
    on, compared = going(paths).view(paths.shape).any(1), 0
    for row, slot in enumerate(d.slot_of):
        p = row // paths.shape[1]
        if slot == NOBODY or not on[p]:
            continue
        assert d.row_of[slot] == row and going(paths)[row]
        own = list(paths.tokens[row])
        if p in d.steps:
            own += d.written[slot, : int(d.taken[slot])].tolist()
        assert int(d.cache.lengths[slot]) == d.cache.held[slot] == len(own)
        assert int(d.room[slot]) == min(2048, lm.context - len(prompts[p])) - len(own)
        full = lm.model(input_ids=torch.tensor([prompts[p] + own])).logits[0, -1]
        torch.testing.assert_close(d.logits[slot], full, atol=1e-3, rtol=1e-4)
        compared += 1
    return compared


@pytest.mark.parametrize("look", [1, 8])
@pytest.mark.parametrize("name", ["minimath-small", "world"])
def test_after_forks_the_next_token_is_that_of_a_full_pass(
    name: str, look: int, small: LanguageModel
) -> None:
    """Between steps every row is forked, twice at times; what the slots hold stays that
    of each row's whole text.
    """
    lm = small if name == "minimath-small" else world()[0]
    lm = seen_from(lm, look, 0.25 if look > 1 else 0.0)
    texts = LEVELS[3][:2] + LEVELS[5][:1] if name != "world" else [PROBLEM, "ab", "ba"]
    prompts = [lm.prompt(text) for text in texts]
    paths = lm.start(prompts, 5, Proposal(temperature=1.0))
    sources, compared, calls, busy = generators(5, 3), 0, 0, 0
    while going(paths).any() and calls < 12:
        done = lm.extend(paths, going(paths), sources)
        assert done.any()
        compared += check_slots(lm, paths, prompts)
        busy += bool(paths.work.steps)
        for _ in range(1 + calls % 2):
            lm.fork(paths, random_ancestors(paths, done, calls))
        calls += 1
    assert compared >= 10 and (busy or name == "world")


@pytest.mark.parametrize("look", [1, 8])
def test_populations_out_of_step(small: LanguageModel, look: int) -> None:
    """One that is ready is returned while others are in mid-step, whose records do not
    move; and no population waits for another.
    """
    lm = seen_from(small, look)
    texts = [LEVELS[1][0], LEVELS[3][0], LEVELS[5][0], LEVELS[5][1]]
    paths = lm.start([lm.prompt(text) for text in texts], 4, Proposal())
    sources, early, steps = generators(1, 4), 0, torch.zeros(4, dtype=torch.long)
    while (active := going(paths)).any():
        before, before_ended = list(paths.tokens), paths.ended.clone()
        done = lm.extend(paths, active, sources)
        own = done.repeat_interleave(4)
        for row in range(16):
            moved = bool(own[row] & active[row])
            assert (len(paths.tokens[row]) > len(before[row])) == moved
        assert not set(done.nonzero()[:, 0].tolist()) & set(paths.work.steps)
        early += bool(paths.work.steps)
        steps += done
        assert not (paths.ended & ~before_ended & ~own).any()
    assert early > 3
    for p in range(4):
        alone = [len(paths.ends[row]) for row in range(4 * p, 4 * p + 4)]
        assert max(alone) <= int(steps[p]) <= max(alone) + 1  # an end token alone


def test_a_population_without_active_rows_is_left_alone(small: LanguageModel) -> None:
    """Its record, its generator, and it is not among those that are done."""
    prompts = [small.prompt(LEVELS[1][0]), small.prompt(LEVELS[1][1])]
    paths, sources = small.start(prompts, 3, Proposal()), generators(2, 2)
    first = torch.tensor([True] * 3 + [False] * 3)
    assert small.extend(paths, first, sources).tolist() == [True, False]
    assert own_tokens(paths) > 0 and paths.tokens[3:] == [()] * 3
    assert paths.generated[1] == 0
    assert torch.equal(uniforms(sources[1:], 5), uniforms(generators(2, 2)[1:], 5))
    nobody = torch.zeros(6, dtype=torch.bool)
    assert small.extend(paths, nobody, sources).tolist() == [False, False]


def test_rows_that_ended_leave_and_their_slots_are_used_again(
    small: LanguageModel,
) -> None:
    proposal = Proposal(temperature=1.5)
    paths = small.start([small.prompt(LEVELS[5][0])], 8, proposal)
    decoder, sources = paths.work, generators(0, 1)
    while not paths.ended.any():
        small.extend(paths, going(paths), sources)
    left = [slot for slot, row in enumerate(decoder.row_of) if row == NOBODY]
    assert len(left) == int(paths.ended.sum()) < 8
    survivor = int(going(paths).nonzero()[0, 0])
    small.fork(paths, torch.full((8,), survivor))
    with TokensInside(small.model) as inside:
        small.extend(paths, going(paths), sources)
    assert inside.shapes[0] == (8, 1)
    assert len(decoder.cache.held) == 8, "no slot was added"
    assert len(set(paths.tokens)) > 1


def test_the_batch_shrinks_as_rows_end(small: LanguageModel) -> None:
    paths = small.start([small.prompt(LEVELS[3][0])], 8, Proposal(delimiter="never"))
    with TokensInside(small.model) as inside:
        finish(small, paths, generators(0, 1))
    widths = [rows for rows, _ in inside.shapes]
    assert widths[0] == 8 > widths[-1] and widths == sorted(widths, reverse=True)
    assert sum(widths) == own_tokens(paths)
    assert all(len(ends) == 1 for ends in paths.ends)


def share_at_work(lm: LanguageModel, texts: list[str], rows: int) -> float:
    """Tokens generated for each slot fed, in steps that are whole solutions."""
    proposal = Proposal(delimiter="never", temperature=1.2, max_tokens=120)
    paths = lm.start([lm.prompt(text) for text in texts], rows, proposal)
    finish(lm, paths, generators(0, len(texts)))
    return int(paths.generated.sum()) / paths.work.fed_slots


def test_most_slots_are_at_work(small: LanguageModel) -> None:
    """With 8 problems, also when looked at every 8 tokens. Rows that are through make
    room once a quarter of the slots is theirs, though none of their populations is.
    """
    lm = seen_from(small)
    assert 0.85 < share_at_work(lm, LEVELS[5][:4] + LEVELS[3][:4], 4) < 1
    shares = [
        share_at_work(seen_from(small, spare=spare), LEVELS[5][:1], 16)
        for spare in (1.0, 0.25)
    ]
    assert shares[0] < shares[1] < 1
    assert share_at_work(small, LEVELS[3][:1], 8) == 1


# Temperature and randomness


def surprise(counts: Tensor, p: Tensor) -> float:
    """Pearson's chi-square of each row's counts against its distribution, in standard
    deviations from its mean.
    """
    expected = counts.sum(1, keepdim=True) * p
    chi = float(((counts - expected).square() / expected).sum())
    freedom = counts.shape[0] * (counts.shape[1] - 1)
    return (chi - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
@torch.inference_mode()
def test_temperature_reaches_every_step(temperature: float) -> None:
    """Steps of one token over four tokens: at every step, after every prefix, tokens
    follow softmax(logits / temperature).
    """
    lm, _ = world()
    proposal = Proposal(temperature=temperature, step_tokens=1, max_tokens=9)
    prompt = lm.prompt(PROBLEM)
    paths = lm.start([prompt], 3000, proposal)
    for t in range(4):
        lm.extend(paths, ~paths.ended, [generator(6, temperature, t)])
        counts: dict[tuple[int, ...], Tensor] = {}
        for tokens in paths.tokens:
            if len(tokens) == t + 1:
                zero = torch.zeros(4, dtype=torch.float64)
                counts.setdefault(tokens[:t], zero)[tokens[t]] += 1
        ids = torch.tensor([prompt + list(prefix) for prefix in counts])
        logits = lm.model(input_ids=ids).logits[:, -1].double()
        p, found = (
            torch.softmax(logits / temperature, -1),
            torch.stack([*counts.values()]),
        )
        often = (found.sum(1, keepdim=True) * p).amin(1) > 3
        assert often.any() and abs(surprise(found[often], p[often])) < 4


@pytest.mark.parametrize("temperature", [0.8, 1.3])
@torch.inference_mode()
def test_first_tokens_follow_the_softmax(
    small: LanguageModel, temperature: float
) -> None:
    """On the shipped model, where it is least sure within a problem and its solution:
    each token's share within 3 standard errors.
    """
    problem, rows = next(p for p in load_set("minimath500") if p.level == 5), 2000
    text = "\n\n".join(problem.steps)
    ids = small.prompt(problem.problem) + small.tokenizer(text)["input_ids"]
    logits = small.model(input_ids=torch.tensor([ids])).logits[0].double()
    p = torch.softmax(logits / temperature, -1)
    place = int(torch.special.entr(p).sum(-1).argmax())
    proposal = Proposal(temperature=temperature, step_tokens=1)
    paths = small.start([ids[: place + 1]], rows, proposal)
    small.extend(paths, ~paths.ended, [generator("first", temperature)])
    first = torch.tensor([tokens[0] for tokens in paths.tokens])
    share, p = torch.bincount(first, minlength=small.vocabulary) / rows, p[place]
    frequent = p * rows > 10
    assert int(frequent.sum()) > 3
    assert bool(((share - p).abs() < 3 * (p * (1 - p) / rows).sqrt())[frequent].all())
    assert float(share[~frequent].sum()) < float(p[~frequent].sum()) + 0.01


@pytest.mark.parametrize("look", [1, 8])
def test_each_token_has_a_uniform_number_of_its_own(
    small: LanguageModel, look: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played again by full passes: particle n's token t of a step is the inverse CDF at
    number (n, t) of its population, which draws 16 tokens ahead, anew for every step.
    """
    monkeypatch.setattr("pfref.decoding.AHEAD", 16)
    lm, prompt = seen_from(small, look), small.prompt(LEVELS[5][0])
    proposal = Proposal(temperature=1.1, step_tokens=40, max_tokens=75)
    paths = lm.start([prompt], 3, proposal)
    finish(lm, paths, generators(6, 1))
    assert max(map(len, paths.tokens)) > 60
    source, step = generators(6, 1)[0], max(len(ends) for ends in paths.ends)
    logits = [
        lm.model(input_ids=torch.tensor([prompt + list(tokens)])).logits[0]
        for tokens in paths.tokens
    ]
    for first in range(0, 40 * step, 40):
        longest = max(len(tokens[first : first + 40]) for tokens in paths.tokens)
        blocks = [uniforms([source], 3, 16)[0] for _ in range(-(-longest // 16))]
        points = torch.cat(blocks, 1)
        for row, tokens in enumerate(paths.tokens):
            for t, token in enumerate(tokens[first : first + 40]):
                here = logits[row][len(prompt) + first + t - 1]
                drawn = sample(here[None], 1.1, points[row, t : t + 1])
                assert drawn.tolist() == [token]


@pytest.mark.parametrize("look", [1, 8])
def test_the_price_of_another_temperature(small: LanguageModel, look: int) -> None:
    """log target / proposal of the last step alone, token by token, of each row, while
    rows of uneven steps change their slots.
    """
    lm = seen_from(small, look)
    proposal = Proposal(temperature=1.4, target_temperature=0.8)
    prompts = [lm.prompt(LEVELS[level][0]) for level in (3, 5)]
    paths, sources = lm.start(prompts, 5, proposal), generators(1, 2)
    compared = idle = 0
    while (active := going(paths)).any():
        before = [len(tokens) for tokens in paths.tokens]
        done = lm.extend(paths, active, sources)
        for row in (active & done.repeat_interleave(5)).nonzero()[:, 0].tolist():
            own, prompt = list(paths.tokens[row]), prompts[row // 5]
            first, ids = before[row] - len(own), torch.tensor([prompt + own])
            logits = lm.model(input_ids=ids).logits[0, first - 1 : -1].double()
            price = torch.log_softmax(logits / 0.8, -1)
            price = price - torch.log_softmax(logits / 1.4, -1)
            exact = float(price.gather(1, ids[0, first:, None]).sum())
            assert float(paths.log_ratio[row]) == pytest.approx(exact, abs=1e-3)
            compared += 1
        rest = ~active & done.repeat_interleave(5)
        assert paths.log_ratio[rest].eq(0).all(), "who has ended pays no more"
        idle += int(rest.sum())
    assert compared > 30 and idle


def test_temperature_zero_is_greedy_at_every_step(small: LanguageModel) -> None:
    prompt = small.prompt(LEVELS[1][1])
    paths = small.start([prompt], 3, Proposal(temperature=0))
    finish(small, paths, generators(0, 1))
    ids = list(prompt)
    while ids[-1] not in small.end_tokens:
        logits = small.model(input_ids=torch.tensor([ids])).logits
        ids.append(int(logits[0, -1].argmax()))
    assert paths.tokens == [tuple(ids[len(prompt) :])] * 3
    assert len(paths.ends[0]) > 1


def tokens_of(
    lm: LanguageModel,
    problems: list[str],
    proposal: Proposal,
    shuffle: int | None = None,
) -> list[list[tuple[int, ...]]]:
    """The solutions' tokens, problem by problem; each problem's seed is its text."""
    paths = lm.start([lm.prompt(p) for p in problems], 5, proposal)
    finish(lm, paths, [generator(7, p) for p in problems], shuffle)
    return [paths.tokens[k * 5 : k * 5 + 5] for k in range(len(problems))]


@pytest.mark.parametrize(
    "delimiter, block, look, spare, shuffle",
    [
        ("\n\n", 3, 1, 0.0, 1),
        ("never", 64, 8, 0.25, None),
        ("\n\n", 64, 8, 0.25, 2),
        pytest.param("\n\n", 64, 1, 0.0, None, marks=pytest.mark.slow),
        pytest.param("never", 16, 1, 0.0, None, marks=pytest.mark.slow),
        pytest.param("\n\n", 8, 4, 0.9, 3, marks=pytest.mark.slow),
        pytest.param("never", 8, 8, 1.0, 4, marks=pytest.mark.slow),
    ],
)
def test_same_particles_alone_and_in_any_company(
    small: LanguageModel,
    monkeypatch: pytest.MonkeyPatch,
    delimiter: str,
    block: int,
    look: int,
    spare: float,
    shuffle: int | None,
) -> None:
    """As on a CPU or as on an accelerator, with forks after every step or none.

    With "never" a step is a whole solution: neighbours work on for long after a short
    problem's rows have ended. In short blocks of uniforms, neighbours draw several
    times while other populations wait for their next step.
    """
    proposal = Proposal(delimiter=delimiter)
    problems = [LEVELS[1][0], *LEVELS[5][:2], LEVELS[3][0]]
    monkeypatch.setattr("pfref.decoding.AHEAD", block)
    lm = seen_from(small, look, spare)
    together = tokens_of(lm, problems, proposal, shuffle)
    lengths = [max(map(len, solutions)) for solutions in together]
    assert min(lengths) < 64 < max(lengths)
    for some in ([0], [1], [3, 2]):  # looked at after every token
        apart = tokens_of(small, [problems[k] for k in some], proposal, shuffle)
        assert apart == [together[k] for k in some]


def test_same_particles_on_one_thread_and_on_two(small: LanguageModel) -> None:
    before, found = torch.get_num_threads(), []
    proposal = Proposal(temperature=1.0, max_tokens=4)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(tokens_of(small, LEVELS[5][:1], proposal))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize("look", [1, 8])
def test_a_population_draws_nothing_while_others_work(
    small: LanguageModel, look: int
) -> None:
    """After a short problem has ended, its generator stands where it stood alone."""
    lm, proposal = seen_from(small, look), Proposal(delimiter="never")
    prompts = [lm.prompt(LEVELS[1][0]), lm.prompt(LEVELS[5][0])]
    sources, alone = [generator(8, k) for k in range(2)], generator(8, 0)
    finish(lm, lm.start(prompts, 4, proposal), sources)
    finish(small, small.start(prompts[:1], 4, proposal), [alone])
    assert torch.equal(uniforms(sources[:1], 3), uniforms([alone], 3))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("look", [1, 8])
def test_broken_logits_are_reported(look: int, temperature: float) -> None:
    """In one sentence, whatever the host's look; and not when nobody needs them."""
    lm = scripted(["a", "\n\n", "a"])
    lm.look, lm.model.script[2] = look, -1
    paths = lm.start([[3]], 2, Proposal(temperature=temperature))
    lm.extend(paths, going(paths), generators(0, 1))
    assert paths.texts == [("a\n\n",)] * 2
    with pytest.raises(UserError, match="returned NaN or infinite logits; load it in"):
        lm.extend(paths, going(paths), generators(0, 1))


# Where steps end


@pytest.mark.parametrize("look", [1, 8])
@pytest.mark.parametrize(
    "steps",
    [
        [["a", "\n\n"], ["b", "<e>"]],
        [["a", "\n", "\n"], ["b", "<e>"]],  # across two tokens
        [["a", "c\n", "\n d"], ["b", "<e>"]],
        # Inside a token; and an end token alone is part of the step before.
        [["a", ".\n\nThe"], ["b", ".\n\nThe", "<e>"]],
        # Stray delimiters make no step.
        [
            ["\n\n", "a", "\n\n"],
            ["\n\n", "\n", "\n\n", "b", "\n\n", "\n\n\n", "<e>"],
        ],
        # A line with a blank is no blank line.
        [
            ["a", "\n", " ", "\n", "b", "\n\n\n"],
            ["\n", "\n", "b", "\n", "<e>"],
        ],
        [["\n d", "\n\n"], [" ", "\n\n", "a", "<e>"]],
        [["<e>"]],
        [["\n\n", "<e>"]],
    ],
)
def test_steps_end_at_the_delimiter(steps: list[list[str]], look: int) -> None:
    paths, found = write(sum(steps, []), look=look)
    assert found == steps
    assert paths.texts[0] == tuple("".join(s).replace("<e>", "") for s in steps)
    assert paths.ended.all() and not paths.truncated.any()


def test_no_step_is_empty() -> None:
    for paths in (
        write(["a", "\n\n", "\n\n", "\n\n", "b", "\n\n", "<e>"])[0],
        write(["\n\n", "\n\n", "a", "\n", "\n", "\n", "<e>"])[0],
        write(["\n", " ", "a", "\n", " ", "b", "<e>"], step_tokens=1)[0],
    ):
        assert all(text.strip() for text in paths.texts[0])


def test_steps_are_kept_as_tokens(small: LanguageModel) -> None:
    """The steps' tokens, one after the other, are the solution, and its text is the
    steps': nothing is decoded and read again.
    """
    proposal = Proposal(temperature=1.2, max_tokens=120)
    paths = small.start([small.prompt(LEVELS[3][1])], 8, proposal)
    finish(small, paths, generators(9, 1), shuffle=5)
    for row in range(8):
        steps = steps_of(paths, row)
        assert sum(steps, []) == list(paths.tokens[row])
        decoded = [small.tokenizer.decode(s, skip_special_tokens=True) for s in steps]
        assert list(paths.texts[row]) == decoded
        assert not any("\n\n" in text.strip() for text in decoded)


# Where solutions end

TURN = (
    "{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'assistant' %}<turn>{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    "ends, template, end",
    [
        ([PIECES.index("."), 0], None, "."),
        (None, None, "<e>"),
        (PIECES.index("."), None, "<e>"),
        (0, TURN, "<turn>"),
        (0, TURN, "<e>"),
    ],
)
def test_every_end_token_ends(
    ends: int | list[int] | None, template: str | None, end: str
) -> None:
    """The generation settings', one or several; the tokenizer's; the one that closes
    the template's turn.
    """
    text = ["a", "\n\n", "b", end, "a", "b"]
    paths, steps = write(text, ends=ends, template=template)
    assert steps == [["a", "\n\n"], ["b", end]]
    assert paths.ended.all() and not paths.truncated.any()


def test_end_tokens_of_a_template_are_special_tokens_only() -> None:
    model = Scripted([], len(PIECES), ends=None)
    plain = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert end_tokens(model, tokenizer_of(PIECES, plain)) == {0}
    assert end_tokens(model, tokenizer_of(PIECES, TURN)) == {0, PIECES.index("<turn>")}
    model.config.eos_token_id = [3, 4]  # an older model's are in its configuration
    assert end_tokens(model, tokenizer_of(PIECES)) == {0, 3, 4}


@pytest.mark.parametrize("look", [1, 8])
def test_a_step_cut_at_its_limit_is_truncated_and_not_complete(look: int) -> None:
    text = ["a", "\n\n", "b", "a", "b", "a", "b", "\n\n", "<e>"]
    paths, steps = write(text, look=look, max_step_tokens=4)
    assert steps == [["a", "\n\n"], ["b", "a", "b", "a"]]
    assert paths.truncated.all() and not paths.ended.any()


@pytest.mark.parametrize("look", [1, 8])
def test_a_step_that_is_complete_at_its_limit_is_not_truncated(look: int) -> None:
    text = ["a", "b", "b", "\n\n", "a", "a", "a", "<e>"]
    paths, steps = write(text, look=look, max_step_tokens=4)
    assert steps == [["a", "b", "b", "\n\n"], ["a", "a", "a", "<e>"]]
    assert paths.ended.all() and not paths.truncated.any()


@pytest.mark.parametrize("look", [1, 8])
@pytest.mark.parametrize("limits", [dict(max_tokens=7), dict(context=8)])
def test_a_solution_cut_by_max_tokens_or_context_is_truncated(
    limits: dict[str, int], look: int
) -> None:
    """The prompt has one token, so a context of 8 leaves room for 7."""
    paths, steps = write(["a", "\n\n"] * 6, look=look, **limits)
    assert steps == [["a", "\n\n"]] * 3 + [["a"]]
    assert paths.truncated.all() and not paths.ended.any()
    # An end that just fits is an end.
    paths, steps = write(["a", "\n\n"] * 2 + ["a", "b", "<e>"], look=look, **limits)
    assert sum(map(len, steps)) == 7
    assert paths.ended.all() and not paths.truncated.any()


@pytest.mark.parametrize("look", [1, 8])
@pytest.mark.parametrize("step_tokens", [1, 3, 5])
def test_steps_of_a_fixed_number_of_tokens(step_tokens: int, look: int) -> None:
    """Exactly so many, delimiter or not, but for the last."""
    text = ["a", "c\n", "b", ".", "b", "a", "b", "a", "a", "c\n", "a", "<e>"]
    paths, steps = write(text, look=look, step_tokens=step_tokens)
    assert sum(steps, []) == text
    assert paths.ended.all() and not paths.truncated.any()
    lengths = [len(step) for step in steps]
    if step_tokens == 1:  # the end token adds no text
        assert lengths == [1] * 10 + [2]
    else:
        assert set(lengths[:-1]) == {step_tokens} and lengths[-1] <= step_tokens


def test_at_most_max_steps() -> None:
    """Those that have not ended by then are ruled out."""
    lm, prm = world()
    for limit in (1, 2, 3):
        proposal = Proposal(temperature=1.5, max_steps=limit, max_step_tokens=9)
        model = Reasoning(lm, prm, [PROBLEM] * 4, proposal)
        run = particle_filter(model, 16, generators(0, 4))
        paths = run.last.state.paths
        assert max(map(len, paths.ends)) == limit
        ruled_out = run.last.log_weights.flatten() == -torch.inf
        assert bool((paths.ended | ruled_out).all()) and bool((~paths.ended).any())


# Prompts

BOS_TEMPLATE = "<bos>{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    "template", [None, BOS_TEMPLATE, BOS_TEMPLATE.replace("<bos>", "{{ bos_token }}")]
)
def test_one_beginning_of_sequence(template: str | None) -> None:
    """By the template or, without one, by the tokenizer; never by both."""
    tokenizer = tokenizer_of(PIECES, template, bos="<bos>")
    assert tokenizer("a")["input_ids"] == [PIECES.index("<bos>"), PIECES.index("a")]
    lm = LanguageModel(Scripted([], len(PIECES)), tokenizer)
    assert lm.prompt("a") == [PIECES.index("<bos>"), PIECES.index("a")]


def test_a_system_prompt_reaches_the_model() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}<turn>{{ m.content }}<turn>"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    lm = LanguageModel(Scripted([], len(PIECES)), tokenizer_of(PIECES, template))
    assert [PIECES[k] for k in lm.prompt("a", "b")] == ["<turn>", "b", "<turn>", "a"]
    assert lm.prompt("a") == [3]


def test_arguments_of_the_template_reach_it() -> None:
    template = "{% if thinking %}<turn>{% endif %}{{ messages[0].content }}"
    tokenizer = tokenizer_of(PIECES, template)
    lm = LanguageModel(Scripted([], len(PIECES)), tokenizer, {"thinking": True})
    assert [PIECES[k] for k in lm.prompt("a")] == ["<turn>", "a"]


def test_prompts_are_refused_in_one_sentence(small: LanguageModel) -> None:
    for text in ("", "   \n"):
        with pytest.raises(UserError, match="the problem is empty"):
            small.prompt(text)
    with pytest.raises(UserError, match="does not know 'zebra'"):
        small.prompt("Compute zebra + 3.")
    with pytest.raises(UserError, match="context 512, which leaves no room"):
        small.start([[5] * 512], 2, Proposal())
    assert small.start([[5] * 511], 2, Proposal()).work.room.tolist() == [1, 1]


def test_a_model_goes_on_beyond_its_window() -> None:
    """Windows bound what a token sees, not how long a text may be."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = MistralConfig(
            vocab_size=len(PIECES),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            initializer_range=0.3,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=10,
            max_position_embeddings=64,
        )
        model = MistralForCausalLM(config).eval().requires_grad_(False)
    lm = LanguageModel(model, tokenizer_of(PIECES))
    lm.is_end[:] = False
    prompts = [[3, 4, 5, 6], [4] * 15]
    paths = lm.start(prompts, 4, Proposal(step_tokens=20, temperature=2.0))
    lm.extend(paths, going(paths), generators(1, 2))
    assert lm.context == 64 and max(map(len, paths.tokens)) == 20
    assert check_slots(lm, paths, prompts) > 0


# A real model


@pytest.mark.weights
@torch.inference_mode()
def test_a_real_model_step_by_step() -> None:
    """SmolLM2-135M-Instruct: forks after every step, each token once, steps where its
    text has blank lines.
    """
    folder = Path(os.environ["PFREF_WEIGHTS"])
    lm = LanguageModel.load(folder / "smollm2-135m-instruct.gguf", dtype="float32")
    prompts = [lm.prompt("Write a short letter."), lm.prompt("Name three rivers.")]
    proposal = Proposal(temperature=0.7, max_step_tokens=50, max_tokens=80)
    paths, sources, compared = lm.start(prompts, 4, proposal), generators(2, 2), 0
    with TokensInside(lm.model) as inside:
        while going(paths).any():
            done = lm.extend(paths, going(paths), sources)
            lm.fork(paths, random_ancestors(paths, done, 1))
            compared += 1
    fed = [rows for rows, width in inside.shapes if width == 1]
    assert sum(fed) == int(paths.generated.sum()) == paths.work.fed_slots
    assert paths.work.cache.tokens == sum(map(len, prompts)) + sum(fed)
    assert any(len(texts) > 1 for texts in paths.texts) and compared > 2
    for row in range(8):
        whole = lm.tokenizer.decode(paths.tokens[row], skip_special_tokens=True)
        assert paths.text(row) == whole
        texts = paths.texts[row]
        assert not any("\n\n" in text.strip() for text in texts)
        assert all("\n\n" in text.lstrip() for text in texts[:-1])


def test_what_cannot_be_extended_is_refused(small: LanguageModel) -> None:
    proposal, everyone = Proposal(max_tokens=3), torch.ones(4, dtype=torch.bool)
    paths = small.start([small.prompt(LEVELS[1][0])] * 2, 2, proposal)
    while not (paths.ended | paths.truncated).all():
        active = ~(paths.ended | paths.truncated)
        small.extend(paths, active, generators(0, 2))
    with pytest.raises(ValueError, match="row 0 has ended"):
        small.extend(paths, everyone, generators(0, 2))
    small.look = 5
    try:
        with pytest.raises(ValueError, match="look is a divisor of 64, not 5"):
            small.extend(paths, everyone, generators(0, 2))
    finally:
        small.look = 1


@pytest.mark.parametrize("through, fed", [(1, 8 + 8), (2, 8 + 6), (3, 8 + 5)])
def test_rows_that_are_through_leave_once_they_are_a_quarter(
    through: int, fed: int
) -> None:
    """Of eight, by looks every eight tokens: two are enough."""
    lm = scripted(["a"] * 15 + ["<e>"])
    lm.look, lm.spare = 8, 0.25
    paths = lm.start([[3]], 8, Proposal())
    forced = {row: [0] for row in range(0, 2 * through, 2)}
    done = lm.extend(paths, going(paths), generators(0, 1), forced)
    assert done.all() and paths.work.fed_slots == 8 * fed
    assert paths.generated.tolist() == [through + 16 * (8 - through)]


def test_tokens_that_the_model_does_not_know(small: LanguageModel) -> None:
    """A tokenizer with more words than the embedding has, and end tokens that are none
    of its own.
    """
    lm = LanguageModel(small.model, small.tokenizer)
    lm.vocabulary = 5
    with pytest.raises(UserError, match="the model knows 5"):
        lm.prompt("Compute 3+4.")
    before = small.model.generation_config.eos_token_id
    small.model.generation_config.eos_token_id = [2, -1, 99999]
    try:
        found = LanguageModel(small.model, small.tokenizer).end_tokens
    finally:
        small.model.generation_config.eos_token_id = before
    assert 2 in found and not {-1, 99999} & found
