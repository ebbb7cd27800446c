"""The ragged cache against an ordinary model: a copy with transformers' own eager
attention, no cache, no padding, one row at a time.
"""

import copy
import functools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from pfref import LanguageModel, UserError, attention
from pfref import cache as cache_module
from pfref.attention import AT_WORK, NAME, cache_argument, only_at, piece
from pfref.cache import GROWTH, RaggedCache
from pfref.groups import Groups, in_groups, padded

V = 31  # the tiny models' vocabulary
GARBAGE = 1e4  # changes any output that looks at it, and stays finite in float32
SIZES = dict(
    vocab_size=V,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.3,
    pad_token_id=None,
    bos_token_id=None,
    eos_token_id=None,
)
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
MIXED: dict[str, Any] = dict(sliding_window=6, layer_types=KINDS)
HEADS = dict(head_dim=8)
EXPERTS = dict(num_local_experts=4, num_experts_per_tok=2)
LATENT = dict(q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4)
# Windows are shorter than the texts, softcaps low enough to bend the scores.
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Qwen2": {},
    "Qwen3": HEADS,
    "Mistral": dict(sliding_window=5),
    "Gemma2": dict(attn_logit_softcapping=2.0, query_pre_attn_scalar=1, **HEADS)
    | MIXED,
    "Gemma3": HEADS | MIXED,
    "Phi3": {},
    "Granite": dict(attention_multiplier=0.3),
}
MORE: dict[str, dict[str, Any]] = {
    "Afmoe": dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    | dict(num_dense_layers=1, **HEADS),
    "Apertus": {},
    "Arcee": {},
    "Cohere": {},
    "Cohere2": MIXED,
    "DeepseekV3": dict(v_head_dim=8, n_routed_experts=4, n_group=1, topk_group=1)
    | dict(moe_intermediate_size=16, num_experts_per_tok=2, num_key_value_heads=4)
    | LATENT,
    "Ernie4_5": HEADS,
    "Exaone4": MIXED,
    "GPTNeoX": {},
    "Gemma": HEADS,
    "Glm": HEADS,
    "Glm4": HEADS,
    "Helium": HEADS,
    "HunYuanDenseV1": HEADS,
    "Mixtral": EXPERTS,
    "Nemotron": {},
    "Olmo": {},
    "Olmo2": {},
    "Olmo3": MIXED,
    "Phi": {},
    "Qwen3Moe": dict(num_experts=4, num_experts_per_tok=2, **HEADS),
    "SeedOss": HEADS,
    "SmolLM3": {},
    "StableLm": {},
    "Starcoder2": dict(sliding_window=5),
}


@functools.cache
def models(name: str) -> tuple[nn.Module, nn.Module]:
    """A model with pfref's attention, and its ordinary copy."""
    if name == "minimath-small":
        model = LanguageModel.load(name).model
    else:
        config = getattr(transformers, f"{name}TextConfig", None)
        config = config or getattr(transformers, f"{name}Config")
        with torch.random.fork_rng():
            torch.manual_seed(5)
            kind = getattr(transformers, f"{name}ForCausalLM")
            model = kind(config(**SIZES | (FAMILIES | MORE)[name]))
        model.eval().requires_grad_(False)
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    model.set_attn_implementation(NAME)
    assert (model.config._attn_implementation, plain.config._attn_implementation) == (
        NAME,
        "eager",
    )
    return model, plain


every_family = pytest.mark.parametrize(
    "name",
    ["minimath-small", *FAMILIES]
    + [pytest.param(name, marks=pytest.mark.slow) for name in MORE],
)


def full(plain: nn.Module, tokens: list[int]) -> Tensor:
    """Logits of every position, by one pass of the ordinary model."""
    return plain(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def close(a: Tensor, b: Tensor) -> bool:
    """To 1e-4 of the largest."""
    return a.shape == b.shape and float((a - b).abs().max() / b.abs().max()) < 1e-4


def poison(cache: RaggedCache) -> None:
    """Large numbers wherever no row and no prompt has a token: the worst that padding,
    dead branches and former rows can leave.
    """
    for buffers, lengths in (
        (cache.prompts, cache.prompt_lengths),
        (cache.own, cache.lengths),
    ):
        for buffer in (*buffers[0], *buffers[1]):
            buffer[torch.arange(buffer.shape[1]) >= lengths[:, None]] = GARBAGE


def words(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(V) for _ in range(count)]


class Rows:
    """A cache and the same moves on plain lists: what each slot's row holds, its prompt
    included.
    """

    def __init__(
        self, name: str, prompts: Sequence[Sequence[int]], copies: int
    ) -> None:
        self.model, self.plain = models(name)
        self.prompts = [list(prompt) for prompt in prompts]
        self.prompt_of = [k for k in range(len(prompts)) for _ in range(copies)]
        self.rows = [list(prompts[k]) for k in self.prompt_of]
        self.cache = RaggedCache(len(self.rows))
        head = self.model.get_output_embeddings()
        self.first = self.cache.read_prompts(self.model, prompts, copies, head)
        self.fed, self.calls = sum(map(len, prompts)), self.cache.calls

    def own(self, slot: int) -> int:
        return len(self.rows[slot]) - len(self.prompts[self.prompt_of[slot]])

    def extend(
        self,
        pieces: list[list[int]],
        slots: Sequence[int] | None = None,
        padding: int = 0,
    ) -> list[Tensor]:
        """Feed unequal pieces, padded with a token of our choice. Each row's logits."""
        width = max(map(len, pieces))
        ids = torch.tensor([p + [padding] * (width - len(p)) for p in pieces])
        out = self.cache.extend(self.model, ids, [*map(len, pieces)], slots).logits
        for slot, new in zip(slots or range(len(pieces)), pieces, strict=True):
            self.rows[slot] += new
        self.fed, self.calls = self.fed + sum(map(len, pieces)), self.calls + 1
        return [out[b, : len(new)] for b, new in enumerate(pieces)]

    def decode(self, tokens: list[int], going: list[bool]) -> Tensor:
        """One token for the rows that are going; the logits of them all."""
        pairs = list(zip(tokens, going, strict=True))
        last = [row[-1] for row in self.rows]
        given = [t if on else last[b] for b, (t, on) in enumerate(pairs)]
        out = self.cache.decode(self.model, torch.tensor(given), torch.tensor(going))
        for slot, (token, on) in enumerate(pairs):
            if on:
                self.rows[slot].append(token)
            else:
                self.cache.held[slot] -= 1
        self.cache.tokens += sum(going)
        self.fed, self.calls = self.fed + sum(going), self.calls + 1
        return out.logits[:, -1]

    def copy(self, new: list[int], old: list[int]) -> None:
        self.cache.copy(new, old)
        copied = [(list(self.rows[slot]), self.prompt_of[slot]) for slot in old]
        for slot, (row, prompt) in zip(new, copied, strict=True):
            self.rows[slot], self.prompt_of[slot] = row, prompt

    def rewind(self, slots: list[int], lengths: list[int]) -> None:
        self.cache.rewind(slots, lengths)
        for slot, length in zip(slots, lengths, strict=True):
            prompt = len(self.prompts[self.prompt_of[slot]])
            del self.rows[slot][prompt + length :]

    def agree(self) -> None:
        own = [self.own(slot) for slot in range(len(self.rows))]
        assert self.cache.lengths.tolist() == self.cache.held == own
        assert self.cache.prompt_of == self.prompt_of
        offsets = [len(self.prompts[k]) for k in self.prompt_of]
        assert self.cache.offsets.tolist() == offsets
        assert (self.cache.tokens, self.cache.calls) == (self.fed, self.calls)
        assert self.cache.get_seq_length() == max(own)

    def check(self, slot: int, logits: Tensor) -> None:
        """Logits of the last tokens of a row, against one full pass."""
        logits = logits if logits.dim() == 2 else logits[None]
        assert close(logits, full(self.plain, self.rows[slot])[-len(logits) :])


# Any sequence of moves


@pytest.fixture
def in_small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are read in several passes, of at most 20 tokens with padding."""
    small = functools.partial(in_groups, at_once=20)
    monkeypatch.setattr(cache_module, "in_groups", small)


def any_moves(name: str, seed: int, moves: int) -> None:
    """Prompts in several passes, then extensions of arbitrary slots, single tokens of
    first slots of which some rest, copies and rewinds; garbage everywhere else.
    """
    rng, copies = random.Random(seed), 3
    lengths = [9, 4, 13, 2]
    rng.shuffle(lengths)
    rows = Rows(name, [words(rng, length) for length in lengths], copies)
    slots = len(rows.rows)
    assert rows.calls > 1, "the prompts fit into one pass"
    for prompt, logits in zip(rows.prompts, rows.first, strict=True):
        assert close(logits, full(rows.plain, prompt)[-1])
    done = dict.fromkeys(["extend", "range", "decode", "copy", "rewind"], 0)
    rested = blank = 0
    for _ in range(moves):
        poison(rows.cache)
        move = rng.choice([*done, "decode", "decode"])
        done[move] += 1
        if move in ("extend", "range"):
            some: Sequence[int] = rng.sample(range(slots), rng.randint(1, slots))
            if move == "range":
                first = rng.randrange(slots)
                some = range(first, rng.randint(first + 1, slots))
            pieces = [words(rng, rng.randint(1, 5)) for _ in some]
            blank += sum(rows.own(slot) == 0 for slot in some)
            found = rows.extend(pieces, some, padding=rng.randrange(V))
            for slot, logits in zip(some, found, strict=True):
                rows.check(slot, logits)
        elif move == "decode":
            width = rng.randint(1, slots)
            rest = [rows.own(s) > 0 and rng.random() < 0.4 for s in range(width)]
            rested += sum(rest)
            out = rows.decode(words(rng, width), [not r for r in rest])
            for slot in range(width):
                rows.check(slot, out[slot])
        elif move == "copy":
            new = rng.sample(range(slots), rng.randint(1, slots))
            rows.copy(new, [rng.randrange(slots) for _ in new])
        else:
            some = rng.sample(range(slots), 3)
            rows.rewind(some, [rng.randint(0, rows.own(slot)) for slot in some])
        rows.agree()
    assert min(done.values()) > 0 and rested and blank
    for slot, logits in enumerate(rows.extend([[3, 4]] * slots)):
        rows.check(slot, logits)


@every_family
@torch.inference_mode()
def test_any_sequence_of_moves_equals_full_passes(
    name: str, in_small_groups: None
) -> None:
    any_moves(name, 1, 20)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
@pytest.mark.parametrize("name", ["minimath-small", *FAMILIES])
@torch.inference_mode()
def test_longer_sequences_of_moves(name: str, seed: int, in_small_groups: None) -> None:
    any_moves(name, seed, 60)


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Gemma3"])
@torch.inference_mode()
def test_without_the_fused_kernel(
    name: str, in_small_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other devices do."""
    monkeypatch.setattr(attention, "FUSED", None)
    any_moves(name, 2, 20)


# Rows


@torch.inference_mode()
def test_padding_is_told_no_place_beyond_the_context() -> None:
    """GPT-2 has a table of places: beyond it there is nothing to look up."""
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=24, n_embd=16, n_layer=2, n_head=2
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    plain = copy.deepcopy(model)
    model.set_attn_implementation(NAME)
    cache, prompt = RaggedCache(2), [1, 2, 3]
    ids = torch.tensor([[*range(4, 22), 0, 0], [*range(5, 23), 23, 24]])
    cache.read_prompts(model, [prompt], 2)
    cache.extend(model, ids, [18, 20])
    output = cache.extend(model, torch.tensor([[9, 0, 0, 0], [9, 0, 0, 0]]), [1, 1])
    for row, own in enumerate((ids[0, :18], ids[1])):
        right = full(plain, [*prompt, *own.tolist(), 9])[-1]
        assert close(output.logits[row, 0], right)


@torch.inference_mode()
def test_a_layer_that_attends_twice_is_refused() -> None:
    """Its second keys would take the place of the first."""
    config = transformers.DiffLlamaConfig(**SIZES)
    model = transformers.DiffLlamaForCausalLM(config).eval()
    model.set_attn_implementation(NAME)
    with pytest.raises(UserError, match="attends twice in one layer"):
        RaggedCache(1).read_prompts(model, [[1, 2]], 1)


@pytest.mark.parametrize("name", ["minimath-small", "Llama", "Gemma3"])
@torch.inference_mode()
def test_ragged_rows_over_the_growth_of_the_buffers(name: str) -> None:
    """Five rows grow by unequal pieces; every logit is that of one pass over the row
    alone.
    """
    rng = random.Random(1)
    rows = Rows(name, [words(rng, 3)], 5)
    found: list[list[Tensor]] = [[] for _ in rows.rows]
    capacities = set()
    for _ in range(12):
        pieces = [words(rng, rng.randint(1, 19)) for _ in rows.rows]
        for slot, logits in enumerate(rows.extend(pieces, padding=rng.randrange(V))):
            found[slot] += logits
        capacities.add(rows.cache.capacity)
        rows.agree()
    assert len(set(rows.cache.held)) > 1
    assert {GROWTH, 2 * GROWTH} <= capacities
    for slot, several in enumerate(found):
        rows.check(slot, torch.stack(several))


@pytest.mark.parametrize("name", ["minimath-small", "Qwen2"])
@torch.inference_mode()
def test_one_token_at_a_time(name: str) -> None:
    rows = Rows(name, [[7]], 1)
    tokens = words(random.Random(2), 2 * GROWTH + 2)
    found = torch.cat([rows.decode([token], [True]) for token in tokens])
    rows.check(0, found)
    rows.agree()
    assert rows.cache.capacity == 3 * GROWTH


@torch.inference_mode()
def test_buffers_grow_by_an_eighth_once_they_are_long() -> None:
    rows = Rows("Llama", [[1]], 1)
    rows.extend([[2] * (16 * GROWTH)])
    assert rows.cache.capacity == 16 * GROWTH
    rows.extend([[3]])
    assert rows.cache.capacity == 18 * GROWTH
    assert rows.cache.own[0][2].shape[1] == 18 * GROWTH


@torch.inference_mode()
def test_padding_is_never_seen() -> None:
    """Neither another padding token nor large numbers beyond the rows' ends change a
    digit.
    """
    rng = random.Random(3)
    pieces = [[words(rng, rng.randint(1, 7)) for _ in range(4)] for _ in range(5)]

    def run(padding: int, poisoned: bool) -> list[Tensor]:
        rows, found = Rows("Llama", [[1, 2], [3, 4, 5, 6]], 2), []
        for step in pieces:
            found += rows.extend(step, padding=padding)
            if poisoned:
                poison(rows.cache)
        return found

    quiet = run(0, False)
    for other in (run(V - 1, False), run(7, True)):
        assert all(torch.equal(a, b) for a, b in zip(quiet, other, strict=True))


def buffers(cache: RaggedCache) -> list[Tensor]:
    return [*cache.prompts[0], *cache.prompts[1], *cache.own[0], *cache.own[1]]


@torch.inference_mode()
def test_other_slots_are_left_alone() -> None:
    """Neither an extension nor a token of others writes into them."""
    rows = Rows("Llama", [[1, 2], [3]], 2)
    rows.extend([[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]])
    before = [buffer.clone() for buffer in buffers(rows.cache)]
    rows.extend([[11], [12, 13]], [3, 1])
    rows.decode([14], [True])
    for new, old in zip(buffers(rows.cache), before, strict=True):
        alone = [2] if len(old) == 4 else [0, 1]  # its slots; the prompts
        assert torch.equal(new[alone], old[alone])
    assert rows.cache.lengths.tolist() == [4, 3, 2, 5]


@torch.inference_mode()
def test_a_row_that_rests_writes_what_stands_there() -> None:
    rows = Rows("Llama", [[1, 2], [3]], 2)
    rows.extend([[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]])
    before = [buffer.clone() for buffer in buffers(rows.cache)]
    out = rows.decode([9, 9, 9, 9], [False, True, False, False])
    for new, old in zip(buffers(rows.cache), before, strict=True):
        if len(old) == 4:
            torch.testing.assert_close(new[[0, 2, 3]], old[[0, 2, 3]])
    for slot in range(4):
        rows.check(slot, out[slot])


# Copies


@torch.inference_mode()
def test_copies_are_independent_and_keep_their_prompt() -> None:
    rows = Rows("Llama", [[1, 2, 3], [4]], 2)
    rows.extend([[5], [6, 7], [8, 9], [10, 11, 12]])
    rows.copy([0, 1], [3, 3])  # under another prompt, which is shorter
    rows.agree()
    assert rows.cache.prompt_of == [1, 1, 1, 1]
    rows.extend([[20], [21], [22], [23]])
    rows.copy([2], [1])
    for slot, logits in enumerate(rows.extend([[24], [25], [26], [27]])):
        rows.check(slot, logits)
    assert rows.rows[2] == [4, 10, 11, 12, 21, 26]


@torch.inference_mode()
def test_slots_change_places_in_one_move() -> None:
    """All are read before any is written, also when the one moved is the longer."""
    rows = Rows("Llama", [[1, 2, 3], [4]], 2)
    rows.extend([[5], [6, 7], [8, 9], [10, 11, 12]])
    rows.copy([0, 3, 1], [3, 0, 0])
    rows.agree()
    for slot, logits in enumerate(rows.extend([[20], [21], [22], [23]])):
        rows.check(slot, logits)


@torch.inference_mode()
def test_nothing_to_copy_or_to_rewind_is_nothing() -> None:
    rows = Rows("Llama", [[1, 2, 3]], 3)
    rows.extend([[5], [6, 7], [8, 9]])
    before = [(b.data_ptr(), b.clone()) for b in buffers(rows.cache)]
    batch = rows.cache.batch
    rows.copy([], [])
    rows.rewind([], [])
    assert rows.cache.batch is batch
    for buffer, (place, old) in zip(buffers(rows.cache), before, strict=True):
        assert buffer.data_ptr() == place and torch.equal(buffer, old)
    rows.agree()


@torch.inference_mode()
def test_a_batch_knows_when_its_prompts_have_changed() -> None:
    """The same slots twice, and between them one takes another's place and prompt."""
    rows = Rows("Llama", [[1, 2, 3], [4]], 1)
    for _ in range(2):
        for slot, logits in enumerate(rows.extend([[5], [6]])):
            rows.check(slot, logits)
        rows.copy([0, 1], [1, 0])


# Prompts


@torch.inference_mode()
def test_prompts_are_held_once() -> None:
    """Bytes counted: a thousand rows of a problem need no more than one until they
    write.
    """
    model, _ = models("Llama")
    prompts = [[1] * 40, [2] * 10]
    size = 4 * 2 * 8  # bytes of float32 times key heads times their size
    layers = 2 * SIZES["num_hidden_layers"]
    for copies in (1, 1000):
        cache = RaggedCache(2 * copies)
        cache.read_prompts(model, prompts, copies)
        assert cache.bytes == layers * 2 * 40 * size
        assert (cache.tokens, cache.calls) == (50, 1)
    cache.extend(model, torch.tensor([[3]] * 2000), [1] * 2000)
    assert cache.bytes == layers * (2 * 40 + 2000 * GROWTH) * size
    assert cache.tokens == 50 + 2000


@torch.inference_mode()
def test_prompts_are_read_in_bounded_passes(in_small_groups: None) -> None:
    """At most 20 tokens a pass with padding, and like lengths together."""
    shapes: list[tuple[int, ...]] = []
    model, plain = models("Llama")
    rng = random.Random(4)
    prompts = [words(rng, length) for length in (3, 12, 2, 9, 10, 2, 25)]
    hook = model.model.embed_tokens.register_forward_pre_hook(
        lambda _, args: shapes.append(tuple(args[0].shape))
    )
    cache = RaggedCache(7)
    found = cache.read_prompts(model, prompts, 1, model.lm_head)
    hook.remove()
    assert shapes == [(1, 25), (1, 12), (2, 10), (3, 3)]
    assert (cache.tokens, cache.calls) == (63, 4)
    for prompt, logits in zip(prompts, found, strict=True):
        assert close(logits, full(plain, prompt)[-1])


class Widths:
    """The shapes of what the head makes of the hidden states."""

    def __init__(self, head: nn.Module) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.hook = head.register_forward_hook(
            lambda _, args, out: self.shapes.append(tuple(out.shape))
        )


@torch.inference_mode()
def test_logits_of_prompts_at_their_last_token_only() -> None:
    """(P, 1, V) inside the head, whatever the prompts' lengths; and the head is itself
    again afterwards.
    """
    model, plain = models("Qwen2")
    rng = random.Random(5)
    prompts = [words(rng, length) for length in range(1, 40)]
    seen = Widths(model.lm_head)
    cache = RaggedCache(39)
    found = cache.read_prompts(model, prompts, 1, model.lm_head)
    cache.extend(model, torch.ones(39, 3, dtype=torch.long), [3] * 39)
    seen.hook.remove()
    assert seen.shapes == [(39, 1, V), (39, 3, V)] and found.shape == (39, V)
    for prompt, logits in zip(prompts, found, strict=True):
        assert close(logits, full(plain, prompt)[-1])


def test_the_head_is_itself_again_after_an_error() -> None:
    head = nn.Linear(2, 3)
    with pytest.raises(KeyError), only_at(head, torch.zeros(1, dtype=torch.long)):
        raise KeyError
    assert head(torch.zeros(1, 5, 2)).shape == (1, 5, 3)


@torch.inference_mode()
def test_a_body_without_a_head() -> None:
    """A reward model's: the hidden states."""
    model, plain = models("Mistral")
    cache = RaggedCache(2)
    assert cache.read_prompts(model.model, [[1, 2, 3], [4] * 9], 1) is None
    ids = torch.tensor([[5, 6], [7, 0]])
    out = cache.extend(model.model, ids, [2, 1]).last_hidden_state
    for row, tokens in ((out[0], [1, 2, 3, 5, 6]), (out[1, :1], [4] * 9 + [7])):
        whole = plain.model(input_ids=torch.tensor([tokens])).last_hidden_state[0]
        assert close(row, whole[-len(row) :])


@torch.inference_mode()
def test_after_an_error_the_cache_is_no_longer_at_work() -> None:
    rows = Rows("Llama", [[1, 2]], 1)
    with pytest.raises(IndexError):
        rows.extend([[V]])
    assert AT_WORK.get() is None
    ids = torch.tensor([[1, 2, 3]])
    assert close(rows.model(input_ids=ids).logits[0], full(rows.plain, [1, 2, 3]))


def test_the_cache_is_handed_over_under_the_models_own_name() -> None:
    class Old(nn.Module):
        def forward(self, input_ids, past_key_values=None): ...

    class New(nn.Module):
        def forward(self, input_ids, cache=None): ...

    assert (cache_argument(Old), cache_argument(New)) == ("past_key_values", "cache")


# Groups


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_gathered_by_prompt_and_come_back(seed: int) -> None:
    """In any order, and for prompts of unequal numbers of rows."""
    rng = random.Random(seed)
    prompt_of = [rng.choice([0, 2, 5, 6]) for _ in range(rng.randint(1, 12))]
    groups = Groups.of(prompt_of, "cpu")
    assert groups.prompts == sorted(set(prompt_of)) == groups.which.tolist()
    x = torch.arange(len(prompt_of) * 6.0).view(len(prompt_of), 2, 3, 1)
    shared = groups.gather(x)
    most = max(map(prompt_of.count, prompt_of))
    assert shared.shape == (len(groups.prompts), 2, most * 3, 1)
    for place, prompt in enumerate(groups.prompts):
        rows = [x[r] for r, p in enumerate(prompt_of) if p == prompt]
        assert torch.equal(shared[place, :, : len(rows) * 3], torch.cat(rows, 1))
    assert torch.equal(groups.scatter(shared, 3), x)


def test_rows_that_lie_by_prompt_are_not_copied() -> None:
    groups = Groups.of([0, 0, 1, 1], "cpu")
    assert groups.rows is None and groups.places is None
    x = torch.randn(4, 2, 3, 1)
    assert torch.equal(groups.scatter(groups.gather(x), 3), x)
    assert Groups.of([1, 1, 0, 0], "cpu").rows is not None


def test_padding_fills_up_to_the_longest() -> None:
    assert padded([[1], [2, 3]], "cpu").tolist() == [[1, 0], [2, 3]]
    assert list(in_groups([1, 5, 2], at_once=6)) == [[1], [2, 0]]
    assert list(in_groups([9, 9], at_once=6)) == [[0], [1]]
    assert list(in_groups([])) == []


# Attention over one piece


def queries(seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Query, key, value and bias of odd sizes; in some, queries that see nothing."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source)

    for rows, heads, width, keys in ((1, 1, 1, 1), (3, 2, 5, 7), (2, 4, 33, 130)):
        size = 8
        seen = torch.rand(rows, 1, width, keys, generator=source) < 0.6
        seen[..., 0] = True
        seen[-1, :, -1] = width == 1  # the last query sees nothing
        bias = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)
        shape = rows, heads, keys, size
        yield normal(rows, heads, width, size) * 2, normal(*shape), normal(*shape), bias


def plainly(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float, cap: float
) -> tuple[Tensor, Tensor]:
    """By the definition, in float64, one sum of exponentials."""
    scores = (query.double() @ key.double().mT) * scale
    scores = cap * (scores / cap).tanh() if cap < torch.inf else scores
    weights = (scores + bias).exp()
    total = weights.sum(-1, keepdim=True)
    share = torch.where(total > 0, weights / total, 0.0)
    return share @ value.double(), total.log()


@pytest.mark.parametrize("cap", [torch.inf, 1.0, 50.0])
@pytest.mark.parametrize("fused", [True, False])
def test_a_piece_is_a_softmax_and_its_normaliser(
    fused: bool, cap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:
        monkeypatch.setattr(attention, "FUSED", None)
    else:
        assert attention.FUSED is not None
    for query, key, value, bias in queries(0):
        softcap = None if cap == torch.inf else cap
        out, z = piece(query, key, value, bias, 0.4, softcap)
        exact, z_exact = plainly(query, key, value, bias, 0.4, cap)
        sees = (bias == 0).any(-1, keepdim=True).expand_as(z)
        torch.testing.assert_close(out.double(), exact, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            z.double()[sees], z_exact[sees], atol=1e-5, rtol=1e-5
        )
        assert out[~sees.expand_as(out)].eq(0).all()
        assert not z.isnan().any()


def test_values_of_another_size_than_the_keys() -> None:
    query, key, value, bias = list(queries(1))[1]
    wide = torch.cat([value, value + 1], -1)
    out, z = piece(query, key, wide, bias, 0.4)
    exact, _ = plainly(query, key, wide, bias, 0.4, torch.inf)
    torch.testing.assert_close(out.double(), exact, atol=1e-5, rtol=1e-5)
    narrow, z_narrow = piece(query, key, value, bias, 0.4)
    torch.testing.assert_close(out[..., :8], narrow)
    sees = (bias == 0).any(-1, keepdim=True).expand_as(z)
    torch.testing.assert_close(z[sees], z_narrow[sees])


def test_in_half_precision_scores_are_summed_in_float32() -> None:
    """A thousand equal keys: bfloat16 could not even count them."""
    one = torch.ones(1, 1, 1, 8, dtype=torch.bfloat16)
    key = one.expand(1, 1, 1003, 8) / 8
    bias = torch.zeros(1, 1, 1, 1003, dtype=torch.bfloat16)
    _, z = piece(one, key, key, bias, 1.0, softcap=1e6)
    assert z.dtype == torch.float32
    assert float(z) == pytest.approx(1 + float(torch.tensor(1003.0).log()), abs=1e-5)


def test_without_a_cache_at_work_attention_is_the_models_own() -> None:
    model, plain = models("Mistral")
    tokens = words(random.Random(6), 20)
    assert close(model(input_ids=torch.tensor([tokens])).logits[0], full(plain, tokens))


def test_an_empty_cache_and_passes_that_were_replayed() -> None:
    cache = RaggedCache(0)
    assert cache.get_seq_length() == cache.bytes == cache.tokens == cache.calls == 0
    cache = RaggedCache(3)
    cache.enter(range(2), 1)
    cache.advance(5)
    cache.advance(2)
    assert (cache.calls, cache.held) == (7, [7, 7, 0])
