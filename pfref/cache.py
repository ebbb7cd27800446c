"""A key-value cache for many rows of unequal length, so that every token passes through
a model once.

A row is one sequence: a prompt, which it may share with others, and tokens of its own.
Each prompt's keys and values are held once. A row's own are written in place in its
slot, each at the row's own position, so that rows of unequal length need no padding
between their tokens. Two moves do the rest: `copy` makes slots copies of other slots,
to fork and to change places, and `rewind` takes a row's last tokens back.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache

from .attention import AT_WORK, ATTENDS_TWICE, as_bias, cache_argument, only_at
from .errors import UserError
from .groups import Groups, in_groups, padded

GROWTH = 64  # tokens by which the buffers grow, or by an eighth of what they hold


class RaggedCache(Cache):
    """Keys and values of P prompts, and of the own tokens of rows in S slots.

    lengths  (S,) own tokens in each slot         tokens  that were fed, without padding
    offsets  (S,) length of each slot's prompt    calls   forward passes
    held     as lengths, or more, on the host
    """

    def __init__(self, slots: int, device: torch.device | str = "cpu") -> None:
        super().__init__(layers=[])
        self.device = torch.device(device)
        # Of each layer: (P, L, heads, d) and (S, capacity, heads, d).
        self.prompts: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.own: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.lengths = torch.zeros(slots, dtype=torch.long, device=device)
        self.offsets = torch.zeros_like(self.lengths)
        self.held, self.prompt_of = [0] * slots, [0] * slots
        self.tokens = self.calls = self.capacity = 0
        # A mask in four dimensions is not made into another one; `attend` ignores it.
        self.no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        self.known: dict[tuple[str, int | None], Any] = {}  # masks of one pass
        self.reading: Tensor | None = None  # numbers of the prompts that are being read
        self.batch: Sequence[int] = ()  # the slots of the last pass

    def read_prompts(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        copies: int,
        head: nn.Module | None = None,
    ) -> Tensor | None:
        """Each prompt through the model once; slot s continues prompt s // copies.

        With `head`, the module that makes the model's logits, it is applied at each
        prompt's last token alone, and its logits (P, V) are returned.
        """
        counts, found = [len(prompt) for prompt in prompts], []
        self.prompt_of = [slot // copies for slot in range(len(self.held))]
        self.prompt_lengths = torch.tensor(counts, device=self.device)
        self.offsets = self.prompt_lengths.repeat_interleave(copies)
        groups = list(in_groups(counts))
        for group in groups:
            self.reading, self.met = torch.tensor(group, device=self.device), set[int]()
            ids = padded([prompts[k] for k in group], self.device)
            position = torch.arange(ids.shape[1], device=self.device).expand_as(ids)
            with only_at(head, self.prompt_lengths[self.reading] - 1):
                found.append(self.run(model, ids, position, position))
            self.tokens += sum(counts[k] for k in group)
        self.reading = None
        if head is None:
            return None
        order = torch.tensor(sum(groups, []), device=self.device)
        return torch.cat([output.logits[:, 0] for output in found])[order.argsort()]

    def extend(
        self,
        model: nn.Module,
        ids: Tensor,
        counts: Sequence[int],
        slots: Sequence[int] | None = None,
    ) -> Any:
        """Run `model` over the next tokens of some slots: ids (B, width), counts[b] of
        row b.

        Tokens beyond a row's count are padding: what is written for them lies beyond
        the row's end, where nothing looks, and is overwritten later. Without `slots`
        they are the first B. Returns the model's output.
        """
        self.enter(range(len(ids)) if slots is None else slots, ids.shape[1])
        start = self.lengths[self.slots]
        position = start[:, None] + torch.arange(ids.shape[1], device=self.device)
        end = start + torch.tensor(counts, device=self.device)
        # Padding is told a place that the row has, lest it lie beyond the context.
        places = position.minimum((end[:, None] - 1).clamp(min=0))
        output = self.run(model, ids, position, self.offsets[self.slots, None] + places)
        self.lengths[self.slots] = end
        for slot, count in zip(self.batch, counts, strict=True):
            self.held[slot] += count
        self.tokens += sum(counts)
        return output

    def decode(
        self, model: nn.Module, token: Tensor, going: Tensor, ahead: int = 1
    ) -> Any:
        """One more token of each of the first B slots, (B,). Nothing waits for the
        device. If the pass is recorded, `ahead` tokens will follow from here.

        A row that is not `going`, (B,), is given its last token once more and writes
        what stands there already. The caller counts `tokens`, and mends `held`, which
        grows by one for every row.
        """
        self.enter(range(len(token)), ahead)
        if ahead > 1:  # records of one size can share their memory
            self.reach = self.capacity
        lengths = self.lengths[: len(token)]
        position = (lengths - 1 + going.long())[:, None]
        places = self.offsets[: len(token), None] + position
        output = self.run(model, token[:, None], position, places)
        lengths += going
        for slot in self.batch:
            self.held[slot] += 1
        return output

    def advance(self, tokens: int) -> None:
        """Count passes that were replayed, of one token each over the slots at work."""
        self.calls += tokens
        for slot in self.batch:
            self.held[slot] += tokens

    def enter(self, slots: Sequence[int], width: int) -> None:
        """These slots are next, with room for `width` tokens more in each."""
        if slots != self.batch:
            self.batch = slots
            self.slots = torch.tensor(list(slots), device=self.device)
            self.groups = Groups.of([self.prompt_of[s] for s in slots], self.device)
        self.reach = max(self.held[slot] for slot in slots) + width
        if self.reach > self.capacity:
            growth = max(GROWTH, self.capacity // 8)
            self.capacity = -(-self.reach // growth) * growth
            for buffers in self.own:
                for layer, buffer in enumerate(buffers):
                    missing = self.capacity - buffer.shape[1]
                    buffers[layer] = nn.functional.pad(buffer, (0, 0, 0, 0, 0, missing))

    def run(self, model: nn.Module, ids: Tensor, own: Tensor, places: Tensor) -> Any:
        """One pass; own and places (B, width): tokens' places in their own, in all."""
        self.position, self.known = own, {}
        if self.reading is None:
            self.flat = (self.slots[:, None] * self.capacity + own).flatten()
        argument = cache_argument(type(model))  # type: ignore[arg-type]
        before = AT_WORK.set(self)
        try:
            output = model(
                input_ids=ids,
                attention_mask=self.no_mask,
                position_ids=places,
                use_cache=True,
                **{argument: self},
            )
        finally:
            AT_WORK.reset(before)
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
        """Each layer's new keys and values, (B, heads, width, d); returns all the rows'
        own.
        """
        if self.reading is not None:
            return key_states, value_states
        keys = self.write(self.own[0], key_states, layer_idx)
        return keys, self.write(self.own[1], value_states, layer_idx)

    def keep_prompt(self, layer: int, *new: Tensor) -> None:
        """Keys and values of prompts, (B, heads, L, d), as the attention sees them:
        some models make them anew at each token from something smaller, which is what
        `update` is given. Raises UserError if a layer attends twice.
        """
        if layer in self.met:
            raise UserError(ATTENDS_TWICE)
        self.met.add(layer)
        for buffers, states in zip(self.prompts, new, strict=True):
            _, heads, width, size = states.shape
            if layer == len(buffers):  # the first group is the longest
                shape = len(self.prompt_lengths), width, heads, size
                buffers.append(states.new_zeros(shape))
            buffers[layer][self.reading, :width] = states.transpose(1, 2)

    def write(self, buffers: list[Tensor], states: Tensor, layer: int) -> Tensor:
        rows, heads, _, size = states.shape
        if layer == len(buffers):
            buffers.append(states.new_zeros(len(self.held), self.capacity, heads, size))
        flat = buffers[layer].view(-1, heads, size)
        flat.index_copy_(0, self.flat, states.transpose(1, 2).reshape(-1, heads, size))
        if isinstance(self.batch, range):
            first, last = self.batch[0], self.batch[-1]
            held = buffers[layer][first : last + 1, : self.reach]
        else:
            held = buffers[layer][:, : self.reach].index_select(0, self.slots)
        return held.transpose(1, 2)

    def prompt(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values (P, heads, L, d) of the prompts that this batch continues."""
        keys, values = (buffers[layer].transpose(1, 2) for buffers in self.prompts)
        if len(self.groups.prompts) == len(keys):
            return keys, values
        return keys[self.groups.which], values[self.groups.which]

    def own_bias(self, window: int | None, dtype: torch.dtype, group: int) -> Tensor:
        """0 where a query sees a key among its row's own, else -inf: (B, 1, 1 or Q, K).

        Q queries are `group` heads times the tokens; a window of w sees the w last
        places.
        """
        if ("own", window) not in self.known:
            position = self.position if self.reading is None else self.position[:1]
            reach = self.position.shape[1] if self.reading is not None else self.reach
            at = torch.arange(reach, device=self.device)
            seen = at <= position[..., None]
            if window is not None:
                seen &= at > position[..., None] - window
            bias = as_bias(seen, dtype)[:, None]  # (B, 1, width, K)
            if bias.shape[2] > 1:
                bias = bias.repeat(1, 1, group, 1)
            self.known["own", window] = bias
        return self.known["own", window]

    def prompt_bias(
        self, window: int | None, dtype: torch.dtype, group: int
    ) -> tuple[Tensor, Tensor | None]:
        """The same for prompts' keys, (P, 1, 1 or Q, L), and which queries see none of
        them.
        """
        if ("prompt", window) not in self.known:
            ends = self.prompt_lengths[self.groups.which, None, None]
            at = torch.arange(self.prompts[0][0].shape[1], device=self.device)
            seen, blind = at < ends, None
            if window is not None:
                queries = self.position.repeat(1, group)[:, None, :, None]
                queries = self.groups.gather(queries)[:, 0]  # (P, Q, 1)
                seen = seen & (at > ends + queries - window)
                blind = ~seen.any(-1, keepdim=True)[:, None]
            self.known["prompt", window] = as_bias(seen, dtype)[:, None], blind
        return self.known["prompt", window]

    def limits(self, group: int) -> tuple[Tensor, Tensor]:
        """How many of its row's own keys each query sees, (B, Q), and how many of its
        prompt's, (P, 1): what the biases say where there is no window.
        """
        if ("limits", None) not in self.known:
            own = (self.position + 1).repeat(1, group)
            prompts = slice(None) if self.reading is not None else self.groups.which
            self.known["limits", None] = own, self.prompt_lengths[prompts, None]
        return self.known["limits", None]

    def copy(self, new: Sequence[int], old: Sequence[int]) -> None:
        """Slot new[i] becomes a copy of slot old[i]; all are read before any is
        written.
        """
        if not new:
            return
        reach = max(self.held[slot] for slot in old)
        to, source = torch.tensor([list(new), list(old)], device=self.device)
        for tensor in (self.lengths, self.offsets):
            tensor[to] = tensor[source]
        for buffer in (*self.own[0], *self.own[1]):
            live = buffer[:, :reach]
            live.index_copy_(0, to, live.index_select(0, source))
        for state in (self.held, self.prompt_of):
            for slot, value in zip(new, [state[slot] for slot in old], strict=True):
                state[slot] = value
        self.batch = ()  # whose prompts may be others now

    def rewind(self, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Take back the last tokens of some slots, of which `lengths` remain."""
        if slots:
            index = torch.tensor(list(slots), device=self.device)
            self.lengths[index] = torch.tensor(list(lengths), device=self.device)
        for slot, length in zip(slots, lengths, strict=True):
            self.held[slot] = length

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return max(self.held, default=0)

    @property
    def bytes(self) -> int:
        """Of the buffers now."""
        pairs = (*self.prompts, *self.own)
        return sum(buffer.nbytes for buffers in pairs for buffer in buffers)
