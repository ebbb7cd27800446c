"""The proposal: a language model that extends many particles by one reasoning step at a time.

A step is the tokens up to and including the delimiter, or a fixed number of tokens. Steps are kept as tokens.
The prompt is fed once per problem and forked to N particles; from then on each token is fed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from .cache import RaggedCache
from .errors import UserError
from .loading import (
    best_device,
    best_dtype,
    context_of,
    load_tokenizer,
    load_weights,
    locate,
)
from .randomness import uniforms
from .stepping import BLANK, complete_state, end_tokens, match_table

UNIFORMS_AT_ONCE = 64  # tokens for which a population draws its uniforms together


@dataclass(frozen=True)
class Proposal:
    """How steps are proposed. A particle cut by a limit before it is complete is *truncated*, and ruled out."""

    temperature: float = 0.8  # 0 takes the likeliest token
    target_temperature: float | None = (
        None  # of the target's language model; None: the same, and nothing to weigh
    )
    delimiter: str = "\n\n"
    step_tokens: int | None = (
        None  # steps of exactly so many tokens instead of the delimiter
    )
    max_step_tokens: int = 1024
    max_tokens: int = 2048  # generated tokens a particle
    max_steps: int = 40

    def __post_init__(self) -> None:
        if self.temperature < 0 or (
            self.target_temperature is not None and self.target_temperature <= 0
        ):
            raise UserError(
                "a temperature is not negative, and the target's is positive"
            )
        if self.temperature == 0 and self.target_temperature is not None:
            raise UserError(
                "temperature 0 proposes one sequence only and cannot be weighed against another temperature"
            )
        if (
            min(
                self.max_step_tokens,
                self.max_tokens,
                self.max_steps,
                1 if self.step_tokens is None else self.step_tokens,
            )
            < 1
        ):
            raise UserError("limits on tokens and steps are at least 1")
        if not self.delimiter:
            raise UserError(
                "the step delimiter is empty; give text that ends a step, such as a blank line"
            )


@dataclass
class Population:
    """P x N particles of a language model, R = P * N rows; particle (p, n) is row p * N + n."""

    shape: tuple[int, int]  # P, N
    cache: RaggedCache
    logits: Tensor  # (slots, V) of each slot's next token
    tokens: Tensor  # (R, capacity) generated tokens
    lengths: Tensor  # (R,) generated so far
    room: Tensor  # (R,) tokens that a row may generate in all
    step_lengths: list[Tensor] = field(
        default_factory=list
    )  # for each step, (R,) length after it
    texts: list[tuple[str, ...]] = field(
        default_factory=list
    )  # for each row, its steps
    ended: Tensor = field(
        default_factory=lambda: torch.zeros(0)
    )  # (R,) bool, by an end token
    truncated: Tensor = field(default_factory=lambda: torch.zeros(0))  # (R,) bool
    log_ratio: Tensor = field(
        default_factory=lambda: torch.zeros(0)
    )  # (R,) log target / proposal of the last step
    parents: Tensor = field(
        default_factory=lambda: torch.zeros(0)
    )  # (R,) row that each row's cache is still in
    generated: Tensor = field(
        default_factory=lambda: torch.zeros(0)
    )  # (P,) tokens generated, dead branches too

    @property
    def rows(self) -> int:
        return self.shape[0] * self.shape[1]

    def solution(self, row: int) -> list[int]:
        return self.tokens[row, : int(self.lengths[row])].tolist()


class LanguageModel:
    """A causal language model as a stepwise proposal: `LanguageModel.load("minimath-small")`."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.device = model.device
        self.context = context_of(model.config)
        self.vocabulary: int = model.get_output_embeddings().weight.shape[0]
        self.end_tokens = end_tokens(model, tokenizer)
        self.is_end = torch.zeros(self.vocabulary, dtype=torch.bool, device=self.device)
        self.is_end[list(self.end_tokens)] = True
        self.tables: dict[str, Tensor] = {}

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "LanguageModel":
        """From a shipped name (minimath-small), a model folder, a .gguf file or a hub id."""
        from transformers import AutoModelForCausalLM

        where, place = locate(name), best_device(device)
        return cls(
            load_weights(AutoModelForCausalLM, where, place, best_dtype(dtype, place)),
            load_tokenizer(where),
        )

    def prompt(self, problem: str, system: str | None = None) -> list[int]:
        """Tokens of the problem as the chat template puts it, with one beginning of the text and not two."""
        if not problem.strip():
            raise UserError("the problem is empty; write its text")
        if self.tokenizer.chat_template:
            messages = [{"role": "system", "content": system}] if system else []
            text = self.tokenizer.apply_chat_template(
                messages + [{"role": "user", "content": problem}],
                tokenize=False,
                add_generation_prompt=True,
            )
            if system and system.strip() not in text:
                raise UserError(
                    "this model's chat template leaves no place for a system prompt; do without one"
                )
            ids = self.tokenizer(text, add_special_tokens=False)[
                "input_ids"
            ]  # the template wrote them
        else:
            ids = self.tokenizer((system + "\n\n" if system else "") + problem)[
                "input_ids"
            ]
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            words = f"{system or ''} {problem}".split()
            strange = next(
                (
                    word
                    for word in words
                    if unknown in self.tokenizer(word)["input_ids"]
                ),
                problem,
            )
            raise UserError(
                f"this model's tokenizer does not know {strange!r}; "
                "a MiniMath model reads only problems worded as MiniMath words them"
            )
        self.check_room(ids)
        return ids

    def check_room(self, prompt: Sequence[int]) -> None:
        """Raises UserError if the prompt leaves no room for a solution."""
        if len(prompt) >= self.context:
            raise UserError(
                f"the prompt has {len(prompt)} tokens and the model's context {self.context}, which leaves no "
                "room for a solution; shorten the problem or take a model with a longer context"
            )

    @torch.inference_mode()
    def start(
        self, prompts: Sequence[Sequence[int]], particles: int, proposal: Proposal
    ) -> Population:
        """Feed P prompts once each, and fork each to N particles that have generated nothing yet."""
        for prompt in prompts:
            self.check_room(prompt)
        counts = [len(prompt) for prompt in prompts]
        ids = torch.zeros(len(prompts), max(counts), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        cache = RaggedCache(len(prompts), self.device)
        last, place = (
            torch.tensor(counts, device=self.device).sub(1).unique(return_inverse=True)
        )
        logits = cache.extend(
            self.model, ids.to(self.device), counts, logits_to_keep=last
        ).logits
        logits = logits[torch.arange(len(prompts), device=self.device), place]
        slots = torch.arange(len(prompts), device=self.device).repeat_interleave(
            particles
        )
        cache.select(slots)
        cache.particle = torch.arange(len(slots), device=self.device)
        room = (self.context - torch.tensor(counts, device=self.device)).clamp(
            max=proposal.max_tokens
        )[slots]
        zeros = torch.zeros(len(slots), dtype=torch.long, device=self.device)
        return Population(
            (len(prompts), particles),
            cache,
            logits[slots],
            zeros.new_zeros(len(slots), UNIFORMS_AT_ONCE),
            zeros,
            room,
            texts=[()] * len(slots),
            ended=zeros.bool(),
            truncated=zeros.bool(),
            log_ratio=torch.zeros(len(slots), dtype=torch.float64, device=self.device),
            parents=torch.arange(len(slots), device=self.device),
            generated=zeros.view(len(prompts), -1).sum(1),
        )

    def fork(self, population: Population, ancestors: Tensor) -> None:
        """Row r becomes a copy of row ancestors[r], (R,). The caches follow when the next step needs them."""
        p = population
        for name in (
            "tokens",
            "lengths",
            "room",
            "ended",
            "truncated",
            "log_ratio",
            "parents",
        ):
            setattr(p, name, getattr(p, name)[ancestors])
        p.step_lengths = [lengths[ancestors] for lengths in p.step_lengths]
        p.texts = [p.texts[row] for row in ancestors.tolist()]

    @torch.inference_mode()
    def extend(
        self,
        population: Population,
        active: Tensor,
        proposal: Proposal,
        sources: Sequence[Generator],
    ) -> None:
        """One more step for every row in `active`, (R,); the rows of the others leave the cache."""
        p = population
        p.logits = p.logits[p.cache.fork(p.parents, active)]
        p.parents = torch.arange(p.rows, device=self.device)
        p.log_ratio = torch.zeros_like(p.log_ratio)
        working = len(
            p.cache.particle
        )  # the first slots hold the rows whose step goes on
        matched = torch.full((working,), BLANK, device=self.device)
        taken = 0  # tokens of this step
        while working > 0:
            rows = p.cache.particle[:working]
            if taken % UNIFORMS_AT_ONCE == 0:
                points = self.draw_points(p, rows, sources)
            token = sample(
                p.logits[:working],
                proposal.temperature,
                points[rows, taken % UNIFORMS_AT_ONCE],
            )
            if proposal.target_temperature is not None:
                p.log_ratio[rows] += log_ratio(p.logits[:working], token, proposal)
            p.tokens[rows, p.lengths[rows]] = token
            p.lengths[rows] += 1
            taken += 1
            p.logits[:working] = p.cache.extend(self.model, token[:, None]).logits[
                :, -1
            ]
            matched = self.match_table(proposal.delimiter)[matched[:working], token]
            staying = self.goes_on(p, rows, token, matched, taken, proposal)
            if (remaining := int(staying.sum())) < working:
                new, old = p.cache.to_front(staying)
                p.logits[new], matched[new] = p.logits[old], matched[old]
                working = remaining
        self.write_texts(p, active)

    def draw_points(
        self, population: Population, rows: Tensor, sources: Sequence[Generator]
    ) -> Tensor:
        """Uniforms for the next tokens, (R, UNIFORMS_AT_ONCE), and room for these tokens.

        Only populations that are still at work draw, each from its own generator and for all its particles:
        what one population draws does not depend on the others.
        """
        p, particles = population, population.shape[1]
        missing = int(p.lengths.max()) + UNIFORMS_AT_ONCE - p.tokens.shape[1]
        p.tokens = nn.functional.pad(p.tokens, (0, max(0, missing)))
        points = torch.zeros(
            *p.shape, UNIFORMS_AT_ONCE, dtype=torch.float64, device=self.device
        )
        chosen = (rows // particles).unique().tolist()
        points[chosen] = uniforms(
            [sources[k] for k in chosen], particles, UNIFORMS_AT_ONCE
        ).to(self.device)
        return points.view(p.rows, -1)

    def goes_on(
        self,
        population: Population,
        rows: Tensor,
        token: Tensor,
        matched: Tensor,
        taken: int,
        proposal: Proposal,
    ) -> Tensor:
        """Which of `rows` need another token for this step; notes which have ended and which a limit cut."""
        p, ended = population, self.is_end[token]
        if proposal.step_tokens is None:
            complete, cut = (
                matched == complete_state(proposal.delimiter),
                taken >= proposal.max_step_tokens,
            )
        else:
            complete, cut = torch.full_like(ended, taken >= proposal.step_tokens), False
        p.ended[rows] = ended
        p.truncated[rows] = ~ended & (
            (~complete & cut) | (p.lengths[rows] >= p.room[rows])
        )
        return ~(complete | ended | p.truncated[rows])

    def write_texts(self, population: Population, active: Tensor) -> None:
        """Note where each row's step ends, and its text."""
        p = population
        before = p.step_lengths[-1] if p.step_lengths else torch.zeros_like(p.lengths)
        p.step_lengths.append(p.lengths.clone())
        p.generated = p.generated + (p.lengths - before).view(p.shape).sum(1)
        starts, ends, tokens = before.tolist(), p.lengths.tolist(), p.tokens.cpu()
        rows = active.nonzero()[:, 0].tolist()
        steps = [tokens[row, starts[row] : ends[row]].tolist() for row in rows]
        for row, text in zip(
            rows,
            self.tokenizer.batch_decode(steps, skip_special_tokens=True),
            strict=True,
        ):
            p.texts[row] += (text,)

    def match_table(self, delimiter: str) -> Tensor:
        if delimiter not in self.tables:
            self.tables[delimiter] = match_table(
                self.tokenizer, self.vocabulary, delimiter
            ).to(self.device)
        return self.tables[delimiter]


def sample(logits: Tensor, temperature: float, points: Tensor) -> Tensor:
    """One token a row by inverse CDF: (B, V) logits and (B,) uniforms -> (B,). Temperature 0 takes the likeliest."""
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = torch.softmax(logits.float() / temperature, -1).cumsum(
        -1, dtype=torch.float64
    )
    return torch.searchsorted(
        cumulative, (points * cumulative[:, -1])[:, None], right=True
    )[:, 0].clamp(max=logits.shape[-1] - 1)


def log_ratio(logits: Tensor, token: Tensor, proposal: Proposal) -> Tensor:
    """log p_target(token) - log p_proposal(token), (B,): the price of sampling at another temperature."""
    target = torch.log_softmax(logits.double() / proposal.target_temperature, -1)
    source = torch.log_softmax(logits.double() / proposal.temperature, -1)
    return (target - source).gather(1, token[:, None])[:, 0]
