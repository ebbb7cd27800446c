"""Which rows pass through a model together, and which of them share a prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

AT_ONCE = 4096  # tokens that pass through a model together, padding counted


def in_groups(lengths: Sequence[int], at_once: int = AT_ONCE) -> Iterator[list[int]]:
    """Indices of rows that are fed together: of like length, at most `at_once` tokens
    with their padding.
    """
    group: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        if group and (len(group) + 1) * lengths[group[0]] > at_once:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def padded(rows: Sequence[Sequence[int]], device: torch.device | str) -> Tensor:
    """Token ids (B, width) of rows of unequal length; what is beyond a row's end is
    padding.
    """
    width = max(map(len, rows))
    filled = [[*row, *[0] * (width - len(row))] for row in rows]
    return torch.tensor(filled, device=device)


@dataclass(frozen=True)
class Groups:
    """Which rows of a batch share a prompt: P prompts, of which the largest has n
    rows.
    """

    prompts: list[int]
    which: Tensor  # (P,) the prompts' numbers
    rows: Tensor | None  # (P * n,) rows by prompt, padded; None: they lie so already
    places: Tensor | None  # (B,) where each row stands among them

    @classmethod
    def of(cls, prompt_of: Sequence[int], device: torch.device | str) -> "Groups":
        """prompt_of: the prompt of each of B rows."""
        members: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompt_of):
            members.setdefault(prompt, []).append(row)
        prompts, size = sorted(members), max(map(len, members.values()))
        rows: list[int] = []
        places = [0] * len(prompt_of)
        for own in (members[prompt] for prompt in prompts):
            for place, row in enumerate(own, len(rows)):
                places[row] = place
            rows += own + own[:1] * (size - len(own))  # padding repeats a row
        ids = torch.tensor(prompts + rows + places, device=device)
        which, by_prompt, back = ids.split([len(prompts), len(rows), len(places)])
        if rows == places == list(range(len(prompt_of))):
            return cls(prompts, which, None, None)
        return cls(prompts, which, by_prompt, back)

    def gather(self, x: Tensor) -> Tensor:
        """(B, H, Q, d) -> (P, H, n * Q, d): rows that share a prompt side by side."""
        _, heads, queries, size = x.shape
        x = x if self.rows is None else x[self.rows]
        x = x.reshape(len(self.prompts), -1, heads, queries, size).transpose(1, 2)
        return x.reshape(len(self.prompts), heads, -1, size)

    def scatter(self, x: Tensor, queries: int) -> Tensor:
        """(P, H, n * Q, d) -> (B, H, Q, d): back to where they came from."""
        _, heads, _, size = x.shape
        x = x.view(len(self.prompts), heads, -1, queries, size).transpose(1, 2)
        x = x.reshape(-1, heads, queries, size)
        return x if self.places is None else x[self.places]
