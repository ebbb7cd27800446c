"""The proposal: each token once, steps that end where they should, and particles that depend on their own seed only."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from pfref import LanguageModel, Proposal, UserError
from pfref.lm import Population, sample
from pfref.minimath.problems import load_set
from pfref.randomness import generator, generators, uniforms
from pfref.reasoning import Reasoning
from pfref.smc import particle_filter
from pfref.stepping import BLANK, advance, complete_state, end_tokens, match_table
from tests.enumerable import PROBLEM, world

LEVELS = {
    level: [p.problem for p in load_set("minimath500") if p.level == level]
    for level in (1, 3, 5)
}


@pytest.fixture(scope="module")
def small() -> LanguageModel:
    return LanguageModel.load("minimath-small")


def finish(
    lm: LanguageModel,
    population: Population,
    proposal: Proposal,
    sources: list[torch.Generator],
    shuffle: int | None = None,
) -> Population:
    """Step by step to the end; `shuffle` seeds a fork by random ancestors between any two steps."""
    rng, n = generator("shuffle", shuffle), population.shape[1]
    while (active := ~(population.ended | population.truncated)).any():
        lm.extend(population, active, proposal, sources)
        if shuffle is not None:
            draws = (
                torch.randint(n, population.shape, generator=rng)
                + torch.arange(population.shape[0])[:, None] * n
            )
            lm.fork(population, draws.flatten())
    return population


def steps_of(population: Population, row: int) -> list[list[int]]:
    """The tokens of each of a row's steps, an empty list where the row had already ended."""
    ends = [0] + [int(lengths[row]) for lengths in population.step_lengths]
    return [population.solution(row)[a:b] for a, b in zip(ends, ends[1:], strict=False)]


# Each token once


class TokensInside:
    """Counts the tokens that pass through every attention layer of a model, by hooks inside it."""

    def __init__(self, model: nn.Module) -> None:
        self.layers = [
            layer
            for name, layer in model.named_modules()
            if name.endswith("self_attn.q_proj")
        ]

    def __enter__(self) -> "TokensInside":
        self.counts = [0] * len(self.layers)
        self.shapes: list[tuple[int, int]] = []  # of the first layer's calls
        self.hooks = [
            layer.register_forward_pre_hook(lambda _, args, k=k: self.add(k, args[0]))
            for k, layer in enumerate(self.layers)
        ]
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
    return [prompt for prompt in prompts if len(prompt) == len(prompts[0])][:count]


@pytest.mark.parametrize("shuffle", [None, 1, 2])
def test_each_token_passes_once_through_every_layer(
    small: LanguageModel, shuffle: int | None
) -> None:
    """Prompts once a problem, generated tokens once, forks at every step or none: counted inside the model."""
    prompts, proposal = equally_long(small, 3, 3), Proposal()
    with TokensInside(small.model) as inside:
        population = finish(
            small,
            small.start(prompts, 8, proposal),
            proposal,
            generators(0, 3),
            shuffle,
        )
    assert len(population.step_lengths) > 3 and len(prompts) == 3
    expected = sum(map(len, prompts)) + int(population.generated.sum())
    assert inside.counts == [expected] * 4 and population.cache.tokens == expected
    assert inside.shapes[0] == (3, len(prompts[0])) and all(
        width == 1 for _, width in inside.shapes[1:]
    )
    assert len(inside.shapes) == population.cache.calls
    if shuffle is None:
        assert int(population.generated.sum()) == int(population.lengths.sum())
    else:  # dead branches are part of the cost
        assert (
            population.generated.tolist()
            != population.lengths.view(population.shape).sum(1).tolist()
        )


def test_unequal_prompts_cost_padding_once_and_only_there(small: LanguageModel) -> None:
    prompts, proposal = (
        [small.prompt(LEVELS[level][0]) for level in (1, 5, 3)],
        Proposal(),
    )
    counts = [len(prompt) for prompt in prompts]
    assert len(set(counts)) == 3
    with TokensInside(small.model) as inside:
        population = finish(
            small,
            small.start(prompts, 4, proposal),
            proposal,
            generators(0, 3),
            shuffle=3,
        )
    generated = int(population.generated.sum())
    assert population.cache.tokens == sum(counts) + generated
    assert inside.counts[0] == 3 * max(counts) + generated


@pytest.mark.parametrize("name", ["minimath-small", "world"])
@torch.inference_mode()
def test_after_forks_the_next_token_is_that_of_a_full_pass(
    name: str, small: LanguageModel
) -> None:
    """Between steps every row is forked, twice at times; the cached logits stay those of the row's whole text."""
    lm, proposal = (
        (small, Proposal())
        if name == "minimath-small"
        else (world()[0], Proposal(step_tokens=3, max_tokens=12))
    )
    prompts = [
        lm.prompt(text) for text in (LEVELS[3][:2] if lm is small else [PROBLEM, "ab"])
    ]
    population, rng, checked = lm.start(prompts, 6, proposal), generator(4), 0
    for _ in range(4):
        active = ~(population.ended | population.truncated)
        lm.extend(population, active, proposal, generators(5, 2))
        for slot, row in enumerate(population.cache.particle.tolist()):
            ids = prompts[row // 6] + population.solution(row)
            assert torch.allclose(
                population.logits[slot],
                lm.model(input_ids=torch.tensor([ids])).logits[0, -1],
                atol=1e-4,
                rtol=1e-4,
            )
            checked += 1
        for _ in range(int(torch.randint(1, 3, (), generator=rng))):
            lm.fork(
                population,
                (
                    torch.randint(6, (2, 6), generator=rng) + torch.tensor([[0], [6]])
                ).flatten(),
            )
    assert checked > 20


def test_rows_that_ended_leave_the_batch(small: LanguageModel) -> None:
    proposal, population = (
        Proposal(delimiter="never"),
        small.start([small.prompt(LEVELS[3][0])], 8, Proposal()),
    )
    with TokensInside(small.model) as inside:
        finish(small, population, proposal, generators(0, 1))
    assert (
        inside.shapes[0][0] == 8
        and inside.shapes[-1][0] < 8
        and len(population.step_lengths) == 1
    )
    assert sum(rows for rows, _ in inside.shapes) == int(population.lengths.sum())


# Temperature and randomness


def surprise(counts: Tensor, p: Tensor) -> float:
    """Pearson's chi-square of each row's counts against its distribution, in standard deviations from its mean."""
    expected = counts.sum(1, keepdim=True) * p
    chi = float(((counts - expected).square() / expected).sum())
    freedom = counts.shape[0] * (counts.shape[1] - 1)
    return (chi - freedom) / (2 * freedom) ** 0.5


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
@torch.inference_mode()
def test_temperature_reaches_every_step(temperature: float) -> None:
    """Steps of one token over four tokens: at every step, after every prefix, tokens follow softmax(logits / temperature)."""
    lm, _ = world()
    proposal, prompt, rows = (
        Proposal(temperature=temperature, step_tokens=1, max_tokens=9),
        lm.prompt(PROBLEM),
        6000,
    )
    population = lm.start([prompt], rows, proposal)
    for t in range(4):
        lm.extend(
            population, ~population.ended, proposal, [generator(6, temperature, t)]
        )
        moved = population.lengths == t + 1
        prefixes, which = (
            population.tokens[moved, :t].unique(dim=0, return_inverse=True)
            if t
            else (
                torch.zeros(1, 0, dtype=torch.long),
                torch.zeros(int(moved.sum()), dtype=torch.long),
            )
        )
        counts = torch.zeros(len(prefixes), 4, dtype=torch.float64)
        counts.index_put_(
            (which, population.tokens[moved, t]),
            torch.ones((), dtype=torch.float64),
            accumulate=True,
        )
        ids = torch.tensor([prompt + prefix for prefix in prefixes.tolist()])
        p = torch.softmax(
            lm.model(input_ids=ids).logits[:, -1].double() / temperature, -1
        )
        often = (counts.sum(1, keepdim=True) * p).amin(1) > 3
        assert often.any() and abs(surprise(counts[often], p[often])) < 3


@pytest.mark.parametrize("temperature", [0.8, 1.3])
@torch.inference_mode()
def test_first_tokens_follow_the_softmax(
    small: LanguageModel, temperature: float
) -> None:
    """On the shipped model, where it is least sure within a problem and its solution: each token's share within 3 standard errors."""
    problem, rows = next(p for p in load_set("minimath500") if p.level == 5), 4000
    ids = (
        small.prompt(problem.problem)
        + small.tokenizer("\n\n".join(problem.steps))["input_ids"]
    )
    p = torch.softmax(
        small.model(input_ids=torch.tensor([ids])).logits[0].double() / temperature, -1
    )
    place = int(torch.special.entr(p).sum(-1).argmax())
    population = small.start(
        [ids[: place + 1]],
        rows,
        proposal := Proposal(temperature=temperature, step_tokens=1),
    )
    small.extend(
        population, ~population.ended, proposal, [generator("first", temperature)]
    )
    share, p = (
        torch.bincount(population.tokens[:, 0], minlength=small.vocabulary) / rows,
        p[place],
    )
    frequent = p * rows > 10
    assert int(frequent.sum()) > 3
    assert bool(((share - p).abs() < 3 * (p * (1 - p) / rows).sqrt())[frequent].all())
    assert float(share[~frequent].sum()) < float(p[~frequent].sum()) + 0.01


def test_sample_is_the_inverse_cdf() -> None:
    p = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).log()
    for point, token in (
        (0.0, 0),
        (0.0999, 0),
        (0.1001, 2),
        (0.6999, 2),
        (0.7001, 3),
        (1 - 2**-53, 3),
    ):
        assert int(sample(p, 1.0, torch.tensor([point], dtype=torch.float64))) == token
    assert int(sample(p, 0.0, torch.tensor([0.01], dtype=torch.float64))) == 2
    impossible = torch.tensor([[0.0, 0.4, 0.6]]).log()
    assert (
        int(sample(impossible, 1.0, torch.zeros(1, dtype=torch.float64))) == 1
    )  # even where u is 0
    large = torch.randn(1, 150_000, generator=torch.Generator().manual_seed(0))
    assert (
        int(sample(large, 1.0, torch.tensor([1 - 2**-53], dtype=torch.float64)))
        < 150_000
    )


def test_temperature_zero_is_greedy_at_every_step(small: LanguageModel) -> None:
    prompt, proposal = small.prompt(LEVELS[1][1]), Proposal(temperature=0)
    population = finish(
        small, small.start([prompt], 3, proposal), proposal, generators(0, 1)
    )
    ids = list(prompt)
    while ids[-1] not in small.end_tokens:
        ids.append(
            int(small.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        )
    assert [population.solution(row) for row in range(3)] == [ids[len(prompt) :]] * 3
    assert len(population.step_lengths) > 1


def texts_of(
    lm: LanguageModel, problems: list[str], proposal: Proposal
) -> list[list[list[int]]]:
    """The solutions' tokens, problem by problem; each problem's seed is its text."""
    population = finish(
        lm,
        lm.start([lm.prompt(p) for p in problems], 6, proposal),
        proposal,
        [generator(7, p) for p in problems],
    )
    return [
        [population.solution(row) for row in range(k * 6, k * 6 + 6)]
        for k in range(len(problems))
    ]


@pytest.mark.parametrize("delimiter, block", [("\n\n", 64), ("\n\n", 3), ("never", 64)])
def test_same_particles_alone_and_among_seven_others(
    small: LanguageModel, monkeypatch, delimiter: str, block: int
) -> None:
    """With "never" a step is a whole solution: neighbours work on for long after a short problem's rows have ended.
    In blocks of 3 uniforms, neighbours draw several times while other populations wait for their next step."""
    monkeypatch.setattr("pfref.lm.UNIFORMS_AT_ONCE", block)
    problems = [LEVELS[1][0], *LEVELS[5][:5], LEVELS[3][0], LEVELS[1][1]]
    together = texts_of(small, problems, Proposal(delimiter=delimiter))
    lengths = [max(map(len, solutions)) for solutions in together]
    assert min(lengths) < 64 < max(lengths)
    for k in (0, 1, 6, 7):
        assert texts_of(small, [problems[k]], Proposal(delimiter=delimiter)) == [
            together[k]
        ]
    assert (
        texts_of(small, problems[::-1], Proposal(delimiter=delimiter)) == together[::-1]
    )


def test_same_particles_on_one_thread_and_on_two(small: LanguageModel) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(
                texts_of(
                    small,
                    [LEVELS[1][0], LEVELS[5][0]],
                    Proposal(temperature=1.0, max_tokens=16),
                )
            )
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_population_draws_nothing_while_others_work(small: LanguageModel) -> None:
    """After a short problem has ended, its generator stands where it stood alone."""
    sources, alone = [generator(8, k) for k in range(2)], generator(8, 0)
    proposal = Proposal(delimiter="never")
    finish(
        small,
        small.start(
            [small.prompt(LEVELS[1][0]), small.prompt(LEVELS[5][0])], 4, proposal
        ),
        proposal,
        sources,
    )
    finish(
        small, small.start([small.prompt(LEVELS[1][0])], 4, proposal), proposal, [alone]
    )
    assert torch.equal(uniforms(sources[:1], 3), uniforms([alone], 3))


# Where steps end


def tokenizer_of(
    pieces: list[str],
    template: str | None = None,
    bos: str | None = None,
    end: str = "<e>",
) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are `pieces`, longest first; `bos` is written by its post-processor, as Llama's do."""
    special = [
        piece for piece in pieces if piece.startswith("<") and piece.endswith(">")
    ]
    raw = Tokenizer(
        models.WordLevel(
            {piece: k for k, piece in enumerate(pieces)}, unk_token=pieces[0]
        )
    )
    raw.add_special_tokens(special)
    raw.pre_tokenizer = pre_tokenizers.Split("\0", "isolated")
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, pieces.index(bos))]
        )
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=end,
        bos_token=bos,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=special,
        chat_template=template,
    )


class Scripted(nn.Module):
    """A "model" that writes a given list of tokens after a prompt of one token, whatever it is fed."""

    def __init__(
        self,
        script: list[int],
        vocabulary: int,
        context: int = 64,
        ends: int | list[int] | None = 0,
    ) -> None:
        super().__init__()
        self.head, self.script, self.device = (
            nn.Linear(1, vocabulary),
            script,
            torch.device("cpu"),
        )
        config = SimpleNamespace(max_position_embeddings=context, eos_token_id=None)
        config.get_text_config = lambda: config
        self.config, self.generation_config = (
            config,
            GenerationConfig(eos_token_id=ends),
        )

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        past_key_values: Any = None,
        **_: Any,
    ) -> Any:
        logits = torch.full((*input_ids.shape, self.head.out_features), -30.0)
        following = torch.tensor(self.script + [0] * 99)[position_ids]
        return SimpleNamespace(logits=logits.scatter(2, following[..., None], 30.0))


PIECES = [
    "<e>",
    "\n\n",
    "\n",
    "a",
    "b",
    ".\n\nThe",
    ".",
    " ",
    "c\n",
    "\n d",
    "<turn>",
    "\n\n\n",
    "<bos>",
]


def write(
    text: list[str],
    context: int = 64,
    ends: int | list[int] | None = 0,
    template: str | None = None,
    **limits: Any,
) -> tuple[Population, list[list[str]]]:
    """Let the script be written by two particles; the population, and the pieces of each step."""
    lm = LanguageModel(
        Scripted([PIECES.index(piece) for piece in text], len(PIECES), context, ends),
        tokenizer_of(PIECES, template),
    )
    population = finish(
        lm,
        lm.start([[3]], 2, proposal := Proposal(**limits)),
        proposal,
        generators(0, 1),
    )
    assert steps_of(population, 0) == steps_of(population, 1)
    return population, [
        [PIECES[token] for token in step] for step in steps_of(population, 0)
    ]


@pytest.mark.parametrize(
    "steps",
    [
        [["a", "\n\n"], ["b", "<e>"]],
        [["a", "\n", "\n"], ["b", "<e>"]],  # across two tokens
        [["a", "c\n", "\n d"], ["b", "<e>"]],
        [["a", ".\n\nThe"], ["b", ".\n\nThe"], ["<e>"]],  # inside a token
        [
            ["\n\n", "a", "\n\n"],
            ["\n\n", "\n", "\n\n", "b", "\n\n"],
            ["\n\n\n", "<e>"],
        ],  # stray delimiters make no step
        [
            ["a", "\n", " ", "\n", "b", "\n\n\n"],
            ["\n", "\n", "b", "\n", "<e>"],
        ],  # a line with a blank is no blank line
        [["\n d", "\n\n"], [" ", "\n\n", "a", "<e>"]],
    ],
)
def test_steps_end_at_the_delimiter(steps: list[list[str]]) -> None:
    population, found = write(sum(steps, []))
    assert found == steps
    assert population.texts[0] == tuple(
        "".join(step).replace("<e>", "") for step in steps
    )
    assert population.ended.all() and not population.truncated.any()


def test_no_step_is_empty_before_the_end() -> None:
    for found in (
        write(["a", "\n\n", "\n\n", "\n\n", "b", "\n\n", "<e>"])[0],
        write(["\n\n", "\n\n", "a", "\n", "\n", "\n", "<e>"])[0],
    ):
        assert all(text.strip() for text in found.texts[0][:-1])


def test_steps_are_kept_as_tokens(small: LanguageModel) -> None:
    """The steps' tokens, one after the other, are the solution: nothing is decoded and read again."""
    proposal = Proposal(temperature=1.2, max_tokens=80)
    population = finish(
        small,
        small.start([small.prompt(LEVELS[3][1])], 8, proposal),
        proposal,
        generators(9, 1),
        shuffle=5,
    )
    for row in range(8):
        steps = steps_of(population, row)
        assert (
            sum(steps, [])
            == population.solution(row)
            == population.tokens[row, : population.lengths[row]].tolist()
        )
        decoded = [
            small.tokenizer.decode(step, skip_special_tokens=True)
            for step in steps
            if step
        ]
        assert list(population.texts[row]) == decoded
        assert not any("\n\n" in text.strip() for text in decoded)


@pytest.mark.parametrize("delimiter", ["\n\n", "abab", "aab", "--", "."])
def test_the_table_agrees_with_a_search_in_the_text(delimiter: str) -> None:
    """Random pieces: the state is complete exactly when the text, white space at its start aside, holds the delimiter."""
    rng = generator("table", delimiter)
    pieces = [
        "a",
        "b",
        "ab",
        "ba",
        "\n",
        " ",
        "-",
        "x--",
        ".",
        "x.",
        "\n\n",
        "aba",
        ".\n\nb",
        "",
    ]
    for _ in range(300):
        state, text = BLANK, ""
        for k in torch.randint(len(pieces), (12,), generator=rng).tolist():
            text += pieces[k]
            state = advance(state, pieces[k], delimiter)
            assert (state == complete_state(delimiter)) == (delimiter in text.lstrip())
            if state == complete_state(delimiter):
                break


def test_the_table_covers_the_vocabulary_and_the_padded_rows_of_the_head() -> None:
    tokenizer = tokenizer_of(PIECES)
    table = match_table(tokenizer, len(PIECES) + 5, "\n\n")
    assert table.shape == (4, len(PIECES) + 5)
    for token, piece in enumerate(PIECES):
        assert [int(table[state, token]) for state in range(3)] == [
            advance(state, piece, "\n\n") for state in range(3)
        ]
    assert (
        table[1, -5:].tolist() == [1] * 5 and table[BLANK, -5:].tolist() == [BLANK] * 5
    )  # tokens that no text has


# Where solutions end

TURN = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<turn>{% endif %}{% endfor %}"


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
def test_every_end_token_ends(ends, template: str | None, end: str) -> None:
    """The generation settings', one or several; the tokenizer's; the one that closes the template's turn."""
    population, steps = write(
        ["a", "\n\n", "b", end, "a", "b"], ends=ends, template=template
    )
    assert (
        steps == [["a", "\n\n"], ["b", end]]
        and population.ended.all()
        and not population.truncated.any()
    )


def test_end_tokens_of_a_template_are_special_tokens_only() -> None:
    model = Scripted([], len(PIECES), ends=None)
    plain = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert end_tokens(model, tokenizer_of(PIECES, plain)) == {0}
    assert end_tokens(model, tokenizer_of(PIECES, TURN)) == {0, PIECES.index("<turn>")}
    model.config.eos_token_id = [
        3,
        4,
    ]  # an older model's settings are in its configuration
    assert end_tokens(model, tokenizer_of(PIECES)) == {0, 3, 4}


def test_a_step_cut_at_its_limit_is_truncated_and_not_complete() -> None:
    population, steps = write(
        ["a", "\n\n", "b", "a", "b", "a", "b", "\n\n", "<e>"], max_step_tokens=4
    )
    assert steps == [["a", "\n\n"], ["b", "a", "b", "a"]]
    assert population.truncated.all() and not population.ended.any()


def test_a_step_that_is_complete_at_its_limit_is_not_truncated() -> None:
    population, steps = write(
        ["a", "b", "b", "\n\n", "a", "a", "a", "<e>"], max_step_tokens=4
    )
    assert steps == [["a", "b", "b", "\n\n"], ["a", "a", "a", "<e>"]]
    assert population.ended.all() and not population.truncated.any()


@pytest.mark.parametrize("limits", [dict(max_tokens=7), dict(context=8)])
def test_a_solution_cut_by_max_tokens_or_context_is_truncated(limits: dict) -> None:
    """The prompt has one token, so a context of 8 leaves room for 7."""
    population, steps = write(["a", "\n\n"] * 6, **limits)
    assert (
        steps == [["a", "\n\n"]] * 3 + [["a"]]
        and population.truncated.all()
        and not population.ended.any()
    )
    population, steps = write(
        ["a", "\n\n"] * 3 + ["<e>"], **limits
    )  # an end that just fits is an end
    assert (
        sum(map(len, steps)) == 7
        and population.ended.all()
        and not population.truncated.any()
    )


@pytest.mark.parametrize("step_tokens", [1, 3, 5])
def test_steps_of_a_fixed_number_of_tokens(step_tokens: int) -> None:
    """Exactly so many, delimiter or not, but for the last."""
    text = ["a", "\n\n", "b", "\n", "\n", "a", "b", "a", "a", "\n\n", "<e>"]
    population, steps = write(text, step_tokens=step_tokens)
    assert (
        sum(steps, []) == text
        and population.ended.all()
        and not population.truncated.any()
    )
    assert {len(step) for step in steps[:-1]} == {step_tokens} and 1 <= len(
        steps[-1]
    ) <= step_tokens


def test_at_most_max_steps() -> None:
    """Those that have not ended by then are ruled out."""
    lm, prm = world()
    for limit in (1, 2, 3):
        run = particle_filter(
            Reasoning(
                lm,
                prm,
                [PROBLEM] * 4,
                Proposal(temperature=1.5, max_steps=limit, max_step_tokens=9),
            ),
            16,
            generators(0, 4),
        )
        population = run.last.state.population
        assert len(run.steps) == len(population.step_lengths) == limit
        assert bool(
            (population.ended | (run.last.log_weights.flatten() == -torch.inf)).all()
        ) and bool((~population.ended).any())


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
    template = "{% for m in messages %}{% if m.role == 'system' %}<turn>{{ m.content }}<turn>{% else %}{{ m.content }}{% endif %}{% endfor %}"
    lm = LanguageModel(Scripted([], len(PIECES)), tokenizer_of(PIECES, template))
    assert [PIECES[k] for k in lm.prompt("a", "b")] == [
        "<turn>",
        "b",
        "<turn>",
        "a",
    ] and lm.prompt("a") == [3]


def test_prompts_are_refused_in_one_sentence(small: LanguageModel) -> None:
    for text in ("", "   \n"):
        with pytest.raises(UserError, match="the problem is empty"):
            small.prompt(text)
    with pytest.raises(UserError, match="does not know 'zebra'"):
        small.prompt("Compute zebra + 3.")
    with pytest.raises(UserError, match="context 512, which leaves no room"):
        small.start([[5] * 512], 2, Proposal())
    assert small.start([[5] * 511], 2, Proposal()).room.tolist() == [1, 1]


def test_a_sliding_window_bounds_the_context() -> None:
    """Where every layer has the same window, full attention is the same function up to the window's length."""
    from transformers import MistralConfig, MistralForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MistralForCausalLM(
            MistralConfig(
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
        )
    lm = LanguageModel(model.eval().requires_grad_(False), tokenizer_of(PIECES))
    proposal = Proposal(step_tokens=20, temperature=1.0)
    population = finish(
        lm, lm.start([[3, 4, 5, 6]], 4, proposal), proposal, generators(1, 1)
    )
    assert (
        lm.context == 10
        and int(population.lengths.max()) == 6
        and not set(population.solution(0)) & lm.end_tokens
    )
    slot = population.cache.particle.tolist().index(0)
    with torch.inference_mode():
        full = model(
            input_ids=torch.tensor([[3, 4, 5, 6] + population.solution(0)])
        ).logits[0, -1]
    assert torch.allclose(population.logits[slot], full, atol=1e-4)


# A real model


@pytest.mark.weights
@torch.inference_mode()
def test_a_real_model_step_by_step() -> None:
    """SmolLM2-135M-Instruct: forks at every step, each token once, steps where its text has blank lines."""
    lm = LanguageModel.load(
        Path(os.environ["PFREF_WEIGHTS"]) / "smollm2-135m-instruct.gguf"
    )
    proposal = Proposal(temperature=0.7, max_step_tokens=50, max_tokens=80)
    prompt = lm.prompt("Write a short letter.")
    population = lm.start([prompt], 4, proposal)
    with TokensInside(lm.model) as inside:
        for _ in range(3):
            lm.extend(
                population,
                ~(population.ended | population.truncated),
                proposal,
                generators(2, 1),
            )
            for slot, row in enumerate(population.cache.particle.tolist()):
                full = lm.model(
                    input_ids=torch.tensor([prompt + population.solution(row)]),
                    logits_to_keep=1,
                ).logits[0, -1]
                assert torch.allclose(
                    population.logits[slot], full, atol=1e-4 * float(full.abs().max())
                )
            lm.fork(population, torch.tensor([1, 0, 3, 3]))
    fed = [rows for rows, width in inside.shapes if width == 1]
    assert sum(fed) == int(
        population.generated.sum()
    ) and population.cache.tokens == len(prompt) + sum(fed)
    assert any(len(texts) > 1 for texts in population.texts)
    for row, texts in enumerate(population.texts):
        whole = lm.tokenizer.decode(population.solution(row), skip_special_tokens=True)
        assert "".join(texts) == whole and not any(
            "\n\n" in text.strip() for text in texts
        )
        assert all("\n\n" in text.lstrip() for text in texts[:-1])
