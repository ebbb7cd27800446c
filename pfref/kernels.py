"""Attention over rows of unequal length on a GPU: each key and value is read once, in
the model's own precision, and none beyond a row's end.

This is FlashAttention's running softmax (Dao et al. 2022), in Triton, which comes with
torch where there is a GPU. Without it, or with a GPU too old for it, `attention.piece`
does the work.
"""

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

DTYPES = {torch.float32, torch.float16, torch.bfloat16}
# With TRITON_INTERPRET=1 the kernel runs on a CPU, slowly, which is how it is tested.
INTERPRETED = triton is not None and bool(triton.knobs.runtime.interpret)


def available(query: Tensor, value: Tensor, softcap: float | None) -> bool:
    """Whether `attend_ragged` can do this; keys are of the queries' size."""
    size = query.shape[-1]
    fits = size == value.shape[-1] and size in (16, 32, 64, 128, 256)
    if triton is None or softcap is not None or not fits or query.requires_grad:
        return False
    if query.dtype != value.dtype or query.dtype not in DTYPES:
        return False
    if query.is_cuda:
        return works(query.device, query.dtype, size)
    # The interpreter cannot multiply bfloat16.
    return INTERPRETED and query.device.type == "cpu" and query.dtype != torch.bfloat16


@functools.cache
def works(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether the kernel compiles here: for that Triton needs a GPU that it supports,
    and a C compiler.
    """
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        for queries in (1, 17, 33):  # every BLOCK_M
            x = torch.zeros(1, 1, queries, size, dtype=dtype, device=device)
            limits = torch.ones(1, queries, dtype=torch.long, device=device)
            attend_ragged(x, x, x, limits, 1.0)
    except Exception as error:  # whatever it is, there is another way
        warnings.warn(f"attention goes without its kernel: {error!r}", stacklevel=2)
        return False
    return True


def attend_ragged(
    query: Tensor, key: Tensor, value: Tensor, limits: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """query (B, H, Q, d), key and value (B, H, K, d), limits (B, Q) -> output (B, H, Q,
    d), and z (B, H, Q, 1), the logarithm of the sum of exp(score).

    Query q of row b sees its first limits[b, q] keys. One that sees none gets zeros,
    and z = -inf. Of the keys and values nothing is copied, whatever their strides.
    """
    query = query.contiguous()
    if key.stride(-1) != 1 or value.stride(-1) != 1:
        key, value = key.contiguous(), value.contiguous()
    rows, heads, queries, size = query.shape
    out = torch.empty_like(query)
    z = query.new_empty(rows, heads, queries, 1, dtype=torch.float32)
    # Tensor cores do not multiply float32 exactly: there a block of queries must be
    # smaller, on more threads, to fit into the registers. A block of keys has 16 kB.
    most, warps = (32, 8) if query.dtype == torch.float32 else (64, 4)
    block_m = 16 if queries <= 16 else 32 if queries <= 32 else most
    block_n = max(16, min(64, 2**14 // (size * query.element_size())))
    programs = rows * heads * -(-queries // block_m)
    with torch.cuda.device_of(query):
        ragged[(programs,)](
            *(query, key, value, limits, out, z, scale, heads, queries, key.shape[2]),
            *(*key.stride()[:3], *value.stride()[:3], *limits.stride()),
            SIZE=size,
            BLOCK_M=block_m,
            BLOCK_N=block_n,
            num_warps=warps,
            num_stages=2,
        )
    return out, z


ragged: Any = None
if triton is not None:
    # What changes from pass to pass, or from model to model, must not compile the
    # kernel anew: `works` has compiled all that a record may need.
    VARIES = ["heads", "queries", "keys", "limit_row", "limit_query"]

    @triton.jit(do_not_specialize=VARIES)
    def ragged(  # noqa: F811
        query, key, value, limits, out, z, scale, heads, queries, keys,
        key_row, key_head, key_step, value_row, value_head, value_step,
        limit_row, limit_query,
        SIZE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    ):  # fmt: skip
        """One program for each block of BLOCK_M queries of a row and a key head."""
        program = tl.program_id(0)
        blocks = tl.cdiv(queries, BLOCK_M)
        pair = program // blocks
        # Buffers may have more than 2**31 elements; a row of them has fewer.
        row = (pair // heads).to(tl.int64)
        head = (pair % heads).to(tl.int64)
        q = (program % blocks) * BLOCK_M + tl.arange(0, BLOCK_M)
        real = q < queries
        dim = tl.arange(0, SIZE)
        key += row * key_row + head * key_head
        value += row * value_row + head * value_head
        limits += row * limit_row
        limit = tl.load(limits + q * limit_query, mask=real, other=0).to(tl.int32)
        end = tl.minimum(tl.max(limit, 0), keys)
        place = pair.to(tl.int64) * queries + q
        cells = place[:, None] * SIZE + dim[None, :]
        asked = tl.load(query + cells, mask=real[:, None], other=0.0)
        top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        sums = tl.zeros((BLOCK_M, SIZE), tl.float32)
        for start in range(0, end, BLOCK_N):
            at = start + tl.arange(0, BLOCK_N)
            there = at[:, None] < end
            k = tl.load(
                key + at[:, None] * key_step + dim[None, :], mask=there, other=0.0
            )
            v = tl.load(
                value + at[:, None] * value_step + dim[None, :], mask=there, other=0.0
            )
            # "ieee": not in TF32, so that float32 is what it says.
            scores = tl.dot(asked, tl.trans(k), input_precision="ieee") * scale
            seen = at[None, :] < tl.minimum(limit, end)[:, None]
            scores = tl.where(seen, scores, float("-inf"))
            highest = tl.maximum(top, tl.max(scores, 1))
            # Where nothing is seen yet, -inf minus -inf would be no number.
            finite = tl.where(highest == float("-inf"), 0.0, highest)
            weights = tl.exp(scores - finite[:, None])
            fade = tl.exp(top - finite)
            total = total * fade + tl.sum(weights, 1)
            sums = sums * fade[:, None]
            sums = tl.dot(weights.to(v.dtype), v, acc=sums, input_precision="ieee")
            top = highest
        divisor = tl.where(total > 0, total, 1.0)
        result = (sums / divisor[:, None]).to(out.dtype.element_ty)
        tl.store(out + cells, result, mask=real[:, None])
        tl.store(z + place, top + tl.log(divisor), mask=real)
