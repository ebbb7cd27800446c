"""The engine under the proposal: rows in slots, and all that happens at a token as one
function over static tensors.

The first `width` slots hold the rows that write. At a token nothing waits for the
device. Every `look` tokens the host looks which rows have completed their step, and
moves those that still write to the front.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn

from .cache import RaggedCache
from .errors import UserError
from .paths import Written
from .randomness import uniforms
from .sampling import log_ratio, weigh_and_sample
from .stepping import BLANK

AHEAD = 64  # tokens for which a population draws its uniforms together
NOBODY = -1  # sits in a slot that is free


class Decoder:
    """S slots of a language model at work, one for each of R rows at first.

    cache, logits  what the model holds of each slot     taken     tokens of this step
    last           the last token                        room      tokens that are left
    written        (S, C) this step's tokens             matched   of the delimiter
    points         (S, AHEAD) uniforms                   going     is it still writing?
    ended          by an end token?                      log_ratio of this step
    orders         (S, L) tokens that a step must have   log_p     of this step
    cut            without room for another token, or beyond the step's limit
    states         (S, H) what the `listener` hears at a row's last token
    row_of         the row in each slot; slot_of: the slot of each row
    """

    def __init__(
        self,
        model: Any,
        is_end: Tensor,
        table: Tensor,
        proposal: Any,
        cache: RaggedCache,
        logits: Tensor,
        room: Tensor,
        particles: int,
        listener: Any = None,
    ) -> None:
        self.model, self.is_end, self.table = model, is_end, table
        self.proposal, self.cache, self.particles = proposal, cache, particles
        slots, device = len(logits), logits.device
        count = torch.zeros(slots, dtype=torch.long, device=device)
        self.logits, self.room = logits, room
        self.last, self.taken, self.matched = (count.clone() for _ in range(3))
        self.going, self.ended, self.cut, self.broken = (count.bool() for _ in range(4))
        self.log_ratio = torch.zeros(slots, dtype=torch.float64, device=device)
        self.log_p = self.log_ratio.clone()
        self.points = self.log_ratio.new_zeros(slots, AHEAD)
        self.orders = count.new_full((slots, 0), NOBODY)
        self.written = count.new_zeros(slots, AHEAD)
        exact = torch.promote_types(logits.dtype, torch.float32)
        self.scratch = torch.empty_like(logits, dtype=exact)
        self.listener, self.ahead = listener, 1  # tokens for which a pass is recorded
        said = listener.states() if listener else logits[:, :0]
        self.states = said.new_zeros(slots, said.shape[1])
        self.row_of, self.slot_of = list(range(slots)), list(range(slots))
        self.steps: dict[int, int] = {}  # of populations that write: tokens so far
        self.writing: list[int] = []  # rows of the first slots
        self.fed_slots = 0  # slots that passed through the model, at work or not

    @property
    def width(self) -> int:
        return len(self.writing)

    @property
    def calls(self) -> int:
        """Passes of the model."""
        return self.cache.calls

    def begin(
        self,
        rows: Sequence[int],
        parents: Sequence[int],
        sources: Sequence[Generator],
        orders: dict[int, Sequence[int]] | None = None,
    ) -> None:
        """`rows` of some populations begin a step, each a copy of the row parents[row],
        and those in `orders` take the tokens given there while their step lasts.

        The other rows of these populations leave their slots.
        """
        populations = sorted({row // self.particles for row in rows})
        wanted: dict[int, list[int]] = {}
        for row in rows:
            if self.slot_of[parents[row]] == NOBODY:
                raise ValueError(f"row {row} has ended, and cannot be extended")
            wanted.setdefault(self.slot_of[parents[row]], []).append(row)
        for row in self.members(populations):
            self.leave(row)
        free = {slot for slot, row in enumerate(self.row_of) if row == NOBODY}
        spare = sorted(free - set(wanted))
        new, old = [], []
        for slot, heirs in wanted.items():  # the first heir stays where its parent was
            for k, row in enumerate(heirs):
                place = slot if k == 0 else spare.pop()
                self.seat(row, place)
                if k:
                    new.append(place)
                    old.append(slot)
        self.copy(new, old)
        self.steps.update(dict.fromkeys(populations, 0))
        self.to_front(set(self.writing) | set(rows))
        slots = [self.slot_of[row] for row in rows]
        fresh = torch.tensor(slots, device=self.going.device)
        self.going[fresh] = True
        self.matched[fresh] = BLANK
        self.taken[fresh] = 0
        self.log_ratio[fresh], self.log_p[fresh] = 0.0, 0.0
        self.orders[fresh] = NOBODY
        for row, tokens in (orders or {}).items():
            missing = len(tokens) - self.orders.shape[1]
            if missing > 0:
                self.orders = nn.functional.pad(self.orders, (0, missing), value=NOBODY)
            given = torch.tensor(list(tokens), device=self.orders.device)
            self.orders[self.slot_of[row], : len(tokens)] = given
        self.draw(populations, sources)

    def members(self, populations: Sequence[int]) -> list[int]:
        """Rows of these populations."""
        n = self.particles
        return [row for p in populations for row in range(p * n, (p + 1) * n)]

    def seat(self, row: int, slot: int) -> None:
        self.row_of[slot], self.slot_of[row] = row, slot

    def leave(self, row: int) -> None:
        if self.slot_of[row] != NOBODY:
            self.row_of[self.slot_of[row]] = NOBODY
        self.slot_of[row] = NOBODY

    def to_front(self, staying: Iterable[int]) -> None:
        """Rows that write get the first slots; who sits there changes places with
        them.
        """
        chosen = set(staying)
        width, seats = len(chosen), sorted(self.slot_of[row] for row in chosen)
        holes = [s for s in range(width) if self.row_of[s] not in chosen]
        behind = [slot for slot in seats if slot >= width]
        new, old = [], []
        for hole, slot in zip(holes, behind, strict=True):
            row, waiting = self.row_of[slot], self.row_of[hole]
            new.append(hole)
            old.append(slot)
            self.row_of[slot] = NOBODY
            if waiting != NOBODY:
                new.append(slot)
                old.append(hole)
                self.seat(waiting, slot)
            self.seat(row, hole)
        self.copy(new, old)
        self.writing = self.row_of[:width]

    def copy(self, new: Sequence[int], old: Sequence[int]) -> None:
        """Slot new[i] becomes what slot old[i] was."""
        if not new:
            return
        self.cache.copy(new, old)
        to, source = torch.tensor([list(new), list(old)], device=self.going.device)
        for name in (
            *("logits", "room", "last", "taken", "matched", "going", "ended", "cut"),
            *("log_ratio", "log_p", "points", "written", "orders", "states"),
        ):
            tensor = getattr(self, name)
            tensor[to] = tensor[source]

    def draw(self, populations: Sequence[int], sources: Sequence[Generator]) -> None:
        """Uniforms for the next tokens of populations, each from its own generator.

        A population draws for all its particles: what it draws depends on nothing else.
        """
        own = uniforms([sources[p] for p in populations], self.particles, AHEAD)
        slots = torch.tensor([self.slot_of[row] for row in self.members(populations)])
        writes = (slots >= 0) & (slots < self.width)
        # Slots and numbers cross to the device together.
        sent = torch.cat([slots[:, None].double(), own.flatten(0, 1)], 1)
        sent = sent[writes].to(self.points.device)
        self.points[sent[:, 0].long()] = sent[:, 1:]
        reach = max(self.steps[p] for p in populations) + AHEAD
        if (missing := reach - self.written.shape[1]) > 0:
            self.written = nn.functional.pad(self.written, (0, missing))

    def token(self) -> None:
        """One token for every row that writes: the whole of it on the device."""
        w, p = self.width, self.proposal
        going, taken = self.going[:w], self.taken[:w]
        point = self.points[:w].gather(1, (taken % AHEAD)[:, None])[:, 0]
        logits, weights = self.logits[:w], self.scratch[:w]
        drawn, total = weigh_and_sample(logits, p.temperature, point, weights)
        self.broken[:w] |= going & (drawn < 0)
        if length := self.orders.shape[1]:
            place = taken.clamp(max=length - 1)[:, None]
            order = self.orders[:w].gather(1, place)[:, 0]
            drawn = torch.where((order >= 0) & (taken < length), order, drawn)
        token = torch.where(going, drawn.clamp(min=0), self.last[:w])
        if total is not None:
            share = weights.gather(1, token[:, None])[:, 0].double() / total
            self.log_p[:w] += torch.where(going, share.log(), 0.0)
        if p.target:
            price = log_ratio(logits, token, p.temperature, *p.target)
            self.log_ratio[:w] += torch.where(going, price, 0.0)
        self.last[:w] = token
        self.written[:w].scatter_(1, taken[:, None], token[:, None])
        output = self.cache.decode(self.model, token, going, self.ahead)
        self.logits[:w] = output.logits[:, -1]
        if self.listener:
            said = self.listener.states()
            self.states[:w] = torch.where(going[:, None], said, self.states[:w])
        taken += going
        self.room[:w] -= going.long()
        matched = self.table[self.matched[:w], token]
        self.matched[:w] = torch.where(going, matched, self.matched[:w])
        ended = self.is_end[token]
        if p.step_tokens is None:
            complete = self.matched[:w] == len(self.table) - 1
            cut = ~complete & (taken >= p.max_step_tokens)
        else:
            complete, cut = taken >= p.step_tokens, torch.zeros_like(ended)
        cut = ~ended & (cut | (self.room[:w] <= 0))
        self.ended[:w] = torch.where(going, ended, self.ended[:w])
        self.cut[:w] = torch.where(going, cut, self.cut[:w])
        going &= ~(complete | ended | cut)

    def look(
        self, tokens: int, sources: Sequence[Generator], spare: float
    ) -> list[int]:
        """After so many tokens: which populations have completed their step.

        Rows that are through leave the front once they are more than a share `spare`.
        """
        w = self.width
        state = torch.stack(
            [self.going[:w].long(), self.taken[:w], self.broken[:w].long()]
        )
        going, taken, broken = state.tolist()
        if any(broken):
            raise UserError(
                "the language model returned NaN or infinite logits; "
                "load it in float32, and check its weights"
            )
        self.fed_slots += w * tokens
        staying: list[int] = []
        for slot, row in enumerate(self.writing):
            fed = max(0, taken[slot] - self.steps[row // self.particles])
            self.cache.tokens += fed
            self.cache.held[slot] -= tokens - fed
            if going[slot]:
                staying.append(row)
        busy = {row // self.particles for row in staying}
        ready = [p for p in self.steps if p not in busy]
        for p in busy:
            self.steps[p] += tokens
        if len(staying) < w and (ready or len(staying) <= (1 - spare) * w):
            self.to_front(staying)
        if spent := [p for p in busy if self.steps[p] % AHEAD == 0]:
            self.draw(spent, sources)
        for p in ready:
            del self.steps[p]
        return sorted(ready)

    def read(self, rows: Sequence[int]) -> list[Written]:
        """The step that `rows` have written. Those that ended leave their slots."""
        index = [self.slot_of[row] for row in rows]
        slots = torch.tensor(index, device=self.going.device)
        names = ("taken", "ended", "cut", "log_ratio", "log_p")
        state = torch.stack([getattr(self, name)[slots].double() for name in names])
        taken, ended, cut, ratios, log_p = state.tolist()
        tokens = self.written[:, : int(max(taken))][slots].tolist()
        for row, end, short in zip(rows, ended, cut, strict=True):
            if end or short:
                self.leave(row)
        return [
            Written(step[: int(length)], bool(end), bool(short), ratio, log)
            for step, length, end, short, ratio, log in zip(
                tokens, taken, ended, cut, ratios, log_p, strict=True
            )
        ]
