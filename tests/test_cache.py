"""The ragged cache against full forward passes over plain lists of tokens: no cache, no padding, one row at a time."""

import random
from functools import cache as remembered

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from pfref import LanguageModel
from pfref.cache import CHUNK, RaggedCache, cache_argument

V = 31  # the tiny models' vocabulary
GARBAGE = 1e4  # large enough to change any output that looks at it, small enough to stay finite in float32


@remembered
def model_named(name: str) -> nn.Module:
    if name == "minimath-small":
        return LanguageModel.load(name).model
    sizes = dict(
        vocab_size=V,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        kind, config = {
            "llama": (LlamaForCausalLM, LlamaConfig),
            "qwen2": (Qwen2ForCausalLM, Qwen2Config),
        }[name]
        return kind(config(**sizes)).eval().requires_grad_(False)


every_model = pytest.mark.parametrize("name", ["minimath-small", "llama", "qwen2"])


def full(model: nn.Module, tokens: list[int]) -> Tensor:
    """Logits of every position, by one pass without a cache."""
    return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-4, rtol=1e-4)


def poison(cache: RaggedCache) -> None:
    """Put large numbers wherever no row has a token, as the worst that padding and dead branches can leave."""
    for buffer in (*cache.keys, *cache.values):
        beyond = torch.arange(buffer.shape[1]) >= cache.lengths[:, None]
        buffer[beyond] = GARBAGE


def feed(
    model: nn.Module, cache: RaggedCache, pieces: list[list[int]], padding: int = 0
) -> Tensor:
    """Extend the first len(pieces) slots by unequal pieces; the padding is written with a token of our choice."""
    width = max(map(len, pieces))
    ids = torch.tensor([piece + [padding] * (width - len(piece)) for piece in pieces])
    return cache.extend(model, ids, [len(piece) for piece in pieces]).logits


@every_model
@torch.inference_mode()
def test_ragged_rows_equal_full_forward_passes(name: str) -> None:
    """Five rows grow by unequal pieces over many buffers' growths; every logit is that of one pass over the row alone."""
    model, rng = model_named(name), random.Random(1)
    cache, rows = RaggedCache(5), [[] for _ in range(5)]
    logits: list[list[Tensor]] = [[] for _ in rows]
    for _ in range(9):
        pieces = [[rng.randrange(V) for _ in range(rng.randint(1, 11))] for _ in rows]
        out = feed(model, cache, pieces, padding=rng.randrange(V))
        for r, piece in enumerate(pieces):
            rows[r] += piece
            logits[r] += out[r, : len(piece)]
    assert (
        cache.lengths.tolist() == [len(row) for row in rows]
        and len(set(cache.lengths.tolist())) > 1
    )
    assert cache.capacity > 3 * CHUNK and cache.capacity % CHUNK == 0
    assert (
        cache.tokens == sum(map(len, rows))
        and cache.calls == 9
        and cache.get_seq_length() == max(map(len, rows))
    )
    for row, found in zip(rows, logits, strict=True):
        assert close(torch.stack(found), full(model, row))


@every_model
@torch.inference_mode()
def test_one_token_at_a_time(name: str) -> None:
    model = model_named(name)
    row = [random.Random(2).randrange(V) for _ in range(3 * CHUNK + 2)]
    cache = RaggedCache(1)
    found = torch.cat(
        [cache.extend(model, torch.tensor([[token]])).logits[0] for token in row]
    )
    assert close(found, full(model, row))
    assert cache.tokens == cache.calls == len(row)


@torch.inference_mode()
def test_padding_is_never_seen() -> None:
    """Neither another padding token nor large numbers beyond the rows' ends change a digit."""
    model, rng = model_named("llama"), random.Random(3)
    pieces = [
        [[rng.randrange(V) for _ in range(rng.randint(1, 7))] for _ in range(4)]
        for _ in range(5)
    ]

    def run(padding: int, poisoned: bool) -> list[Tensor]:
        cache, found = RaggedCache(4), []
        for step in pieces:
            out = feed(model, cache, step, padding)
            found += [out[r, : len(piece)] for r, piece in enumerate(step)]
            if poisoned:
                poison(cache)
        return found

    quiet = run(0, False)
    assert all(torch.equal(a, b) for a, b in zip(quiet, run(V - 1, False), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(quiet, run(7, True), strict=True))


@torch.inference_mode()
def test_other_slots_are_left_alone() -> None:
    """Extending the first two of four slots writes nothing into the others."""
    model, cache = model_named("llama"), RaggedCache(4)
    feed(model, cache, [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]])
    before = [buffer[2:].clone() for buffer in (*cache.keys, *cache.values)]
    feed(model, cache, [[11], [12, 13]])
    after = [
        buffer[2:, : b.shape[1]]
        for buffer, b in zip((*cache.keys, *cache.values), before, strict=True)
    ]
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert cache.lengths.tolist() == [4, 3, 2, 4]


@torch.inference_mode()
def test_fork_copies_by_ancestor_and_frees_the_rest() -> None:
    model, cache = model_named("llama"), RaggedCache(4)
    rows = [[1, 2, 3], [4], [5, 6], [7, 8, 9, 10]]
    feed(model, cache, rows)
    large = cache.bytes
    slots = cache.fork(
        torch.tensor([3, 3, 0, 2]), torch.tensor([True, False, True, True]), spare=4
    )
    assert (
        slots.tolist() == [3, 0, 2]
        and cache.particle.tolist() == [0, 2, 3]
        and cache.lengths.tolist() == [4, 3, 2]
    )
    assert cache.bytes == large * 3 // 4
    feed(model, cache, [[20], [21], [22]])  # copies are independent
    slots = cache.fork(
        torch.tensor([0, 1, 0, 0]), torch.tensor([True, False, True, True])
    )
    assert cache.lengths.tolist() == [5, 5, 5]
    out = feed(model, cache, [[23], [24], [25]])
    for found, token in zip(out[:, 0], (23, 24, 25), strict=True):
        assert close(found, full(model, [7, 8, 9, 10, 20, token])[-1])


@torch.inference_mode()
def test_forking_onto_itself_copies_nothing() -> None:
    cache = RaggedCache(3)
    feed(model_named("llama"), cache, [[1, 2], [3], [4, 5, 6]])
    before = [buffer.data_ptr() for buffer in (*cache.keys, *cache.values)]
    cache.fork(torch.arange(3), torch.ones(3, dtype=torch.bool))
    assert [buffer.data_ptr() for buffer in (*cache.keys, *cache.values)] == before


@torch.inference_mode()
def test_a_copy_has_the_place_that_was_asked_for() -> None:
    """So that it does not grow at once; and it gives back what its longest row does not need."""
    model, cache = model_named("llama"), RaggedCache(2)
    feed(model, cache, [[5] * 30, [6]])
    assert cache.capacity == 4 * CHUNK
    cache.fork(torch.tensor([0, 0]), torch.tensor([True, True]), spare=CHUNK + 3)
    assert cache.capacity == 6 * CHUNK
    before = [buffer.data_ptr() for buffer in (*cache.keys, *cache.values)]
    out = feed(model, cache, [[7] * (CHUNK + 3)] * 2)
    assert [buffer.data_ptr() for buffer in (*cache.keys, *cache.values)] == before
    assert close(out[1], full(model, [5] * 30 + [7] * (CHUNK + 3))[30:])
    cache = RaggedCache(2)
    feed(model, cache, [[5] * 30, [6]])
    cache.fork(torch.tensor([1, 1]), torch.tensor([True, True]), spare=2)
    assert cache.capacity == CHUNK
    assert close(feed(model, cache, [[7, 8], [9, 10]])[1], full(model, [6, 9, 10])[1:])


@torch.inference_mode()
def test_all_rows_may_leave() -> None:
    cache = RaggedCache(2)
    feed(model_named("llama"), cache, [[1, 2], [3]])
    assert cache.fork(torch.arange(2), torch.zeros(2, dtype=torch.bool)).tolist() == []
    assert cache.bytes == 0 and cache.get_seq_length() == 0


class Oracle:
    """The same moves on plain lists: what every particle's row holds."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = dict(enumerate(rows))

    def agrees(self, cache: RaggedCache) -> None:
        held = cache.particle.tolist()
        assert sorted(held) == sorted(self.rows) and len(set(held)) == len(held)
        assert cache.lengths.tolist() == [len(self.rows[m]) for m in held]


@every_model
@pytest.mark.parametrize("seed", range(4))
@torch.inference_mode()
def test_any_sequence_of_moves_equals_the_oracle(name: str, seed: int) -> None:
    """Extensions of some first slots, swaps to the front, forks and drops in random order, garbage everywhere else."""
    model, rng, particles = model_named(name), random.Random(seed), 6
    start = [
        [rng.randrange(V) for _ in range(rng.randint(1, 9))] for _ in range(particles)
    ]
    cache, oracle = RaggedCache(particles), Oracle([list(row) for row in start])
    feed(model, cache, start)
    fed, moves = sum(map(len, start)), {"extend": 0, "front": 0, "fork": 0}
    for _ in range(24):
        slots = len(cache.particle)
        move = rng.choice(["extend", "extend", "front", "fork"])
        moves[move] += 1
        if move == "extend":
            working = rng.randint(1, slots)
            pieces = [
                [rng.randrange(V) for _ in range(rng.randint(1, 4))]
                for _ in range(working)
            ]
            out = feed(model, cache, pieces, padding=rng.randrange(V))
            fed += sum(map(len, pieces))
            for m, piece, logits in zip(
                cache.particle[:working].tolist(), pieces, out, strict=True
            ):
                oracle.rows[m] += piece
                assert close(
                    logits[: len(piece)], full(model, oracle.rows[m])[-len(piece) :]
                )
        elif move == "front":
            working = rng.randint(1, slots)
            staying = torch.tensor([rng.random() < 0.6 for _ in range(working)])
            kept = set(cache.particle[:working][staying].tolist())
            new, old = cache.to_front(staying)
            assert set(cache.particle[: len(kept)].tolist()) == kept
            assert not set(new.tolist()) - set(range(working)) and sorted(
                new.tolist()
            ) == sorted(old.tolist())
        else:
            held = cache.particle.tolist()
            ancestors = torch.tensor([rng.choice(held) for _ in range(particles)])
            kept = torch.tensor([rng.random() < 0.8 for _ in range(particles)])
            kept[rng.randrange(particles)] = True
            cache.fork(ancestors, kept)
            oracle.rows = {
                m: list(oracle.rows[int(ancestors[m])])
                for m in range(particles)
                if kept[m]
            }
        poison(cache)
        oracle.agrees(cache)
    assert min(moves.values()) > 0 and cache.tokens == fed
    out = cache.extend(model, torch.full((len(cache.particle), 1), 3)).logits[:, -1]
    for m, logits in zip(cache.particle.tolist(), out, strict=True):
        assert close(logits, full(model, oracle.rows[m] + [3])[-1])


def test_the_cache_is_handed_over_under_the_models_own_name() -> None:
    class Old(nn.Module):
        def forward(self, input_ids, past_key_values=None): ...

    class New(nn.Module):
        def forward(self, input_ids, cache=None): ...

    assert (cache_argument(Old), cache_argument(New)) == ("past_key_values", "cache")
