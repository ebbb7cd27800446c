"""What writes the particles' steps: `lm.LanguageModel` in this process, or
`server.Endpoint` elsewhere.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Generator, Tensor

from .paths import Paths
from .settings import Proposal, Settings


class Policy(Protocol):
    """A language model that extends many particles by one step at a time."""

    tokenizer: Any
    context: int

    def check(self, settings: Settings) -> None: ...
    def prompt(self, problem: str, system: str | None = None) -> list[int]: ...
    def start(
        self,
        prompts: Sequence[Sequence[int]],
        particles: int,
        proposal: Proposal,
        copies: int = 1,
    ) -> Paths: ...
    def fork(self, paths: Paths, ancestors: Tensor) -> None: ...
    def extend(
        self,
        paths: Paths,
        active: Tensor,
        sources: Sequence[Generator],
        forced: dict[int, Sequence[int]] | None = None,
    ) -> Tensor: ...
