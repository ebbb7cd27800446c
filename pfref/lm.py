"""The proposal: a language model that extends many particles by one reasoning step at a
time.

A step is the tokens up to and including the delimiter, or a fixed number of tokens.
Steps are kept as tokens. A prompt is read once per problem; from then on each token of
a particle is fed once, on slots that `decoding` keeps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from .attention import NAME
from .cache import RaggedCache
from .decoding import AHEAD, Decoder
from .graphs import Repeater, recorder
from .hardware import best_device
from .loading import check_known, context_of, load_tokenizer, load_weights, locate
from .paths import Paths
from .probe import Listener
from .prompts import check_room, end_tokens, problem_ids
from .settings import Proposal as Proposal
from .settings import Settings
from .stepping import match_table

if TYPE_CHECKING:
    from .server import Endpoint

LOOK = {"cpu": 1}  # tokens between two looks of the host: on a CPU a look is free
ELSEWHERE = 8
SPARE = 0.25  # elsewhere, the share of slots that may be through before rows are moved


class LanguageModel:
    """A causal language model as a stepwise proposal: `LanguageModel.load(name)`.

    It serves one thread at a time; threads need models of their own.

    look    tokens between two looks of the host at the rows, a divisor of 64; 1 on a
            CPU
    repeat  takes these tokens, on a GPU by replaying one
    """

    def __init__(
        self, model: Any, tokenizer: Any, template_args: dict[str, Any] | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.template_args = template_args
        model.set_attn_implementation(NAME)
        self.device = model.device
        self.context = context_of(model.config)
        self.head = model.get_output_embeddings()
        self.vocabulary: int = self.head.weight.shape[0]
        found = end_tokens(model, tokenizer)
        self.end_tokens = {k for k in found if 0 <= k < self.vocabulary}
        is_end = torch.zeros(self.vocabulary, dtype=torch.bool)
        is_end[list(self.end_tokens)] = True
        self.is_end = is_end.to(self.device)
        self.look = LOOK.get(self.device.type, ELSEWHERE)
        self.spare = 0.0 if self.look == 1 else SPARE
        self.tables: dict[str, Tensor] = {}
        self.listener: Listener | None = None
        on_gpu = self.device.type == "cuda"
        self.repeat = Repeater(recorder(self.device) if on_gpu else None)

    def listen(self, layers: Sequence[int]) -> None:
        """From now on `Paths.states` keeps each row's hidden state after these layers,
        (R, layers * h), at the last token of its last step; () ends it.
        """
        before = self.listener
        self.listener = Listener(self.model, layers) if layers else None
        if before:
            before.close()

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        *,
        revision: str | None = None,
        template_args: dict[str, Any] | None = None,
    ) -> "LanguageModel":
        """A shipped name (minimath-small), a model folder, a .gguf file or a hub id.

        dtype          None or "auto": the checkpoint's own where the device is fast in
                       it, else float32
        template_args  for the chat template, such as {"enable_thinking": False}
        """
        from transformers import AutoModelForCausalLM

        where = locate(name, revision)
        model = load_weights(AutoModelForCausalLM, where, best_device(device), dtype)
        return cls(model, load_tokenizer(where), template_args)

    @staticmethod
    def connect(url: str, tokenizer: str | Path, **options: Any) -> "Endpoint":
        """The same model behind a server: see `connection.connect`."""
        from .connection import connect

        return connect(url, tokenizer, **options)

    def prompt(self, problem: str, system: str | None = None) -> list[int]:
        """Tokens of the problem as the chat template puts it.

        Raises UserError if it cannot be read or leaves no room for a solution.
        """
        ids = problem_ids(self.tokenizer, problem, system, self.template_args)
        check_room(ids, self.context)
        check_known(ids, self.vocabulary)
        return ids

    def check(self, settings: Settings) -> None:
        """Raises UserError for settings that this policy cannot follow: there are
        none.
        """

    @torch.inference_mode()
    def start(
        self,
        prompts: Sequence[Sequence[int]],
        particles: int,
        proposal: Proposal,
        copies: int = 1,
    ) -> Paths:
        """Read each prompt once, for `copies` populations of N particles that are
        empty.

        Population p works on prompt p // copies.
        """
        for prompt in prompts:
            check_room(prompt, self.context)
        rows = len(prompts) * copies * particles
        paths = Paths.empty(len(prompts) * copies, particles)
        cache = RaggedCache(rows, self.device)
        each = copies * particles
        logits = cache.read_prompts(self.model, prompts, each, self.head)
        assert logits is not None  # since it was given the head
        room = [min(proposal.max_tokens, self.context - len(p)) for p in prompts]
        paths.work = Decoder(
            self.model,
            self.is_end,
            self.match_table(proposal.delimiter),
            proposal,
            cache,
            logits.repeat_interleave(each, 0),
            torch.tensor(room, device=self.device).repeat_interleave(each),
            particles,
            self.listener,
        )
        paths.states = paths.work.states.clone() if self.listener else None
        return paths

    def fork(self, paths: Paths, ancestors: Tensor) -> None:
        """Row r becomes a copy of row ancestors[r], (R,); slots follow when a step
        begins.

        In a population that is in the middle of its step, each row is its own ancestor.
        """
        paths.fork(ancestors)

    @torch.inference_mode()
    def extend(
        self,
        paths: Paths,
        active: Tensor,
        sources: Sequence[Generator],
        forced: dict[int, Sequence[int]] | None = None,
    ) -> Tensor:
        """Let `active` rows, (R,), write until some populations have completed their
        step.

        Returns these populations, (P,). The others go on where they are at the next
        call; a population without an active row is left alone. A row in `forced` writes
        the tokens of the whole solution that is given there, instead of its own.
        """
        decoder: Decoder = paths.work
        particles = paths.shape[1]
        if any(tokens % self.look for tokens in (AHEAD, *decoder.steps.values())):
            raise ValueError(
                f"look is a divisor of {AHEAD}, not {self.look}, and stays the same in "
                "a step"
            )
        wanted = active.nonzero()[:, 0].tolist()
        fresh = [row for row in wanted if row // particles not in decoder.steps]
        if fresh:
            orders = {
                row: forced[row][len(paths.tokens[row]) :]
                for row in fresh
                if forced and row in forced
            }
            decoder.begin(fresh, paths.parents, sources, orders)
        ready: list[int] = []
        while decoder.steps and not ready:
            self.repeat(decoder, self.look)
            ready = decoder.look(self.look, sources, self.spare)
        done = torch.zeros(paths.shape[0], dtype=torch.bool)
        done[ready] = True
        own = done.repeat_interleave(particles)
        rows = (active & own).nonzero()[:, 0].tolist()
        if rows and paths.states is not None:
            seats = [decoder.slot_of[row] for row in rows]
            paths.states[rows] = decoder.states[seats]
        paths.take(done, rows, decoder.read(rows) if rows else [], self.tokenizer)
        return done

    def match_table(self, delimiter: str) -> Tensor:
        """`stepping.match_table` of this tokenizer, made once for a delimiter."""
        if delimiter not in self.tables:
            table = match_table(self.tokenizer, self.vocabulary, delimiter)
            self.tables[delimiter] = table.to(self.device)
        return self.tables[delimiter]
