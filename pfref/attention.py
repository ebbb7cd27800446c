"""Attention over two pieces: the prompt, which the rows of a problem share, and each
row's own tokens.

Softmax over two pieces of keys needs no key to be copied. Each piece gives its own
output o and the logarithm z of its normaliser, the sum of exp(score); the softmax over
both is then

    o = s o_prompt + (1 - s) o_own,
    s = exp(z_prompt) / (exp(z_prompt) + exp(z_own)) = sigmoid(z_prompt - z_own).

Heads that share a key head, and rows that share a prompt, are queries of one attention
(GQA, Ainslie et al. 2023), but for prompts that are read on a CPU. transformers calls
`attend` in place of its own attention for a model whose attention is named "pfref".
"""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .errors import UserError
from .kernels import attend_ragged, available

if TYPE_CHECKING:
    from .cache import RaggedCache

NAME = "pfref"
ATTENDS_TWICE = (
    "the model attends twice in one layer, and pfref's cache holds one set of keys a "
    "layer; serve such a model and give --endpoint"
)
AT_WORK: ContextVar["RaggedCache | None"] = ContextVar("cache at work", default=None)
# The kernel behind torch's scaled_dot_product_attention on a CPU, which also gives z.
FUSED = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """query (B, heads, W, d), key and value (B, key heads, K, d) -> (B, W, heads, d).

    Where no `RaggedCache` is at work this is transformers' own attention.
    """
    cache = AT_WORK.get()
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if cache is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
    if others.get("s_aux") is not None:
        raise UserError(
            "a model with attention sinks is not supported by pfref's cache"
        )
    rows, heads, width, size = query.shape
    key_heads, group = key.shape[1], heads // key.shape[1]
    folded = query.reshape(rows, key_heads, group * width, size)
    ragged = sliding_window is None and available(folded, value, softcap)
    if ragged:
        own, _ = cache.limits(group)
        out, z = attend_ragged(folded, key, value, own, scale)
    elif cache.reading is not None:  # unfolded: a smaller mask, of L times L
        bias = cache.own_bias(sliding_window, query.dtype, 1)
        keys, values = (x.repeat_interleave(group, 1) for x in (key, value))
        out, _ = piece(query, keys, values, bias, scale, softcap)
    else:
        bias = cache.own_bias(sliding_window, query.dtype, group)
        out, z = piece(folded, key, value, bias, scale, softcap)
    if cache.reading is not None:
        cache.keep_prompt(module.layer_idx, key, value)
    else:
        keys, values = cache.prompt(module.layer_idx)
        shared = cache.groups.gather(folded)
        if ragged:
            ends = cache.limits(group)[1].expand(-1, shared.shape[2])
            before, z_before = attend_ragged(shared, keys, values, ends, scale)
        else:
            bias, blind = cache.prompt_bias(sliding_window, query.dtype, group)
            before, z_before = piece(shared, keys, values, bias, scale, softcap)
            if blind is not None:  # the fused kernel gives such a query z = 0
                z_before = z_before.masked_fill(blind, -torch.inf)
        before = cache.groups.scatter(before, group * width)
        z_before = cache.groups.scatter(z_before, group * width)
        share = torch.sigmoid(z_before - z).to(out.dtype)
        out = torch.lerp(out, before, share)
    out = out.reshape(rows, heads, width, -1).transpose(1, 2)
    return out.contiguous(), None  # some models view it


def piece(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    scale: float,
    softcap: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention over one piece, and z: (B, H, Q, d), (B, H, K, d), bias (B, 1, 1 or Q,
    K).

    Returns (B, H, Q, d) and (B, H, Q, 1). A query that sees no key gets zeros. Scores
    are in float32 at least, whatever the model's precision.
    """
    plain = softcap is not None or key.shape[-1] != value.shape[-1]
    if FUSED is not None and query.device.type == "cpu" and not plain:
        out, z = FUSED(query, key, value, attn_mask=bias, scale=scale)
        return out, z[..., None]
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = (query.to(exact) @ key.to(exact).transpose(-1, -2)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + bias
    z = scores.logsumexp(-1, keepdim=True)
    weights = (scores - z.clamp(min=torch.finfo(exact).min)).exp()
    return weights.to(value.dtype) @ value, z


def as_bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -torch.inf)


@contextmanager
def only_at(head: nn.Module | None, places: Tensor) -> Iterator[None]:
    """`head` makes logits (B, 1, V) of each row's hidden state at its place alone."""
    if head is None:
        yield
        return
    rows = torch.arange(len(places), device=places.device)
    hook = head.register_forward_pre_hook(
        lambda _, args: (args[0][rows, places][:, None],)
    )
    try:
        yield
    finally:
        hook.remove()


@functools.cache
def cache_argument(kind: Any) -> str:
    """transformers 5.24 renamed a model's `past_key_values` to `cache`."""
    names = inspect.signature(kind.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
