"""The attention kernel against `piece` and against the definition.

On a GPU it is compiled and runs there. Elsewhere Triton's interpreter runs it on the
CPU, in a process of its own, since that must be chosen before Triton is imported.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from pfref import attention, kernels
from pfref.attention import NAME, piece
from pfref.cache import RaggedCache

pytest.importorskip("triton")
ROOT = Path(__file__).resolve().parent.parent
GPU = torch.cuda.is_available()
HERE = GPU or kernels.INTERPRETED
DEVICE = "cuda" if GPU else "cpu"
# The interpreter cannot multiply bfloat16, and float16 takes the same way.
HALF = torch.bfloat16 if GPU else torch.float16
here = pytest.mark.skipif(not HERE, reason="run by the test in a process of its own")
# Rows, key heads, queries, keys, size: few queries as while a row grows, many as for
# prompts; blocks of keys that are full and not.
SHAPES = [
    *[(3, 2, q, 130, 64) for q in (1, 6, 16, 17, 32, 33, 64, 100)],
    *[(2, 3, q, 77, 128) for q in (1, 7, 28, 70)],
    *[(2, 1, q, k, d) for q, k, d in ((5, 1, 16), (40, 64, 32), (12, 65, 256))],
]


@pytest.mark.slow
@pytest.mark.skipif(HERE, reason="they run in this process")
@pytest.mark.skipif(
    numpy.lib.NumpyVersion(numpy.__version__) >= "2.4.0",
    reason="the interpreter of Triton 3.6 needs an older numpy",
)
def test_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_kernels.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:]


def pieces(seed: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    """Query, key, value and limits: keys and values are views of larger buffers, of
    which all that a view leaves out, or no query may see, is not a number.
    """
    source = torch.Generator().manual_seed(seed)
    for rows, heads, queries, keys, size in SHAPES:
        limits = torch.randint(0, keys + 1, (rows, queries), generator=source)
        limits[0, 0], limits[-1, -1] = 0, keys
        limits[0, 1:] //= 3  # a row that is shorter than the others
        ends = limits.amax(1)
        views = []
        for _ in range(2):
            buffer = torch.full((rows + 3, keys + 9, heads, size), torch.nan)
            for row, end in enumerate(ends.tolist()):
                shape = end, heads, size
                buffer[row + 2, :end] = torch.randn(shape, generator=source)
            whole = buffer.to(DEVICE, dtype)
            views.append(whole[2 : rows + 2, :keys].transpose(1, 2))
        query = torch.randn(rows, queries, heads, size, generator=source)
        query = query.to(DEVICE, dtype).transpose(1, 2)  # not contiguous either
        yield query, *views, limits.to(DEVICE)


def by_definition(
    query: Tensor, key: Tensor, value: Tensor, limits: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """In float64, one sum of exponentials."""
    at = torch.arange(key.shape[2], device=key.device)
    seen = (at < limits[..., None])[:, None]
    scores = query.double() @ key.double().nan_to_num().mT * scale
    weights = torch.where(seen, scores.exp(), 0.0)
    total = weights.sum(-1, keepdim=True)
    share = torch.where(total > 0, weights / total, 0.0)
    return share @ value.double().nan_to_num(), total.log()


def by_piece(
    query: Tensor, key: Tensor, value: Tensor, limits: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    at = torch.arange(key.shape[2], device=key.device)
    seen = (at < limits[..., None])[:, None]
    bias = torch.zeros(seen.shape, device=key.device, dtype=query.dtype)
    bias = bias.masked_fill(~seen, -torch.inf)
    return piece(query, key.nan_to_num(), value.nan_to_num(), bias, scale)


def agree(found: Any, expected: Any, limits: Tensor, tolerance: float) -> None:
    (out, z), (out_expected, z_expected) = found, expected
    near = dict(atol=tolerance, rtol=tolerance, check_dtype=False)
    torch.testing.assert_close(out, out_expected, **near)
    blind = (limits == 0)[:, None, :, None].expand_as(z)
    torch.testing.assert_close(z[~blind], z_expected[~blind], **near)
    assert z.dtype == torch.float32 and blind.any()
    assert z[blind].eq(-torch.inf).all() and out[blind[..., 0]].eq(0).all()


@here
@pytest.mark.parametrize("seed", range(2))
def test_as_the_definition_and_as_piece(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "FUSED", None)
    for query, key, value, limits in pieces(seed, torch.float32):
        assert kernels.available(query, value, None)
        found = kernels.attend_ragged(query, key, value, limits, 0.2)
        given = query, key, value, limits, 0.2
        assert found[0].shape == query.shape and found[0].dtype == torch.float32
        agree(found, by_definition(*given), limits, 1e-5)
        agree(found, by_piece(*given), limits, 1e-5)


@here
def test_in_half_precision() -> None:
    for query, key, value, limits in pieces(2, HALF):
        assert kernels.available(query, value, None)
        found = kernels.attend_ragged(query, key, value, limits, 0.2)
        assert found[0].dtype == HALF
        agree(found, by_definition(query, key, value, limits, 0.2), limits, 1e-2)


@here
def test_limits_may_be_expanded_and_of_either_kind_of_integer() -> None:
    for query, key, value, limits in pieces(3, torch.float32):
        for kind in (torch.int32, torch.int64):
            one = limits[:, :1].to(kind).expand(-1, query.shape[2])
            found = kernels.attend_ragged(query, key, value, one, 0.2)
            agree(found, by_definition(query, key, value, one, 0.2), one, 1e-5)


@here
def test_scores_may_be_large() -> None:
    """Sums of their exponentials would overflow."""
    for query, key, value, limits in pieces(4, torch.float32):
        given = query * 8, key, value, limits, 1.0
        out, z = kernels.attend_ragged(*given)
        agree((out, z), by_definition(*given), limits, 1e-3)


@here
def test_keys_beyond_the_last_one_are_never_read() -> None:
    """Whatever the limits say."""
    for query, key, value, limits in pieces(5, torch.float32):
        limits[:] = key.shape[2]
        key, value = key.nan_to_num(), value.nan_to_num()
        usual = kernels.attend_ragged(query, key, value, limits, 0.2)
        beyond = kernels.attend_ragged(query, key, value, limits + 100, 0.2)
        assert all(torch.equal(a, b) for a, b in zip(usual, beyond, strict=True))


def test_what_the_kernel_leaves_to_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1, 1, 1, 64, device=DEVICE)
    assert kernels.available(x, x, None) == HERE
    assert not kernels.available(x, x, 30.0)
    assert not kernels.available(x, x[..., :32], None)
    assert not kernels.available(x, x.to(torch.float16), None)
    assert not kernels.available(x.double(), x.double(), None)
    assert not kernels.available(x[..., :8], x[..., :8], None)
    assert not kernels.available(x[..., :48], x[..., :48], None)
    monkeypatch.setattr(kernels, "triton", None)
    assert not kernels.available(x, x, None)


@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_buffers_of_more_than_two_to_the_31_elements() -> None:
    """Of the last row the kernel must not compute the place in 32 bits."""
    heads, size, keys = 2, 128, 2048
    rows = 2**31 // (heads * size * keys) + 2
    buffer = torch.empty(rows, keys, heads, size, dtype=torch.bfloat16, device=DEVICE)
    view = buffer[:, :50].transpose(1, 2)
    view.normal_()
    query = torch.randn(rows, heads, 6, size, dtype=torch.bfloat16, device=DEVICE)
    limits = torch.randint(0, 51, (rows, 6), device=DEVICE)
    limits[0, 0], limits[-1, -1] = 0, 50
    found = kernels.attend_ragged(query, view, view, limits, 0.1)
    agree(found, by_definition(query, view, view, limits, 0.1), limits, 1e-2)


# Within a model


def small_model(dtype: torch.dtype) -> LlamaForCausalLM:
    sizes = dict(vocab_size=31, hidden_size=64, intermediate_size=64, head_dim=16)
    sizes |= dict(num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2)
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.3))
    model.set_attn_implementation(NAME)
    return model.to(DEVICE, dtype).eval().requires_grad_(False)


def decoded(model: LlamaForCausalLM) -> list[Tensor]:
    """Logits of prompts, of single tokens, of several at once and of rows that were
    resampled, some under another prompt.
    """
    rng = random.Random(7)

    def words(count: int) -> list[int]:
        return [rng.randrange(31) for _ in range(count)]

    slots = 6
    cache = RaggedCache(slots, DEVICE)
    prompts = [words(70), words(5), words(21)]
    head = model.get_output_embeddings()
    found: list[Any] = [cache.read_prompts(model, prompts, 2, head)]

    def extend(counts: list[int], which: list[int] | None = None) -> None:
        width = max(counts)
        ids = torch.tensor([words(width) for _ in counts], device=DEVICE)
        logits = cache.extend(model, ids, counts, which).logits
        found.extend(logits[b, :count] for b, count in enumerate(counts))

    def decode(going: list[bool]) -> None:
        token = torch.tensor(words(len(going)), device=DEVICE)
        on = torch.tensor(going, device=DEVICE)
        logits = cache.decode(model, token, on).logits
        found.append(logits[on, -1])
        for slot, goes in enumerate(going):
            cache.held[slot] -= not goes

    extend([3, 1, 7, 2, 40, 5])
    for _ in range(3):
        decode([True, True, False, True, True, False])
    cache.copy([0, 3, 5], [4, 0, 0])
    decode([True] * slots)
    extend([2, 9, 30], [5, 0, 3])
    cache.rewind([1, 3], [0, 2])
    extend([1, 4, 1, 1, 2, 1])
    decode([True] * 4)
    return found


def with_and_without(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor]:
    """All logits with the kernel, whose calls are counted, and without."""
    calls = []

    def counted(*given: Any) -> Any:
        calls.append(given)
        return kernels.attend_ragged(*given)

    monkeypatch.setattr(attention, "attend_ragged", counted)
    found = torch.cat(decoded(model))
    # In each of two layers one piece for the prompts' pass and two for the 8 others.
    assert len(calls) == 2 * (1 + 2 * 8)
    monkeypatch.setattr(attention, "available", lambda *_: False)
    expected = torch.cat(decoded(model))
    assert len(calls) == 2 * (1 + 2 * 8)
    return found.float(), expected.float()


@here
@torch.inference_mode()
def test_a_model_decodes_as_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found, expected = with_and_without(small_model(torch.float32), monkeypatch)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@here
@torch.inference_mode()
def test_a_model_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no further from float32 than without the kernel, a little luck apart."""
    model = small_model(HALF)
    found, expected = with_and_without(model, monkeypatch)
    exact = torch.cat(decoded(model.float()))
    assert (found - exact).norm() < 1.3 * (expected - exact).norm()
    assert (expected - exact).norm() < 0.1 * exact.norm()


@here
@torch.inference_mode()
def test_no_bias_is_made_for_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("own_bias", "prompt_bias"):
        monkeypatch.setattr(RaggedCache, name, None)
    decoded(small_model(torch.float32))


@here
@torch.inference_mode()
def test_limits_are_made_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    usual = RaggedCache.limits

    def limits(cache: RaggedCache, group: int) -> Any:
        made.append(usual(cache, group))
        return made[-1]

    monkeypatch.setattr(RaggedCache, "limits", limits)
    decoded(small_model(torch.float32))
    assert len(set(map(id, made))) == 9 and len(made) == 2 * (1 + 2 * 8)
