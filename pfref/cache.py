"""A key-value cache whose rows have their own lengths, so that every token passes through a model once.

A row is one sequence, and sits in one slot of the buffers. New keys and values are written in place at each
row's own position, so rows of unequal length need no padding between their tokens. Three moves do the rest:
`select` copies slots (to fork, to expand a prompt, to drop rows), `to_front` swaps rows so that those still at
work fill the first slots, and `extend` runs the model over the next tokens of the first slots.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

CHUNK = 8  # tokens by which the buffers grow
SPARE = 16  # tokens that a copied row can take before its buffer grows: to copy and then to grow is to copy twice


class RaggedCache(Cache):
    """Keys and values of R rows in R slots.

    lengths   (R,) tokens that each slot holds         tokens  tokens fed so far, padding not counted
    particle  (R,) which particle sits in each slot    calls   forward passes so far
    """

    def __init__(self, rows: int, device: torch.device | str = "cpu") -> None:
        super().__init__(layers=[])
        self.keys: list[Tensor] = []  # one a layer, (R, capacity, heads, width)
        self.values: list[Tensor] = []
        self.lengths = torch.zeros(rows, dtype=torch.long, device=device)
        self.particle = torch.arange(rows, device=device)
        self.tokens = self.calls = self.capacity = 0

    def extend(
        self,
        model: nn.Module,
        ids: Tensor,
        counts: Sequence[int] | None = None,
        **options: Any,
    ) -> Any:
        """Run `model` over the next tokens of the first B slots: ids (B, width), of which row b has counts[b].

        Tokens beyond a row's count are padding: what is written for them lies beyond the row's length, where
        nothing looks, and is overwritten later. Returns the model's output.
        """
        rows, width = ids.shape
        position = self.lengths[:rows, None] + torch.arange(width, device=ids.device)
        self.reach = int(self.lengths[:rows].max()) + width
        self.capacity = max(self.capacity, rounded_up(self.reach))
        self.place = (
            torch.arange(rows, device=ids.device)[:, None] * self.capacity + position
        ).flatten()
        visible = (
            torch.arange(self.reach, device=ids.device) <= position[:, None, :, None]
        )  # (B, 1, width, reach)
        output = model(
            input_ids=ids,
            attention_mask=visible,
            position_ids=position,
            use_cache=True,
            **{cache_argument(type(model)): self},
            **options,
        )
        self.lengths[:rows] += (
            1 if counts is None else torch.tensor(counts, device=ids.device)
        )
        self.tokens += rows * width if counts is None else sum(counts)
        self.calls += 1
        return output

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[Tensor, Tensor]:
        """Called by each attention layer: (B, heads, width, d) in, all that the B rows hold out."""
        return (
            self.write(self.keys, key_states, layer_idx),
            self.write(self.values, value_states, layer_idx),
        )

    def write(self, buffers: list[Tensor], states: Tensor, layer: int) -> Tensor:
        rows, heads, _, size = states.shape
        if layer == len(buffers):
            buffers.append(
                states.new_zeros(len(self.lengths), self.capacity, heads, size)
            )
        if buffers[layer].shape[1] < self.capacity:
            buffers[layer] = copied(
                buffers[layer],
                torch.arange(len(self.lengths), device=states.device),
                self.capacity,
            )
        flat = buffers[layer].view(-1, heads, size)
        flat.index_copy_(0, self.place, states.transpose(1, 2).reshape(-1, heads, size))
        return buffers[layer][:rows, : self.reach].transpose(1, 2)

    def select(self, slots: Tensor, spare: int = SPARE) -> None:
        """New slot s becomes a copy of old slot slots[s], with place for `spare` tokens more.

        One buffer at a time, so that little is held twice.
        """
        self.lengths = self.lengths[slots]
        self.capacity = rounded_up(self.get_seq_length() + spare)
        for buffers in (self.keys, self.values):
            for layer in range(len(buffers)):
                buffers[layer] = copied(buffers[layer], slots, self.capacity)

    def fork(self, ancestors: Tensor, kept: Tensor, spare: int = SPARE) -> Tensor:
        """Each particle m in the mask `kept` gets a copy of the row of particle ancestors[m]; other rows are freed.

        Both are (R_all,), over all particles; `spare` as in `select`. Returns the old slot of every new slot.
        """
        slot_of = torch.full_like(ancestors, -1)
        slot_of[self.particle] = torch.arange(
            len(self.particle), device=ancestors.device
        )
        self.particle = kept.nonzero()[:, 0]
        slots = slot_of[ancestors[self.particle]]
        if not torch.equal(slots, torch.arange(len(self.lengths), device=slots.device)):
            self.select(slots, spare)
        return slots

    def to_front(self, staying: Tensor) -> tuple[Tensor, Tensor]:
        """Swap rows so that the B slots marked in `staying`, (B,), come first. Returns the swap: x[new] = x[old]."""
        remaining = int(staying.sum())
        empty = (~staying[:remaining]).nonzero()[:, 0]
        full = staying[remaining:].nonzero()[:, 0] + remaining
        new, old = torch.cat([empty, full]), torch.cat([full, empty])
        for tensor in (self.lengths, self.particle, *self.keys, *self.values):
            tensor[new] = tensor[old]
        return new, old

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return int(self.lengths.max()) if len(self.lengths) else 0

    @property
    def bytes(self) -> int:
        """Of the buffers now."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


def rounded_up(tokens: int) -> int:
    return -(-tokens // CHUNK) * CHUNK


def copied(buffer: Tensor, slots: Tensor, capacity: int) -> Tensor:
    """Slots of a buffer, in one of another capacity. What is beyond its end is 0: a mask hides it, but not a NaN."""
    held = min(buffer.shape[1], capacity)
    new = buffer.new_empty(len(slots), capacity, *buffer.shape[2:])
    torch.index_select(buffer[:, :held], 0, slots, out=new[:, :held])
    new[:, held:] = 0
    return new


@functools.cache
def cache_argument(kind: type[nn.Module]) -> str:
    """transformers 5.24 renamed a model's `past_key_values` to `cache`."""
    return (
        "cache"
        if "cache" in inspect.signature(kind.forward).parameters
        else "past_key_values"
    )
