"""A world small enough to sum: a random transformer over four tokens, and a random
reward model.

Everything here is worked out by plain enumeration and full forward passes: no cache, no
filter.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
)

from pfref import solve
from pfref.lm import LanguageModel, Proposal
from pfref.prm import FAMILIES, RewardModel, new_head

PROBLEM = "abba"
PROPOSAL = Proposal(temperature=1.5, max_step_tokens=3, max_tokens=7, max_steps=4)
END, DELIMITER, SEPARATOR = 0, 1, 4  # the separator is the reward model's
FAMILY = FAMILIES["qwen"]


def tokenizer_of(*extra: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(
        models.WordLevel(
            {t: k for k, t in enumerate(["<e>", "\n\n", "a", "b", *extra])},
            unk_token="a",
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n\n|."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<e>",
        additional_special_tokens=list(extra),
        clean_up_tokenization_spaces=False,
        chat_template="{% for m in messages if m.role == 'user' %}{{ m.content }}"
        "{% endfor %}",
    )


@lru_cache
def world(seed: int = 3, width: int = 16) -> tuple[LanguageModel, RewardModel]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = dict(
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            initializer_range=0.3 if width == 16 else 0.12,
        )
        lm = LlamaForCausalLM(
            LlamaConfig(vocab_size=4, eos_token_id=END, bos_token_id=None, **sizes)
        )
        body, head = Qwen2Model(Qwen2Config(vocab_size=5, **sizes)), new_head(width)
        for p in head.parameters():
            nn.init.normal_(p, std=0.4 if width == 16 else 0.05)
    return (
        LanguageModel(lm.eval().requires_grad_(False), tokenizer_of()),
        RewardModel(
            body.eval().requires_grad_(False),
            head.eval().requires_grad_(False),
            tokenizer_of("<extra_0>"),
            FAMILY,
        ),
    )


@dataclass
class Path:
    steps: tuple[tuple[int, ...], ...]
    log_p: float  # under the language model at the proposal's temperature
    z: tuple[float, ...]  # log-odds after each step; a step without text has none


def split(
    tokens: tuple[int, ...], proposal: Proposal
) -> tuple[tuple[int, ...], ...] | None:
    """The steps of a complete sequence; None if a limit cuts it."""
    steps: list[tuple[int, ...]] = []
    current: tuple[int, ...] = ()
    for token in tokens:
        current += (token,)
        if len(current) > proposal.max_step_tokens:
            return None
        if token == END or (token == DELIMITER and set(current) - {DELIMITER}):
            steps.append(current)
            current = ()
        elif len(current) == proposal.max_step_tokens:
            return None
    return tuple(steps) if len(steps) <= proposal.max_steps and not current else None


@torch.no_grad()
def enumerate_paths(
    lm: LanguageModel,
    prm: RewardModel,
    proposal: Proposal = PROPOSAL,
    problem: str = PROBLEM,
    temperature: float | None = None,
) -> list[Path]:
    """Every complete solution within the limits, with its probability and scores by
    full forward passes.
    """
    prompt = lm.prompt(problem)
    found: list[tuple[tuple[int, ...], float]] = []
    frontier: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for _ in range(proposal.max_tokens):
        ids = torch.tensor([prompt + list(tokens) for tokens, _ in frontier])
        log_p = torch.log_softmax(
            lm.model(input_ids=ids).logits[:, -1].double()
            / (temperature or proposal.temperature),
            -1,
        )
        grown = [
            (tokens + (k,), log + float(row[k]))
            for (tokens, log), row in zip(frontier, log_p, strict=True)
            for k in range(4)
        ]
        found += [(tokens, log) for tokens, log in grown if tokens[-1] == END]
        frontier = [(tokens, log) for tokens, log in grown if tokens[-1] != END]
    complete = [
        (steps, log)
        for tokens, log in found
        if (steps := split(tokens, proposal)) is not None
    ]
    return [Path(steps, log, scores(prm, steps, problem)) for steps, log in complete]


def scores(
    prm: RewardModel, steps: tuple[tuple[int, ...], ...], problem: str
) -> tuple[float, ...]:
    """Each prefix's log-odds from one pass over the whole text."""
    ids, z = prm.prompt(problem), list[float]()
    for step in steps:
        text = [t for t in step if t != END]
        while text and text[0] == DELIMITER:
            text = text[1:]
        while text and text[-1] == DELIMITER:
            text = text[:-1]
        if not text and (z or step[-1] != END):  # no text, no score; but one at the end
            continue
        ids = ids + text + [SEPARATOR]
        hidden = prm.body(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        z.append(float(prm.head(hidden)))
    return tuple(z)


def log_target(path: Path, potential: str, tau: float = 1.0) -> float:
    """log of p(x) times the potentials, by the definitions on the notation page."""
    r = [1 / (1 + torch.tensor(-z, dtype=torch.float64).exp()) for z in path.z]
    if potential == "telescoping":
        return path.log_p + float(r[-1].log()) / tau
    factors: list[Tensor] = [x / (1 - x) if potential == "odds" else x for x in r]
    return path.log_p + sum(float(f.log()) for f in factors) / tau


def exact_evidence(potential: str, width: int = 16, **options: Any) -> float:
    """The sum over all solutions; `options` are those of `enumerate_paths`."""
    paths = enumerate_paths(*world(3, width), **options)
    return sum(math.exp(log_target(path, potential)) for path in paths)


def standard_errors(z: Tensor, exact: float) -> float:
    """Between the mean of estimates and the exact value."""
    return abs(float(z.mean()) - exact) / float(z.std() / len(z) ** 0.5)


def far_from_posterior(policy: Any, particles: int, width: int = 16) -> float:
    """Total variation between the posterior over solutions and what `solve` gives:
    the mean over four seeds.
    """
    lm, prm = world(3, width)
    target: dict[str, float] = {}
    for path in enumerate_paths(lm, prm):
        text = lm.tokenizer.decode(sum(path.steps, ())[:-1])
        target[text] = math.exp(log_target(path, "score"))
    z, distances = sum(target.values()), list[float]()
    for seed in range(4):
        options = dict(seed=seed, potential="score", proposal=PROPOSAL)
        found = dict.fromkeys(target, 0.0)
        for particle in solve(PROBLEM, policy, prm, particles, **options).particles:
            if particle.weight > 0:
                found[particle.text] += particle.weight  # no other than the target's
        distances.append(sum(abs(found[t] - p / z) for t, p in target.items()) / 2)
    return sum(distances) / 4
