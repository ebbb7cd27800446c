"""What the particles have written: the record on the host, whatever engine writes
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .stepping import decoder_parts

UNFINISHED = "\ufffd"  # how a decoder writes a character of which bytes are missing


@dataclass(frozen=True)
class Written:
    """A row's step: its tokens, how it ended, log target / proposal of them, and their
    log probability under the proposal.
    """

    tokens: list[int]
    ended: bool
    truncated: bool
    log_ratio: float
    log_p: float


@dataclass
class Paths:
    """P x N partial solutions, R = P * N rows; particle (p, n) is row p * N + n.

    A row's text is the decode of all its tokens, and a step's text is what the step
    added to it, so that the steps, joined, are the text: nothing is decoded apart and
    glued.
    """

    shape: tuple[int, int]  # P, N
    tokens: list[tuple[int, ...]]  # for each row
    ends: list[tuple[int, ...]]  # for each row, its tokens after each step
    texts: list[tuple[str, ...]]  # for each row, its steps
    held: list[bool]  # for each row, does an unfinished character wait for its bytes?
    ended: Tensor  # (R,) bool, by an end token
    truncated: Tensor  # (R,) bool, cut by a limit
    spoke: Tensor  # (R,) bool, the last step added text
    log_ratio: Tensor  # (R,) float64, log target / proposal of the last step
    log_p: Tensor  # (R,) float64, log probability of all tokens under the proposal
    generated: Tensor  # (P,) tokens generated, dead branches too
    parents: list[int]  # (R,) the row of the last step that each row continues
    states: Tensor | None = None  # (R, H) at each row's last token, if listened to
    work: Any = None  # what the policy keeps for itself

    @classmethod
    def empty(cls, populations: int, particles: int) -> "Paths":
        rows = populations * particles
        none = torch.zeros(rows, dtype=torch.bool)
        return cls(
            shape=(populations, particles),
            tokens=[()] * rows,
            ends=[()] * rows,
            texts=[()] * rows,
            held=[False] * rows,
            ended=none,
            truncated=none.clone(),
            spoke=none.clone(),
            log_ratio=torch.zeros(rows, dtype=torch.float64),
            log_p=torch.zeros(rows, dtype=torch.float64),
            generated=torch.zeros(populations, dtype=torch.long),
            parents=list(range(rows)),
        )

    @property
    def rows(self) -> int:
        return self.shape[0] * self.shape[1]

    def text(self, row: int) -> str:
        return "".join(self.texts[row])

    def fork(self, ancestors: Tensor) -> None:
        """Row r becomes a copy of row ancestors[r], (R,)."""
        chosen = ancestors.tolist()
        for name in ("tokens", "ends", "texts", "held", "parents"):
            old = getattr(self, name)
            setattr(self, name, [old[row] for row in chosen])
        for name in ("ended", "truncated", "spoke", "log_ratio", "log_p"):
            setattr(self, name, getattr(self, name)[ancestors])

    def take(
        self,
        done: Tensor,
        rows: Sequence[int],
        steps: Sequence[Written],
        tokenizer: Any,
    ) -> None:
        """The populations `done`, (P,), have completed a step, in which `rows` of them
        have written `steps`.
        """
        own = done.repeat_interleave(self.shape[1])
        self.log_ratio[own], self.spoke[own] = 0.0, False
        for row in own.nonzero()[:, 0].tolist():
            self.parents[row] = row
        if not rows:
            return
        exact = torch.float64
        self.ended[rows] = torch.tensor([step.ended for step in steps])
        self.truncated[rows] = torch.tensor([step.truncated for step in steps])
        self.log_ratio[rows] = torch.tensor([s.log_ratio for s in steps], dtype=exact)
        self.log_p[rows] += torch.tensor([s.log_p for s in steps], dtype=exact)
        self.append(rows, [step.tokens for step in steps], tokenizer)

    def append(
        self, rows: Sequence[int], steps: Sequence[Sequence[int]], tokenizer: Any
    ) -> None:
        """One more step of tokens for each of `rows`, whose `ended` is up to date.

        A step that adds no text, such as an end token alone, is part of the one before.
        """
        apart = decodes_apart(tokenizer)
        alone = [apart and not self.held[row] for row in rows]
        for row, step in zip(rows, steps, strict=True):
            self.tokens[row] += tuple(step)
        population = torch.tensor(rows) // self.shape[1]
        self.generated.index_add_(0, population, torch.tensor(list(map(len, steps))))
        decoded = tokenizer.batch_decode(
            [
                step if one else self.tokens[row]
                for row, step, one in zip(rows, steps, alone, strict=True)
            ],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        closed, spoke = (self.ended | self.truncated).tolist(), []
        for row, text, one in zip(rows, decoded, alone, strict=True):
            self.held[row] = text.endswith(UNFINISHED)
            shown = text if closed[row] else text.rstrip(UNFINISHED)
            step = shown if one else shown[len(self.text(row)) :]
            texts, ends, length = self.texts[row], self.ends[row], len(self.tokens[row])
            spoke.append(bool(step.strip()))
            if texts and not (spoke[-1] and texts[-1].strip()):
                self.texts[row] = (*texts[:-1], texts[-1] + step)
                self.ends[row] = (*ends[:-1], length)
            else:
                self.texts[row], self.ends[row] = (*texts, step), (*ends, length)
        self.spoke[rows] = torch.tensor(spoke)


def decodes_apart(tokenizer: Any) -> bool:
    """Is the decode of tokens the decode of their beginning, and of the rest?

    So it is for byte-level tokens, if the beginning ends with a whole character. Other
    decoders strip a text's first space, or look at the tokens around.
    """
    return [part["type"] for part in decoder_parts(tokenizer)] == ["ByteLevel"]
